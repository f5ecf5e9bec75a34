"""Health and retries against real servers: an outage of all, one that flaps, a probe that hangs."""

from __future__ import annotations

import trio

import spear
from tests.system.kit import backend, chat, config, nothing_left

QUICK = {"open_s": 0.3, "probe_timeout_s": 1, "slow_start_s": 0}


async def test_all_down_and_back(fault_servers):
    """What is asked while everybody is down waits and is answered; the servers are hardly asked meanwhile."""
    first, second = servers = fault_servers(), fault_servers()
    source = config(backend(first), backend(second), health=QUICK, retries={"per_instance": 1})
    async with nothing_left(), spear.open_runtime(source, seed=1) as runtime:
        for server in servers:
            server.script(times=None, status=503)
        failed = 0
        with trio.fail_after(10):
            while {row["state"] for row in runtime.backends()} != {"breaker_open"}:
                failed += (await runtime.invoke(chat())).result.error is not None
        asked = sum(server.counts()["total"] for server in servers)
        assert failed <= 10
        answered = []

        async def ask():
            answered.append((await runtime.invoke(chat(timeout_ms=9000))).unwrap().text)

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                for _ in range(30):
                    nursery.start_soon(ask)
                await trio.sleep(0.1)
                assert sum(server.counts()["total"] for server in servers) == asked
                for server in servers:
                    server.script(times=None)
        assert len(answered) == 30
    for server in servers:
        await server.until(open=0, connections_open=0)


async def test_a_probe_that_never_answers(fault_servers):
    bad, good = fault_servers(), fault_servers()
    routes = [{"policy": "priority"}]
    source = config(backend(bad, priority=0), backend(good, priority=1), routes=routes, health=QUICK)
    bad.script(times=5, status=500)
    bad.script(times=None, never=True)
    async with nothing_left(), spear.open_runtime(source) as runtime:
        for _ in range(5):
            assert (await runtime.invoke(chat())).backend.name == good.name
        await trio.sleep(0.5)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(runtime.invoke, chat())
            await bad.until(open=1)
            with trio.fail_after(8):
                while {row["name"]: row["state"] for row in runtime.backends()}[bad.name] != "breaker_open":
                    assert (await runtime.invoke(chat())).backend.name == good.name
            assert bad.counts()["most_open"] == 1
            nursery.cancel_scope.cancel()
        await bad.until(open=0, aborted=1)


async def test_a_retry_after_is_waited_for(fault_server):
    fault_server.script(times=1, status=429, retry_after=1)
    async with nothing_left(), spear.open_runtime(config(backend(fault_server))) as runtime:
        begun = trio.current_time()
        response = await runtime.invoke(chat())
        took = trio.current_time() - begun
    assert [each.reason for each in response.backend.attempts] == ["chosen", "retry"]
    assert 1 <= took < 3
