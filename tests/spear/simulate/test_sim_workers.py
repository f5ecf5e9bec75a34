"""Runs end, whole or not at all: memory, workers that are cancelled, requests that nobody would ever answer."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest
import trio

from spear.simulate import Job, WorkerFailed, _run, run_jobs, run_variant
from tests.spear.simulate.small import read, run, text


def children() -> list[int]:
    found = []
    for thread in Path(f"/proc/{os.getpid()}/task").iterdir():
        found += [int(each) for each in (thread / "children").read_text().split()]
    return found


async def test_cancelled_no_worker_is_left() -> None:
    before = set(children())
    heard: list[str] = []
    jobs = [Job(Path("s.toml"), text(1_000_000), "as configured", seed) for seed in (1, 2)]
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:

            def progress(variant: str, arrived: int) -> None:
                heard.append(variant)
                nursery.cancel_scope.cancel()

            async def work() -> None:
                await run_jobs(jobs, workers=2, progress=progress)

            nursery.start_soon(work)
    assert heard
    assert set(children()) <= before


async def test_one_that_fails_ends_the_others() -> None:
    before = set(children())
    jobs = [Job(Path("s.toml"), text(1_000_000), "as configured"), Job(Path("s.toml"), "[simulate", "as configured")]
    with trio.fail_after(30), pytest.raises(WorkerFailed, match=r"status 1: .*s\.toml:1: is not TOML"):
        await run_jobs(jobs, workers=2)
    assert set(children()) <= before


def test_more_requests_keep_no_more_objects() -> None:
    scenario = read(text(10_000, 50))

    def objects_after(requests: int) -> int:
        result = run_variant(scenario, "as configured", requests=requests)
        assert result["arrivals"] == requests
        gc.collect()
        return len(gc.get_objects())

    objects_after(300)
    few = objects_after(300)
    assert objects_after(1_200) - few < 300


def test_a_run_that_would_never_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_run, "_FOR_EVER_S", 20.0)
    hang = "events = [{ at = 0, outage = 'hang' }]"
    with pytest.raises(_run.NeverEnds, match="nothing more happens"):
        run(5, 5, a=hang, b=hang)
