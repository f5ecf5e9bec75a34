"""What a decision reads of an instance at its moment. What is configured stands in the record of the generation.

A further dynamic input of `decide` is a field of `InstanceState`, a line in `take`, and a line in `StillInstance`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, cast

from pydantic import BaseModel, ConfigDict, Field

from spear.ir import Json, Operation
from spear.router._facts import Facts
from spear.router._instance import Instance
from spear.router._latency import Estimate, Timing

if TYPE_CHECKING:
    from actors import Ref
    from spear.backends import BackendMessage
    from spear.router.health import Health
    from spear.router.keys import Pool
    from spear.router.limits import Bounds

_RUNNING = "running"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class HealthState(_Part):
    """Of one that is not quiet, for the operation of the decision."""

    reason: str | None = None
    ramp: float = 1.0
    recovers_at: float | None = None
    """Where there is a reason."""


class InstanceState(_Part):
    """What is not there is as with an instance that runs, is idle, well and unknown."""

    status: str = _RUNNING
    load: int = Field(default=0, ge=0, lt=2**31)
    health: HealthState | None = None
    latency: tuple[tuple[float, float, float, float, float], ...] = ()
    """Of such calls: τ, mean, peak, at, since."""
    limited: str | None = None
    """The rate or budget that left no room for such a request."""
    ready_at: float | None = None
    """When there would be room; None = never."""
    keys: str | None = None
    """Why none of its keys could be used."""
    keys_ready_at: float | None = None
    """When one of them could be; None = never, or nobody knew."""


IDLE = InstanceState()


def take(instance: Instance, facts: Facts, now: float) -> dict[str, Json]:
    """The JSON of an `InstanceState`; empty for one in its idle state, and for one that no decision looks at."""
    if instance.reason is not None:
        return {}
    state: dict[str, Json] = {}
    if (status := instance.status) != _RUNNING:
        state["status"] = status
    if load := instance.load:
        state["load"] = load
    if not instance.health.quiet:
        state["health"] = _take_health(instance.health, facts.operation, now)
    if instance.bounds is not None and (limited := instance.limited(facts, now)) is not None:
        state["limited"] = limited
        if (ready := instance.room_at(facts, now)) < inf:
            state["ready_at"] = ready
    if (keys := instance.keys_reason(now)) is not None:
        state["keys"] = keys
        if (ready := instance.keys_ready_at(now)) < inf:
            state["keys_ready_at"] = ready
    if instance.latencies:
        timing = facts.timing
        latency = [[tau, *known] for tau in instance.taus if (known := instance.estimate(timing, tau))]
        if latency:
            state["latency"] = cast("Json", latency)
    return state


def _take_health(health: Health, operation: Operation, now: float) -> dict[str, Json]:
    reason = health.reason(operation, now)
    state: dict[str, Json] = {"reason": reason, "ramp": health.ramp(operation, now)}
    if reason is not None:
        state["recovers_at"] = health.recovers_at(operation, now)
    return state


@dataclass(frozen=True, slots=True)
class _StillActor:
    status: str


class _StillHealth:
    """What the filter asks, answered as it was answered then."""

    __slots__ = ("_state", "quiet")

    def __init__(self, state: HealthState | None) -> None:
        self.quiet = state is None
        self._state = state or HealthState()

    def reason(self, operation: Operation, now: float) -> str | None:
        return self._state.reason

    def ramp(self, operation: Operation, now: float) -> float:
        return self._state.ramp

    def recovers_at(self, operation: Operation, now: float) -> float:
        return now if self._state.recovers_at is None else self._state.recovers_at


class _StillBounds:
    """What the filter and its error ask, answered as it was answered then."""

    __slots__ = ("_state",)

    def __init__(self, state: InstanceState) -> None:
        self._state = state

    def reason(self, facts: Facts, now: float, keys_from: object = None) -> str | None:
        return self._state.limited

    def ready_at(self, facts: Facts, now: float, keys_from: object = None) -> float:
        return inf if self._state.ready_at is None else self._state.ready_at


class _StillPool:
    """The same for keys."""

    __slots__ = ("_state",)

    def __init__(self, state: InstanceState) -> None:
        self._state = state

    def reason(self, now: float) -> str | None:
        return self._state.keys

    def ready_at(self, now: float) -> float:
        return inf if self._state.keys_ready_at is None else self._state.keys_ready_at

    def usable_from(self, now: float) -> dict[str, float]:
        return {}


class StillInstance(Instance):
    """An instance with no actor behind it, in the state of a recorded moment; `stand` gives it another one."""

    __slots__ = ("_estimates",)

    def __init__(self, built: Instance) -> None:
        for name in Instance.__slots__:
            setattr(self, name, getattr(built, name))
        self.stand(IDLE)

    def stand(self, state: InstanceState) -> None:
        self.ref = cast("Ref[BackendMessage]", _StillActor(state.status))
        self.turns = cast("set[object]", range(state.load))  # only ever counted
        self.lingers = False
        self.bounds = None if state.limited is None else cast("Bounds", _StillBounds(state))
        self.pool = None if state.keys is None else cast("Pool", _StillPool(state))
        self.keys_troubled = state.keys is not None
        self.health = cast("Health", _StillHealth(state.health))
        self._estimates = {tau: Estimate(*known) for tau, *known in state.latency}

    def estimate(self, timing: Timing, tau: float) -> Estimate | None:
        return self._estimates.get(tau)
