"""Random numbers of one decision: SplitMix64, seeded with the decision's recorded seed.

Not `random.Random`: setting up its 624 words of state costs more than the rest of a small decision, and these few
lines give the same numbers on every version of Python, so that a recorded decision replays bit for bit.
"""

from __future__ import annotations

from typing import Final

_MASK: Final = (1 << 64) - 1
_STEP: Final = 0x9E3779B97F4A7C15


class Draws:
    __slots__ = ("_state",)

    def __init__(self, seed: int) -> None:
        self._state = seed & _MASK

    def bits(self) -> int:
        """64 random bits."""
        self._state = state = (self._state + _STEP) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        return state ^ (state >> 31)

    def random(self) -> float:
        """From 0 (included) to 1 (not)."""
        return (self.bits() >> 11) * 2.0**-53

    def below(self, bound: int) -> int:
        """0 to `bound` - 1. The bias is below bound / 2**64."""
        return (self.bits() * bound) >> 64
