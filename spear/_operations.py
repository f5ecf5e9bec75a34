"""What `Runtime` offers for each operation beside chat: the request from a program's words, and the reply."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import trio

from .ir import (
    ChatRequest,
    ContentPart,
    EmbeddingsResult,
    ImagePart,
    ImageResult,
    InlineMedia,
    MediaRef,
    Meta,
    Operation,
    RequestEnvelope,
    ResponseEnvelope,
    SpeechSegment,
    SpeechToTextResult,
    StoredMedia,
    TextPart,
    TextToSpeechResult,
    UrlMedia,
    invalid_request,
)
from .media import MediaAccess, MediaStore
from .normalize import media_type, reference, request_from_params, unpacked, with_requirements

Media = bytes | Path | str | MediaRef
"""Bytes, the path of a file, or a reference that is passed on."""

MAX_FILE_BYTES: Final = 64 * 1024 * 1024
"""Of a file that is read for a request; the store's own limit may be lower."""

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class EmbedReply:
    """The answer of `Runtime.embed`."""

    response: ResponseEnvelope

    def __repr__(self) -> str:
        """Without the numbers."""
        backend = self.response.backend
        return f"<EmbedReply of {len(self.vectors)} vectors by {backend.name if backend is not None else 'nobody'}>"

    @property
    def result(self) -> EmbeddingsResult:
        return _result(self.response, EmbeddingsResult)

    @property
    def vectors(self) -> tuple[tuple[float, ...], ...]:
        """One for each input, in their order; decoded where base64 was asked for."""
        result = self.result
        return result.vectors if result.vectors is not None else tuple(map(unpacked, result.base64 or ()))


@dataclass(frozen=True, slots=True)
class ImageReply:
    """The answer of `Runtime.image`."""

    response: ResponseEnvelope
    media: MediaAccess

    @property
    def result(self) -> ImageResult:
        return _result(self.response, ImageResult)

    @property
    def images(self) -> tuple[MediaRef, ...]:
        return self.result.images

    async def load(self) -> list[bytes]:
        """The bytes of each image, from the store. Raises `CallerError` where one is not there any more."""
        return [await bytes_of(image, self.media) for image in self.images]


@dataclass(frozen=True, slots=True)
class TranscribeReply:
    """The answer of `Runtime.transcribe`."""

    response: ResponseEnvelope

    @property
    def result(self) -> SpeechToTextResult:
        return _result(self.response, SpeechToTextResult)

    @property
    def text(self) -> str:
        return self.result.text

    @property
    def segments(self) -> tuple[SpeechSegment, ...]:
        """Empty unless `timestamps` or `diarization` was asked for."""
        return self.result.segments


@dataclass(frozen=True, slots=True)
class SpeakReply:
    """The answer of `Runtime.speak`."""

    response: ResponseEnvelope
    media: MediaAccess

    @property
    def result(self) -> TextToSpeechResult:
        return _result(self.response, TextToSpeechResult)

    @property
    def audio(self) -> MediaRef:
        return self.result.audio

    async def load(self) -> bytes:
        """The recording, from the store. Raises `CallerError` where it is not there any more."""
        return await bytes_of(self.audio, self.media)


def embed_request(inputs: str | Sequence[str], model: str, params: Mapping[str, object]) -> RequestEnvelope:
    if not isinstance(inputs, Iterable):
        raise invalid_request("input", f"must be a text or a list of texts, not {type(inputs).__name__}")
    texts = (inputs,) if isinstance(inputs, str) else tuple(inputs)
    return _request(Operation.EMBEDDINGS, model, params, input=texts)


async def image_request(prompt: str, model: str, params: Mapping[str, object], media: MediaStore) -> RequestEnvelope:
    given = dict(params)
    for field in ("image", "mask"):
        if given.get(field) is not None:
            given[field] = await media_of(given[field], field, "image", media)
    return _request(Operation.IMAGE_GENERATION, model, given, prompt=prompt)


