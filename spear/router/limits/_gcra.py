"""A rate: so much per period, refilled continuously, up to a burst of one period's worth.

The generic cell rate algorithm, kept as a debt that drains: a reservation is admitted while the debt stays within the
burst. In no interval of length t is more used than `limit * (1 + t / period)`, by the times of the reservations.

A reservation that is given back later would be worth too much if it were just subtracted: what had drained by itself
since then is refilled already. The debt without it is lower by the whole of it only as long as the debt never fell
below that in between (the reflection at zero), so that the lows of the debt are kept, a bounded number of them.
"""

from __future__ import annotations

from bisect import bisect_right
from math import inf
from typing import Final

from ._meter import Quota

_MOST_LOWS: Final = 64
_ROUNDING: Final = 1e-9
"""Of the limit: what sums of fractions may be off by."""


class Gcra:
    __slots__ = ("_at", "_debt", "_lows", "_most", "_rate", "_times", "limit")

    def __init__(self, quota: Quota) -> None:
        self.limit = quota.limit
        self._rate = quota.limit / quota.period
        self._most = quota.limit * (1 + _ROUNDING)
        self._debt = 0.0  # as of _at
        self._at = 0.0
        # The debt just before later reservations, rising with time: lows that a later, lower one made void are gone.
        self._times: list[float] = []
        self._lows: list[float] = []

    def admits(self, amount: float, now: float) -> bool:
        debt = self._debt - (now - self._at) * self._rate
        return (debt + amount if debt > 0 else amount) <= self._most

    def ready_at(self, amount: float, now: float) -> float:
        if amount > self._most:
            return inf
        beyond = self._owed(now) + amount - self.limit
        return now if beyond <= self.limit * _ROUNDING else now + beyond / self._rate

    def reserve(self, amount: float, now: float) -> None:
        self._drain(now)
        self._debt += amount

    def settle(self, reserved: float, used: float, since: float, now: float) -> None:
        self._drain(now)
        if used >= reserved:
            self._debt += used - reserved
            return
        times, lows = self._times, self._lows
        first = bisect_right(times, since)
        back = min(reserved - used, lows[first] if first < len(lows) else self._debt)
        self._debt -= back
        for position in range(first, len(lows)):
            lows[position] -= back
        while 0 < first < len(lows) and lows[first - 1] >= lows[first]:
            first -= 1
            del times[first], lows[first]

    def remaining(self, now: float) -> float:
        return max(0.0, self.limit - self._owed(now))

    def _owed(self, now: float) -> float:
        return max(0.0, self._debt - max(0.0, now - self._at) * self._rate)

    def _drain(self, now: float) -> None:
        """Up to now, and note how low it came."""
        low, times, lows = self._owed(now), self._times, self._lows
        self._debt, self._at = low, max(self._at, now)
        while lows and lows[-1] >= low:
            times.pop()
            lows.pop()
        times.append(self._at)
        lows.append(low)
        if len(lows) > _MOST_LOWS:  # as if the lower of the first two had lasted: gives back less, never more
            del times[0], lows[1]
