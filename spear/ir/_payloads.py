"""What is asked for: one payload for each operation, tagged by `kind` = the operation's name.

A typed field that is None is absent. Whatever has no typed field, or came with a type its field does not take (an
explicit null included), stands unchanged in the nearest `extra` map, so that nothing a caller or a backend wrote is
lost.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ._json import Json
from ._media import MediaRef
from ._model import Model

Extra = dict[str, Json]


class TextPart(Model):
    type: Literal["text"] = "text"
    text: str


class ImagePart(Model):
    type: Literal["image"] = "image"
    media: MediaRef
    detail: Literal["auto", "low", "high"] | None = None


class AudioPart(Model):
    type: Literal["audio"] = "audio"
    media: MediaRef


ContentPart = Annotated[TextPart | ImagePart | AudioPart, Field(discriminator="type")]


class FunctionCall(Model):
    name: str
    arguments: str
    """The exact string the model wrote; it need not be JSON."""
    extra: Extra = Field(default_factory=dict)


class ToolCall(Model):
    id: str
    type: str = "function"
    function: FunctionCall
    extra: Extra = Field(default_factory=dict)


class ChatMessage(Model):
    """`role` is free text (system, developer, user, assistant and tool are known), empty where a backend left it out.
    At most one of `content`, any JSON value, and `content_parts` is given; the parts are typed and may refer to
    media."""

    role: str
    content: Json = None
    content_parts: tuple[ContentPart, ...] | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    extra: Extra = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_content(self) -> Self:
        if self.content_parts is not None and self.content is not None:
            raise ValueError("at most one of content and content_parts may be given")
        return self

    def text(self) -> str:
        """The text of the content: itself, or its text parts joined; the empty string where there is none."""
        if isinstance(self.content, str):
            return self.content
        if self.content_parts is not None:
            return "".join(part.text for part in self.content_parts if isinstance(part, TextPart))
        if isinstance(self.content, list):
            texts = [part.get("text") for part in self.content if isinstance(part, dict)]
            return "".join(text for text in texts if isinstance(text, str))
        return ""


class Generation(Model):
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    stop: str | tuple[str, ...] | None = None
    seed: int | None = None
    stream: bool | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0)] | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    user: str | None = None


class ResponseFormat(Model):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: dict[str, Json] | None = None


class ChatRequest(Model):
    """`tools` are OpenAI-style `{"type": "function", "function": {...}}` objects, as the caller wrote them."""

    kind: Literal["chat_completions"] = "chat_completions"
    model: str = ""
    messages: tuple[ChatMessage, ...]
    tools: tuple[dict[str, Json], ...] = ()
    tool_choice: Literal["none", "auto", "required"] | dict[str, Json] | None = None
    generation: Generation = Generation()
    response_format: ResponseFormat | None = None
    extra: Extra = Field(default_factory=dict)


class EmbeddingsRequest(Model):
    kind: Literal["embeddings"] = "embeddings"
    model: str = ""
    input: tuple[str, ...]
    dimensions: Annotated[int, Field(ge=1)] | None = None
    encoding_format: Literal["float", "base64"] | None = None
    extra: Extra = Field(default_factory=dict)


class ImageRequest(Model):
    kind: Literal["image_generation"] = "image_generation"
    model: str = ""
    prompt: str
    image: MediaRef | None = None
    mask: MediaRef | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    size: str | None = None
    quality: str | None = None
    style: str | None = None
    seed: int | None = None
    extra: Extra = Field(default_factory=dict)


class SpeechToTextRequest(Model):
    kind: Literal["speech_to_text"] = "speech_to_text"
    model: str = ""
    audio: MediaRef
    language: str | None = None
    prompt: str | None = None
    timestamps: Literal["none", "segment", "word"] | None = None
    diarization: bool | None = None
    temperature: float | None = None
    extra: Extra = Field(default_factory=dict)


class TextToSpeechRequest(Model):
    kind: Literal["text_to_speech"] = "text_to_speech"
    model: str = ""
    input: str
    voice: str | None = None
    format: Literal["wav", "mp3", "pcm", "opus", "flac"] | None = None
    speed: Annotated[float, Field(ge=0.25, le=4.0)] | None = None
    ssml: bool | None = None
    extra: Extra = Field(default_factory=dict)


class RealtimeSession(Model):
    model: str = ""
    modalities: tuple[Literal["audio", "text"], ...] | None = None
    voice: str | None = None
    turn_detection: dict[str, Json] | None = None
    input_audio_format: str | None = None
    output_audio_format: str | None = None
    transcription: dict[str, Json] | None = None
    language: str | None = None
    tools: tuple[dict[str, Json], ...] = ()
    instructions: str | None = None
    extra: Extra = Field(default_factory=dict)


class RealtimeRequest(Model):
    """Opens a session; it is never one request and one response."""

    kind: Literal["realtime_voice"] = "realtime_voice"
    session: RealtimeSession
    extra: Extra = Field(default_factory=dict)

    @property
    def model(self) -> str:
        return self.session.model


RequestPayload = Annotated[
    ChatRequest | EmbeddingsRequest | ImageRequest | SpeechToTextRequest | TextToSpeechRequest | RealtimeRequest,
    Field(discriminator="kind"),
]
