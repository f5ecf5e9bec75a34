"""Bodies with very many numbers: as JSON piece by piece, so that nobody else waits for all of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import trio

from spear.hostcall import _json

PIECE_NUMBERS: Final = 20_000
"""Some milliseconds' worth."""
_ROWS: Final = "vectors"  # the last key of such a body


class BodyTooLarge(Exception):
    pass


async def encode_body(body: Mapping[str, Any], max_bytes: int) -> bytes:
    """What `_json.dump` gives. Raises BodyTooLarge, as soon as that is clear, and ValueError for what JSON cannot say.
    Waits only where there is much."""
    rows = body.get(_ROWS)
    if not isinstance(rows, tuple | list) or sum(map(len, rows)) <= PIECE_NUMBERS:
        data = _json.dump(body)
        if len(data) > max_bytes:
            raise BodyTooLarge
        return data
    before, key, after = _json.dump({**body, _ROWS: None}).rpartition(b'"vectors":null')
    assert key
    pieces = [before, b'"vectors":[']
    size = len(before) + len(pieces[1]) + len(after)
    for piece in _pieces(rows):
        await trio.lowlevel.checkpoint()
        text = _json.dump(piece)[1:-1]
        size += len(text) + 1
        if size > max_bytes:
            raise BodyTooLarge
        pieces += (text, b",")
    pieces[-1] = b"]"
    return b"".join((*pieces, after))


def _pieces(rows: Sequence[Sequence[float]]) -> Iterator[list[Sequence[float]]]:
    piece: list[Sequence[float]] = []
    numbers = 0
    for row in rows:
        piece.append(row)
        numbers += len(row)
        if numbers >= PIECE_NUMBERS:
            yield piece
            piece, numbers = [], 0
    if piece:
        yield piece
