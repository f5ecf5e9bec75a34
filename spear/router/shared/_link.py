"""What the meters of a process and the actor with the connection know together. Outlives both."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from spear.config import RedisConfig
from spear.router.limits import Meter, Quota

if TYPE_CHECKING:
    from ._meter import SharedMeter

MOST_AWAKE: Final = 1000
"""Meters that are kept in step with Redis; of more, those that were used last."""


class Link:
    """`leasing`: Redis answers, and leases count. Otherwise each process has its share: the limit by `nodes`, those
    that were last seen alive."""

    __slots__ = ("_least", "awake", "born", "lease_s", "leasing", "nodes", "on_wake", "reconciled")

    def __init__(self, config: RedisConfig) -> None:
        self.lease_s = config.lease_s
        self.nodes = self._least = config.nodes
        self.leasing = False
        self.born: str | None = None
        """Names the data in Redis; another name means that what was there is lost."""
        self.reconciled = 0
        self.awake: dict[SharedMeter, None] = {}
        """Those that have a lease or want one."""
        self.on_wake: Callable[[], None] | None = None

    def meter(self, quota: Quota) -> Meter:
        """A `MeterFactory`."""
        from ._meter import SharedMeter

        made = SharedMeter(quota, self)
        self.wake(made)
        return made

    def wake(self, meter: SharedMeter) -> None:
        """It wants more than it has."""
        self.awake[meter] = None
        if self.on_wake is not None:
            self.on_wake()

    def heard(self, nodes: int, now: float, *, hold: bool) -> bool:
        """An answer came. `hold`: nothing is leased, since the data is young and not everybody was heard of. True where
        leases begin with it."""
        self.nodes = max(nodes, self.nodes) if hold else max(nodes, self._least)
        if hold:
            self.lost(now)
            return False
        began, self.leasing = not self.leasing, True
        return began

    def lost(self, now: float) -> None:
        """Redis does not answer, or has nothing to lease for the moment."""
        if self.leasing:
            self.leasing = False
            for meter in self.awake:
                meter.unleashed(now)

    def reborn(self, born: str, now: float) -> bool:
        """Redis names its data. True where what this process knew there is lost: it has to be told everything."""
        if self.born == born:
            return False
        fresh, self.born = self.born is None, born
        if fresh:
            return False
        self.reconciled += 1
        self.lost(now)
        for meter in self.awake:
            meter.forgotten(now)
        return True
