"""Guests that are cancelled, at every point they can be at, and what is left of them: nothing."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import trio

from spear.hostcall import ChatReply, ChatSnapshot, GuestEngine, GuestTask, Module, Termination
from spear.hostcall._epoch import LINGER_S
from spear.hostcall._fiber import Fiber
from tests.spear.hostcall.guests import ENTRIES, module
from tests.spear.hostcall.probe import Scripted, success, wants

TASK = GuestTask("t")

# One guest that is in turn in every kind of hostcall: plain ones (each of which logs), every suspending one, and all
# of that again inside a tool, which a send calls back, whose own send calls it a second time.
EVERYWHERE = module(
    """
 (data (i32.const 0) "{\\22name\\22:\\22t\\22}")
 (data (i32.const 64) "{\\22key\\22:\\22tool_arena_ptr\\22,\\22value\\22:8192}")
 (data (i32.const 128) "{\\22key\\22:\\22tool_arena_len\\22,\\22value\\22:8192}")
 (data (i32.const 256) "\\25\\00\\00\\00")
 (global $epoll (mut i32) (i32.const 0))
 (global $session (mut i32) (i32.const 0))
 (func $note (drop (call $log (i32.const 2) (i32.const 0) (i32.const 4))))
 (func $round
   (call $note)
   (call $sleep (i32.const 1))
   (i32.store (i32.const 512) (i32.const 64))
   (drop (call $wait (global.get $epoll) (i32.const 520) (i32.const 512) (i32.const 1)))
   (drop (call $yield))
   (drop (call $random (i32.const 1024) (i32.const 16)))
   (i64.store (i32.const 1104) (i64.const 0)) (i32.store (i32.const 1104) (i32.const 1))
   (i64.store (i32.const 1112) (i64.const 1000000))
   (drop (call $poll (i32.const 1088) (i32.const 2048) (i32.const 1) (i32.const 4000)))
   (call $note))
 (func $tool (param i32 i32 i32 i32) (result i32)
   (call $round)
   (drop (call $send (global.get $session) (i32.const 2)))
   (i32.store (local.get 3) (i32.const 0))
   (i32.const 0))
 (func (export "_start")
   (global.set $epoll (call $epoll_create))
   (global.set $session (call $create))
   (drop (call $ctl (global.get $session) (i32.const 1) (i32.const 64) (i32.const 256)))
   (drop (call $ctl (global.get $session) (i32.const 1) (i32.const 128) (i32.const 256)))
   (drop (call $tool_add (global.get $session) (i32.const 0) (i32.const 0) (i32.const 12)))
   (call $round)
   (drop (call $send (global.get $session) (i32.const 2)))
   (call $round))
 (table (export "table") 1 funcref) (elem (i32.const 0) $tool)
