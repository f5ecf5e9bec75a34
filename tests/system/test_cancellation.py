"""Whoever leaves, at whatever moment: the server sees it, and no task, descriptor or thread is left."""

from __future__ import annotations

import time
from contextlib import contextmanager

import pytest
import trio

import spear
from spear.hostcall import Termination
from spear.ir import SpearError
from tests.system.kit import (
    CHAT_TOOL,
    GUESTS,
    HELLO,
    backend,
    chat,
    config,
    nothing_left,
    prefer,
    until_true,
    warm_runtime,
)


class CancelAtStep(trio.abc.Instrument):
    """Cancels `scope` after the n-th step that any task of this run makes."""

    def __init__(self, scope: trio.CancelScope, n: int) -> None:
        self.scope = scope
        self.left = n

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.left -= 1
        if self.left == 0:
            self.scope.cancel()


@contextmanager
def cancel_at_step(n):
    with trio.CancelScope() as scope:
        instrument = CancelAtStep(scope, n)
        trio.lowlevel.add_instrument(instrument)
        try:
            yield scope
        finally:
            trio.lowlevel.remove_instrument(instrument)


def busy(runtime):
    """Paths of actors that still have something to do, and of guests that are still there."""
    return [
        node.path for node in runtime.snapshot().walk() if "/guests/" in node.path or node.running or node.mailbox_used
    ]


async def quiet(runtime, *servers):
    await until_true(lambda: not busy(runtime))
    for server in servers:
        counts = await server.until(open=0)
        assert counts["total"] == counts["completed"] + counts["aborted"] + counts["broken"]


async def ask(runtime):
    return (await runtime.invoke(chat("one two"))).unwrap().text == "echo: one two"


async def read_stream(runtime):
    async with runtime.stream(chat("one two three")) as events:
        return [event.type async for event in events][-1] == "completed"


async def leave_stream(runtime):
    async with runtime.stream(chat("one two three")) as events:
        async for event in events:
            if event.type == "content_delta":
                return True
    return False


async def guest(runtime):
    execution = await runtime.run_guest(CHAT_TOOL)
    return execution.status == "completed" and execution.usage.requests == 2


ACTIONS = [ask, read_stream, leave_stream, guest]


@pytest.mark.parametrize("action", ACTIONS)
async def test_cancelled_after_any_step(fault_server, action):
    """From the first step to beyond the last one: how many there are, the sweep finds out."""
    async with nothing_left(), warm_runtime(config(backend(fault_server))) as runtime:
        assert await action(runtime)
        n = completed = cancelled = 0
        with trio.fail_after(60):
            while completed < 3:
                n += 1
                with cancel_at_step(n) as scope:
                    assert await action(runtime)
                completed = 0 if scope.cancelled_caught else completed + 1
                cancelled += scope.cancelled_caught
                await quiet(runtime)
        assert cancelled > 8
        await quiet(runtime, fault_server)
        assert await action(runtime)
    await fault_server.until(open=0, connections_open=0)


@pytest.mark.parametrize("action", ACTIONS)
async def test_cancelled_after_any_time(fault_server, action):
    fault_server.script(times=None, delay=0.01, drip={"bytes": 40, "every": 0.002})
    async with nothing_left(), warm_runtime(config(backend(fault_server))) as runtime:
        assert await action(runtime)
        cancelled = 0
        with trio.fail_after(30):
            for milliseconds in range(0, 80, 2):
                with trio.move_on_after(milliseconds / 1000) as scope:
                    assert await action(runtime)
                cancelled += scope.cancelled_caught
        assert cancelled >= 3
        await quiet(runtime, fault_server)
        assert fault_server.counts()["aborted"] >= 1
        assert await action(runtime)
    await fault_server.until(open=0, connections_open=0)


@pytest.mark.parametrize("action", ACTIONS)
async def test_a_call_that_waits_for_ever_is_aborted_at_the_server(fault_server, action):
    fault_server.script(times=None, never=True)
    async with nothing_left(), warm_runtime(config(backend(fault_server))) as runtime:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(action, runtime)
            await fault_server.until(open=1)
            nursery.cancel_scope.cancel()
        await fault_server.until(open=0, aborted=1, connections_open=0, limit=2)


