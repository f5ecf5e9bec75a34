"""One limit as an attempt meets it: which meter, and why it says no."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from math import inf
from typing import Final, NamedTuple, Protocol

from spear.ir import Operation
from spear.router._facts import Facts

from ._meter import Meter, MeterFactory, Quota

MOST_SUBJECTS: Final = 10_000
"""Of one budget: those that come later, while all of these have used something, share one more."""
_SWEEPS: Final = 60
_SWEEP_S: Final = 1.0
_LOOKS: Final = 500
"""At meters at a time: all of them at once would be some hundredths of a second."""

Who = Callable[[Facts], str | None]
"""Whose budget a request draws on; None = nobody's."""


class Scope(NamedTuple):
    """Which requests a limit is for; None = all."""

    operation: Operation | None = None
    task: str | None = None

    def covers(self, facts: Facts) -> bool:
        task = None if facts.mirrored else facts.task_id
        return self.operation in {None, facts.operation} and self.task in {None, task}


class Allowance(Protocol):
    """`reason` is what stands in a plan's rejected reasons."""

    @property
    def reason(self) -> str: ...

    @property
    def quota(self) -> Quota: ...

    def covers(self, facts: Facts) -> bool: ...

    def admits(self, facts: Facts, amount: float, now: float) -> bool: ...

    def ready_at(self, facts: Facts, amount: float, now: float) -> float: ...

    def remaining(self, facts: Facts, now: float) -> float: ...

    def meter(self, facts: Facts, now: float) -> Meter:
        """To reserve from."""
        ...


class Single:
    """For one subject, which is known beforehand."""

    __slots__ = ("_meter", "_scope", "quota", "reason")

    def __init__(self, reason: str, quota: Quota, meter: Meter, scope: Scope | None = None) -> None:
        self.reason = reason
        self.quota = quota
        self._meter = meter
        self._scope = scope  # of a budget; the limits of a backend or a key are for all that it is asked

    @property
    def the_meter(self) -> Meter:
        return self._meter

    @property
    def unconditional(self) -> bool:
        """Covers every request."""
        return self._scope is None or self._scope == Scope()

    @property
    def budget(self) -> bool:
        return self._scope is not None

    def left(self, now: float) -> float:
        return self._meter.remaining(now)

    def covers(self, facts: Facts) -> bool:
        return self._scope is None or self._scope.covers(facts)

    def admits(self, facts: Facts, amount: float, now: float) -> bool:
        return self._meter.admits(amount, now)

    def ready_at(self, facts: Facts, amount: float, now: float) -> float:
        return self._meter.ready_at(amount, now)

    def remaining(self, facts: Facts, now: float) -> float:
        return self._meter.remaining(now)

    def meter(self, facts: Facts, now: float) -> Meter:
        return self._meter


class PerSubject:
    """A meter for each of those that `who` tells apart, made when it first uses something. At most `most`: a meter is
    forgotten only when nothing of it counts any more, so that nobody regains a budget by being forgotten."""

    __slots__ = ("_factory", "_full_until", "_meters", "_most", "_rest", "_scope", "_who", "quota", "reason")

    def __init__(
        self,
        reason: str,
        quota: Quota,
        factory: MeterFactory,
        who: Who,
        scope: Scope,
        *,
        most: int = MOST_SUBJECTS,
    ) -> None:
        self.reason = reason
        self.quota = quota
        self._factory = factory
        self._who = who
        self._scope = scope
        self._most = most
        self._meters: dict[str, Meter] = {}
        self._rest: Meter | None = None
        self._full_until = -inf

    def __len__(self) -> int:
        return len(self._meters)

    def covers(self, facts: Facts) -> bool:
        return self._who(facts) is not None and self._scope.covers(facts)

    def admits(self, facts: Facts, amount: float, now: float) -> bool:
        meter = self._find(facts, now)
        return amount <= self.quota.limit if meter is None else meter.admits(amount, now)

    def ready_at(self, facts: Facts, amount: float, now: float) -> float:
        meter = self._find(facts, now)
        if meter is None:
            return now if amount <= self.quota.limit else inf
        return meter.ready_at(amount, now)

    def remaining(self, facts: Facts, now: float) -> float:
        meter = self._find(facts, now)
        return self.quota.limit if meter is None else meter.remaining(now)

    def meter(self, facts: Facts, now: float) -> Meter:
        found = self._find(facts, now)
        if found is None:
            subject = self._who(facts) or ""
            found = self._meters[subject] = self._make(subject)
        return found

    def lowest(self, now: float, most: int) -> dict[str, float]:
        """What remains to those who have least left."""
        left = {subject: meter.remaining(now) for subject, meter in self._meters.items()}
        return dict(sorted(left.items(), key=lambda item: item[1])[:most])

    def _find(self, facts: Facts, now: float) -> Meter | None:
        """None = has used nothing, and there is room for it."""
        found = self._meters.get(self._who(facts) or "")
        if found is not None or len(self._meters) < self._most or self._swept(now):
            return found
        if self._rest is None:
            self._rest = self._make("*")
        return self._rest

    def _swept(self, now: float) -> bool:
        """Forget the meters that are as good as new; True where that made room. A few at a time, those that were not
        looked at for longest, and not in every request: all of them in a sixtieth of the period."""
        if now < self._full_until:
            return False
        meters, looks = self._meters, min(_LOOKS, len(self._meters))
        self._full_until = now + max(self.quota.period / _SWEEPS, _SWEEP_S) * looks / len(meters)
        for subject in list(islice(meters, looks)):
            meter = meters.pop(subject)
            if meter.remaining(now) < self.quota.limit:
                meters[subject] = meter
        return len(meters) < self._most

    def _make(self, subject: str) -> Meter:
        return self._factory(self.quota._replace(subject=f"{self.quota.subject}:{subject}"))
