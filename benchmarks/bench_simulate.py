"""How fast the simulator is, and how far it is from real servers. One core, CPU time; the twin takes real time.

python -m benchmarks.bench_simulate [--rounds 3] [--json]
"""

from __future__ import annotations

import gc
import sys
from functools import partial
from pathlib import Path
from time import process_time

sys.path.insert(0, str(Path(__file__).parent.parent))
from benchmarks._measure import Row, arguments, pin_to_one_core, report, rounds
from spear.simulate import parse_scenario, run_variant
from spear.telemetry import configure_logging
from tests.system.test_simulation_holds import LIMITED, OUT
from tests.system.test_simulation_holds import SCENARIO as PLAIN
from tests.system.test_simulation_holds import scenario as twin_scenario
from tests.system.twin import Twin, run_twin

REQUESTS = 10_000
SCENARIO = """
[simulate]
requests = 100_000_000

[simulate.traffic]
rate = 400
model = "chat"
timeout = "60s"

[[simulate.backends]]
name = "replica"
copies = 100
latency = { kind = "lognormal", median = "300ms", sigma = 0.3, tail_share = 0.02, tail_factor = 20 }
errors = 0.01
rate_limit = { requests = 6_000 }

[[simulate.compare]]
name = "plain"
policy = "peak_ewma"

HEDGED
[[spear.backends]]
name = "replica"
kind = "openai_chat"
hosting = "local"
base_url = "http://replica.example/v1"
model = "chat"
limits = { max_inflight = 32, max_queue = 16, rpm = 3_000, tpm = 3_000_000 }
"""
HEDGED = """
[[simulate.compare]]
name = "hedged"
policy = "peak_ewma"
hedge = { max_extra_load = 0.05 }
"""
REACH = {"plain": 2_200, "hedged": 1_500}


def simulate(variant: str) -> float:
    """Simulated requests per second of processor time."""
    scenario = parse_scenario(SCENARIO.replace("HEDGED", HEDGED).encode(), file="bench.toml", folder=Path())
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)  # as a worker of `spear simulate` does
    start = process_time()
    result = run_variant(scenario, variant, requests=REQUESTS)
    spent = process_time() - start
    assert result["ok"] + sum(result["errors"].values()) == REQUESTS
    return REQUESTS / spent


def speed(count: int) -> list[Row]:
    figures = rounds({name: partial(simulate, name) for name in REACH}, count)
    rows = []
    for name, reach in REACH.items():
        value = sorted(figures[name])[count // 2]
        what = f"100 backends, breakers, bulkheads, rpm and tpm, {'hedging' if name == 'hedged' else 'no hedging'}"
        rows.append(Row(what, value, "requests/s", f"{reach} requests/s, inverse", reach / value, 1.0))
    return rows


def twins() -> list[Row]:
    rows = []
    for what, text in (("", PLAIN), ("429, ", LIMITED), ("outage, ", OUT)):
        scenario = twin_scenario(text)
        for variant in scenario.variants:
            rows += _twin(run_twin(scenario, variant.name), f"{what}{variant.name}")
    return rows


def _twin(twin: Twin, what: str) -> list[Row]:
    rows = []
    for name in ("p50", "p95", "mean"):
        value = twin.real["latency"][name] * 1000
        rows.append(Row(f"real servers, {what}, {name}", value, "ms", "simulated", twin.ratio(name)))
    rows.append(Row(f"real servers, {what}, largest gap of a share", 100 * twin.share_gap(), "%"))
    simulated, real = twin.extra()
    rows.append(Row(f"real servers, {what}, extra load", 100 * real, "%"))
    rows.append(Row(f"simulated, {what}, extra load", 100 * simulated, "%"))
    return rows


def main() -> None:
    args = arguments(__doc__, 3)
    configure_logging("error")
    found = twins()
    pin_to_one_core()
    report(
        "The simulator: speed on one core, and real servers beside it", speed(args.rounds) + found, as_json=args.json
    )


if __name__ == "__main__":
    main()
