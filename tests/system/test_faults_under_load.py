"""Many requests at once while something is wrong: a backend that hangs, one that flaps, clocks that jump."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
import trio

import spear
from spear.router import POLICIES
from tests.system.kit import backend, chat, config, nothing_left

QUICK = {"open_s": 0.2, "probe_timeout_s": 1, "slow_start_s": 0}


async def test_a_hanging_backend_blocks_nobody_elses_line(fault_servers):
    """Its bulkhead and its queue are full and stay so; everybody else is served as if it were not there."""
    hung, good = fault_servers(), fault_servers()
    hung.script(times=None, never=True)
    source = config(backend(hung), backend(good, limits={"max_inflight": 4}))
    answered = []
    async with nothing_left(), spear.open_runtime(source) as runtime:

        async def ask():
            response = await runtime.invoke(chat(routing={"backend": good.name}))
            answered.append(response.unwrap().text)

        async with trio.open_nursery() as nursery:
            for _ in range(64 + 64):
                nursery.start_soon(runtime.invoke, chat(routing={"backend": hung.name}))
            await hung.until(open=64)
            with trio.fail_after(5):
                async with trio.open_nursery() as others:
                    for _ in range(60):
                        others.start_soon(ask)
            assert len(answered) == 60
            assert hung.counts()["open"] == 64
            full = (await runtime.invoke(chat(routing={"backend": hung.name}))).result.error
            assert full.code == "overloaded"
            assert full.rejected_reasons[hung.name] == "full"
            nursery.cancel_scope.cancel()
        await hung.until(open=0, aborted=64)
    await good.until(open=0, connections_open=0, aborted=0)


@pytest.mark.parametrize("policy", sorted(POLICIES))
async def test_a_hanging_backend_among_others(fault_servers, policy):
    """Each request that met it moves on, and its breaker keeps the later ones away."""
    hung, *others = servers = fault_servers(), fault_servers(), fault_servers()
    hung.script(times=None, never=True)
    source = config(
        *(backend(each, timeouts={"first_event": 0.2}, price={"input": 1, "output": 1}) for each in servers),
        routes=[{"policy": policy}],
        health={"open_s": 30},
    )
    async with nothing_left(), spear.open_runtime(source, seed=2) as runtime:
        texts = []

        async def ask(number):
            texts.append((await runtime.invoke(chat(f"question {number}"))).unwrap().text)

        with trio.fail_after(10):
            for start in range(0, 90, 30):
                async with trio.open_nursery() as nursery:
                    for number in range(start, start + 30):
                        nursery.start_soon(ask, number)
        assert sorted(texts) == sorted(f"echo: question {number}" for number in range(90))
        assert hung.counts()["total"] <= 45  # of the first round or two
    for server in servers:
        await server.until(open=0, connections_open=0)
    assert sum(each.counts()["completed"] for each in others) == 90


async def test_a_flapping_backend_loses_no_request(fault_servers):
    flapping, good = fault_servers(), fault_servers()
    source = config(backend(flapping), backend(good), health=QUICK, routes=[{"policy": "round_robin"}])
    lost = []
    async with nothing_left(), spear.open_runtime(source, seed=1) as runtime:

        async def ask():
            while not over.is_set():
                response = await runtime.invoke(chat())
                if response.result.error is not None:
                    lost.append(response.result.error)
                await trio.sleep(0.005)

        over = trio.Event()
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(ask)
            for _ in range(5):
                flapping.script(times=None, status=503)
                await trio.sleep(0.25)
                flapping.script(times=None)
                await trio.sleep(0.25)
            over.set()
        health = runtime._desk.observe()["instances"][flapping.name]["health"]
        assert health["opened"] >= 2
    assert not lost
    for server in (flapping, good):
        await server.until(open=0, connections_open=0)


async def test_a_server_that_stands_still_and_goes_on(fault_servers):
    """Stopped, not dead: its sockets take what is sent. It is left out, and used again when it is back."""
    still, good = fault_servers(), fault_servers()
    source = config(
        backend(still, timeouts={"first_event": 0.2}), backend(good), health=QUICK, routes=[{"policy": "round_robin"}]
    )
    async with nothing_left(), spear.open_runtime(source, seed=1) as runtime:
        (await runtime.invoke(chat())).unwrap()
        os.kill(still.pid, signal.SIGSTOP)
        try:
            with trio.fail_after(15):
                while {row["name"]: row["state"] for row in runtime.backends()}[still.name] != "breaker_open":
                    assert (await runtime.invoke(chat())).unwrap().text
        finally:
            os.kill(still.pid, signal.SIGCONT)
        with trio.fail_after(15):
            while (await runtime.invoke(chat())).backend.name != still.name:  # noqa: ASYNC110 -- each turn asks
                await trio.sleep(0.02)
    await still.until(open=0, connections_open=0)


PROGRAM = """
import json, sys, trio, spear
from tests.system.kit import chat

async def main():
    outcomes = []
    async with spear.open_runtime(json.loads(sys.argv[1])) as runtime:
        async def ask():
            response = await runtime.invoke(chat())
            outcomes.append("ok" if response.result.error is None else response.result.error.code.value)
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(ask)
            print("asked", flush=True)
        before = len(outcomes)
        for _ in range(10):
            await ask()
        states = [row["state"] for row in runtime.backends()]
    print(json.dumps({"outcomes": outcomes, "before": before, "states": states}), flush=True)

trio.run(main)
"""


def _start(command):
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


async def test_our_own_clock_jumps(fault_server):
    """The whole process stands still for two seconds, as on a suspended machine: every clock of every attempt runs out
    at once while the answers are there already. What was under way ends one way or the other, exactly once, and what
    follows is served."""
    fault_server.script(times=10, delay=0.3)
    source = config(backend(fault_server, timeouts={"first_event": 1, "idle": 1}), health=QUICK)
    program = _start([sys.executable, "-c", PROGRAM, json.dumps(source)])
    try:
        assert program.stdout is not None
        assert await trio.to_thread.run_sync(program.stdout.readline) == "asked\n"
        await fault_server.until(open=10, limit=10)
        os.kill(program.pid, signal.SIGSTOP)
        await trio.sleep(2)
        os.kill(program.pid, signal.SIGCONT)
        with trio.fail_after(30):
            out = json.loads(await trio.to_thread.run_sync(program.stdout.readline))
            assert await trio.to_thread.run_sync(program.wait) == 0
    finally:
        program.kill()
        program.wait()
        program.stdout.close()
    assert out["before"] == 10
    assert set(out["outcomes"][:10]) <= {"ok", "timeout"}
    assert out["outcomes"][10:] == ["ok"] * 10
    assert out["states"] == ["running"]
    await fault_server.until(open=0, connections_open=0)