async def transcribe_request(
    audio: Media, model: str, params: Mapping[str, object], media: MediaStore
) -> RequestEnvelope:
    return _request(Operation.SPEECH_TO_TEXT, model, params, audio=await media_of(audio, "audio", "audio", media))


def speak_request(text: str, model: str, params: Mapping[str, object]) -> RequestEnvelope:
    return _request(Operation.TEXT_TO_SPEECH, model, params, input=text)


async def with_references(message: object, media: MediaStore) -> object:
    """`message` with references in place of bytes and paths in the parts `{"type": "image", "media": …}` and
    `{"type": "audio", "media": …}` of its content; itself where there are none."""
    content = message.get("content") if isinstance(message, Mapping) else None
    if not isinstance(message, Mapping) or not isinstance(content, list | tuple):
        return message
    parts = [await _part(part, f"content[{index}]", media) for index, part in enumerate(content)]
    return {**message, "content": parts}


async def with_pictures(request: RequestEnvelope, pictures: Sequence[Path], media: MediaStore) -> RequestEnvelope:
    """The chat `request` with `pictures` behind the text of its last message."""
    chat = request.payload
    assert isinstance(chat, ChatRequest)
    last = chat.messages[-1]
    parts: list[ContentPart] = [TextPart(text=last.text())]
    parts += [ImagePart(media=await media_of(path, str(path), "image", media)) for path in pictures]
    last = last.model_copy(update={"content": None, "content_parts": tuple(parts)})
    chat = chat.model_copy(update={"messages": (*chat.messages[:-1], last)})
    return with_requirements(request.model_copy(update={"payload": chat}))


async def _part(part: object, field: str, media: MediaStore) -> object:
    if not isinstance(part, Mapping) or isinstance(part.get("media"), Mapping | None):
        return part
    family = part.get("type")
    if family != "image" and family != "audio":
        return part
    ref = await media_of(part["media"], f"{field}.media", family, media)
    return {**part, "media": ref.model_dump(mode="json", exclude_none=True)}


async def media_of(given: object, field: str, family: Literal["image", "audio"], media: MediaStore) -> MediaRef:
    """A reference to it; larger bytes are stored. Raises `CallerError` where it is none of its family, or too large,
    and OSError where the file cannot be read."""
    if isinstance(given, InlineMedia | StoredMedia | UrlMedia):
        return given
    name: str | None = None
    if isinstance(given, str | PathLike):
        name = str(given)
        given = await _read(Path(given), field)
    if isinstance(given, bytearray | memoryview):
        given = bytes(given)
    if not isinstance(given, bytes):
        raise invalid_request(
            field, f"must be bytes, a path, or a StoredMedia, InlineMedia or UrlMedia, not {type(given).__name__}"
        )
    mime = media_type(given, field, family, name=name)
    return await reference(given, mime, media, task_id=None, inline_bytes=media.config.max_inline_bytes)


async def bytes_of(ref: MediaRef, media: MediaAccess) -> bytes:
    """Raises `CallerError` where they cannot be had."""
    if isinstance(ref, InlineMedia):
        return ref.decode()
    return (await media.load(ref, task_id=None)).data


async def _read(path: Path, field: str) -> bytes:
    async with await trio.open_file(path, "rb") as file:
        data: bytes = await file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise invalid_request(field, f"is a file of more than {MAX_FILE_BYTES} bytes, which is the most")
    return data


def _request(operation: Operation, model: str, params: Mapping[str, object], **fields: Any) -> RequestEnvelope:
    for name in fields:
        if name in params:
            raise TypeError(f"{name!r} is given twice")
    return request_from_params(operation, {**params, **fields, "model": model}, meta=Meta(source="python"))


def _result(response: ResponseEnvelope, kind: type[R]) -> R:
    payload = response.result.payload
    assert isinstance(payload, kind)
    return payload
