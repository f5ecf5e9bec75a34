"""What a payload requires of a backend. Derived here and nowhere else; the router only compares."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pydantic import JsonValue

from spear.ir import (
    AudioPart,
    ChatMessage,
    ChatRequest,
    EmbeddingsRequest,
    Feature,
    ImagePart,
    ImageRequest,
    RealtimeRequest,
    RequestEnvelope,
    RequestPayload,
    Requirements,
    SpeechToTextRequest,
    TextToSpeechRequest,
    Transport,
)

_REALTIME_TRANSPORTS: Final = (Transport.WEBSOCKET, Transport.GRPC, Transport.IN_PROCESS)
_RAW_PARTS: Final = {
    "image_url": Feature.IMAGE_INPUT,
    "image": Feature.IMAGE_INPUT,
    "input_audio": Feature.AUDIO_INPUT,
    "audio": Feature.AUDIO_INPUT,
}


def requirements_of(payload: RequestPayload, *, stream: bool = False, tools: bool = False) -> Requirements:
    """`tools`: the caller named tools, even if none of them could be read."""
    match payload:
        case ChatRequest():
            return _names(_chat(payload, stream, tools))
        case EmbeddingsRequest():
            return Requirements(
                required_features=(Feature.DIMENSIONS.value,) if payload.dimensions is not None else (),
                # Preferred only: a batch can be split, which is ordinary work and no degradation.
                preferred_features=(Feature.BATCH.value,) if len(payload.input) > 1 else (),
            )
        case ImageRequest():
            image = payload.image is not None or payload.mask is not None
            needs = _names([Feature.IMAGE_INPUT] * image + [Feature.MASK] * (payload.mask is not None))
            if payload.seed is None:
                return needs
            # Preferred only: a picture from a backend that knows no seed is still a picture.
            return needs.model_copy(update={"preferred_features": (Feature.SEED.value,)})
        case SpeechToTextRequest():
            return _names(_speech_to_text(payload) + _streamed(stream))
        case TextToSpeechRequest():
            voice = payload.voice is not None
            return _names([Feature.VOICES] * voice + [Feature.SSML] * bool(payload.ssml) + _streamed(stream))
        case RealtimeRequest():
            return Requirements(
                required_features=(Feature.BIDI_STREAM.value,), required_transports=_REALTIME_TRANSPORTS
            )


def with_requirements(request: RequestEnvelope, *, stream: bool = False) -> RequestEnvelope:
    """The request with what its payload requires added to what the caller requires; for envelopes that did not come
    through one of the other functions of this package. Doing it twice changes nothing."""
    given = request.requirements
    if isinstance(request.payload, ChatRequest) and not request.payload.tools:
        # What nearly every request is; looking costs a fifth of making a model to compare with.
        for feature in _chat(request.payload, stream, tools=False):
            if feature.value not in given.required_features:
                break
        else:
            return request
    derived = requirements_of(request.payload, stream=stream)
    if (
        set(derived.required_features) <= set(given.required_features)
        and set(derived.preferred_features) <= set(given.preferred_features)
        and (given.required_transports or not derived.required_transports)
    ):
        return request
    merged = given.model_copy(
        update={
            "required_features": _union(given.required_features, derived.required_features),
            "preferred_features": _union(given.preferred_features, derived.preferred_features),
            "required_transports": given.required_transports or derived.required_transports,
        }
    )
    return request.model_copy(update={"requirements": merged})


def _union(given: tuple[str, ...], derived: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*given, *derived)))


def _names(features: Iterable[Feature]) -> Requirements:
    return Requirements(required_features=tuple(dict.fromkeys(feature.value for feature in features)))


def _streamed(stream: bool) -> list[Feature]:
    return [Feature.STREAM] * stream


def _chat(payload: ChatRequest, stream: bool, tools: bool) -> Iterable[Feature]:
    if payload.tools or tools:
        yield Feature.TOOLS
    if _wants_schema(payload):
        yield Feature.JSON_SCHEMA
    if stream:
        yield Feature.STREAM
    for message in payload.messages:
        if message.content_parts or isinstance(message.content, list):
            yield from _parts(message)


def _wants_schema(payload: ChatRequest) -> bool:
    if payload.response_format is not None:
        return payload.response_format.type == "json_schema"
    raw = payload.extra.get("response_format")  # one that has more keys than the typed field
    return isinstance(raw, dict) and raw.get("type") == "json_schema"


def _parts(message: ChatMessage) -> Iterable[Feature]:
    for part in message.content_parts or ():
        if isinstance(part, ImagePart):
            yield Feature.IMAGE_INPUT
        elif isinstance(part, AudioPart):
            yield Feature.AUDIO_INPUT
    if isinstance(message.content, list):
        for raw in message.content:
            kind: JsonValue = raw.get("type") if isinstance(raw, dict) else None
            if isinstance(kind, str) and kind in _RAW_PARTS:
                yield _RAW_PARTS[kind]


def _speech_to_text(payload: SpeechToTextRequest) -> list[Feature]:
    wanted = []
    if payload.timestamps not in {None, "none"}:
        wanted.append(Feature.TIMESTAMPS)
    if payload.diarization:
        wanted.append(Feature.DIARIZATION)
    if payload.language is not None:
        wanted.append(Feature.LANGUAGE)
    return wanted
