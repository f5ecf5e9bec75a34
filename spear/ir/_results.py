"""What is answered: one result for each operation that answers once, and what it used up."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ._media import MediaRef
from ._model import Model
from ._payloads import ChatMessage, Extra

Count = Annotated[int, Field(ge=0)]


class ChatChoice(Model):
    index: int | None = None
    message: ChatMessage | None = None
    finish_reason: str | None = None
    extra: Extra = Field(default_factory=dict)


class ChatResult(Model):
    """`extra` has the body's other top-level keys (id, created, model, …), so that the body can be rebuilt value for
    value."""

    kind: Literal["chat_completions"] = "chat_completions"
    choices: tuple[ChatChoice, ...] = ()
    extra: Extra = Field(default_factory=dict)

    @property
    def finish_reason(self) -> str | None:
        """Why the first choice ended."""
        return self.choices[0].finish_reason if self.choices else None

    @property
    def text(self) -> str:
        """The text of the first choice; empty where there is none."""
        message = self.choices[0].message if self.choices else None
        return message.text() if message is not None else ""


class EmbeddingsResult(Model):
    """Exactly one of `vectors` and `base64` (32-bit little-endian floats) is given, in the order of the inputs."""

    kind: Literal["embeddings"] = "embeddings"
    vectors: tuple[tuple[float, ...], ...] | None = None
    base64: tuple[str, ...] | None = None
    dimensions: Count | None = None
    extra: Extra = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if (self.vectors is None) == (self.base64 is None):
            raise ValueError("exactly one of vectors and base64 must be given")
        return self


class ImageResult(Model):
    kind: Literal["image_generation"] = "image_generation"
    images: tuple[MediaRef, ...]
    extra: Extra = Field(default_factory=dict)


class SpeechSegment(Model):
    start_s: float
    end_s: float
    text: str
    speaker: str | None = None


class SpeechToTextResult(Model):
    kind: Literal["speech_to_text"] = "speech_to_text"
    text: str
    segments: tuple[SpeechSegment, ...] = ()
    language: str | None = None
    duration_s: float | None = None
    extra: Extra = Field(default_factory=dict)


class TextToSpeechResult(Model):
    kind: Literal["text_to_speech"] = "text_to_speech"
    audio: MediaRef
    duration_s: float | None = None
    extra: Extra = Field(default_factory=dict)


ResultPayload = Annotated[
    ChatResult | EmbeddingsResult | ImageResult | SpeechToTextResult | TextToSpeechResult,
    Field(discriminator="kind"),
]


class Usage(Model):
    """What a call consumed. `estimated` means that the backend gave no count. `cost` is in the currency of the
    configured prices. `extra` has the provider's other usage keys as they came."""

    input_tokens: Count | None = None
    output_tokens: Count | None = None
    cached_tokens: Count | None = None
    audio_seconds: Annotated[float, Field(ge=0)] | None = None
    characters: Count | None = None
    images: Count | None = None
    cost: Annotated[float, Field(ge=0)] | None = None
    estimated: bool = False
    extra: Extra = Field(default_factory=dict)
