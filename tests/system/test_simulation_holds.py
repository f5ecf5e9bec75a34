"""A simulation says what real servers do: the same scenario both ways, over real sockets in real time.

The servers draw the same latencies and errors in the same order, so that what differs is what the model leaves out: the
network, HTTP, and a processor that has other things to do. The bounds are wide enough for a busy machine; benchmarks
say how far it is on a quiet one.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from spear.simulate import parse_scenario
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


def scenario():
    return parse_scenario(SCENARIO, file="twin.toml", folder=Path())


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