async def test_a_slow_stream_reader_that_leaves(fault_server):
    fault_server.script(times=None, tokens_per_second=20)
    async with nothing_left(), spear.open_runtime(config(backend(fault_server))) as runtime:
        async with trio.open_nursery() as nursery:

            async def read():
                async with runtime.stream(chat("word " * 400)) as events:
                    async for _ in events:
                        await trio.sleep(0.02)

            nursery.start_soon(read)
            await fault_server.until(open=1)
            await trio.sleep(0.2)
            nursery.cancel_scope.cancel()
        await fault_server.until(open=0, aborted=1, limit=2)


async def test_cancelled_while_the_fallback_is_asked(fault_servers):
    bad, slow = fault_servers(), fault_servers()
    bad.script(times=None, status=500)
    slow.script(times=None, never=True)
    async with nothing_left(), spear.open_runtime(prefer(bad, slow)) as runtime:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(runtime.invoke, chat())
            await slow.until(open=1)
            nursery.cancel_scope.cancel()
        await slow.until(open=0, aborted=1)
        assert bad.counts()["open"] == 0


async def everything(source):
    async with spear.open_runtime(source) as runtime:
        await runtime.invoke(chat())
        async with runtime.stream(chat()) as events:
            async for _ in events:
                pass
        await runtime.run_guest(GUESTS, entry="chat_small")


async def test_a_runtime_cancelled_after_any_step_from_its_opening_to_its_end(fault_server):
    source = config(backend(fault_server))
    await everything(source)
    async with nothing_left():
        n, completed = 0, 0
        with trio.fail_after(60):
            while completed < 2:
                n += 1 if n < 30 else 4
                with cancel_at_step(n) as scope:
                    await everything(source)
                completed = 0 if scope.cancelled_caught else completed + 1
        assert n > 50
    await fault_server.until(open=0, connections_open=0)


@pytest.mark.parametrize("entry", ["chat_here", "sleep_an_hour", "sleep_wasi", "spin"])
async def test_a_guests_time_is_over(fault_server, entry):
    fault_server.script(times=None, never=True)
    async with nothing_left(), warm_runtime(config(backend(fault_server))) as runtime:
        with trio.fail_after(5):
            execution = await runtime.run_guest(GUESTS, entry=entry, timeout_s=0.3)
        assert execution.status == "timeout"
        assert execution.exit_code is None
        assert "0.3 s" in execution.error_message
        assert execution.logs[0].message == "here"
        assert 280 <= execution.duration_ms < 2000
        await quiet(runtime, fault_server)
    assert fault_server.counts()["aborted"] == (entry == "chat_here")


@pytest.mark.parametrize("entry", ["chat_here", "sleep_an_hour", "sleep_wasi", "spin"])
async def test_a_guest_terminated_from_elsewhere(fault_server, entry):
    fault_server.script(times=None, never=True)
    async with nothing_left(), warm_runtime(config(backend(fault_server))) as runtime:
        handle = Termination()
        here = trio.Event()
        executions = []

        async def run():
            executions.append(
                await runtime.run_guest(GUESTS, entry=entry, handle=handle, on_log=lambda record: here.set())
            )

        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run)
                await here.wait()
                if entry == "chat_here":
                    await fault_server.until(open=1)
                handle.terminate("enough")
        [execution] = executions
        assert (execution.status, execution.error_message) == ("terminated", "enough")
        assert execution.logs[-1].message == "Terminate execution: enough"
        await quiet(runtime, fault_server)
    assert fault_server.counts()["aborted"] == (entry == "chat_here")


