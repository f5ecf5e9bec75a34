"""Outlier ejection: in a group of instances that do the same, one that stands out is left out for a while.

Two ways to stand out, both over the window and only with `eject_min_requests` outcomes: a share of failures of at least
`eject_failures`; and, where at least `eject_deviation_hosts` instances can be compared, a success rate below the mean
by `eject_deviation` standard deviations and by ten points (otherwise one failure among thousands would stand out where
nobody else has any). At most `eject_max_share` of a group is out at a time, the worst first.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import fmean
from typing import Final, NamedTuple, Protocol

from spear.config import HealthConfig

_JUDGE_EVERY_S: Final = 1.0
_FORGOTTEN_AFTER: Final = 10
"""Times the length of a first ejection in good standing."""
_LEAST_DISTANCE: Final = 0.1


class Tally(NamedTuple):
    ok: int
    failed: int

    @property
    def total(self) -> int:
        return self.ok + self.failed

    @property
    def success(self) -> float:
        return self.ok / self.total


class Ejection:
    """Of one instance. Each ejection in a row is longer than the one before, and nothing shortens one."""

    __slots__ = ("_settings", "times", "until")

    def __init__(self, settings: HealthConfig) -> None:
        self._settings = settings
        self.times = 0
        self.until = 0.0

    def tune(self, settings: HealthConfig) -> None:
        """One that is under way stays as long as it was to be."""
        self._settings = settings

    def holds(self, now: float) -> bool:
        return now < self.until

    def eject(self, now: float, jitter: float) -> None:
        settings = self._settings
        if now - self.until > _FORGOTTEN_AFTER * settings.eject_s:
            self.times = 0
        self.times += 1
        self.until = max(self.until, now + min(settings.eject_s * self.times, settings.eject_max_s) * jitter)


def outliers(tallies: Sequence[Tally], settings: HealthConfig) -> list[int]:
    """The positions of those that stand out, the worst first."""
    if len(tallies) < settings.eject_min_hosts:
        return []
    known = [p for p, tally in enumerate(tallies) if tally.total >= settings.eject_min_requests]
    out = {p for p in known if tallies[p].failed >= settings.eject_failures * tallies[p].total}
    if len(known) >= settings.eject_deviation_hosts:
        rates = [tallies[p].success for p in known]
        mean = fmean(rates)
        deviation = sqrt(fmean((rate - mean) ** 2 for rate in rates))
        least = mean - max(settings.eject_deviation * deviation, _LEAST_DISTANCE)
        out.update(p for p in known if tallies[p].success < least)
    return sorted(out, key=lambda p: (tallies[p].success, p))


class Member(Protocol):
    @property
    def ejection(self) -> Ejection: ...
    def tally(self, now: float) -> Tally: ...
    def eject(self, now: float, jitter: float) -> None: ...


class Group:
    """Instances that do the same. Judged when one of them has failed, at most once a second."""

    __slots__ = ("_members", "_next", "_settings")

    def __init__(self, members: Sequence[Member], settings: HealthConfig) -> None:
        self._members = members
        self._settings = settings
        self._next = 0.0

    def judge(self, now: float, jitter: float) -> int:
        """How many were ejected by this."""
        if now < self._next:
            return 0
        self._next = now + _JUDGE_EVERY_S
        out = sum(each.ejection.holds(now) for each in self._members)
        room = int(len(self._members) * self._settings.eject_max_share) - out
        if room <= 0:
            return 0
        nothing = Tally(0, 0)
        tallies = [nothing if each.ejection.holds(now) else each.tally(now) for each in self._members]
        found = outliers(tallies, self._settings)[:room]
        for position in found:
            self._members[position].eject(now, jitter)
        return len(found)
