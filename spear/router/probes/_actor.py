"""The actor that probes: one task for each probed instance and operation, as the configuration has them now."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from random import Random
from typing import Never

import trio

from actors import Actor, Context, Spec
from spear.config import Config, Probe
from spear.ir import Operation
from spear.router._desk import Desk
from spear.router._instance import Instance
from spear.router._probe import PROBED
from spear.router._retry import jitter
from spear.telemetry import Counters, get_logger

from ._asking import Outcome, ask, has_room
from ._rhythm import Rhythm, Verdict

_log = get_logger("spear.probes")
_ABOUT = "Active probes, by how they ended. Neutral says nothing of the backend."


def has_probes(config: Config) -> bool:
    return any(each.probe is not None for each in config.backends)


class Prober(Actor[Never]):
    """Follows the desk's generation by itself. Its stop cancels what is under way, which closes the connections."""

    def __init__(self, desk: Desk, counters: Counters, rng: Random | None = None) -> None:
        self._desk = desk
        self._counters = counters
        self._rng = rng or Random()
        self._watched: dict[Instance, trio.CancelScope] = {}
        self._seen: dict[Instance, Counter[str]] = {}

    @asynccontextmanager
    async def lifespan(self, ctx: Context[Never]) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow, nursery, name=f"watch of {ctx.path}")
            try:
                yield
            finally:
                nursery.cancel_scope.cancel()

    async def _follow(self, nursery: trio.Nursery) -> None:
        while True:
            instances = self._desk.generation.instances
            wanted = [each for each in instances if each.config.probe is not None and each.reason is None]
            for instance in self._watched.keys() - set(wanted):
                self._watched.pop(instance).cancel()
                del self._seen[instance]
            for instance in wanted:
                if instance not in self._watched:
                    scope = self._watched[instance] = trio.CancelScope()
                    self._seen[instance] = Counter(succeeded=0, failed=0, neutral=0, skipped=0)
                    nursery.start_soon(self._look_after, instance, scope, name=f"probes of {instance.name}")
            await self._desk.stirred.wait()

    async def _look_after(self, instance: Instance, scope: trio.CancelScope) -> None:
        with scope:
            async with trio.open_nursery() as nursery:
                for operation in PROBED:
                    if operation in instance.ops:
                        nursery.start_soon(self._probe, instance, operation)

    async def _probe(self, instance: Instance, operation: Operation) -> None:
        probe = _settings(instance)
        rhythm = Rhythm(instance, operation, probe, trio.current_time(), self._rng.random())
        before: Verdict = "succeeded"
        while True:
            now, probe = trio.current_time(), _settings(instance)
            failures = self._desk.generation.config.health.failures
            due = rhythm.due(probe, now)
            if due > now:
                with trio.move_on_at(due):
                    await self._desk.stirred.wait()
            elif not has_room(instance):
                rhythm.put_off(probe, failures, now)
                self._seen[instance]["skipped"] += 1
            else:
                outcome = await ask(instance, operation, probe, jitter(self._rng.random()))
                hint = 0 if outcome.error is None else outcome.error.retry_after_ms or 0
                rhythm.ended(probe, failures, outcome.verdict, trio.current_time(), hint / 1000)
                self._count(instance, operation, outcome, before)
                before = outcome.verdict
                if not instance.health.quiet:
                    self._desk.bell.ring()  # a breaker may have closed

    def _count(self, instance: Instance, operation: Operation, outcome: Outcome, before: Verdict) -> None:
        verdict, error = outcome
        self._seen[instance][verdict] += 1
        self._counters.counter("probes_total", _ABOUT, backend=instance.name, outcome=verdict).add()
        if verdict == before:
            return
        about = {"backend": instance.name, "operation": operation.value}
        if verdict == "succeeded":
            _log.info("probe_succeeded", **about)
        elif error is not None:
            _log.warning(f"probe_{verdict}", **about, code=error.code.value, message=error.message)

    def observe(self) -> Mapping[str, object]:
        return {instance.name: dict(seen) for instance, seen in self._seen.items()}


def _settings(instance: Instance) -> Probe:
    """Where they were taken away, for the moment until its task is cancelled, the last default."""
    return instance.config.probe or Probe()


def prober_spec(desk: Desk, counters: Counters, *, rng: Random | None = None) -> Spec[Never]:
    """`rng` says when the first probes are sent."""
    return Spec(name="probes", factory=partial(Prober, desk, counters, rng))
