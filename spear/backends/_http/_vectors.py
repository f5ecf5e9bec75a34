"""An answer that is mostly vectors, as JSON: far more numbers than any other answer may have."""

from __future__ import annotations

from typing import Final

from pydantic import JsonValue

from spear.secrets import KeyMask

from ._client import json_of
from ._exchange import Received

_BYTES_EACH: Final = 256 * 1024
_PARTS_EACH: Final = 16_384
"""Of a vector in an answer: more than any model's, and little enough that no answer is a burden."""
_BESIDE: Final = 64 * 1024
_MOST_BYTES: Final = 64 * 1024 * 1024
_MOST_PARTS: Final = 4_000_000


async def vectors_of(received: Received, mask: KeyMask, count: int) -> JsonValue:
    """`count`: how many vectors it should have."""
    return await json_of(
        received,
        mask,
        limit=min(_MOST_BYTES, _BESIDE + count * _BYTES_EACH),
        parts=min(_MOST_PARTS, _BESIDE + count * _PARTS_EACH),
        exact=False,
    )
