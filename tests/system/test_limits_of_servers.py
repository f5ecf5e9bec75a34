"""Limits and budgets against real servers: what is sent, what it costs, and that callers who leave settle exactly."""

from __future__ import annotations

from random import Random

import pytest
import trio

import spear
from spear.ir import Completed, ErrorCode, ErrorEvent
from tests.system.kit import CHAT, backend, chat, config, nothing_left, stub

PRICE = {"input": 1000.0, "output": 2000.0}


async def test_no_more_is_sent_than_the_rate_allows(fault_server):
    source = config(backend(fault_server, limits={"rpm": 20}))
    found = []

    async def ask(runtime):
        found.append((await runtime.invoke(chat())).result.error)

    with trio.fail_after(20):
        async with nothing_left(), spear.open_runtime(source) as runtime:
            begun = trio.current_time()
            async with trio.open_nursery() as nursery:
                for _ in range(60):
                    nursery.start_soon(ask, runtime)
            took = trio.current_time() - begun
            assert took < 3  # at once: nobody waits for a rate
            assert runtime.usage()["backends"][fault_server.name]["limit:rpm"] < 2
    sent = found.count(None)
    assert 20 <= sent <= 20 + took * 20 / 60
    assert fault_server.counts()["total"] == sent
    refused = [each for each in found if each is not None]
    assert {each.code for each in refused} == {ErrorCode.RATE_LIMITED}
    assert all(0 < each.retry_after_ms <= 3000 for each in refused)


async def test_who_comes_again_when_told_is_taken(fault_server):
    source = config(backend(fault_server, limits={"rpm": 60}))
    with trio.fail_after(20):
        async with nothing_left(), spear.open_runtime(source) as runtime:
            while (error := (await runtime.invoke(chat())).result.error) is None:
                pass
            assert error.retry_after_ms <= 1000
            await trio.sleep(error.retry_after_ms / 1000)
            (await runtime.invoke(chat())).unwrap()


@pytest.mark.parametrize("said", [True, False])
async def test_a_stream_costs_what_it_used(fault_server, said):
    fault_server.script(times=None, text="one two three four five", usage=said)
    budgets = [{"name": "money", "window": "1h", "cost": 10.0}]
    with trio.fail_after(20):
        async with (
            nothing_left(),
            spear.open_runtime(config(backend(fault_server, price=PRICE), budgets=budgets)) as runtime,
        ):
            async with runtime.stream(chat()) as events:
                found = [event async for event in events]
            assert isinstance(found[-1], Completed)
            cost = found[-1].response.usage.cost
            assert cost > 0
            left = runtime.usage()["budgets"]["money"]["cost_left"]
            assert left == pytest.approx(10 - cost)


async def test_a_stream_that_is_cut_costs_what_came(fault_server):
    fault_server.script(times=None, text="x" * 400, delta_chars=10, cut="rst", cut_after=20)
    budgets = [{"name": "money", "window": "1h", "cost": 10.0}]
    with trio.fail_after(20):
        async with (
            nothing_left(),
            spear.open_runtime(config(backend(fault_server, price=PRICE), budgets=budgets)) as runtime,
        ):
            async with runtime.stream(chat("abcd")) as events:
                found = [event async for event in events]
            assert isinstance(found[-1], ErrorEvent)
            usage = found[-1].usage
            assert usage.input_tokens == 1
            assert usage.output_tokens > 0
            assert runtime.usage()["budgets"]["money"]["cost_left"] == pytest.approx(10 - usage.cost)


async def test_callers_that_leave_whenever_they_like_hold_nothing(fault_servers):
    """Afterwards no server has anything open, and each attempt was paid for: no more than was reserved, never 0."""
    servers = [fault_servers() for _ in range(2)]
    for server in servers:
        server.script(times=None, text="word " * 40, tokens_per_second=100)
    budgets = [
        {"name": "all", "window": "1h", "tokens": 1_000_000, "requests": 1000},
        {"name": "each", "window": "1h", "per": "backend", "requests": 1000},
    ]
    rng, count = Random(3), 60
    waits = [rng.uniform(0, 0.6) for _ in range(count)]

    async def leave(runtime, patience: float, streamed: bool):
        with trio.move_on_after(patience):
            if streamed:
                async with runtime.stream(chat("1234")) as events:
                    async for _ in events:
                        pass
            else:
                await runtime.invoke(chat("1234"))

    with trio.fail_after(30):
        async with (
            nothing_left(),
            spear.open_runtime(config(*(backend(each) for each in servers), budgets=budgets)) as runtime,
        ):
            async with trio.open_nursery() as nursery:
                for number, patience in enumerate(waits):
                    nursery.start_soon(leave, runtime, patience, number % 2 == 0)
            for server in servers:
                await server.until(open=0)
            usage = runtime.usage()["budgets"]
            requests = 1000 - usage["all"]["requests_left"]
            assert 0 < requests <= count
            assert requests == sum(1000 - left for left in usage["each"]["requests_left"].values())
            tokens = 1_000_000 - usage["all"]["tokens_left"]
            assert requests <= tokens <= requests * (1 + 256)


async def test_each_run_of_a_guest_has_a_budget_of_its_own():
    budgets = [{"name": "run", "window": "1h", "per": "guest", "requests": 50}]
    with trio.fail_after(30):
        async with spear.open_runtime(config(stub(), budgets=budgets)) as runtime:
            for _ in range(2):
                assert (await runtime.run_guest(CHAT)).exit_code == 0
            await runtime.chat(messages=[{"role": "user", "content": "hi"}])
            seen = runtime.usage()["budgets"]["run"]
    assert seen["subjects"] == 2
    assert len(set(seen["requests_left"].values())) == 1
