"""Guests that neither loop nor call: they cannot be suspended, so they are ended."""

from __future__ import annotations

import time

import pytest
import trio

from spear.hostcall import Execution, GuestEngine, GuestTask, Limits, Termination
from tests.spear.hostcall.guests import ENTRIES, module
from tests.spear.hostcall.probe import Scripted, success

CALLS = 20_000
WRITE = "(drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 64)))"
LARGE = "(i32.store (i32.const 4) (i32.const 1048576))"
SMALL = "(i32.store (i32.const 4) (i32.const 1))"
MEMORY = '(memory (export "memory") 32)'
STRAIGHT = module(f'(func (export "_start") {LARGE} {WRITE * CALLS})', memory=MEMORY)
FEW = module(f'(func (export "_start") {SMALL} {WRITE * 6})', memory=MEMORY)


class Counter:
    def __init__(self, pause_s: float = 0.0) -> None:
        self.calls = 0
        self._pause_s = pause_s

    def __call__(self, data: bytes) -> None:
        self.calls += 1
        time.sleep(self._pause_s)


async def run(
    wasm: bytes,
    sink: Counter,
    *,
    stretch_s: float,
    timeout_s: float,
    entry: str = "",
    handle: Termination | None = None,
) -> Execution:
    async with GuestEngine(cache_directory=None, limits=Limits(stretch_s=stretch_s)) as engine:
        loaded = await engine.load(wasm)
        with trio.fail_after(60):
            return await engine.run(
                loaded,
                task=GuestTask("t"),
                chat=Scripted(success()),
                entry=entry,
                timeout_s=timeout_s,
                on_stdout=sink,
                handle=handle,
            )


async def test_a_straight_line_ends_at_its_timeout():
    sink = Counter()
    done = await run(STRAIGHT, sink, stretch_s=1000, timeout_s=0.1)
    assert (done.status, done.error_message) == ("timeout", "timeout after 0.1 s")
    assert [record.message for record in done.logs] == ["Terminate execution: timeout"]
    assert 0 < sink.calls < CALLS


async def test_a_straight_line_ends_when_it_held_the_loop_too_long():
    sink = Counter()
    done = await run(STRAIGHT, sink, stretch_s=0.05, timeout_s=50)
    assert done.status == "failed"
    assert done.error_message == "the guest held the event loop too long without a loop or a function call"
    assert len(done.logs) == 1
    assert 0 < sink.calls < CALLS


async def test_a_slow_reader_of_the_output_does_not_count():
    sink = Counter(pause_s=0.1)
    done = await run(FEW, sink, stretch_s=0.3, timeout_s=50)
    assert (done.status, sink.calls) == ("completed", 6)


@pytest.mark.parametrize("entry", ["spins", "calls", "naps"])
async def test_who_gives_way_may_go_on_as_long_as_its_time_lasts(entry: str):
    done = await run(ENTRIES, Counter(), stretch_s=0.3, timeout_s=1, entry=entry)
    assert done.status == "timeout"
    assert [record.message for record in done.logs] == ["Terminate execution: timeout"]


async def test_the_request_of_a_person_is_what_is_reported():
    handle = Termination()
    handle.terminate("enough")
    done = await run(STRAIGHT, Counter(), stretch_s=0.01, timeout_s=0.01, handle=handle)
    assert (done.status, done.error_message) == ("terminated", "enough")
