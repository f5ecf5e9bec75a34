"""One variant of a scenario, from its start to its end, in virtual time: the real router over modelled backends."""

from __future__ import annotations

from random import Random
from typing import Any, Final

import trio

from spear._open import open_runtime
from spear._runtime import Runtime
from spear.config import Config, Price

from ._clock import START, JumpClock
from ._compare import model_names
from ._determinism import deterministic
from ._drive import Drive, Told
from ._model import ModelledBackend, ModelledKind, Size
from ._scenario import Reload, Scenario, Variant
from ._tally import Tally
from ._traffic import arrivals

_FOR_EVER_S: Final = 1e8
_KEPT_FOR_MIRRORS: Final = 65_536
_COUNTS: Final = (
    "attempts",
    "fallbacks",
    "retries",
    "retries_denied",
    "refused",
    "waited",
    "panics",
    "connect_retries",
)


class NeverEnds(RuntimeError):
    """Requests of a simulation wait for what will never happen: a bug, of the router's or of a model's."""


def run_variant(
    scenario: Scenario,
    variant: str,
    *,
    seed: int | None = None,
    requests: int | None = None,
    tell: Told | None = None,
) -> dict[str, Any]:
    """Blocks until it is done; the same arguments give the same result. Starts a Trio run of its own, so that it must
    not be called from within one. Raises `NotDeterministic` where Trio cannot be made to repeat itself."""
    seed = scenario.seed if seed is None else seed
    run = _Run(scenario, scenario.variant(variant), seed, requests, tell)
    with deterministic(seed):
        return trio.run(run.main, clock=run.clock)


class _Run:
    def __init__(
        self, scenario: Scenario, variant: Variant, seed: int, requests: int | None, tell: Told | None
    ) -> None:
        self.scenario = scenario
        self.variant = variant
        self.seed = seed
        self.requests = requests if requests is not None else scenario.requests
        self.tell = tell
        self.tally = Tally()
        self.clock = JumpClock()

    async def main(self) -> dict[str, Any]:
        prices = {each.name: each.price or Price() for each in self.variant.config.backends}
        models = {
            name: ModelledBackend(behaviour, name, prices.get(name, Price()), self.seed, self.clock)
            for behaviour in self.scenario.behaviours
            for name in model_names(behaviour)
        }
        sizes: dict[str, Size] = {}
        kinds = {each.kind: ModelledKind(each.kind, models, sizes) for each in self._instances()}
        with trio.move_on_at(START + _FOR_EVER_S) as horizon:
            async with open_runtime(
                self.variant.config, seed=Random(f"{self.seed}:router").getrandbits(63), kinds=kinds
            ) as runtime:
                await self._drive(runtime, sizes)
                router = router_counts(runtime)
            return {"name": self.variant.name, **self.tally.result(list(models.values()), router)}
        assert horizon.cancelled_caught
        raise NeverEnds(f"{self.variant.name}: nothing more happens, and requests still wait")

    async def _drive(self, runtime: Runtime, sizes: dict[str, Size]) -> None:
        mirrored = any(getattr(route, "mirror", None) is not None for route in self.variant.config.routes)
        keep = _KEPT_FOR_MIRRORS if mirrored else 0
        drive = Drive(
            runtime, self.scenario.traffic, self.tally, sizes, self.tell,
            keep=keep, sleep_until=self.clock.sleep_until,
        )  # fmt: skip
        coming = arrivals(self.scenario.traffic, self.seed, requests=self.requests, duration=self.scenario.duration)
        async with trio.open_nursery() as nursery:
            for reload in self.variant.reloads:
                nursery.start_soon(_reload, runtime, reload)
            await drive.run(coming, START)
            nursery.cancel_scope.cancel()  # reloads that were to come later

    def _instances(self) -> list[Any]:
        configs: list[Config] = [self.variant.config, *(each.config for each in self.variant.reloads)]
        return [backend for config in configs for backend in config.backends]


def router_counts(runtime: Runtime) -> dict[str, int]:
    """What the router says that it did."""
    state = next(node.state for node in runtime.snapshot().children if node.path.endswith("/router"))
    found = {name: state.get(name) for name in _COUNTS}
    return {name: count for name, count in found.items() if isinstance(count, int)}


async def _reload(runtime: Runtime, reload: Reload) -> None:
    await trio.sleep_until(START + reload.at)
    report = await runtime.reload(reload.config)
    if not report.ok:
        raise RuntimeError(f"the reload at {reload.at:g} s failed: {report.error}")
