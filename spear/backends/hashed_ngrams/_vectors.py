"""From texts to vectors: a bag of the n-grams of a text, hashed into `dimensions` buckets.

The n-grams are the words, the pairs of neighbours, and in each word the runs of 3, 4 and 5 characters with its
borders. Each adds or takes one (a word four, a pair two) in the bucket that its hash names, so that what falls together
by chance cancels out as often as it adds up. The square root of each count tames what is said often, and the vector
gets length one. All sums are of whole numbers and only divisions and square roots follow, which IEEE 754 rounds in one
way: the same text has the same vector everywhere, bit for bit, as far as the Python at hand knows its characters.
"""

from __future__ import annotations

import base64
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

SLICE: Final = 16_384
"""Characters that are looked at in one go; what stretches over the end of a slice is not seen."""
_NO_WORD: Final = re.compile(r"[^\w]+")
_BLANK: Final = 32
_LENGTHS: Final = (3, 4, 5)
_WORD, _PAIR, _RUN = 4, 2, 1
_BASE: Final = np.uint64(0x9E3779B97F4A7C15)
"""Odd, so that it has an inverse modulo 2⁶⁴."""
_MASK: Final = (1 << 64) - 1
_INVERSE: Final = np.uint64(pow(int(_BASE), -1, 1 << 64))
_EMPTY: Final = "\x02"
"""What stands for a text without any characters."""

U64 = npt.NDArray[np.uint64]
Counts = npt.NDArray[np.int64]
Indexes = npt.NDArray[np.intp]


@lru_cache(maxsize=16)
def _powers(base: np.uint64, bits: int) -> U64:
    """The first 2 ** `bits` powers, modulo 2⁶⁴."""
    return np.multiply.accumulate(np.concatenate(([np.uint64(1)], np.full((1 << bits) - 1, base))))


def embed(texts: Sequence[str], dimensions: int, pause: Callable[[], None]) -> npt.NDArray[np.float32]:
    """One row for each text. `pause` is called between slices of text, and may raise."""
    rows = np.zeros((len(texts), dimensions), np.float32)
    for row, text in zip(rows, texts, strict=True):
        counts = np.zeros(dimensions, np.int64)
        for piece in slices(text):
            _add(counts, piece)
            pause()
        total = np.abs(counts).sum()
        if total:  # else all cancelled out, which leaves the zero vector
            row[:] = np.sign(counts) * np.sqrt(np.abs(counts) / total)
    return rows


def slices(text: str) -> Iterator[str]:
    """`text` in pieces of at most `SLICE` characters, cut at blanks where there are any."""
    at = 0
    while len(text) - at > SLICE:
        end = (text.rfind(" ", at + SLICE // 2, at + SLICE) + 1) or at + SLICE
        yield text[at:end]
        at = end
    yield text[at:]


def as_tuples(rows: npt.NDArray[np.float32], pause: Callable[[], None]) -> tuple[tuple[float, ...], ...]:
    told = []
    for row in rows:
        told.append(tuple(row.tolist()))
        pause()
    return tuple(told)


def as_base64(rows: npt.NDArray[np.float32]) -> tuple[str, ...]:
    return tuple(base64.b64encode(row.astype("<f4").tobytes()).decode("ascii") for row in rows)


def _add(counts: Counts, piece: str) -> None:
    codes = _codes(piece)
    blanks = np.flatnonzero(codes == _BLANK)
    starts, ends = blanks[:-1] + 1, blanks[1:]
    bits = len(codes).bit_length()
    down = _powers(_INVERSE, bits)
    placed = (codes.astype(np.uint64) + np.uint64(1)) * _powers(_BASE, bits)[: len(codes)]
    sums = np.concatenate(([np.uint64(0)], np.cumsum(placed, dtype=np.uint64)))
    _count(counts, _hash(sums, down, starts, ends, 1), _WORD)
    _count(counts, _hash(sums, down, starts[:-1], ends[1:], 2), _PAIR)
    for length in _LENGTHS:
        first = np.arange(len(codes) - length + 1)
        inner = np.cumsum(np.concatenate(([0], codes == _BLANK)))
        crossed = inner[first + length - 1] - inner[first + 1]  # a blank at either end is the border of a word
        first = first[crossed == 0]
        _count(counts, _hash(sums, down, first, first + length, 2 + length), _RUN)


def _codes(piece: str) -> npt.NDArray[np.uint32]:
    """The characters, with one blank before, between and after the words."""
    plain = unicodedata.normalize("NFKC", piece).casefold()
    words = _NO_WORD.sub(" ", plain).strip() or plain.strip().replace(" ", "") or _EMPTY
    return np.frombuffer(f" {words} ".encode("utf-32-le", "surrogatepass"), np.dtype("<u4"))


def _hash(sums: U64, down: U64, starts: Indexes, ends: Indexes, salt: int) -> U64:
    """Of the characters from each of `starts` to its end, wherever they stand: splitmix64 of a polynomial."""
    hashed = (sums[ends] - sums[starts]) * down[starts] + np.uint64(salt * int(_BASE) & _MASK)
    hashed = (hashed ^ (hashed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashed = (hashed ^ (hashed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashed ^ (hashed >> np.uint64(31))


def _count(counts: Counts, hashes: U64, weight: int) -> None:
    buckets = ((hashes >> np.uint64(1)) % np.uint64(len(counts))).astype(np.intp)
    for sign, chosen in ((weight, hashes & np.uint64(1) == 0), (-weight, hashes & np.uint64(1) == 1)):
        counts += sign * np.bincount(buckets[chosen], minlength=len(counts))
