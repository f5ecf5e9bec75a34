"""The same scenario twice: simulated, and in real time with real servers on loopback that draw the same numbers."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from random import Random
from typing import Any

import trio

import spear
from spear.secrets import Secret
from spear.simulate import Scenario, run_variant
from spear.simulate._drive import Drive
from spear.simulate._run import router_counts
from spear.simulate._scenario import Behaviour
from spear.simulate._tally import Tally
from spear.simulate._traffic import arrivals
from tests.servers._behaviour import Behaviour as Answer
from tests.servers.fault_server import FaultServer


@dataclass(frozen=True)
class Twin:
    """What came of it, as `run_variant` says it; `real["backends"]` has the shares only."""

    simulated: dict[str, Any]
    real: dict[str, Any]

    def ratio(self, name: str) -> float:
        """Real to simulated."""
        return self.real["latency"][name] / self.simulated["latency"][name]

    def share_gap(self) -> float:
        """The largest difference of a backend's share of the answers."""
        both = zip(self.simulated["backends"].values(), self.real["backends"].values(), strict=True)
        return max(abs(one["share"] - other["share"]) for one, other in both)

    def extra(self) -> tuple[float, float]:
        """Attempts beyond the first, for each request: simulated, real."""
        found = [each["router"]["attempts"] / each["arrivals"] - 1 for each in (self.simulated, self.real)]
        return found[0], found[1]


def script(behaviour: Behaviour, seed: int, calls: int) -> list[Answer]:
    """One answer after the other as the model would draw them, in its order: first whether it fails, then how long."""
    rng, draw = Random(f"{seed}:backend:{behaviour.name}"), behaviour.latency.draws()
    answers = []
    for _ in range(calls):
        errors = behaviour.errors
        if errors is not None and rng.random() < errors.share:
            answer = Answer(status=500, delay=errors.after)
        else:
            answer = Answer(delay=draw(rng))
        answers.append(answer)
    return answers


def run_twin(scenario: Scenario, variant: str) -> Twin:
    """Takes as long as its traffic. Latency, errors and plain arrivals only: that is what the servers can play."""
    simulated = run_variant(scenario, variant)
    return Twin(simulated, trio.run(_real, scenario, variant))


async def _real(scenario: Scenario, variant: str) -> dict[str, Any]:
    config = scenario.variant(variant).config
    tally = Tally()
    with ExitStack() as stack:
        backends = []
        for behaviour, backend in zip(scenario.behaviours, config.backends, strict=True):
            server = stack.enter_context(FaultServer(name=behaviour.name))
            for answer in script(behaviour, scenario.seed, (scenario.requests or 0) * 2):
                server.script(answer)
            backends.append(backend.model_copy(update={"base_url": Secret(server.base_url)}))
        real = config.model_copy(update={"backends": tuple(backends)})
        async with spear.open_runtime(real, seed=1) as runtime:
            drive = Drive(runtime, scenario.traffic, tally, {})
            coming = arrivals(scenario.traffic, scenario.seed, requests=scenario.requests, duration=scenario.duration)
            await drive.run(coming, trio.current_time())
            counts = router_counts(runtime)
    result = tally.result([], counts)
    shares = {each.name: {"share": tally.shares.get(each.name, 0) / tally.ok} for each in config.backends}
    return {**result, "backends": shares}
