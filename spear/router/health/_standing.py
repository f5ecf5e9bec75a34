"""The standing of one instance: its breakers, its ejection, and its slow start after either.

What the filter asks (`quiet`, `reason`, `recovers_at`, `ramp`) changes nothing; what the attempt loop reports (`begin`,
`settle`) does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final, Literal, Protocol

from spear.config import HealthConfig
from spear.ir import Operation

from ._breaker import Breaker, Trial
from ._outlier import Ejection, Group, Tally
from ._window import Window

BREAKER_OPEN: Final = "breaker_open"
HALF_OPEN: Final = "breaker_half_open"
"""Its one probe is under way."""
EJECTED: Final = "ejected"
_LEAST_RAMP: Final = 0.1

Verdict = Literal["succeeded", "proved", "failed", "neutral"]
"""`proved`: a stream began to answer. `neutral`: says nothing about the instance."""


class Health:
    """`quiet` is True while there is nothing to ask: no breaker but closed ones, no ejection, no slow start."""

    __slots__ = ("_breakers", "_outcomes", "_settings", "ejection", "group", "quiet")

    def __init__(self, settings: HealthConfig) -> None:
        self._settings = settings
        self._breakers: dict[Operation, Breaker] = {}
        self._outcomes = Window(settings.window_s)
        self.ejection = Ejection(settings)
        self.group: Group | None = None
        self.quiet = True

    def tune(self, settings: HealthConfig) -> None:
        """Other settings, for what happens from here on: who is left out now stays so. Turned off, all is forgotten."""
        if settings == self._settings:
            return
        self._settings = settings
        self._outcomes.tune(settings.window_s)
        self.ejection.tune(settings)
        for breaker in self._breakers.values():
            breaker.tune(settings)
        if not settings.enabled:
            self._breakers.clear()
            self._outcomes.clear()
            self.ejection = Ejection(settings)
            self.quiet = True

    # --- asking ---------------------------------------------------------------------------------------------

    def reason(self, operation: Operation, now: float) -> str | None:
        """Why it is left out; None = it is not."""
        if self.ejection.holds(now):
            return EJECTED
        breaker = self._breakers.get(operation)
        if breaker is None or breaker.admits(now):
            return None
        return BREAKER_OPEN if breaker.state(now) == "open" else HALF_OPEN

    def recovers_at(self, operation: Operation, now: float) -> float:
        """Where there is a reason: when to look again, which is after `now`."""
        at = self.ejection.until if self.ejection.holds(now) else -math.inf
        breaker = self._breakers.get(operation)
        if breaker is not None and not breaker.admits(now):
            at = max(at, breaker.recovers_at(now))
        return at

    def recovering(self, operation: Operation, now: float) -> bool:
        """Its breaker is half-open, and nobody is trying it."""
        breaker = self._breakers.get(operation)
        return breaker is not None and not breaker.closed and breaker.admits(now)

    def succeeded_at(self, operation: Operation) -> float:
        """When a request was answered last; -inf where none is known to have been."""
        breaker = self._breakers.get(operation)
        return -math.inf if breaker is None else breaker.succeeded_at

    def ramp(self, operation: Operation, now: float) -> float:
        """The part of its share that it gets: from a tenth right after its recovery to 1."""
        breaker = self._breakers.get(operation)
        since = self._recovered_at(() if breaker is None else (breaker,))
        return 1.0 if now >= since + self._settings.slow_start_s else self._ramp(now - since)

    def _ramp(self, elapsed: float) -> float:
        slow_start = self._settings.slow_start_s
        return max(_LEAST_RAMP, elapsed / slow_start) if slow_start else 1.0  # asked of one that is still ejected

    def _recovered_at(self, breakers: Iterable[Breaker]) -> float:
        at = self.ejection.until if self.ejection.times else -math.inf
        for breaker in breakers:
            if breaker.closed and breaker.closed_at is not None:
                at = max(at, breaker.closed_at)
        return at

    def observe(self, now: float) -> Mapping[str, object]:
        """`state` is the worst of it all."""
        breakers = {operation.value: each.state(now) for operation, each in self._breakers.items()}
        ramp = min((self.ramp(operation, now) for operation in self._breakers), default=1.0)
        return {
            "state": self.state(now),
            "breakers": breakers,
            "opened": sum(each.opened for each in self._breakers.values()),
            "ejections": self.ejection.times,
            "ramp": round(ramp, 3),
        }

    def state(self, now: float) -> str:
        """For people: `ok`, `ejected`, `breaker_open`, `breaker_half_open` or `slow_start`."""
        if self.quiet:
            return "ok"
        if self.ejection.holds(now):
            return EJECTED
        states = {each.state(now) for each in self._breakers.values()}
        if "open" in states:
            return BREAKER_OPEN
        if "half_open" in states:
            return HALF_OPEN
        since = self._recovered_at(self._breakers.values())
        return "slow_start" if now < since + self._settings.slow_start_s else "ok"

    # --- reporting --------------------------------------------------------------------------------------------

    def begin(self, operation: Operation, now: float, jitter: float) -> Trial | None:
        """A request is sent. None where health is turned off."""
        if not self._settings.enabled:
            return None
        breaker = self._breakers.get(operation)
        if breaker is None:
            breaker = self._breakers[operation] = Breaker(self._settings)
        return breaker.begin(now, jitter)

    def settle(self, trial: Trial | None, verdict: Verdict, now: float, jitter: float) -> None:
        if trial is None or not self._settings.enabled:  # turned off meanwhile
            return
        breaker = trial.breaker
        match verdict:
            case "succeeded":
                self._outcomes.add(True, now)
                breaker.succeeded(trial, now)
            case "proved":
                breaker.proved(trial, now)
            case "neutral":
                breaker.neutral(trial, now)
            case "failed":
                self._outcomes.add(False, now)
                breaker.failed(trial, now, jitter)
                if self.group is not None:
                    self.group.judge(now, jitter)
        if not self.quiet or not breaker.closed:
            self._listen(now)

    def probed(
        self, trial: Trial, verdict: Literal["succeeded", "failed", "neutral"], now: float, jitter: float
    ) -> None:
        """How an active probe ended. Only breakers hear of it: ejection compares what callers' requests came to."""
        if not self._settings.enabled:
            return
        if verdict == "neutral":
            trial.breaker.neutral(trial, now)
        else:
            trial.breaker.probed(trial, verdict == "succeeded", now, jitter)
        if not self.quiet or not trial.breaker.closed:
            self._listen(now)

    def tally(self, now: float) -> Tally:
        self._outcomes.expire(now)
        return Tally(self._outcomes.ok, self._outcomes.failed)

    def eject(self, now: float, jitter: float) -> None:
        self.ejection.eject(now, jitter)
        self._outcomes.clear()  # what put it out must not put it out again when it is back
        self.quiet = False

    def _listen(self, now: float) -> None:
        breakers = self._breakers.values()
        self.quiet = (
            all(each.closed for each in breakers)
            and not self.ejection.holds(now)
            and now >= self._recovered_at(breakers) + self._settings.slow_start_s
        )


class Grouped(Protocol):
    @property
    def health(self) -> Health: ...
    @property
    def group_name(self) -> str: ...


def form_groups(instances: Iterable[Grouped], settings: HealthConfig) -> None:
    """Instances of the same model class are compared with each other."""
    groups: dict[str, list[Health]] = {}
    for each in instances:
        groups.setdefault(each.group_name, []).append(each.health)
    for members in groups.values():
        group = Group(tuple(members), settings)
        for health in members:
            health.group = group
