"""What a worker says, checked: it is another process, and half of it is native code."""

from __future__ import annotations

import base64
import math
import struct
from dataclasses import dataclass
from typing import Any, Final

from spear.backends._local import broken

DIMENSIONS: Final = 384
_ROW: Final = struct.Struct(f"<{DIMENSIONS}f")


@dataclass(frozen=True, slots=True)
class Counted:
    """What it was given, before anything is computed."""

    tokens: int
    """Those that the model reads."""
    cut: int
    """How many texts it reads in part."""


@dataclass(frozen=True, slots=True)
class TooLong:
    """The first text that is, instead of any vectors."""

    index: int
    tokens: int


Row = tuple[str, tuple[float, ...]]
"""A vector, in base64 and as numbers."""


def counted(message: dict[str, Any] | None) -> Counted | TooLong:
    """Raises `BackendError` where it is neither."""
    match message:
        case {"tokens": int(tokens), "cut": int(cut)}:
            return Counted(tokens, cut)
        case {"too_long": int(index), "tokens": int(tokens)}:
            return TooLong(index, tokens)
    raise broken("it talks nonsense")


def rows(message: dict[str, Any]) -> list[Row]:
    """Raises `BackendError` where they are no vectors of the model."""
    found = message.get("vectors")
    if not isinstance(found, list):
        raise broken("it talks nonsense")
    return [_row(each) for each in found]


def _row(text: object) -> Row:
    if not isinstance(text, str):
        raise broken("it talks nonsense")
    try:
        numbers = _ROW.unpack(base64.b64decode(text, validate=True))
    except (ValueError, struct.error):
        raise broken("it talks nonsense") from None
    if not math.isfinite(sum(numbers)):  # one sum says it: what is not finite stays so
        raise broken("it has computed what is no number")
    return text, numbers
