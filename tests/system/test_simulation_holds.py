"""A simulation says what real servers do: the same scenario both ways, over real sockets in real time.

The servers draw the same latencies and errors in the same order, so that what differs is what the model leaves out: the
network, HTTP, and a processor that has other things to do. The bounds are wide enough for a busy machine; benchmarks
say how far it is on a quiet one.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from spear.simulate import Scenario, parse_scenario
from tests.system.twin import run_twin

SCENARIO = b"""
[simulate]
seed = 11
requests = 240

[simulate.traffic]
rate = 40
model = "m"
input_tokens = 20
timeout = "20s"

[[simulate.backends]]
name = "quick"
latency = { kind = "lognormal", median = "120ms", sigma = 0.3, tail_share = 0.03, tail_factor = 8 }
errors = { share = 0.05, after = "30ms" }

[[simulate.backends]]
name = "slow"
latency = { kind = "lognormal", median = "300ms", sigma = 0.3 }

[[simulate.compare]]
name = "weighted_round_robin"
policy = "weighted_round_robin"

[[simulate.compare]]
name = "peak_ewma"
policy = "peak_ewma"

[[simulate.compare]]
name = "hedged"
policy = "weighted_round_robin"
hedge = { max_extra_load = 0.05 }

[[spear.backends]]
name = "quick"
kind = "openai_chat"
hosting = "local"
base_url = "http://127.0.0.1:9/v1"
model = "m"

[[spear.backends]]
name = "slow"
kind = "openai_chat"
hosting = "local"
base_url = "http://127.0.0.1:9/v1"
model = "m"
"""


LIMITED = SCENARIO.replace(b'"peak_ewma"', b'"least_inflight"').replace(
    b'errors = { share = 0.05, after = "30ms" }',
    b'rate_limit = { requests = 10, per = "1s", burst = 5, retry_after = "1s" }',
).replace(
    b'base_url = "http://127.0.0.1:9/v1"\n', b'base_url = "http://127.0.0.1:9/v1"\ncredentials = ["key"]\n', 1
) + b"""
[[spear.credentials]]
name = "key"
env = "KEY"
"""  # fmt: skip
OUT = (
    SCENARIO.replace(
        b'errors = { share = 0.05, after = "30ms" }',
        b'events = [{ at = "1500ms", until = "3s", outage = "refuse" }]',
    )
    + b"""
[spear.health]
open_s = "500ms"
slow_start_s = "1s"
"""
)


def scenario(text: bytes = SCENARIO) -> Scenario:
    return parse_scenario(text, file="twin.toml", folder=Path())


@pytest.mark.parametrize("variant", ["weighted_round_robin", "peak_ewma", "hedged"])
def test_real_servers_do_what_the_simulation_says(variant: str) -> None:
    twin = run_twin(scenario(), variant)
    assert twin.simulated["arrivals"] == twin.real["arrivals"] == 240
    assert twin.simulated["ok"] == twin.real["ok"] == 240
    assert twin.ratio("p50") == pytest.approx(1, abs=0.25)
    assert twin.ratio("p95") == pytest.approx(1, abs=0.25)
    assert twin.share_gap() < 0.1
    simulated, real = twin.extra()
    assert real == pytest.approx(simulated, abs=0.03)
    assert simulated > 0


@pytest.mark.parametrize("variant", ["weighted_round_robin", "least_inflight"])
def test_a_rate_limit_with_a_retry_after_does_too(variant: str) -> None:
    """A key that cools: one second after each 429."""
    twin = run_twin(scenario(LIMITED), variant)
    assert twin.simulated["ok"] == twin.real["ok"] == 240
    simulated, real = twin.failed("rate_limit")
    assert simulated >= 3
    assert simulated / 2 <= real <= simulated * 2
    assert twin.ratio("p50") == pytest.approx(1, abs=0.25)
    assert twin.ratio("p95") == pytest.approx(1, abs=0.25)
    assert twin.share_gap() < 0.1


@pytest.mark.parametrize("variant", ["weighted_round_robin", "peak_ewma"])
def test_an_outage_does_too(variant: str) -> None:
    """Connections are refused for a while: the breaker opens, and the backend comes back."""
    twin = run_twin(scenario(OUT), variant)
    assert twin.simulated["ok"] == twin.real["ok"] == 240
    simulated, real = twin.extra()
    assert simulated > 0
    assert real == pytest.approx(simulated, abs=0.05)
    assert twin.ratio("p50") == pytest.approx(1, abs=0.25)
    assert twin.ratio("p95") == pytest.approx(1, abs=0.25)
    assert twin.share_gap() < 0.12