async def test_guests_killed_while_a_hundred_others_go_on(fault_server):
    """Spinning, sleeping and asking guests are cancelled one after the other; the others all get their answers."""
    fault_server.script(times=None, model="small", delay=0.05)
    source = config(backend(fault_server, limits={"max_inflight": 200, "max_queue": 200}))
    async with nothing_left(), warm_runtime(source) as runtime:
        fine = []
        killed = []

        async def other():
            execution = await runtime.run_guest(GUESTS, entry="chat_small")
            fine.append(execution.status == "completed" and '"echo: good day"' in execution.stdout)

        async def victim(entry, delay):
            with trio.move_on_after(delay) as scope:
                await runtime.run_guest(GUESTS, entry=entry)
            killed.append(scope.cancelled_caught)

        with trio.fail_after(40):
            async with trio.open_nursery() as nursery:
                for n in range(100):
                    nursery.start_soon(other)
                    if n % 5 == 0:
                        entry = ("spin", "sleep_an_hour", "sleep_wasi", "prints")[n // 5 % 4]
                        nursery.start_soon(victim, entry, 0.05 + n / 200)
        assert fine == [True] * 100
        assert killed == [True] * 20
        await quiet(runtime, fault_server)


async def test_the_loop_stays_alive_beside_spinners(fault_server):
    """Its whole use: a spinning guest costs others a time slice, not the loop."""
    async with warm_runtime(config(backend(fault_server))) as runtime, trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(lambda: runtime.run_guest(GUESTS, entry="spin"))
        began = time.perf_counter()
        for _ in range(5):
            assert await ask(runtime)
        assert time.perf_counter() - began < 5
        nursery.cancel_scope.cancel()


async def test_leaving_the_block_by_a_cancellation_ends_what_is_in_flight(fault_server):
    fault_server.script(times=None, never=True)
    async with nothing_left():
        with trio.fail_after(5), trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery, spear.open_runtime(config(backend(fault_server))) as runtime:
                nursery.start_soon(runtime.invoke, chat())
                nursery.start_soon(lambda: runtime.run_guest(GUESTS, entry="chat_small"))
                await fault_server.until(open=2)
                scope.cancel()
                await trio.sleep_forever()
        assert scope.cancelled_caught
    await fault_server.until(open=0, aborted=2, connections_open=0)


async def test_leaving_the_block_by_an_error_tells_those_outside(fault_server):
    fault_server.script(times=None, never=True)
    seen = {}

    async def ask_from_outside(runtime):
        seen["invoke"] = (await runtime.invoke(chat())).result.error.code

    async def run_from_outside(runtime):
        with pytest.raises(SpearError, match="the runtime was closed before the guest had ended"):
            await runtime.run_guest(GUESTS, entry="sleep_an_hour")
        seen["run_guest"] = True

    async with nothing_left():
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                with pytest.raises(ZeroDivisionError):  # noqa: PT012
                    async with spear.open_runtime(config(backend(fault_server))) as runtime:
                        nursery.start_soon(ask_from_outside, runtime)
                        nursery.start_soon(run_from_outside, runtime)
                        await fault_server.until(open=1)
                        await until_true(lambda: any("exec-" in path for path in busy(runtime)))
                        raise ZeroDivisionError
    assert seen == {"invoke": "backend_unavailable", "run_guest": True}
    await fault_server.until(open=0, aborted=1, connections_open=0)


async def test_a_closed_runtime_says_so(fault_server):
    async with spear.open_runtime(config(backend(fault_server))) as never_ran_a_guest:
        pass
    async with warm_runtime(config(backend(fault_server))) as ran_one:
        pass
    for runtime in (never_ran_a_guest, ran_one):
        with trio.fail_after(5):
            assert (await runtime.invoke(chat())).result.error.code == "backend_unavailable"
            with pytest.raises(SpearError, match="backend_unavailable"):
                async with runtime.stream(chat()):
                    pass
            with pytest.raises(SpearError, match="closed"):
                await runtime.run_guest(HELLO)
    assert fault_server.counts()["total"] == 0


async def test_leaving_the_block_lets_what_is_in_flight_finish(fault_server):
    fault_server.script(times=None, delay=0.4)
    answers = []
    async with nothing_left(), trio.open_nursery() as nursery:  # noqa: SIM117 - the order of the exits is the point
        async with spear.open_runtime(config(backend(fault_server))) as runtime:
            assert (await runtime.run_guest(HELLO)).status == "completed"

            async def one():
                answers.append((await runtime.invoke(chat("late"))).unwrap().text)

            async def two():
                execution = await runtime.run_guest(GUESTS, entry="chat_small")
                answers.append(execution.status)

            nursery.start_soon(one)
            nursery.start_soon(two)
            await fault_server.until(open=2)
    assert sorted(answers) == ["completed", "echo: late"]
    await fault_server.until(open=0, completed=2)
