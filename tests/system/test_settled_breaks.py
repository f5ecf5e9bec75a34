"""What ends attempts from outside: an actor's crash, the router's own, a reload, the runtime's end. All is settled."""

from __future__ import annotations

from contextlib import suppress
from random import Random
from typing import Any

import pytest
import trio

import spear
from actors import Node
from spear.backends import BackendActor
from spear.backends._http import _network
from spear.ir import ErrorEvent
from tests.system.kit import chat, nothing_left, until_true
from tests.system.ledger import Ledgers, ask, leave, limited, read, settled

HEDGE = {"hedge": {"max_extra_load": 1.0, "delay": 0.002}}


async def test_left_between_the_connection_and_the_request(
    fault_server: Any, ledgers: Ledgers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection stands, and nobody has anything to say over it: it is closed at once."""
    opened: list[_network.TcpStream] = []

    async def connect_and_leave(host: str, port: int) -> _network.TcpStream:
        opened.append(await _network.connect(host, port))
        scope.cancel()
        return opened[-1]

    monkeypatch.setattr("spear.backends._http._transport.connect", connect_and_leave)
    async with nothing_left(), spear.open_runtime(limited(fault_server)) as runtime:
        for action in (ask, read):
            with trio.CancelScope() as scope:
                await action(runtime)
            assert scope.cancelled_caught
            await settled(runtime, ledgers, fault_server)
    assert [each.socket.fileno() for each in opened] == [-1, -1]


async def test_an_actor_that_crashes_in_the_middle_of_turns(
    fault_servers: Any, ledgers: Ledgers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows what its backend has worked at by then: it counts as it was reserved, or as what came."""
    server = fault_servers()
    server.script(times=None, never=True)
    server.script(times=None, stream=True, tokens_per_second=20, text="word " * 20)
    codes: list[str] = []

    async def one(number: int) -> None:
        if number % 2:
            error = (await runtime.invoke(chat("four"))).result.error
            assert error is not None
            codes.append(error.code.value)
            return
        async with runtime.stream(chat("four")) as events:
            seen = [event async for event in events]
        assert isinstance(seen[-1], ErrorEvent)
        codes.append(seen[-1].error.code.value)

    source = limited(server, router={"max_attempts": 1})
    async with nothing_left(), spear.open_runtime(source) as runtime:
        with trio.fail_after(10), monkeypatch.context() as patch:
            async with trio.open_nursery() as nursery:
                for number in range(10):
                    nursery.start_soon(one, number)
                await server.until(open=10)
                await trio.sleep(0.2)  # the streams have begun
                server.script(status=500)
                patch.setattr(BackendActor, "_failure", lambda self, error: RuntimeError("a crash"))
                nursery.start_soon(one, 11)
            await until_true(lambda: runtime.backends()[0]["state"] == "running")
        assert codes == ["backend_unavailable"] * 11
        await settled(runtime, ledgers, server)
        requests = [each for each in ledgers.made if each.quota.subject == f"budget:backends:{server.name}"]
        assert {each.quota.quantity: each.used for each in requests}["requests"] == 11
        tokens = {each.quota.quantity: each.used for each in requests}["tokens"]
        assert 6 * 257 + 5 * 1 < tokens < 11 * 257
        await ask(runtime)
        await settled(runtime, ledgers, server)


def router(runtime: spear.Runtime) -> Node:
    return next(node for node in runtime.snapshot().walk() if node.path == "runtime/router")


async def test_a_router_that_crashes_in_the_middle_of_requests(
    fault_servers: Any, ledgers: Ledgers, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers = [fault_servers(), fault_servers(), fault_servers()]
    for server in servers:
        server.script(times=None, delay=0.3)
    route = {**HEDGE, "mirror": {"to": servers[-1].name, "percent": 100}}
    async with nothing_left(), spear.open_runtime(limited(*servers, route=route)) as runtime:

        def bug(*_: object) -> None:
            raise ZeroDivisionError

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                for number in range(10):
                    nursery.start_soon((ask, read)[number % 2], runtime)
                await servers[1].until(open=10)
                with monkeypatch.context() as patch:
                    patch.setattr("spear.router._course.facts_of", bug)
                    patch.setattr("spear.router._desk.facts_of", bug)
                    patch.setattr("spear.router._actor.Redactor", bug)
                    await ask(runtime)
            await until_true(lambda: router(runtime).restarts == 1)
            await settled(runtime, ledgers, *servers)
            await ask(runtime)
            await settled(runtime, ledgers, *servers)


async def test_reloads_in_the_middle_of_attempts(fault_servers: Any, ledgers: Ledgers) -> None:
    """Limits, budgets, prices, backends, hedges and mirrors come and go while callers come and leave."""
    servers = [fault_servers() for _ in range(4)]
    for server in servers:
        server.script(times=None, delay=0.01, drip={"bytes": 60, "every": 0.001})
    servers[0].script(times=None, status=503, stream=False)
    rng, done = Random(11), False

    def some() -> dict[str, Any]:
        chosen = rng.sample(servers, 3)
        route = rng.choice([{}, HEDGE, {"continuation": "prefill"}, {"mirror": {"to": chosen[-1].name, "percent": 50}}])
        source = limited(*chosen, route=route)
        for each in source["spear"]["backends"]:
            if rng.random() < 0.5:
                each["price"] = {"input": 3.0, "output": 5.0}
            if rng.random() < 0.3:
                each["limits"] = {"rpm": 10**6 + rng.randrange(3)}
        if rng.random() < 0.3:
            del source["spear"]["budgets"]
        return source

    async def load(runtime: spear.Runtime, number: int) -> None:
        own = Random(number)
        while not done:
            with trio.move_on_after(own.choice([0.005, 0.01, 0.02, 1])):
                await (ask, read, leave)[number % 3](runtime)

    with trio.fail_after(20):
        async with nothing_left(), spear.open_runtime(some(), seed=2) as runtime:
            async with trio.open_nursery() as nursery:
                for number in range(9):
                    nursery.start_soon(load, runtime, number)
                for _ in range(30):
                    assert (await runtime.reload(some())).ok
                    await trio.sleep(0.01)
                done = True
            await settled(runtime, ledgers, *servers)
    assert sum(each.reservations for each in ledgers.made) > 300


@pytest.mark.parametrize("how", ["cancelled", "by an error", "in order"])
async def test_the_runtime_ends_in_the_middle_of_attempts(fault_servers: Any, ledgers: Ledgers, how: str) -> None:
    servers = [fault_servers(), fault_servers(), fault_servers()]
    for server in servers:
        server.script(times=None, delay=0.5) if how == "in order" else server.script(times=None, never=True)
    route = {**HEDGE, "mirror": {"to": servers[-1].name, "percent": 100}}
    servers[1].script(times=None, stream=True, tokens_per_second=20)  # its streams win, and are mirrored
    seen: list[spear.Runtime] = []

    async def outside(action: Any) -> None:
        await action(seen[0])

    async def life(nursery: trio.Nursery) -> None:
        async with spear.open_runtime(limited(*servers, route=route)) as runtime:
            seen.append(runtime)
            for action in (ask, read) * 3:
                nursery.start_soon(outside, action)
            await servers[2].until(open=3)
            if how == "cancelled":
                scope.cancel()
                await trio.sleep_forever()
            if how == "by an error":
                raise ZeroDivisionError

    async with nothing_left():
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                with trio.CancelScope() as scope, suppress(ZeroDivisionError):
                    await life(nursery)
        await settled(seen[0], ledgers, *servers)
    for server in servers:
        await server.until(open=0, connections_open=0)
    assert ledgers.sent() >= 12
