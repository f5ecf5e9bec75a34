"""Hedging over real sockets: the losers' connections are closed before the call returns, whoever leaves at whatever
moment, and a reload in the middle loses nothing."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager

import pytest
import trio

import spear
from spear.backends import find_kind
from spear.ir import Completed
from tests.system.kit import CHAT_TOOL, backend, chat, config, nothing_left, open_fds, until_true
from tests.system.test_cancellation import cancel_at_step, quiet

DELAY_S = 0.05


def hedged(first, *others, delay=DELAY_S, **more):
    """`first` takes everything; the others are for hedges and fallbacks, in that order."""
    backends = [backend(server, priority=at) for at, server in enumerate((first, *others))]
    hedge = {"max_extra_load": 1.0, "delay": delay}
    route = {"match": {"operation": "chat_completions"}, "policy": "priority", "hedge": hedge}
    return config(*backends, routes=[route], **more)


async def by_invoke(runtime):
    return await runtime.invoke(chat("one two"))


async def by_stream(runtime):
    async with runtime.stream(chat("one two")) as events:
        seen = [event async for event in events]
    assert isinstance(seen[-1], Completed)
    assert [event.type for event in seen].count("started") == 1
    return seen[-1].response


def attempts(response):
    return [(each.backend, each.reason, each.outcome) for each in response.backend.attempts]


def sockets():
    return {fd for fd, what in open_fds().items() if what.startswith("socket:")}


def router_counts(runtime):
    return runtime._desk.observe()


both = pytest.mark.parametrize("ask", [by_invoke, by_stream])


@both
async def test_a_hung_first_one_is_closed_before_the_call_returns(fault_servers, ask):
    hung, well = fault_servers(), fault_servers()
    async with nothing_left(), spear.open_runtime(hedged(hung, well)) as runtime:
        with trio.fail_after(20):
            for number in range(1, 21):
                hung.script(never=True)
                before = sockets()
                response = await ask(runtime)
                assert len(sockets() - before) <= (number == 1), "but for the one that `well` keeps"
                assert attempts(response) == [
                    (hung.name, "chosen", "superseded"),
                    (well.name, "hedge", "ok"),
                ]
        await quiet(runtime, hung, well)
        await hung.until(aborted=20, completed=0, connections_open=0)
        assert well.counts()["completed"] == 20
        counts = router_counts(runtime)
        assert (counts["hedges"], counts["hedges_won"], counts["superseded"]) == (20, 20, 20)


class SlowToClose:
    """The real adapter, but for plain calls: one that is cancelled keeps its connection open for another 0.3 s."""

    name = "slow_to_close"

    def __init__(self):
        self.inner = find_kind("openai_chat")
        self.capabilities = self.inner.capabilities
        self.check = self.inner.check

    @asynccontextmanager
    async def open(self, instance, host):
        async with self.inner.open(instance, host) as adapter:
            yield SlowAdapter(adapter)


class SlowAdapter:
    def __init__(self, adapter):
        self.adapter = adapter
        self.stream = adapter.stream

    async def invoke(self, request, call):
        answers = []

        async def inside():
            with trio.CancelScope(shield=True) as kept:
                scopes.append(kept)
                answers.append(await self.adapter.invoke(request, call))
            nursery.cancel_scope.cancel()

        scopes = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(inside)
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                if not answers:
                    with trio.CancelScope(shield=True):
                        await trio.sleep(0.3)
                    scopes[0].cancel()
                raise
        return answers[0]


async def test_a_connection_that_closes_slowly_is_waited_for(fault_servers):
    """Whatever a loser does on its way out, the call returns after it, and not before."""
    hung, well = fault_servers(), fault_servers()
    hung.script(times=None, never=True)
    source = hedged(hung, well)
    for each in source["spear"]["backends"]:
        each["kind"] = "slow_to_close"
    async with nothing_left(), spear.open_runtime(source, kinds={"slow_to_close": SlowToClose()}) as runtime:
        (await runtime.invoke(chat(routing={"backend": well.name}))).unwrap()
        before = sockets()
        begun = trio.current_time()
        with trio.fail_after(5):
            response = await by_invoke(runtime)
        assert sockets() == before
        assert attempts(response) == [(hung.name, "chosen", "superseded"), (well.name, "hedge", "ok")]
        assert trio.current_time() - begun >= DELAY_S + 0.3
        await hung.until(open=0, aborted=1)


@both
async def test_a_hedge_that_loses_is_closed_before_the_call_returns(fault_servers, ask):
    late, hung = fault_servers(), fault_servers()
    late.script(times=None, delay=4 * DELAY_S)
    hung.script(times=None, never=True)
    async with nothing_left(), spear.open_runtime(hedged(late, hung)) as runtime:
        with trio.fail_after(20):
            for _ in range(5):
                response = await ask(runtime)
                assert attempts(response)[-1] == (late.name, "chosen", "ok")
        await quiet(runtime, late, hung)
        await hung.until(aborted=5, completed=0, connections_open=0)
        assert late.counts()["completed"] == 5


async def test_nothing_of_the_loser_s_stream_is_seen(fault_servers):
    """Both stream at the same time; head and metadata of the loser were there already."""
    slow, quick = fault_servers(), fault_servers()
    slow.script(times=None, stream=True, body_delay=0.5, text="slow slow slow")
    quick.script(times=None, stream=True, tokens_per_second=100, text="word " * 20)
    async with nothing_left(), spear.open_runtime(hedged(slow, quick)) as runtime:
        with trio.fail_after(10):
            async with runtime.stream(chat()) as events:
                seen = [event async for event in events]
        text = "".join(event.delta for event in seen if event.type == "content_delta")
        assert text == seen[-1].response.unwrap().text
        assert text.split() == ["word"] * 20
        await slow.until(aborted=1, open=0)


@both
async def test_a_failing_hedge_leaves_the_first_one_alone(fault_servers, ask):
    late, bad = fault_servers(), fault_servers()
    late.script(times=None, delay=4 * DELAY_S)
    bad.script(times=None, status=500)
    async with nothing_left(), spear.open_runtime(hedged(late, bad)) as runtime:
        response = await ask(runtime)
        assert attempts(response) == [(bad.name, "hedge", "failed"), (late.name, "chosen", "ok")]


@both
async def test_three_servers_of_which_one_hangs_and_one_is_down(fault_servers, ask):
    hung, bad, well = fault_servers(), fault_servers(), fault_servers()
    hung.script(times=None, never=True)
    bad.script(times=None, status=503)
    async with nothing_left(), spear.open_runtime(hedged(hung, bad, well)) as runtime:
        with trio.fail_after(5):
            response = await ask(runtime)
        assert attempts(response)[-1] == (well.name, "fallback", "ok")
        await quiet(runtime, hung, bad, well)


@both
async def test_a_refused_request_ends_the_race(fault_servers, ask):
    hung, strict, other = fault_servers(), fault_servers(), fault_servers()
    hung.script(times=None, never=True)
    strict.script(times=None, status=400)
    async with nothing_left(), spear.open_runtime(hedged(hung, strict, other)) as runtime:
        with trio.fail_after(5):
            if ask is by_invoke:
                assert (await ask(runtime)).result.error.attempts[-1].outcome == "superseded"
            else:
                with pytest.raises(spear.SpearError):
                    await ask(runtime)
        await quiet(runtime, hung, strict)
        assert hung.counts()["aborted"] == 1
        assert other.counts()["total"] == 0


async def test_extra_load_is_bounded_at_the_servers(fault_servers):
    late, extra = fault_servers(), fault_servers()
    late.script(times=None, delay=0.1)
    source = hedged(late, extra, delay=0.02)
    source["spear"]["routes"][0]["hedge"]["max_extra_load"] = 0.1
    async with nothing_left(), spear.open_runtime(source) as runtime:
        for _ in range(10):
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(by_invoke, runtime)
        await quiet(runtime, late, extra)
    assert 190 <= late.counts()["total"] <= 200, "but for those that were superseded while they connected"
    assert 10 <= extra.counts()["total"] <= 20


# --- whoever leaves


async def leave_stream(runtime):
    async with runtime.stream(chat("one two three")) as events:
        async for event in events:
            if event.type == "content_delta":
                return True
    return False


async def ask_it(runtime):
    return (await by_invoke(runtime)).unwrap().text == "echo: one two"


async def read_it(runtime):
    return (await by_stream(runtime)).unwrap().text == "echo: one two"


async def guest(runtime):
    return (await runtime.run_guest(CHAT_TOOL)).status == "completed"


async def settled(runtime, *servers):
    """Nobody works any more, and nothing is held: turns, budgets, trials, purses."""
    await quiet(runtime, *servers)
    desk = runtime._desk
    await until_true(lambda: not desk.budget)
    counts = router_counts(runtime)
    assert counts["requests"] == counts["ok"] + counts["cancelled"] + sum(counts["errors"].values())
    for each in desk.generation.instances:
        assert not each.turns
        assert each.load == 0
        assert each.health.quiet
    assert counts["hedges"] <= counts["requests"]


@pytest.mark.parametrize("action", [ask_it, read_it, leave_stream])
async def test_cancelled_after_any_step_of_a_race(fault_servers, action):
    """With both attempts sent at once, so that each step of the sweep is one of the race."""
    first, second = fault_servers(), fault_servers()
    async with nothing_left(), spear.open_runtime(hedged(first, second, delay=0.0001)) as runtime:
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
        await settled(runtime, first, second)
        assert await action(runtime)
    for server in (first, second):
        await server.until(open=0, connections_open=0)
    assert second.counts()["total"] > 0


@pytest.mark.parametrize("action", [ask_it, read_it, leave_stream, guest])
async def test_cancelled_after_any_time_of_a_race(fault_servers, action):
    first, second = fault_servers(), fault_servers()
    first.script(times=None, delay=0.025, drip={"bytes": 40, "every": 0.001})
    second.script(times=None, delay=0.02, drip={"bytes": 40, "every": 0.001})
    async with nothing_left(), spear.open_runtime(hedged(first, second, delay=0.01)) as runtime:
        assert await action(runtime)
        cancelled = 0
        with trio.fail_after(30):
            for milliseconds in range(0, 60, 2):
                with trio.move_on_after(milliseconds / 1000) as scope:
                    assert await action(runtime)
                cancelled += scope.cancelled_caught
        assert cancelled >= 3
        await settled(runtime, first, second)
        assert first.counts()["aborted"] >= 1
        assert second.counts()["aborted"] >= 1
        assert await action(runtime)
    for server in (first, second):
        await server.until(open=0, connections_open=0)


@both
async def test_a_caller_that_leaves_a_race_of_two_that_hang(fault_servers, ask):
    first, second = fault_servers(), fault_servers()
    for server in (first, second):
        server.script(times=None, never=True)
    async with nothing_left(), spear.open_runtime(hedged(first, second)) as runtime:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, runtime)
            await first.until(open=1)
            await second.until(open=1)
            nursery.cancel_scope.cancel()
        for server in (first, second):
            await server.until(open=0, aborted=1, connections_open=0, limit=2)
        await settled(runtime, first, second)


async def test_a_runtime_that_is_closed_in_the_middle_of_a_race(fault_servers):
    first, second = fault_servers(), fault_servers()
    for server in (first, second):
        server.script(times=None, never=True)
    async with nothing_left():
        with trio.fail_after(10), trio.CancelScope() as scope:
            source = hedged(first, second)
            async with trio.open_nursery() as nursery, spear.open_runtime(source) as runtime:
                nursery.start_soon(by_invoke, runtime)
                await second.until(open=1)
                scope.cancel()
                await trio.sleep_forever()
    for server in (first, second):
        await server.until(open=0, aborted=1, connections_open=0)


# --- reload


@both
@pytest.mark.parametrize("gone", ["first", "hedge", "hedging", "all"])
async def test_a_reload_in_the_middle_of_a_race_loses_nothing(fault_servers, ask, gone):
    """Whoever leaves the configuration finishes what it has; what the next attempt is, the new one decides."""
    first, second, third = fault_servers(), fault_servers(), fault_servers()
    first.script(times=None, delay=0.8)
    second.script(times=None, delay=0.4)
    after = {
        "first": hedged(second, third),
        "hedge": hedged(first, third),
        "hedging": config(backend(first), backend(second)),
        "all": hedged(third),
    }[gone]
    async with nothing_left(), spear.open_runtime(hedged(first, second)) as runtime:
        got = []

        async def one():
            got.append(await ask(runtime))

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(one)
                await second.until(open=1)
                assert (await runtime.reload(after)).ok
        assert attempts(got[0]) == [(first.name, "chosen", "superseded"), (second.name, "hedge", "ok")]
        await quiet(runtime, first, second, third)
        assert not runtime._desk.budget


@both
async def test_a_reload_before_the_hedge_decides_who_gets_it(fault_servers, ask):
    first, second, third = fault_servers(), fault_servers(), fault_servers()
    first.script(times=None, never=True)
    async with nothing_left(), spear.open_runtime(hedged(first, second, delay=0.3)) as runtime:
        got = []

        async def one():
            got.append(await ask(runtime))

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(one)
                await first.until(open=1)
                assert (await runtime.reload(hedged(first, third, delay=0.3))).ok
        assert attempts(got[0]) == [(first.name, "chosen", "superseded"), (third.name, "hedge", "ok")]
        assert second.counts()["total"] == 0


async def test_reloads_under_hedged_load_lose_nothing(fault_servers):
    servers = [fault_servers() for _ in range(3)]
    for server in servers:
        server.script(times=None, delay=0.01)
    done, wrong, answered = False, [], 0
    source = hedged(*servers, delay=0.005)
    async with nothing_left(), spear.open_runtime(source) as runtime, trio.open_nursery() as nursery:

        async def load(ask):
            nonlocal answered
            while not done:
                response = await ask(runtime)
                answered += 1
                if response.result.error is not None:
                    wrong.append(response.result.error)

        for ask in (by_invoke, by_stream) * 3:
            nursery.start_soon(load, ask)
        ends = time.monotonic() + 3
        number = 0
        with trio.fail_after(30):
            while time.monotonic() < ends:
                number += 1
                some = servers[number % 3 :] + servers[: number % 3]
                assert (await runtime.reload(hedged(*some[: 2 + number % 2], delay=0.005))).ok
                await trio.sleep(0.01)
        done = True
    assert wrong == []
    assert answered > 50
    for server in servers:
        await server.until(open=0, connections_open=0)


@both
async def test_a_mirror_follows_the_winner_once(fault_servers, ask):
    hung, well, third = fault_servers(), fault_servers(), fault_servers()
    hung.script(times=None, never=True)
    source = hedged(hung, well)
    source["spear"]["backends"].append(backend(third, weight=0))
    source["spear"]["routes"][0]["mirror"] = {"to": third.name, "percent": 100}
    async with nothing_left(), spear.open_runtime(source) as runtime:
        response = await ask(runtime)
        assert attempts(response)[-1] == (well.name, "hedge", "ok")
        await until_true(runtime.mirrors)
        (record,) = runtime.mirrors()
        assert (record["primary"], record["primary_outcome"]) == (well.name, "ok")
        await quiet(runtime, hung, well, third)
        assert third.counts()["total"] == 1


# --- continuation


async def test_a_stream_that_is_cut_off_is_taken_up_by_another_server(fault_servers):
    first, second = fault_servers(), fault_servers()
    first.script(stream=True, text="one two three four five six", cut="rst", cut_after=4)
    second.script(times=None, stream=True, text="and the rest")
    backends = [backend(server, priority=at) for at, server in enumerate((first, second))]
    route = {"policy": "priority", "continuation": "prefill"}
    async with nothing_left(), spear.open_runtime(config(*backends, routes=[route])) as runtime:
        with trio.fail_after(5):
            async with runtime.stream(chat()) as events:
                seen = [event async for event in events]
        await quiet(runtime, first, second)
    text = "".join(event.delta for event in seen if event.type == "content_delta")
    assert isinstance(seen[-1], Completed)
    assert text == seen[-1].response.unwrap().text
    assert text.startswith("one two")
    assert text.endswith("and the rest")
    (asked,) = second.requests()
    last = asked["json"]["messages"][-1]
    assert last == {"role": "assistant", "content": text.removesuffix("and the rest")}
    assert attempts(seen[-1].response) == [
        (first.name, "chosen", "failed"),
        (second.name, "continued", "ok"),
    ]
    assert first.counts()["broken"] == 1


async def leave_the_rest(runtime):
    async with runtime.stream(chat("one two three")) as events:
        async for event in events:
            if event.type == "completed":
                return event.response.backend.degraded == ("continued",)
    return False


async def test_cancelled_after_any_time_of_a_continuation(fault_servers):
    first, second = fault_servers(), fault_servers()
    first.script(times=None, stream=True, tokens_per_second=200, cut="fin", cut_after=4)
    second.script(times=None, stream=True, tokens_per_second=200, text="and the rest of it")
    backends = [backend(server, priority=at) for at, server in enumerate((first, second))]
    health = {"enabled": False}
    route = {"policy": "priority", "continuation": "prefill"}
    source = config(*backends, routes=[route], health=health)
    async with nothing_left(), spear.open_runtime(source) as runtime:
        assert await leave_the_rest(runtime)
        cancelled = 0
        with trio.fail_after(30):
            for milliseconds in range(0, 80, 2):
                with trio.move_on_after(milliseconds / 1000) as scope:
                    assert await leave_the_rest(runtime)
                cancelled += scope.cancelled_caught
        assert cancelled >= 5
        await settled(runtime, first, second)
        assert second.counts()["aborted"] >= 1
        assert await leave_the_rest(runtime)
    for server in (first, second):
        await server.until(open=0, connections_open=0)
