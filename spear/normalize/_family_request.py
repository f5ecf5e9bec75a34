"""A guest's request of one of the families `emb_ img_ asr_ tts_` to a request. Its parameters have been checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from spear.ir import (
    Degradation,
    EmbeddingsRequest,
    ImageRequest,
    MediaRef,
    Meta,
    Operation,
    RequestEnvelope,
    RequestPayload,
    Routing,
    SpeechToTextRequest,
    TextToSpeechRequest,
)

from ._requirements import requirements_of

OPERATION_OF_FAMILY: Final = {
    "emb": Operation.EMBEDDINGS,
    "img": Operation.IMAGE_GENERATION,
    "asr": Operation.SPEECH_TO_TEXT,
    "tts": Operation.TEXT_TO_SPEECH,
}
HOST_KEYS: Final = frozenset({"model", "backend", "timeout_ms", "degradation"})
_TYPED: Final = {
    "emb": frozenset({"dimensions", "encoding_format"}),
    "img": frozenset({"size", "n", "quality", "style", "seed", "image", "mask"}),
    "asr": frozenset({"language", "prompt", "timestamps", "diarization", "format", "sample_rate_hz", "audio"}),
    "tts": frozenset({"voice", "format", "speed", "ssml"}),
}


@dataclass(frozen=True, slots=True)
class FamilyInputs:
    """What a guest asks for: `texts` of emb, img and tts; `audio` of asr. `params` hold checked values."""

    family: str
    fd: int
    params: Mapping[str, Any]
    texts: Sequence[str] = ()
    audio: MediaRef | None = None


def request_from_family(inputs: FamilyInputs, *, task_id: str | None, stream: bool = False) -> RequestEnvelope:
    """Unknown parameters are the adapter's: they stand in the payload's `extra`."""
    params = inputs.params
    typed = _TYPED[inputs.family]
    extra = {key: value for key, value in params.items() if key not in HOST_KEYS and key not in typed}
    payload = _PAYLOADS[inputs.family](inputs, params.get, extra)
    return RequestEnvelope(
        task_id=task_id,
        operation=OPERATION_OF_FAMILY[inputs.family],
        meta=Meta(source=inputs.family, source_id=f"{inputs.family}_{inputs.fd}"),
        routing=Routing(backend=params.get("backend") or None),
        requirements=requirements_of(payload, stream=stream),
        degradation=_degradation(params.get("degradation")),
        timeout_ms=params.get("timeout_ms"),
        payload=payload,
    )


_Get = Callable[[str], Any]


def _embeddings(inputs: FamilyInputs, get: _Get, extra: dict[str, Any]) -> RequestPayload:
    return EmbeddingsRequest(
        model=get("model") or "",
        input=tuple(inputs.texts),
        dimensions=get("dimensions"),
        encoding_format=get("encoding_format"),
        extra=extra,
    )


def _image(inputs: FamilyInputs, get: _Get, extra: dict[str, Any]) -> RequestPayload:
    size = get("size")
    return ImageRequest(
        model=get("model") or "",
        prompt=inputs.texts[0],
        image=get("image"),
        mask=get("mask"),
        n=get("n"),
        size=None if size == "auto" else size,
        quality=get("quality"),
        style=get("style"),
        seed=get("seed"),
        extra=extra,
    )


def _speech_to_text(inputs: FamilyInputs, get: _Get, extra: dict[str, Any]) -> RequestPayload:
    if inputs.audio is None:
        raise TypeError("an asr request has audio")
    return SpeechToTextRequest(
        model=get("model") or "",
        audio=inputs.audio,
        language=get("language"),
        prompt=get("prompt"),
        timestamps=get("timestamps"),
        diarization=get("diarization"),
        extra=extra,
    )


def _text_to_speech(inputs: FamilyInputs, get: _Get, extra: dict[str, Any]) -> RequestPayload:
    return TextToSpeechRequest(
        model=get("model") or "",
        input=inputs.texts[0],
        voice=get("voice"),
        format=get("format"),
        speed=get("speed"),
        ssml=get("ssml"),
        extra=extra,
    )


_PAYLOADS: Final[dict[str, Callable[[FamilyInputs, _Get, dict[str, Any]], RequestPayload]]] = {
    "emb": _embeddings,
    "img": _image,
    "asr": _speech_to_text,
    "tts": _text_to_speech,
}


def _degradation(value: str | tuple[str, ...] | None) -> Degradation:
    if value == "allow":
        return Degradation(mode="allow")
    if isinstance(value, tuple) and value:
        return Degradation(mode="allow", steps=value)
    return Degradation()
