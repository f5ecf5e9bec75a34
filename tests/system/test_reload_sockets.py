"""Reloading over real sockets: connections of what stays are kept, those of what leaves are closed after use."""

from __future__ import annotations

from random import Random

import pytest
import trio

import spear
from spear.config import load_config
from spear.ir import Completed
from tests.system.kit import backend, chat, config, nothing_left


@pytest.fixture
def servers(fault_servers):
    return fault_servers(), fault_servers(), fault_servers()


async def test_what_stays_keeps_its_connections(servers):
    a, b, _ = servers
    async with nothing_left(), spear.open_runtime(config(backend(a), backend(b, weight=0))) as runtime:
        (await runtime.invoke(chat())).unwrap()
        before = a.counts()["connections_opened"]
        for weight in (0, 1, 0):
            report = await runtime.reload(
                config(backend(a, weight=50 + weight), backend(b, weight=0, price={"input": 1.0}))
            )
            assert report.adjusted
            (await runtime.invoke(chat())).unwrap()
        assert a.counts()["connections_opened"] == before == 1
        assert (await runtime.reload(config(backend(b)))).removed == (a.name,)
        await a.until(connections_open=0)
        (await runtime.invoke(chat())).unwrap()
    await b.until(connections_open=0)


async def test_a_stream_that_is_cut_off_from_its_configuration(servers):
    a, b, _ = servers
    a.script(times=None, stream=True, tokens_per_second=20, text="word " * 40)
    async with nothing_left(), spear.open_runtime(config(backend(a))) as runtime:
        with trio.fail_after(20):
            async with runtime.stream(chat()) as events:
                assert (await runtime.reload(config(backend(b)))).ok
                assert (await runtime.invoke(chat())).backend.name == b.name
                seen = [event async for event in events]
        assert isinstance(seen[-1], Completed)
        assert seen[-1].response.unwrap().text.split() == ["word"] * 40
        await a.until(connections_open=0)


async def test_a_hundred_reloads_under_load(servers):
    """Backends come, change and go; plain requests and streams never fail, and nothing stays open."""
    rng = Random(3)

    def some():
        chosen = rng.sample(servers, rng.randint(1, 3))
        return load_config(
            config(
                *[backend(each, weight=rng.choice([1, 9]), timeouts={"idle": rng.choice([20, 30])}) for each in chosen]
            )
        )

    done = False
    answered = {"plain": 0, "stream": 0}
    wrong = []
    async with nothing_left(), spear.open_runtime(some()) as runtime, trio.open_nursery() as nursery:

        async def plain():
            while not done:
                response = await runtime.invoke(chat())
                answered["plain"] += 1
                if response.result.error is not None:
                    wrong.append(response.result.error)

        async def streams():
            while not done:
                async with runtime.stream(chat()) as events:
                    last = [event async for event in events][-1]
                answered["stream"] += 1
                if not isinstance(last, Completed):
                    wrong.append(last)

        for _ in range(3):
            nursery.start_soon(plain)
            nursery.start_soon(streams)
        with trio.fail_after(60):
            for number in range(100):
                assert (await runtime.reload(some())).generation == number + 2
                await trio.sleep(0.01)
        done = True
    assert wrong == []
    assert min(answered.values()) > 20, answered
    for each in servers:
        await each.until(open=0, connections_open=0)
    assert sum(each.counts()["completed"] for each in servers) == sum(answered.values())
