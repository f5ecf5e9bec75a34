"""How long to wait before a restart. Pure: no clock, no trio."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

__all__ = ["Backoff"]


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential delays, in seconds, spread by `jitter` (0.2 = up to 20 % more or less).

    The count of failures starts again once an incarnation has run for `reset_after` seconds.
    """

    first: float = 0.1
    factor: float = 2.0
    limit: float = 30.0
    jitter: float = 0.2
    reset_after: float = 60.0

    def __post_init__(self) -> None:
        for name in ("first", "limit", "reset_after"):
            value = getattr(self, name)
            if not (0 <= value < math.inf):
                raise ValueError(f"Backoff.{name} is a finite number of seconds, 0 or more; got {value!r}")
        if not (1 <= self.factor < math.inf):
            raise ValueError(f"Backoff.factor is finite and at least 1; got {self.factor!r}")
        if not (0 <= self.jitter <= 1):
            raise ValueError(f"Backoff.jitter lies between 0 and 1; got {self.jitter!r}")

    def delay(self, failures: int, rng: Random) -> float:
        """The wait after the `failures`-th failure in a row (1 = the first)."""
        if failures < 1:
            raise ValueError(f"failures counts from 1; got {failures}")
        try:
            plain = min(self.limit, self.first * self.factor ** (failures - 1))
        except OverflowError:
            plain = self.limit if self.first else 0.0
        return plain * (1 + self.jitter * (2 * rng.random() - 1))
