"""Whole executions: entry rules, statuses, results, limits and guests that misbehave."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from spear.hostcall import (
    ChatReply,
    ChatSnapshot,
    EngineClosed,
    Execution,
    GuestEngine,
    GuestTask,
    Limits,
    LogRecord,
    Termination,
    Usage,
)
from tests.spear.hostcall.guests import ENTRIES, module
from tests.spear.hostcall.probe import Scripted, success

TASK = GuestTask("task-1", {"a": "b"})


@asynccontextmanager
async def engine(**arguments: Any) -> AsyncIterator[GuestEngine]:
    async with GuestEngine(cache_directory=None, **arguments) as opened:
        yield opened


async def run(wasm: bytes = ENTRIES, entry: str = "", *, limits: Limits | None = None, **arguments: Any) -> Execution:
    async with engine(limits=limits) as opened:
        loaded = await opened.load(wasm)
        arguments.setdefault("timeout_s", 20.0)
        arguments.setdefault("chat", Scripted(success()))
        with trio.fail_after(30):
            return await opened.run(loaded, entry=entry, task=TASK, **arguments)


async def test_the_default_entry_is_start():
    for entry in ("", "__spear_default_entry__", "_start"):
        done = await run(entry=entry)
        assert (done.status, done.exit_code, done.output, done.error_message) == ("completed", 0, "", None)
        (record,) = done.logs
        assert (record.seq, record.level, record.message, record.task_id) == (1, "info", "hello", "task-1")
        assert record.execution_id == done.execution_id
        assert done.usage == Usage()
        assert 0 < done.duration_ms < 10_000


async def test_main_is_the_entry_where_there_is_no_start():
    done = await run(module('(func (export "main") (result i32) (i32.const 5))'))
    assert (done.status, done.exit_code, done.output) == ("completed", 0, "5")


@pytest.mark.parametrize(
    ("entry", "output"),
    [("ready", "42"), ("wide", "-9000000000"), ("double", "1.5"), ("single", "-0.25"), ("prints", "")],
)
async def test_results_are_text_and_initialize_runs_first(entry: str, output: str):
    done = await run(entry=entry)
    assert (done.status, done.output, done.error_message) == ("completed", output, None)


async def test_initialize_does_not_run_before_start():
    body = """(func (export "_initialize") unreachable) (func (export "_start")) (func (export "other"))"""
    assert (await run(module(body))).status == "completed"
    assert (await run(module(body), "other")).error_message == ("wasm trap: wasm `unreachable` instruction executed")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("nope", "exports no function 'nope'"),
        ("memory", "exports no function 'memory'"),
        ("takes", "takes 1 arguments"),
        ("pair", "gives 2 results"),
        ("vector", "gives a vector or reference"),
    ],
)
async def test_entries_that_cannot_run(entry: str, message: str):
    done = await run(entry=entry)
    assert (done.status, done.exit_code) == ("failed", None)
    assert message in (done.error_message or "")
    assert done.logs == ()


async def test_no_entry_at_all_and_an_initialize_with_parameters():
    done = await run(module(""))
    assert "neither _start nor main" in (done.error_message or "")
    done = await run(module('(func (export "_initialize") (param i32)) (func (export "f"))'), "f")
    assert (done.status, done.exit_code) == ("failed", None)
    assert "'_initialize' takes 1 arguments" in (done.error_message or "")


@pytest.mark.parametrize(
    ("entry", "status", "code"), [("exit0", "completed", 0), ("exit7", "failed", 7), ("exit256", "failed", 256)]
)
async def test_exit_codes(entry: str, status: str, code: int):
    done = await run(entry=entry)
    assert (done.status, done.exit_code) == (status, code)


async def test_output_sinks_and_log_sink_see_everything_as_it_comes():
    seen: list[Any] = []
    done = await run(
        entry="prints",
        on_stdout=lambda data: seen.append(("out", data)),
        on_stderr=lambda data: seen.append(("err", data)),
    )
    assert seen == [("out", b"hello"), ("err", b"hello")]
    assert (done.stdout, done.stderr, done.stdout_dropped, done.stderr_dropped) == ("hello", "hello", 0, 0)
    records: list[LogRecord] = []
    done = await run(on_log=records.append)
    assert tuple(records) == done.logs


async def test_what_a_sink_raises_ends_the_guest_and_is_raised():
    class Full(Exception):
        pass

    def full(record: LogRecord) -> None:
        raise Full

    with pytest.raises(Full):
        await run(on_log=full)


async def test_what_the_chat_port_raises_is_raised():
    class Broken(Exception):
        pass

    async def chat(session: ChatSnapshot) -> ChatReply:
        await trio.lowlevel.checkpoint()
        raise Broken

    with pytest.raises(Broken):
        await run(entry="sends", chat=chat)


async def test_usage_is_counted():
    done = await run(
        entry="sends", chat=Scripted(ChatReply({"_spear": {}}, {"input_tokens": 3, "output_tokens": 4, "cost": 0.5}))
    )
    assert done.usage == Usage(1, 3, 4, 0.5, False)


TRAPS = {
    "traps": "wasm trap: wasm `unreachable` instruction executed",
    "divides": "wasm trap: integer divide by zero",
    "outside": "wasm trap: out of bounds memory access",
    "deep": "wasm trap: call stack exhausted",
}


@pytest.mark.parametrize("entry", TRAPS)
async def test_traps(entry: str):
    done = await run(entry=entry)
    assert (done.status, done.exit_code, done.error_message) == ("failed", None, TRAPS[entry])


async def test_a_start_function_that_traps_sleeps_or_spins():
    done = await run(module('(func $s unreachable) (start $s) (func (export "_start"))'))
    assert (done.status, done.error_message) == ("failed", TRAPS["traps"])
    done = await run(module('(func $s (call $sleep (i32.const 5))) (start $s) (func (export "_start"))'))
    assert done.status == "completed"
    done = await run(module('(func $s (loop $l (br $l))) (start $s) (func (export "_start"))'), timeout_s=0.05)
    assert done.status == "timeout"
    asks = module(
        """(global $g (mut i32) (i32.const 7))
        (func $s (global.set $g (call $log (i32.const 1) (i32.const 0) (i32.const 3))))
        (start $s) (func (export "_start")) (func (export "r") (result i32) (global.get $g))"""
    )
    assert (await run(asks, "r")).output == "-14"  # the memory is not known yet
    done = await run(module('(func $s (call $exit (i32.const 3))) (start $s) (func (export "_start"))'))
    assert (done.status, done.exit_code) == ("failed", 3)


async def test_memory_limits():
    """256 MiB are 4096 pages; the guest begins with 2."""
    assert (await run(entry="grows")).output == "-1"
    assert (await run(entry="grows_all")).output == "2"
    assert (await run(entry="table_grows")).output == "-1"
    assert (await run(entry="table_grows_all")).output == "1"
    done = await run(module('(func (export "_start"))', memory='(memory (export "memory") 4097)'))
    assert done.status == "failed"
    assert "memory" in (done.error_message or "")
    done = await run(module('(func (export "_start")) (table 70000 funcref)'))
    assert done.status == "failed"
    assert "table" in (done.error_message or "")
    done = await run(module('(memory 1) (func (export "_start"))'))
    assert "memor" in (done.error_message or "")


async def test_no_memory_is_no_obstacle_until_a_pointer_is_used():
    done = await run(
        module('(func (export "f") (result i32) (call $log (i32.const 2) (i32.const 0) (i32.const 0)))', memory=""), "f"
    )
    assert (done.status, done.output) == ("completed", "-14")


@pytest.mark.parametrize("entry", ["spins", "calls", "sleeps", "naps"])
async def test_timeout(entry: str):
    begin = time.monotonic()
    done = await run(entry=entry, timeout_s=0.1)
    assert (done.status, done.exit_code, done.error_message) == ("timeout", None, "timeout after 0.1 s")
    assert 0.09 < time.monotonic() - begin < 3
    assert done.logs[-1].message == "Terminate execution: timeout"


@pytest.mark.parametrize("limit", [None, 0])
async def test_no_timeout(limit: float | None):
    assert (
        await run(module('(func (export "_start") (call $sleep (i32.const 20)))'), timeout_s=limit)
    ).status == "completed"


@pytest.mark.parametrize("entry", ["spins", "calls", "sleeps", "naps", "sends"])
@pytest.mark.parametrize("how", ["terminate", "destroy"])
async def test_termination(entry: str, how: str):
    async def silent(session: ChatSnapshot) -> ChatReply:
        await trio.sleep_forever()

    handle = Termination()
    async with engine() as opened, trio.open_nursery() as nursery:
        loaded = await opened.load(ENTRIES)

        async def later() -> None:
            await trio.sleep(0.05)
            getattr(handle, how)("enough")
            handle.terminate("the first one counts")

        nursery.start_soon(later)
        with trio.fail_after(10):
            done = await opened.run(loaded, entry=entry, task=TASK, chat=silent, timeout_s=0, handle=handle)
    assert (done.status, done.exit_code, done.error_message) == ("terminated", None, "enough")
    prefix = {"terminate": "Terminate execution", "destroy": "Destroy instance"}[how]
    assert [(record.level, record.message) for record in done.logs] == [("warn", f"{prefix}: enough")]


async def test_termination_before_the_run_and_twice():
    handle = Termination()
    handle.terminate()
    async with engine() as opened:
        loaded = await opened.load(ENTRIES)
        done = await opened.run(loaded, task=TASK, chat=Scripted(success()), handle=handle)
        assert (done.status, done.error_message) == ("terminated", "terminated")
        assert [record.message for record in done.logs] == ["Terminate execution"]
        with pytest.raises(RuntimeError, match="one run"):
            await opened.run(loaded, task=TASK, chat=Scripted(success()), handle=handle)
        assert opened.running == 0


async def test_a_hostcall_after_termination_traps():
    """The request comes from a sink, so inside a hostcall: that one still succeeds, the next one traps."""
    handle = Termination()
    wasm = module(
        """(func (export "_start") (drop (call $log (i32.const 2) (i32.const 0) (i32.const 1)))
           (drop (call $log (i32.const 2) (i32.const 0) (i32.const 2))))"""
    )
    done = await run(wasm, handle=handle, on_log=lambda record: handle.terminate("now"))
    assert done.status == "terminated"
    assert [record.level for record in done.logs] == ["info", "warn"]


async def test_two_runs_are_apart():
    """A fresh instance each: the second does not see what the first wrote."""
    wasm = module(
        """(global $g (mut i32) (i32.const 0))
           (func (export "f") (result i32) (global.set $g (i32.add (global.get $g) (i32.const 1)))
             (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))
             (i32.add (global.get $g) (i32.load (i32.const 0))))"""
    )
    async with engine() as opened:
        loaded = await opened.load(wasm)
        for _ in range(3):
            done = await opened.run(loaded, entry="f", task=TASK, chat=Scripted(success()))
            assert done.output == "2"


async def test_the_engine_is_used_inside_its_block():
    opened = GuestEngine(cache_directory=None)
    with pytest.raises(EngineClosed):
        await opened.load(ENTRIES)
    async with opened:
        loaded = await opened.load(ENTRIES)
    with pytest.raises(EngineClosed):
        await opened.run(loaded, task=TASK, chat=Scripted(success()))


async def test_execution_ids():
    done = await run(execution_id="mine")
    assert done.execution_id == "mine"
    assert (await run()).execution_id != (await run()).execution_id
