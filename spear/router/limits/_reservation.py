"""What one attempt has taken, of every meter that it concerns; settled exactly once."""

from __future__ import annotations

from spear.router._facts import Facts

from ._amounts import NOTHING, POSITION, Amounts
from ._meter import Meter, Quantity


class Admitted:
    """What somebody's meters admitted `last`, since when nothing was taken from them or settled."""

    __slots__ = ("last",)

    def __init__(self) -> None:
        self.last: Facts | None = None


class Reservation:
    """`amounts` is the estimate that it was made by, at `since` on Trio's clock; `admitted` ends with its own end."""

    __slots__ = ("_admitted", "_lines", "amounts", "open", "since")

    def __init__(self, amounts: Amounts, since: float, admitted: Admitted | None = None) -> None:
        self._admitted = admitted
        self.amounts = amounts
        self.since = since
        self.open = True
        self._lines: list[tuple[Meter, int]] = []

    def add(self, meter: Meter, quantity: Quantity) -> None:
        """Take this attempt's share of `quantity` from `meter`."""
        position = POSITION[quantity]
        meter.reserve(self.amounts[position], self.since)
        self._lines.append((meter, position))

    def settle(self, used: Amounts, now: float) -> None:
        """The attempt came to `used`. A second time is a bug."""
        assert self.open, "settled twice"
        self.open = False
        if self._admitted is not None:
            self._admitted.last = None
        for meter, position in self._lines:
            meter.settle(self.amounts[position], used[position], self.since, now)

    def refund(self, now: float) -> None:
        """Nothing was sent."""
        self.settle(NOTHING, now)

    def keep(self, now: float) -> None:
        """Nobody knows what it came to: all of it counts as used."""
        self.settle(self.amounts, now)
