"""A budget: so much in any window of the given length.

The window slides in slices of a sixtieth. What was used counts for the whole window and up to one slice longer, so that
in no window more than the limit is used, by the times of the reservations.
"""

from __future__ import annotations

from collections import deque
from math import floor, inf, nextafter
from typing import Final

from ._meter import Quota

_SLICES: Final = 60
_ROUNDING: Final = 1e-9


class Window:
    __slots__ = ("_most", "_slice", "_slices", "_used", "limit")

    def __init__(self, quota: Quota) -> None:
        self.limit = quota.limit
        self._most = quota.limit * (1 + _ROUNDING)
        self._slice = quota.period / _SLICES
        self._slices: deque[list[float]] = deque()  # of [number, amount], oldest first
        self._used = 0.0

    def admits(self, amount: float, now: float) -> bool:
        return self._counts(now) + amount <= self._most

    def ready_at(self, amount: float, now: float) -> float:
        """An amount that is still reserved counts as used."""
        if amount > self._most:
            return inf
        used, ready, oldest = self._counts(now), now, self._oldest(now)
        for number, taken in self._slices:
            if used + amount <= self._most:
                break
            if number >= oldest:
                used -= taken
                ready = self._ends(number)
        return ready

    def reserve(self, amount: float, now: float) -> None:
        self._forget(now)
        self._take(amount, now)

    def settle(self, reserved: float, used: float, since: float, now: float) -> None:
        self._forget(now)
        if used > reserved:
            self._take(used - reserved, now)
            return
        number = floor(since / self._slice)
        for each in self._slices:
            if each[0] == number:
                back = min(reserved - used, each[1])
                each[1] -= back
                self._used -= back
                return

    def remaining(self, now: float) -> float:
        return max(0.0, self.limit - self._counts(now))

    def _counts(self, now: float) -> float:
        """What was used in the window that ends now. Changes nothing."""
        used, oldest = self._used, self._oldest(now)
        for number, taken in self._slices:
            if number >= oldest:
                return used
            used -= taken
        return 0.0

    def _oldest(self, now: float) -> int:
        """The number of the first slice that counts."""
        return floor(now / self._slice) - _SLICES

    def _take(self, amount: float, now: float) -> None:
        if amount <= 0:
            return
        number = floor(now / self._slice)
        if self._slices and self._slices[-1][0] >= number:
            self._slices[-1][1] += amount
        else:
            self._slices.append([number, amount])
        self._used += amount

    def _forget(self, now: float) -> None:
        slices, oldest = self._slices, self._oldest(now)
        while slices and slices[0][0] < oldest:
            self._used -= slices.popleft()[1]
        if not slices:
            self._used = 0.0  # whatever rounding had left

    def _ends(self, number: float) -> float:
        """When slice `number` is forgotten."""
        last = number + _SLICES + 1
        end = last * self._slice
        while floor(end / self._slice) < last:
            end = nextafter(end, inf)
        return end
