"""The parameters of the families: which keys there are, and what may stand behind each.

A check takes a value as JSON has it and gives the one to keep. It raises `Refused` (-22) for a wrong type or range.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from spear.hostcall._errno import EINVAL, Refused
from spear.hostcall._media_ref import parse_media_ref

Check = Callable[[Any], Any]

STEPS: Final = frozenset(
    {
        *("split_batch", "mask_to_text", "drop_timestamps", "strip_ssml", "default_voice"),
        *("tools_by_prompt", "merge_system", "parameters_dropped", "partial", "cascade", "stt_only", "truncate_input"),
    }
)
"""The steps of degradation of all operations: a guest may name one that its operation does not have."""
PROMPT_BYTES: Final = 16 * 1024
_LANGUAGE: Final = re.compile(r"[A-Za-z]{1,8}(-[A-Za-z0-9]{1,8}){0,8}")  # the shape of BCP 47
_SIZE: Final = re.compile(r"([1-9][0-9]{1,3})x([1-9][0-9]{1,3})")


def _need(right: bool) -> None:
    if not right:
        raise Refused(EINVAL)


def _text(value: Any) -> str:
    _need(isinstance(value, str))
    return str(value)


def _prompt(value: Any) -> str:
    text = _text(value)
    _need(len(text.encode("utf-8", "replace")) <= PROMPT_BYTES)
    return text


def _whole(low: int, high: int) -> Check:
    def check(value: Any) -> int:
        _need(type(value) is int and low <= value <= high)
        return int(value)

    return check


def _number(low: float, high: float) -> Check:
    def check(value: Any) -> float:
        _need(type(value) in {int, float} and low <= value <= high)
        return float(value)

    return check


def _flag(value: Any) -> bool:
    _need(isinstance(value, bool))
    return bool(value)


def _one_of(*names: str) -> Check:
    def check(value: Any) -> str:
        _need(isinstance(value, str) and value in names)
        return str(value)

    return check


def _language(value: Any) -> str:
    text = _text(value)
    _need(_LANGUAGE.fullmatch(text) is not None)
    return text


def _size(value: Any) -> str:
    text = _text(value)
    found = _SIZE.fullmatch(text)
    _need(text == "auto" or (found is not None and all(16 <= int(side) <= 8192 for side in found.groups())))
    return text


def _degradation(value: Any) -> str | tuple[str, ...]:
    if isinstance(value, list):
        _need(all(isinstance(step, str) and step in STEPS for step in value))
        return tuple(value)
    return str(_one_of("reject", "allow")(value))


_COMMON: Final[Mapping[str, Check]] = {
    "model": _text,
    "backend": _text,
    "timeout_ms": _whole(1, 3_600_000),
    "degradation": _degradation,
}
EMB: Final[Mapping[str, Check]] = {
    **_COMMON,
    "dimensions": _whole(1, 65_536),
    "encoding_format": _one_of("float", "base64"),
}
IMG: Final[Mapping[str, Check]] = {
    **_COMMON,
    "size": _size,
    "n": _whole(1, 10),
    "quality": _text,
    "style": _text,
    "seed": _whole(0, 2**31 - 1),
    "image": parse_media_ref,
    "mask": parse_media_ref,
}
ASR: Final[Mapping[str, Check]] = {
    **_COMMON,
    "language": _language,
    "prompt": _prompt,
    "timestamps": _one_of("none", "segment", "word"),
    "diarization": _flag,
    "format": _one_of("wav", "mp3", "flac", "ogg", "opus", "webm", "m4a", "pcm16"),
    "sample_rate_hz": _whole(8000, 192_000),
    "audio": parse_media_ref,
}
TTS: Final[Mapping[str, Check]] = {
    **_COMMON,
    "voice": _text,
    "format": _one_of("wav", "mp3", "pcm", "opus", "flac"),
    "speed": _number(0.25, 4.0),
    "ssml": _flag,
}
