"""Where the times come from: real attempts of scripted backends, on a clock that jumps."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from spear.config import Route
from spear.ir import ContentDelta, ErrorCode, Failure, Started
from spear.router import invoke, stream
from spear.router._latency import Estimate
from tests.spear.router.world import CHAT, Script, World, answer, broken, chat, instance, world

ONCE, STREAMED = (CHAT, False), (CHAT, True)


def known(w: World, name: str = "a", streamed: bool = False, tau: float = 30.0) -> Estimate | None:
    return w.desk.generation.by_name[name].estimate(STREAMED if streamed else ONCE, tau)


async def test_an_answer_takes_its_total(autojump_clock: MockClock) -> None:
    async with world(instance("a"), scripts={"a": Script([2.0])}) as w:
        (await invoke(w.router, chat())).unwrap()
        assert known(w).mean == pytest.approx(2.0)
        assert known(w, streamed=True) is None


async def test_a_stream_takes_the_time_to_its_first_content_and_is_known_then(autojump_clock: MockClock) -> None:
    steps = [[Started(backend="a"), 2.0, ContentDelta(delta="x"), 100.0, answer()]]
    request = chat(requirements={"required_features": ("supports_stream",)})
    timeouts = {"idle": 300.0}
    async with world(instance("a", timeouts=timeouts), scripts={"a": Script(steps)}) as w:
        async with stream(w.router, request) as events:
            async for event in events:
                if isinstance(event, ContentDelta):
                    assert known(w, streamed=True).mean == pytest.approx(2.0)
        assert known(w, streamed=True).mean == pytest.approx(2.0)
        assert w.desk.generation.by_name["a"].latency(STREAMED).samples == 1
        assert known(w) is None


async def test_a_stream_without_content_takes_its_total_once(autojump_clock: MockClock) -> None:
    steps = [[Started(backend="a"), 3.0, answer()]]
    async with world(instance("a"), scripts={"a": Script(steps)}) as w:
        async with stream(w.router, chat()) as events:
            assert [event async for event in events]
        assert known(w).mean == pytest.approx(3.0)
        assert w.desk.generation.by_name["a"].latency(ONCE).samples == 1


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (Failure.SERVER, ErrorCode.BACKEND_ERROR),
        (Failure.CONNECT, ErrorCode.BACKEND_UNAVAILABLE),
        (Failure.RATE_LIMIT, ErrorCode.RATE_LIMITED),
        (Failure.AUTH, ErrorCode.BACKEND_ERROR),
        (Failure.INTERNAL, ErrorCode.INTERNAL),
    ],
)
async def test_a_failure_is_never_fast(failure: Failure, code: ErrorCode, autojump_clock: MockClock) -> None:
    async with world(instance("a"), scripts={"a": Script([broken(failure, code)])}) as w:
        await invoke(w.router, chat())
        assert known(w).mean == pytest.approx(5.0)


@pytest.mark.parametrize("failure", [Failure.REQUEST, Failure.REFUSED])
async def test_a_request_that_is_wrong_says_nothing_of_the_instance(
    failure: Failure, autojump_clock: MockClock
) -> None:
    async with world(instance("a"), scripts={"a": Script([broken(failure)])}) as w:
        await invoke(w.router, chat())
        assert known(w) is None


async def test_a_timeout_takes_what_it_took(autojump_clock: MockClock) -> None:
    async with world(instance("a"), scripts={"a": Script([1000.0])}) as w:
        response = await invoke(w.router, chat(timeout_ms=20_000))
        assert response.result.error.code is ErrorCode.TIMEOUT
        assert known(w).mean == pytest.approx(20.0)


async def test_a_stream_that_breaks_late_is_a_failure_of_five_seconds_not_of_its_length(
    autojump_clock: MockClock,
) -> None:
    steps = [[1.0, ContentDelta(delta="x"), 25.0, ContentDelta(delta="y"), 25.0, broken()]]
    async with world(instance("a"), scripts={"a": Script(steps)}) as w:
        async with stream(w.router, chat()) as events:
            assert [event async for event in events]
        assert known(w).peak == pytest.approx(5.0)


async def test_a_caller_that_leaves_says_that_it_would_have_taken_longer(autojump_clock: MockClock) -> None:
    async with world(instance("a"), scripts={"a": Script([1.0, 1000.0, 1000.0])}) as w:
        (await invoke(w.router, chat())).unwrap()
        before = known(w)
        with trio.move_on_after(0.5):
            await invoke(w.router, chat())
        await trio.sleep(1)  # whoever leaves does not wait for the router
        assert known(w) == before, "half a second of waiting proves nothing"
        with trio.move_on_after(8):
            await invoke(w.router, chat())
        await trio.sleep(1)
        assert known(w).peak == pytest.approx(8.0)


async def test_a_caller_that_leaves_a_stream_after_its_first_content_adds_nothing(autojump_clock: MockClock) -> None:
    steps = [[1.0, ContentDelta(delta="x"), 25.0, answer()]]
    async with world(instance("a"), scripts={"a": Script(steps)}) as w:
        async with stream(w.router, chat()) as events:
            await anext(events)
            await trio.sleep(10)
        await trio.sleep(1)
        assert known(w).peak == pytest.approx(1.0)


async def test_a_full_mailbox_is_no_sample(autojump_clock: MockClock) -> None:
    limits = {"max_inflight": 1, "max_queue": 0}
    only = instance("a", limits=limits)
    async with world(only, scripts={"a": Script([3.0])}) as w, trio.open_nursery() as nursery:
        nursery.start_soon(invoke, w.router, chat())
        await trio.sleep(1)
        assert (await invoke(w.router, chat())).result.error.code is ErrorCode.OVERLOADED
        assert known(w) is None


async def test_a_route_has_its_own_tau(autojump_clock: MockClock) -> None:
    routes = (Route(policy="peak_ewma", tau=1.0),)
    async with world(instance("a"), scripts={"a": Script([8.0, 1.0])}, routes=routes) as w:
        for _ in range(2):
            (await invoke(w.router, chat())).unwrap()
        assert known(w, tau=1.0).peak == pytest.approx(1 + 7 / 2.71828, rel=0.001)
        assert known(w, tau=30.0).peak > 7


async def test_chat_avoids_the_slow_one_by_default(autojump_clock: MockClock) -> None:
    scripts = {"slow": Script([2.0]), "fast": Script([0.1]), "also": Script([0.1])}
    backends = [instance(name) for name in scripts]
    async with world(*backends, scripts=scripts, default_policy=None) as w:
        for _ in range(100):
            (await invoke(w.router, chat())).unwrap()
        counts = {name: len(script.requests) for name, script in scripts.items()}
    assert counts["slow"] <= 3
    assert min(counts["fast"], counts["also"]) > 20


async def test_an_explanation_shows_what_is_known(autojump_clock: MockClock) -> None:
    routes = (Route(policy="peak_ewma"),)
    async with world(instance("a"), instance("b"), scripts={"a": Script([2.0])}, routes=routes) as w:
        (await invoke(w.router, chat(routing={"backend": "a"}))).unwrap()
        await trio.sleep(60)
        explanation = w.desk.explain(chat())
        assert {each.backend: each.latency_ms for each in explanation.candidates} == {"a": 2000.0, "b": None}
        assert {each.backend: each.score for each in explanation.candidates} == {"a": 0.02, "b": 0.0}
        assert explanation.chosen == "b"
