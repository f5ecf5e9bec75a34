"""The same scenario twice: simulated, and in real time with real servers on loopback that draw the same numbers."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import trio

import spear
from spear.secrets import Secret
from spear.simulate import Scenario, run_variant
from spear.simulate._drive import Drive
from spear.simulate._run import router_counts
from spear.simulate._tally import Tally
from spear.simulate._traffic import arrivals
from tests.system.twin_server import TwinServer

_BEAT_S = 0.01
_STALL_S = 0.1
_TRIES = 4
"""A machine that stands still for longer says nothing about servers: then once more, so often at most."""


@dataclass(frozen=True)
class Twin:
    """What came of it, as `run_variant` says it; `real["backends"]` has the shares, and what the servers counted as
    failed."""

    simulated: dict[str, Any]
    real: dict[str, Any]

    def ratio(self, name: str) -> float:
        """Real to simulated."""
        return self.real["latency"][name] / self.simulated["latency"][name]

    def share_gap(self) -> float:
        """The largest difference of a backend's share of the answers."""
        both = zip(self.simulated["backends"].values(), self.real["backends"].values(), strict=True)
        return max(abs(one["share"] - other["share"]) for one, other in both)

    def failed(self, kind: str) -> tuple[int, int]:
        """At all backends: simulated, real."""
        both = (sum(each["failed"].get(kind, 0) for each in one["backends"].values())
                for one in (self.simulated, self.real))  # fmt: skip
        return next(both), next(both)

    def extra(self) -> tuple[float, float]:
        """Attempts beyond the first, for each request: simulated, real."""
        found = [each["router"]["attempts"] / each["arrivals"] - 1 for each in (self.simulated, self.real)]
        return found[0], found[1]


def run_twin(scenario: Scenario, variant: str) -> Twin:
    """Takes as long as its traffic. Latency, errors, one rate limit for all keys, and backends that refuse connections
    for a while: that is what the servers can play."""
    simulated = run_variant(scenario, variant)
    for _ in range(_TRIES):
        real, late = trio.run(_real, scenario, variant)
        if late < _STALL_S:
            break
    return Twin(simulated, real)


async def _real(scenario: Scenario, variant: str) -> tuple[dict[str, Any], float]:
    """And by how much the processor was late, at worst."""
    clock = _Metronome()
    config = scenario.variant(variant).config
    tally = Tally()
    servers = [TwinServer(each, scenario.seed) for each in scenario.behaviours]
    async with AsyncExitStack() as stack:
        backends = []
        for server, backend in zip(servers, config.backends, strict=True):
            await stack.enter_async_context(server.serving())
            backends.append(backend.model_copy(update={"base_url": Secret(server.base_url)}))
        real = config.model_copy(update={"backends": tuple(backends)})
        runtime = await stack.enter_async_context(spear.open_runtime(real, seed=1))
        drive = Drive(runtime, scenario.traffic, tally, {})
        coming = arrivals(scenario.traffic, scenario.seed, requests=scenario.requests, duration=scenario.duration)
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            for server in servers:
                nursery.start_soon(server.play, start)
            nursery.start_soon(clock.beat)
            await drive.run(coming, start)
            nursery.cancel_scope.cancel()
        counts = router_counts(runtime)
    result = tally.result([], counts)
    found = {
        each.name: {"share": tally.shares.get(each.name, 0) / tally.ok, "failed": server.failed}
        for each, server in zip(config.backends, servers, strict=True)
    }
    return {**result, "backends": found}, clock.late


class _Metronome:
    def __init__(self) -> None:
        self.late = 0.0

    async def beat(self) -> None:
        while True:
            due = trio.current_time() + _BEAT_S
            await trio.sleep_until(due)
            self.late = max(self.late, trio.current_time() - due)
