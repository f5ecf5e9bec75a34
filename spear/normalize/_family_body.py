"""A response to one of the families, and the events of a stream, as a guest reads them."""

from __future__ import annotations

import base64
import binascii
import math
import struct
from typing import Any, Final

from spear.ir import (
    AudioDelta,
    ContentDelta,
    EmbeddingsRequest,
    EmbeddingsResult,
    ImageResult,
    MediaRef,
    RequestEnvelope,
    ResponseEnvelope,
    SegmentEvent,
    SpeechSegment,
    SpeechToTextResult,
    Started,
    StoredMedia,
    StreamEvent,
    TextToSpeechResult,
    Usage,
    UsageEvent,
)

Body = dict[str, Any]
AUDIO_BYTES: Final = 64 * 1024
"""The most that one `audio_delta` of a guest carries, decoded."""


class Unusable(Exception):
    """A backend's answer that cannot be said in the shape which the guest is promised; `str()` says why."""


def family_body(response: ResponseEnvelope, request: RequestEnvelope) -> Body:
    """The body of a success. Raises `Unusable`."""
    backend, payload = response.backend, response.result.payload
    model = request.payload.model
    if not request.model and backend is not None:
        model = backend.model
    told: Body = {
        "backend": backend.name if backend is not None else "",
        "degraded": list(backend.degraded) if backend is not None else [],
        "model": model,
    }
    match payload:
        case EmbeddingsResult():
            body = {"_spear": told, **_embeddings(payload, request)}
            if "errors" in payload.extra:  # only where the guest allowed the step `partial`
                body["errors"] = payload.extra["errors"]
            return body
        case ImageResult():
            return {"_spear": told, "images": [media_out(image) for image in payload.images]}
        case SpeechToTextResult():
            return {
                "_spear": told,
                "text": payload.text,
                "language": payload.language,
                "duration_s": payload.duration_s,
                "segments": [_segment(each) for each in payload.segments],
            }
        case TextToSpeechResult():
            return {"_spear": told, "audio": media_out(payload.audio), "duration_s": payload.duration_s}
        case _:
            raise Unusable(f"the answer is one of {payload.kind if payload is not None else 'nothing'}")


def family_metrics(usage: Usage) -> dict[str, float]:
    """The counts that are known and not zero."""
    counts = {
        "audio_seconds": usage.audio_seconds,
        "characters": usage.characters,
        "images": usage.images,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
    }
    return {name: count for name, count in counts.items() if count}


def family_events(event: StreamEvent) -> list[Body]:
    """An event as guests get it, without its number: in several pieces where it is longer than they take, none where
    the family has no such event. The terminal ones are not for here."""
    match event:
        case Started():
            return [{"type": "started", "backend": event.backend, "model": event.model}]
        case ContentDelta():
            return [{"type": "content_delta", "delta": event.delta}]
        case SegmentEvent():
            return [{"type": "segment", **_segment(event)}]
        case AudioDelta():
            return [{"type": "audio_delta", "audio": each, "format": event.format} for each in _in_pieces(event.audio)]
        case UsageEvent():
            return [{"type": "usage", **family_metrics(event.usage)}]
        case _:
            return []


def media_out(media: MediaRef) -> Body:
    """A stored object as a guest reads of it. Raises `Unusable`: an adapter stores what it got."""
    if not isinstance(media, StoredMedia) or media.mime is None or media.size is None or media.sha256 is None:
        raise Unusable(f"the answer refers to its bytes as {media.kind}, without all that must be known of them")
    return {"kind": media.kind, "mime": media.mime, "sha256": media.sha256, "size": media.size, "uri": media.uri}


def _segment(segment: SpeechSegment | SegmentEvent) -> Body:
    return {"start_s": segment.start_s, "end_s": segment.end_s, "text": segment.text, "speaker": segment.speaker}


def _embeddings(result: EmbeddingsResult, request: RequestEnvelope) -> Body:
    """In the encoding that was asked for, whichever the backend chose."""
    payload = request.payload
    wants_base64 = isinstance(payload, EmbeddingsRequest) and payload.encoding_format == "base64"
    vectors, encoded = result.vectors, result.base64
    dimensions = result.dimensions
    if dimensions is None:  # some may be empty: those that failed
        lengths = [len(_decoded(each)) // 4 for each in encoded or ()] if vectors is None else map(len, vectors)
        dimensions = max(lengths, default=0)
    if wants_base64:
        if encoded is None:
            encoded = tuple(_encoded(vector) for vector in vectors or ())
        return {"dimensions": dimensions, "base64": encoded}
    if vectors is None:
        vectors = tuple(_floats(each) for each in encoded or ())
    if not all(_finite(vector) for vector in vectors):
        raise Unusable("a vector has a value that is no number")
    return {"dimensions": dimensions, "vectors": vectors}


def _finite(vector: tuple[float, ...]) -> bool:
    # The sum is much faster to look at; it is also infinite where numbers are huge.
    return math.isfinite(sum(vector)) or all(map(math.isfinite, vector))


def _encoded(vector: tuple[float, ...]) -> str:
    try:
        return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")
    except (OverflowError, struct.error):
        raise Unusable("a vector has a number that 32 bits do not hold") from None


def _decoded(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Unusable("a vector is no base64") from None
    if len(data) % 4:
        raise Unusable("a vector is no list of 32-bit numbers")
    return data


def _floats(text: str) -> tuple[float, ...]:
    data = _decoded(text)
    return struct.unpack(f"<{len(data) // 4}f", data)


def _in_pieces(audio: str) -> list[str]:
    """Base64 of at most `AUDIO_BYTES` each."""
    longest = AUDIO_BYTES // 3 * 4
    return [audio[at : at + longest] for at in range(0, len(audio), longest)]
