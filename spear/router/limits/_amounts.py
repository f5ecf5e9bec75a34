"""How much one attempt takes: estimated before it is sent, known or estimated better after it."""

from __future__ import annotations

from collections import deque
from math import ceil
from typing import Final, NamedTuple

from spear.config import Price

_PER: Final = 1_000_000
DEFAULT_OUTPUT_TOKENS: Final = 256
"""Expected of an answer where nobody has limited it and nothing has been learned."""
_ENOUGH: Final = 20
_KEPT: Final = 128
_STALE: Final = 8


class Amounts(NamedTuple):
    """By the quantities of a quota. `tokens` is input and output; `cost` in the currency of the prices."""

    requests: float
    input_tokens: float
    output_tokens: float
    tokens: float
    cost: float


NOTHING: Final = Amounts(0, 0, 0, 0, 0)
ASKED: Final = Amounts(1, 0, 0, 0, 0)
"""The backend was asked, and refused before any work."""
POSITION: Final = {name: position for position, name in enumerate(Amounts._fields)}


def amounts_of(input_tokens: float, output_tokens: float, price: Price | None) -> Amounts:
    return Amounts(*expected_of(input_tokens, output_tokens, price))


def expected_of(input_tokens: float, output_tokens: float, price: Price | None) -> tuple[float, ...]:
    """The same without the names: a decision makes one for each candidate."""
    cost = 0.0 if price is None else (input_tokens * price.input + output_tokens * price.output) / _PER
    return 1, input_tokens, output_tokens, input_tokens + output_tokens, cost


class Outputs:
    """How long the answers of one backend to one operation have lately been: the 95th percentile of the last ones."""

    __slots__ = ("_p95", "_sizes", "_unseen")

    def __init__(self) -> None:
        self._sizes: deque[float] = deque(maxlen=_KEPT)
        self._p95 = float(DEFAULT_OUTPUT_TOKENS)
        self._unseen = 0

    def learn(self, tokens: float) -> None:
        self._sizes.append(tokens)
        self._unseen += 1
        if len(self._sizes) >= _ENOUGH and (self._unseen >= _STALE or len(self._sizes) == _ENOUGH):
            self._unseen = 0
            self._p95 = sorted(self._sizes)[ceil(0.95 * len(self._sizes)) - 1]

    @property
    def expected(self) -> float:
        return self._p95
