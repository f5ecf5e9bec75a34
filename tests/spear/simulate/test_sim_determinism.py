"""The same seed gives the same bytes: twice, in another process, whatever strings hash to."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import trio
from trio._core import _run as scheduler

import spear
from spear.ir import dump_json, parse_json
from spear.simulate import Job, NotDeterministic, parse_scenario, run_variant
from spear.simulate._determinism import deterministic, why_not
from tests.spear.simulate.small import conserved, run, text

ROOT = Path(spear.__file__).parents[1]
EVENTFUL = {
    "traffic": "stream = 0.3\nsessions = 20\npatience = '4s'\nbursts = [{ at = '3s', requests = 60, over = '1s' }]",
    "a": "concurrency = 3\nqueue = 8\nerrors = 0.1\nper_token = '2ms'\ncut_streams = 0.1\n"
    "events = [{ at = '4s', until = '8s', outage = 'unreachable' }, { at = '9s', latency_factor = 40 }]",
    "b": "rate_limit = { requests = 20, per = '2s' }\n"
    "events = [{ at = '6s', until = '7s', outage = 'refuse' }, { at = '10s', latency_factor = 60 }]",
    "spear": "router = { max_inflight = 8, max_queue = 4, default_timeout_s = 5 }\nhealth = { open_s = 1 }\n"
    "[[spear.routes]]\npolicy = 'peak_ewma'",
}


def test_twice_the_same_bytes() -> None:
    first, second = (dump_json(run(400, 30, **EVENTFUL)) for _ in range(2))
    assert first == second
    result = parse_json(first)
    conserved(result)
    assert result["errors"]
    assert result["left"]
    assert {"unreachable", "rate_limit", "connect", "server"} <= {
        kind for backend in result["backends"].values() for kind in backend["failed"]
    }


def test_another_seed_is_another_run() -> None:
    assert dump_json(run(100, 30, seed=1, **EVENTFUL)) != dump_json(run(100, 30, seed=2, **EVENTFUL))


@pytest.mark.parametrize("hash_seed", ["1", "4711"])
def test_in_a_process_of_its_own(hash_seed: str) -> None:
    written = text(400, 30, **EVENTFUL)
    here = run_variant(parse_scenario(written.encode(), file="s.toml", folder=Path()), "as configured")
    worker = subprocess.run(
        [sys.executable, "-m", "spear.simulate"],
        input=Job(Path("s.toml"), written, "as configured").as_json(),
        stdout=subprocess.PIPE,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
    )
    *_, last = worker.stdout.splitlines()
    assert last == dump_json({"result": here})


def test_the_switch_is_put_back() -> None:
    state, before = scheduler._r.getstate(), scheduler._ALLOW_DETERMINISTIC_SCHEDULING
    with deterministic(5):
        assert scheduler._ALLOW_DETERMINISTIC_SCHEDULING is True
        scheduler._r.random()
    assert scheduler._r.getstate() == state
    assert scheduler._ALLOW_DETERMINISTIC_SCHEDULING is before


def test_one_at_a_time() -> None:
    caught: list[Exception] = []

    def other() -> None:
        try:
            with deterministic(1):
                pass
        except NotDeterministic as error:
            caught.append(error)

    with deterministic(1):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert "one simulation at a time" in str(caught[0])


def strange() -> Iterator[tuple[ModuleType, str, str]]:
    def loop() -> None:
        pass

    for names, version, says in (
        ({}, trio.__version__, "has no _ALLOW"),
        ({"_ALLOW_DETERMINISTIC_SCHEDULING": False, "_r": random.Random()}, trio.__version__, "does not read"),
        (
            {"_ALLOW_DETERMINISTIC_SCHEDULING": False, "_r": random.Random(), "unrolled_run": loop},
            trio.__version__,
            "does not read",
        ),
    ):
        module = ModuleType("other_trio")
        module.__dict__.update(names)
        yield module, version, says
    yield scheduler, "0.29.0", "not known"
    yield scheduler, "1.0.0", "not known"
    yield scheduler, "new", "no version"


@pytest.mark.parametrize(("module", "version", "says"), list(strange()))
def test_another_trio_is_refused(module: ModuleType, version: str, says: str) -> None:
    assert says in why_not(module, version)


def test_this_trio_is_not() -> None:
    assert why_not(scheduler, trio.__version__) == ""
