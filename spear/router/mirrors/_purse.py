"""What mirroring may spend: requests a minute and, where prices are known, cost an hour. Pure.

Counted in sixty parts of the window, so that the memory is constant; a part counts until all of it is past, so that the
bound holds for every window of that length. What a call will cost is reserved by an estimate before it is sent, and
settled after it; where nobody knows what it has cost, the reservation stays.
"""

from __future__ import annotations

from collections import deque
from typing import Final

_PARTS: Final = 60
_MINUTE_S: Final = 60.0
_HOUR_S: Final = 3600.0


class Spent:
    """An amount by time, as far back as `seconds`."""

    __slots__ = ("_parts", "_width", "total")

    def __init__(self, seconds: float) -> None:
        self._width = seconds / _PARTS
        self._parts: deque[tuple[int, float]] = deque()
        self.total = 0.0

    def add(self, amount: float, now: float) -> None:
        self.look(now)
        part = int(now // self._width)
        if self._parts and self._parts[-1][0] == part:
            amount += self._parts.pop()[1]
        self._parts.append((part, amount))
        self.look(now)

    def look(self, now: float) -> float:
        oldest = int(now // self._width) - _PARTS
        while self._parts and self._parts[0][0] < oldest:
            self._parts.popleft()
        self.total = sum(amount for _, amount in self._parts)
        return self.total


class Purse:
    __slots__ = ("_cost", "_requests", "_reserved")

    def __init__(self) -> None:
        self._requests = Spent(_MINUTE_S)
        self._cost = Spent(_HOUR_S)
        self._reserved = 0.0

    def take(self, requests: int, cost: float | None, estimate: float, now: float) -> bool:
        """Whether one more may go, by the bounds `requests` a minute and `cost` an hour; then it is counted, and
        `settle` has to follow."""
        if self._requests.look(now) + 1 > requests:
            return False
        if cost is not None and self._cost.look(now) + self._reserved + estimate > cost:
            return False
        self._requests.add(1, now)
        self._reserved += estimate
        return True

    def settle(self, estimate: float, cost: float | None, now: float) -> None:
        """What was reserved with `estimate` has cost `cost`; None = nobody knows."""
        self._reserved = max(0.0, self._reserved - estimate)
        self._cost.add(estimate if cost is None else cost, now)

    def observe(self, now: float) -> dict[str, float]:
        return {
            "requests_last_minute": int(self._requests.look(now)),
            "cost_last_hour": round(self._cost.look(now), 6),
            "cost_reserved": round(self._reserved, 6),
        }