""",
    imports="""
 (import "spear" "log" (func $log (param i32 i32 i32) (result i32)))
 (import "spear" "sleep_ms" (func $sleep (param i32)))
 (import "spear" "cchat_create" (func $create (result i32)))
 (import "spear" "cchat_send" (func $send (param i32 i32) (result i32)))
 (import "spear" "cchat_ctl" (func $ctl (param i32 i32 i32 i32) (result i32)))
 (import "spear" "cchat_write_fn" (func $tool_add (param i32 i32 i32 i32) (result i32)))
 (import "spear" "spear_epoll_create" (func $epoll_create (result i32)))
 (import "spear" "spear_epoll_wait" (func $wait (param i32 i32 i32 i32) (result i32)))
 (import "wasi_snapshot_preview1" "sched_yield" (func $yield (result i32)))
 (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
 (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
""",
)


class TwoTools:
    """Asks for the tool in its first two answers, then is content."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self, session: ChatSnapshot) -> ChatReply:
        self.asked += 1
        await trio.lowlevel.checkpoint()
        return wants((f"c{self.asked}", "t", "{}")) if self.asked <= 2 else success("done")


class Tripwire:
    """Counts the hostcalls that pass and calls `act` at number `at`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.at = -1
        self.act: Any = None
        self.deepest = 0
        real = Fiber.suspend

        def suspend(fiber: Fiber, *arguments: Any) -> None:
            real(fiber, *arguments)
            self.deepest = max(self.deepest, fiber.depth)
            self.step()

        monkeypatch.setattr(Fiber, "suspend", suspend)

    def step(self, record: object = None) -> None:
        self.count += 1
        if self.count == self.at:
            self.act()


async def test_cancelled_at_every_hostcall(monkeypatch: pytest.MonkeyPatch):
    wire = Tripwire(monkeypatch)
    async with GuestEngine(cache_directory=None) as engine:
        loaded = await engine.load(EVERYWHERE)
        done = await engine.run(loaded, task=TASK, chat=TwoTools(), on_log=wire.step)
        assert (done.status, done.error_message) == ("completed", None)
        total = wire.count
        assert total >= 30
        assert wire.deepest >= 3  # a hostcall in a tool in a send in a tool in a send
        for at in range(1, total + 1):
            wire.count, wire.at = 0, at
            with trio.fail_after(5), trio.CancelScope() as scope:
                wire.act = scope.cancel
                await engine.run(loaded, task=TASK, chat=TwoTools(), on_log=wire.step)
            assert scope.cancelled_caught or at == total, at  # after the last one the guest simply returns
            assert wire.count <= at + 8, at  # plain calls may still pass until the guest is next suspended
            assert engine.running == 0
        wire.at = -1
        assert (await engine.run(loaded, task=TASK, chat=TwoTools())).status == "completed"


async def test_terminated_at_every_hostcall(monkeypatch: pytest.MonkeyPatch):
    wire = Tripwire(monkeypatch)
    async with GuestEngine(cache_directory=None) as engine:
        loaded = await engine.load(EVERYWHERE)
        await engine.run(loaded, task=TASK, chat=TwoTools(), on_log=wire.step)
        total = wire.count
        for at in range(1, total):
            handle = Termination()
            wire.count, wire.at, wire.act = 0, at, handle.terminate
            with trio.fail_after(5):
                done = await engine.run(loaded, task=TASK, chat=TwoTools(), on_log=wire.step, handle=handle)
            assert done.status == "terminated", at
            assert [record.message for record in done.logs if record.level == "warn"] == ["Terminate execution"], at
            assert wire.count <= at + 1  # the warning itself; every further hostcall traps


async def test_one_is_killed_while_a_hundred_go_on():
    body = """(func (export "_start") (local $n i32) (local.set $n (i32.const 20))
      (loop $l (call $sleep (i32.const 5))
        (local.set $n (i32.sub (local.get $n) (i32.const 1))) (br_if $l (local.get $n))))"""
    results: list[str] = []
    async with GuestEngine(cache_directory=None) as engine:
        worker, entries = await engine.load(module(body)), await engine.load(ENTRIES)

        async def work() -> None:
            results.append((await engine.run(worker, task=TASK, chat=Scripted(success()))).status)

        async def cancelled(entry: str) -> None:
            with trio.move_on_after(0.05):
                await engine.run(entries, entry=entry, task=TASK, chat=Scripted(success()))

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                for _ in range(100):
                    nursery.start_soon(work)
                for entry in ("sleeps", "naps", "spins", "calls"):
                    nursery.start_soon(cancelled, entry)
                done = await engine.run(entries, entry="traps", task=TASK, chat=Scripted(success()))
                assert done.status == "failed"
        assert results == ["completed"] * 100


async def test_the_chat_port_is_cancelled_with_the_guest():
    ended: list[str] = []

    async def chat(session: ChatSnapshot) -> ChatReply:
        try:
            await trio.sleep_forever()
        finally:
            ended.append("cancelled")

    async with GuestEngine(cache_directory=None) as engine:
        loaded = await engine.load(ENTRIES)
        with trio.move_on_after(0.02):
            await engine.run(loaded, entry="sends", task=TASK, chat=chat)
        assert ended == ["cancelled"]
        done = await engine.run(loaded, entry="sends", task=TASK, chat=chat, timeout_s=0.02)
        assert done.status == "timeout"
        assert ended == ["cancelled"] * 2


def resources() -> tuple[int, int, int, int]:
    """Open descriptors, threads, memory maps, resident KiB."""
    gc.collect()
    status = Path("/proc/self/status").read_text(encoding="ascii")
    resident = int(status.partition("VmRSS:")[2].split()[0])
    maps = len(Path("/proc/self/maps").read_text(encoding="ascii").splitlines())
    return len(os.listdir("/proc/self/fd")), threading.active_count(), maps, resident


async def cycle(engine: GuestEngine, loaded: Module, entries: Module) -> None:
    """A batch of guests, each cancelled somewhere else: in nested hostcalls, in a sleep, in a loop, before it began."""
    async with trio.open_nursery() as nursery:

        async def one(which: Module, entry: str, delay: float) -> None:
            with trio.move_on_after(delay):
                await engine.run(which, entry=entry, task=TASK, chat=TwoTools())

        for i in range(40):
            nursery.start_soon(one, loaded, "", 0.0005 * (i % 20))
        for i in range(8):
            nursery.start_soon(one, entries, "sleeps", 0.002 * i)
        nursery.start_soon(one, entries, "spins", 0.001)
        nursery.start_soon(one, entries, "deep", 1)
        nursery.start_soon(one, entries, "exit7", 1)


async def test_many_cycles_of_create_and_cancel_leave_nothing():
    async with GuestEngine(cache_directory=None) as engine:
        loaded, entries = await engine.load(EVERYWHERE), await engine.load(ENTRIES)
        for _ in range(5):
            await cycle(engine, loaded, entries)
        before = resources()
        for _ in range(30):
            await cycle(engine, loaded, entries)
        after = resources()
    assert after[0] == before[0]
    assert after[1] <= before[1]
    assert after[2] <= before[2] + 20
    assert after[3] <= before[3] + 8 * 1024


async def test_calls_nested_in_a_cancelled_one_are_freed(monkeypatch: pytest.MonkeyPatch):
    """Always cancelled three hostcalls deep: each fiber that were left behind would be two more memory maps."""
    wire = Tripwire(monkeypatch)
    async with GuestEngine(cache_directory=None) as engine:
        loaded = await engine.load(EVERYWHERE)

        async def cancelled_deep() -> None:
            wire.count, wire.deepest = 0, 0
            with trio.CancelScope() as scope:
                wire.at, wire.act = 18, scope.cancel
                await engine.run(loaded, task=TASK, chat=TwoTools(), on_log=wire.step)
            assert scope.cancelled_caught
            assert wire.deepest >= 3

        for _ in range(20):
            await cancelled_deep()
        before = resources()
        for _ in range(150):
            await cancelled_deep()
        after = resources()
    assert after[2] <= before[2] + 20
    assert after[3] <= before[3] + 4 * 1024


async def test_the_trap_behind_an_exit_is_freed():
    async with GuestEngine(cache_directory=None) as engine:
        entries = await engine.load(ENTRIES)

        async def exits(count: int) -> None:
            for _ in range(count):
                await engine.run(entries, entry="exit7", task=TASK, chat=Scripted(success()))

        await exits(500)
        before = resources()
        await exits(1500)
        after = resources()
    assert after[3] <= before[3] + 1024  # each trap with its backtrace holds nearly 2 KiB


async def test_many_engines_leave_nothing():
    async def once() -> None:
        async with GuestEngine(cache_directory=None) as engine:
            loaded = await engine.load(ENTRIES)
            await engine.run(loaded, task=TASK, chat=Scripted(success()))

    for _ in range(5):
        await once()
    before = resources()
    for _ in range(30):
        await once()
    after = resources()
    assert after[0] == before[0]
    assert after[1] <= before[1]
    assert after[2] <= before[2] + 40
    assert after[3] <= before[3] + 1024


def epoch_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "spear-epoch"]


async def test_the_epoch_thread_lives_only_while_guests_do():
    async with GuestEngine(cache_directory=None) as engine:
        loaded = await engine.load(ENTRIES)
        assert not epoch_threads()
        for _ in range(2):
            await engine.run(loaded, task=TASK, chat=Scripted(success()))
            assert len(epoch_threads()) == 1
            with trio.fail_after(5):
                while epoch_threads():  # noqa: ASYNC110  (a thread sets no event)
                    await trio.sleep(LINGER_S / 5)
        await engine.run(loaded, task=TASK, chat=Scripted(success()))
    assert not epoch_threads()


async def test_an_engine_does_not_close_under_a_running_guest():
    engine = GuestEngine(cache_directory=None)
    await engine.__aenter__()
    loaded = await engine.load(ENTRIES)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: engine.run(loaded, entry="sleeps", task=TASK, chat=Scripted(success())))
        await trio.sleep(0.02)
        assert engine.running == 1
        with pytest.raises(RuntimeError, match="1 guests still run"):
            await engine.__aexit__(None, None, None)
        nursery.cancel_scope.cancel()
    await engine.__aexit__(None, None, None)


@pytest.mark.parametrize("spinners", [1, 8])
async def test_spinning_guests_leave_the_loop_its_turns(spinners: int):
    gaps: list[float] = []
    async with GuestEngine(cache_directory=None) as engine:
        loaded = await engine.load(ENTRIES)
        with trio.move_on_after(1.0):
            async with trio.open_nursery() as nursery:
                for _ in range(spinners):
                    nursery.start_soon(lambda: engine.run(loaded, entry="spins", task=TASK, chat=Scripted(success())))
                last = time.monotonic()
                while True:
                    await trio.sleep(0.01)
                    now = time.monotonic()
                    gaps.append(now - last)
                    last = now
    gaps.sort()
    assert len(gaps) > 20
    assert gaps[int(len(gaps) * 0.9)] < 0.035 * (2 if os.cpu_count() == 1 else 1) + 0.03
    assert gaps[-1] < 0.5


async def test_every_spinner_gets_its_share():
    """FIFO: after a second of eight spinners, none has been left out."""
    body = """(func (export "_start") (local $i i32) (local $n i32)
      (loop $l
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (if (i32.eqz (i32.and (local.get $i) (i32.const 0xfffff))) (then
          (drop (call $log (i32.const 2) (i32.const 0) (i32.const 1)))))
        (br $l)))"""
    counts = [0] * 8
    async with GuestEngine(cache_directory=None) as engine:
        loaded = await engine.load(module(body))

        async def spin(place: int) -> None:
            def count(record: object) -> None:
                counts[place] += 1

            await engine.run(loaded, task=TASK, chat=Scripted(success()), on_log=count)

        with trio.move_on_after(1.5):
            async with trio.open_nursery() as nursery:
                for place in range(8):
                    nursery.start_soon(spin, place)
    assert min(counts) > 0
    assert max(counts) <= 4 * min(counts) + 4


@pytest.mark.parametrize("entry", ["spins", "calls", "sleeps", "naps"])
def test_ctrl_c_ends_a_guest_and_its_process(entry: str, tmp_path: Path):
    (tmp_path / "guest.wasm").write_bytes(ENTRIES)
    program = f"""
import signal, sys, threading, trio
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell inherits that it is ignored
from spear.hostcall import ChatReply, GuestEngine, GuestTask

async def chat(session): return ChatReply({{"_spear": {{}}}})

async def main():
    async with GuestEngine(cache_directory=None) as engine:
        module = await engine.load(Path({str(tmp_path / "guest.wasm")!r}))
        print("ready", flush=True)
        await engine.run(module, entry={entry!r}, task=GuestTask("t"), chat=chat, timeout_s=None)

try:
    trio.run(main)
except KeyboardInterrupt:
    print("interrupted", [t.name for t in threading.enumerate() if t.name == "spear-epoch"], flush=True)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)
    finally:
        process.kill()
        process.wait()
    assert out == "interrupted []\n", err
    assert process.returncode == 0
    assert err == ""
