"""How alike two texts are: a number from 0 to 1. Pure and exact.

Twice the longest common subsequence of tokens, divided by the number of tokens of both: the share of the two texts
that stands in both in the same order. A token is a word, a sign, or one character of a script without blanks between
words; blanks and case of letters do not count. Two empty texts are alike.

The subsequence is found with the bits of one long integer, a row of the usual table at a time. For the 2 000 tokens
that are compared at most all of it is some milliseconds, and it can be left every few hundred tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Final

MOST_TOKENS: Final = 2000
"""Of each text; what comes after is not compared."""
MOST_CHARS: Final = 20 * MOST_TOKENS
_STEP: Final = 250
"""Tokens between two steps: about half a millisecond."""
_SINGLE: Final = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_TOKEN: Final = re.compile(rf"[{_SINGLE}]|[^\W{_SINGLE}]+|[^\w\s]")


def similarity(one: str, other: str) -> float:
    measure = Similarity(one, other)
    for _ in measure.steps():
        pass
    return measure.value


class Similarity:
    """The same in steps, for who has more to do. `value` is there after the last of them."""

    value: float

    def __init__(self, one: str, other: str) -> None:
        self._texts = one, other
        self._ours: list[str] = []
        self._theirs: list[str] = []

    def steps(self) -> Iterator[None]:
        one, other = self._texts
        yield from _tokenize(one, self._ours)
        yield from _tokenize(other, self._theirs)
        if not self._ours and not self._theirs:
            self.value = 1.0
            return
        yield from self._align()

    def _align(self) -> Iterator[None]:
        """The length of the longest common subsequence (Hyyrö 2004): a bit of `row` that is 0 is one more of it."""
        places: dict[str, int] = {}
        for position, token in enumerate(self._ours):
            places[token] = places.get(token, 0) | (1 << position)
            if position % _STEP == 0:
                yield
        whole = (1 << len(self._ours)) - 1
        row = whole
        for number, token in enumerate(self._theirs):
            matches = row & places.get(token, 0)
            row = ((row + matches) | (row - matches)) & whole
            if number % _STEP == 0:
                yield
        common = len(self._ours) - row.bit_count()
        self.value = 2 * common / (len(self._ours) + len(self._theirs))


def is_cut(text: str) -> bool:
    """Whether only the beginning of it is compared."""
    return len(text) > MOST_CHARS or (
        len(text) > MOST_TOKENS and next(islice(_TOKEN.finditer(text), MOST_TOKENS, None), None) is not None
    )


def _tokenize(text: str, into: list[str]) -> Iterator[None]:
    for match in islice(_TOKEN.finditer(text[:MOST_CHARS].casefold()), MOST_TOKENS):
        into.append(match[0])
        if len(into) % _STEP == 0:
            yield
