"""When the next probe of one instance and operation is due. Arithmetic; the time is given."""

from __future__ import annotations

import math
from typing import Final, Literal

from spear.config import Probe
from spear.ir import Operation
from spear.router._instance import Instance

_MOST_TIMES_AS_OFTEN: Final = 10
Verdict = Literal["succeeded", "failed", "neutral"]


class Rhythm:
    """`every` after the last success, of a request or a probe. After a failed probe, and while the breaker is
    half-open, `failures` times as often (at most ten times), so that twice `every` is enough to find out whether the
    backend is down. An instance that is left out is left alone until it may be asked again. `phase`, from 0 to 1, is
    the part of `every` that passes before the first one."""

    __slots__ = ("_instance", "_last", "_not_before", "_operation", "_pressing")

    def __init__(self, instance: Instance, operation: Operation, probe: Probe, now: float, phase: float) -> None:
        self._instance = instance
        self._operation = operation
        self._last = now - probe.every * (1 - phase)
        self._not_before = -math.inf
        self._pressing = False

    def due(self, probe: Probe, now: float) -> float:
        """At or before `now`: one is due. inf = none until something changes."""
        instance, operation = self._instance, self._operation
        if instance.weight == 0:
            return math.inf  # drained: it gets nothing
        health = instance.health
        succeeded = health.succeeded_at(operation)
        if health.reason(operation, now) is not None:
            due = health.recovers_at(operation, now)
        elif health.recovering(operation, now) or (self._pressing and succeeded <= self._last):
            due = now
        else:
            due = max(self._last, succeeded) + probe.every
        return max(due, self._not_before)

    def ended(self, probe: Probe, failures: int, verdict: Verdict, now: float, retry_after_s: float = 0.0) -> None:
        self._last = now
        self._pressing = verdict == "failed"
        wait = probe.every if verdict == "neutral" else _short(probe, failures)
        self._not_before = now + max(wait, retry_after_s)

    def put_off(self, probe: Probe, failures: int, now: float) -> None:
        """There was no room for it."""
        self._not_before = now + _short(probe, failures)


def _short(probe: Probe, failures: int) -> float:
    return probe.every / min(failures, _MOST_TIMES_AS_OFTEN)
