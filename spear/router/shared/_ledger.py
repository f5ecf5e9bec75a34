"""What one process has used in a window that slides in sixtieths."""

from __future__ import annotations

from collections import deque
from math import floor, inf
from typing import Final

SLICES: Final = 60


class Ledger:
    __slots__ = ("_slice", "_slices")

    def __init__(self, period: float) -> None:
        self._slice = period / SLICES
        self._slices: deque[list[float]] = deque()  # of [number, amount], oldest first

    def used(self, now: float) -> float:
        oldest = floor(now / self._slice) - SLICES
        return sum(amount for number, amount in self._slices if number >= oldest)

    def take(self, amount: float, now: float) -> None:
        number = floor(now / self._slice)
        slices = self._slices
        while slices and slices[0][0] < number - SLICES:
            slices.popleft()
        if slices and slices[-1][0] >= number:
            slices[-1][1] += amount
        else:
            slices.append([number, amount])

    def give_back(self, amount: float, since: float) -> None:
        """Of what was taken at `since`."""
        number = floor(since / self._slice)
        for each in self._slices:
            if each[0] == number:
                each[1] = max(0.0, each[1] - amount)

    def ready_at(self, amount: float, limit: float, now: float) -> float:
        """When `amount` more will be within `limit`, if nothing else is taken; infinity = never."""
        used, oldest = self.used(now), floor(now / self._slice) - SLICES
        if amount > limit:
            return inf
        ready = now
        for number, taken in self._slices:
            if used + amount <= limit:
                break
            if number >= oldest:
                used -= taken
                ready = (number + SLICES + 1) * self._slice
        return ready
