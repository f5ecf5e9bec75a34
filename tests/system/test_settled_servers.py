"""Whoever leaves, in whatever stage of a request and after whatever step: all is settled once, and nothing is held."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

import spear
from tests.servers.fault_server import FaultServer
from tests.system.kit import nothing_left, until_true
from tests.system.ledger import Ledgers, ask, leave, limited, read, settled
from tests.system.test_cancellation import busy, cancel_at_step

Action = Callable[[spear.Runtime], Awaitable[None]]


# --- the stages that a request can be in

Script = Callable[[list[FaultServer]], dict[str, Any]]
STAGES: dict[str, tuple[int, Script]] = {}


def stage(servers: int) -> Callable[[Script], Script]:
    def add(script: Script) -> Script:
        STAGES[script.__name__] = (servers, script)
        return script

    return add


@stage(1)
def plain(servers: list[FaultServer]) -> dict[str, Any]:
    return limited(*servers)


@stage(1)
def retry(servers: list[FaultServer]) -> dict[str, Any]:
    servers[0].script(times=None, status=503)
    return limited(*servers)


@stage(1)
def asked_to_wait(servers: list[FaultServer]) -> dict[str, Any]:
    """Without a key, which would be what has to wait, and would let no further request in."""
    servers[0].script(times=None, status=429, retry_after=0.01)
    source = limited(*servers)
    for each in source["spear"]["backends"]:
        del each["credentials"]
    return source


@stage(2)
def fallback(servers: list[FaultServer]) -> dict[str, Any]:
    servers[0].script(times=None, status=500)
    return limited(*servers)


@stage(2)
def connection_lost(servers: list[FaultServer]) -> dict[str, Any]:
    servers[0].script(times=None, cut="rst")
    return limited(*servers)


@stage(1)
def truncated(servers: list[FaultServer]) -> dict[str, Any]:
    servers[0].script(times=None, cut="fin", cut_after=3)
    return limited(*servers)


@stage(2)
def continued(servers: list[FaultServer]) -> dict[str, Any]:
    servers[0].script(times=None, cut="fin", cut_after=3)
    return limited(*servers, route={"continuation": "prefill"})


@stage(2)
def hedged(servers: list[FaultServer]) -> dict[str, Any]:
    """Both at once, so that each may win."""
    return limited(*servers, route={"hedge": {"max_extra_load": 1.0, "delay": 0.0001}})


@stage(3)
def hedge_fails(servers: list[FaultServer]) -> dict[str, Any]:
    """And is replaced, while the first one is still running."""
    servers[0].script(times=None, delay=0.005)
    servers[1].script(times=None, status=500)
    return limited(*servers, route={"hedge": {"max_extra_load": 1.0, "delay": 0.0001}})


@stage(2)
def hedge_and_cut(servers: list[FaultServer]) -> dict[str, Any]:
    for each in servers:
        each.script(times=None, cut="fin", cut_after=3)
    return limited(*servers, route={"hedge": {"max_extra_load": 1.0, "delay": 0.0001}, "continuation": "prefill"})


@stage(2)
def mirrored(servers: list[FaultServer]) -> dict[str, Any]:
    return limited(*servers, route={"mirror": {"to": servers[-1].name, "percent": 100}})


@stage(3)
def hedged_and_mirrored(servers: list[FaultServer]) -> dict[str, Any]:
    hedge = {"max_extra_load": 1.0, "delay": 0.0001}
    return limited(*servers, route={"hedge": hedge, "mirror": {"to": servers[-1].name, "percent": 100}})


@stage(1)
def probing(servers: list[FaultServer]) -> dict[str, Any]:
    """Its breaker opens with each failure, and lets one request through a moment later."""
    servers[0].script(times=None, status=500)
    health = {"failures": 1, "open_s": 0.001, "open_max_s": 0.002, "max_wait_s": 0.05, "eject_max_share": 0}
    return limited(*servers, health=health, on_exhausted="wait", retries={"per_instance": 1})


NEVER_ANSWERED = {"retry", "asked_to_wait", "probing"}
SWEEPS = [
    (name, action)
    for name in STAGES
    for action in (ask, read, leave)
    if action is not leave or name not in NEVER_ANSWERED
]


@pytest.mark.parametrize(("name", "action"), SWEEPS)
async def test_left_after_any_step(fault_servers: Any, ledgers: Ledgers, name: str, action: Action) -> None:
    """From the first step to beyond the last one: how many there are, the sweep finds out."""
    count, script = STAGES[name]
    servers = [fault_servers() for _ in range(count)]
    source = script(servers)
    async with nothing_left(), spear.open_runtime(source, seed=5) as runtime:
        await action(runtime)
        n = completed = cancelled = 0
        with trio.fail_after(60):
            while completed < 3:
                n += 1
                with cancel_at_step(n) as scope:
                    await action(runtime)
                completed = 0 if scope.cancelled_caught else completed + 1
                cancelled += scope.cancelled_caught
                await until_true(lambda: not busy(runtime))
                ledgers.check()
        assert cancelled > 8
        await settled(runtime, ledgers, *servers)
        assert ledgers.sent() > cancelled // 2
    for server in servers:
        await server.until(open=0, connections_open=0)


@pytest.mark.parametrize("name", STAGES)
async def test_left_after_any_time(fault_servers: Any, ledgers: Ledgers, name: str) -> None:
    """With servers that take their time, many callers at once, each with a patience of its own."""
    count, script = STAGES[name]
    servers = [fault_servers() for _ in range(count)]
    for server in servers:
        server.script(times=None, delay=0.004, drip={"bytes": 40, "every": 0.001})
    source = script(servers)
    cancelled = 0

    async def one(runtime: spear.Runtime, number: int) -> None:
        nonlocal cancelled
        with trio.move_on_after(number // 3 * 0.002) as scope:
            await (ask, read, leave)[number % 3](runtime)
        cancelled += scope.cancelled_caught

    with trio.fail_after(30):
        async with nothing_left(), spear.open_runtime(source, seed=6) as runtime:
            async with trio.open_nursery() as nursery:
                for number in range(60):
                    nursery.start_soon(one, runtime, number)
            await settled(runtime, ledgers, *servers)
    assert cancelled > 0
