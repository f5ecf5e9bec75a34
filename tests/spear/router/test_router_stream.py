"""Streams: the commit point, what may be replaced before it, what ends a stream after it, and who cleans up."""

from __future__ import annotations

import tracemalloc

import pytest
import trio

from actors import MailboxFull
from spear.backends import Finished
from spear.config import Price, RouterLimits, Timeouts
from spear.ir import (
    BackendError,
    CallerError,
    Completed,
    ContentDelta,
    ErrorCode,
    ErrorEvent,
    Failure,
    ReasoningDelta,
    RequestEnvelope,
    RoutingError,
    SpearError,
    Started,
    StreamEvent,
    ToolCallDelta,
    Usage,
    UsageEvent,
)
from spear.router import RouteStream, invoke, stream
from tests.spear.router.test_router_invoke import assert_quiet
from tests.spear.router.world import Script, World, answer, broken, chat, instance, world

STARTED = Started(backend="a")
END = Finished(answer("hello"))


def text(delta: str) -> ContentDelta:
    return ContentDelta(delta=delta)


async def collect(w: World, request: RequestEnvelope | None = None) -> list[StreamEvent]:
    async with stream(w.router, request or chat()) as events:
        return [event async for event in events]


def types(events: list[StreamEvent]) -> list[str]:
    return [event.type for event in events]


async def test_a_whole_stream_in_order_with_one_terminal_event() -> None:
    usage = UsageEvent(usage=Usage(input_tokens=2, output_tokens=3))
    items = [STARTED, text(""), text("hel"), ReasoningDelta(delta="hm"), text("lo"), usage, END]
    async with world(instance("a", price=Price(input=1.0, output=2.0)), scripts={"a": Script([items])}) as w:
        request = chat()
        events = await collect(w, request)
        await trio.testing.wait_all_tasks_blocked()
        assert_quiet(w)
        node = next(node for node in w.supervisor.snapshot().walk() if node.path == "test/a")
        assert (node.handled, node.cancelled) == (1, 0), "a complete stream closes by itself"
    assert types(events) == [
        "started", "content_delta", "content_delta", "reasoning_delta", "content_delta", "usage", "completed",
    ]  # fmt: skip
    assert events[0].request_id == request.request_id
    assert events[-2].usage.cost == pytest.approx((2 + 6) / 1e6)
    response = events[-1].response
    assert response.unwrap().text == "hello"
    assert response.backend.name == "a"
    assert response.backend.first_event_ms is not None
    assert [each.outcome for each in response.backend.attempts] == ["ok"]


async def test_streamed_calls_are_not_priced_at_zero() -> None:
    script = Script([[STARTED, text("12345678"), Finished(answer("12345678"))]])
    async with world(instance("a", price=Price(output=1.0)), scripts={"a": script}) as w:
        events = await collect(w)
    usage = events[-1].response.usage
    assert usage.estimated
    assert usage.cost == pytest.approx(2 / 1e6)


@pytest.mark.parametrize("failure", [Failure.SERVER, Failure.RATE_LIMIT, Failure.AUTH, Failure.INTERNAL])
@pytest.mark.parametrize("before", [[], [STARTED], [STARTED, text(""), ToolCallDelta(), UsageEvent(usage=Usage())]])
async def test_a_failure_before_the_commit_leaves_no_trace(failure: Failure, before: list[object]) -> None:
    """Elsewhere the fallback is skipped because the first event was metadata."""
    scripts = {"a": Script([[*before, broken(failure)]]), "b": Script([[Started(backend="b"), text("x"), END]])}
    backends = [instance("a"), instance("b", priority=1)]
    async with world(*backends, scripts=scripts, default_policy="priority") as w:
        events = await collect(w)
    assert types(events) == ["started", "content_delta", "completed"]
    assert events[0].backend == "b"
    attempts = events[-1].response.backend.attempts
    assert [(each.backend, each.reason, each.outcome) for each in attempts] == [
        ("a", "chosen", "failed"),
        ("b", "fallback", "ok"),
    ]


@pytest.mark.parametrize("failure", [Failure.REQUEST, Failure.REFUSED])
async def test_what_another_instance_would_refuse_too_is_raised(failure: Failure) -> None:
    scripts = {"a": Script([broken(failure, ErrorCode.CONTENT_REFUSED)])}
    async with world(instance("a"), instance("b", priority=1), scripts=scripts, default_policy="priority") as w:
        with pytest.raises(BackendError) as caught:
            await collect(w)
    assert caught.value.code is ErrorCode.CONTENT_REFUSED
    assert [each.backend for each in caught.value.error.attempts] == ["a"]


async def test_a_failure_before_the_commit_is_raised_on_entering() -> None:
    entered = False
    async with world(instance("a"), scripts={"a": Script([broken()])}) as w:
        with pytest.raises(BackendError) as caught:
            async with stream(w.router, chat()):
                entered = True
    assert not entered
    assert caught.value.code is ErrorCode.BACKEND_ERROR


@pytest.mark.parametrize(
    "first",
    [text("x"), ReasoningDelta(delta="x"), ToolCallDelta(id="call_1"), ToolCallDelta(arguments="{")],
)
async def test_nothing_is_replaced_after_the_commit(first: StreamEvent) -> None:
    scripts = {"a": Script([[STARTED, first, broken()]]), "b": Script()}
    backends = [instance("a", price=Price(output=4.0)), instance("b", priority=1)]
    async with world(*backends, scripts=scripts, default_policy="priority") as w:
        events = await collect(w)
        await trio.testing.wait_all_tasks_blocked()
        assert_quiet(w)
    assert types(events) == ["started", first.type, "error"]
    error = events[-1].error
    assert error.code is ErrorCode.BACKEND_ERROR
    assert [(each.backend, each.outcome) for each in error.attempts] == [("a", "failed")]
    assert events[-1].usage.estimated
    assert events[-1].usage.cost is not None
    assert scripts["b"].requests == []


async def test_the_usage_a_backend_reported_survives_the_break() -> None:
    items = [STARTED, text("x"), UsageEvent(usage=Usage(input_tokens=7, output_tokens=9)), broken()]
    async with world(instance("a"), scripts={"a": Script([items])}) as w:
        events = await collect(w)
    assert events[-1].usage == Usage(input_tokens=7, output_tokens=9)


async def test_a_stream_without_an_end_is_truncated_never_a_success() -> None:
    """Elsewhere a stream that was cut is reported as success."""
    async with world(instance("a"), scripts={"a": Script([[STARTED, text("x")]])}) as w:
        events = await collect(w)
        assert w.counts()["ok"] == 0
    assert types(events) == ["started", "content_delta", "error"]
    assert events[-1].error.code is ErrorCode.STREAM_TRUNCATED


@pytest.mark.parametrize("items", [[], [STARTED]])
async def test_truncated_before_the_commit_is_replaced(items: list[object]) -> None:
    scripts = {"a": Script([items]), "b": Script()}
    async with world(instance("a"), instance("b", priority=1), scripts=scripts, default_policy="priority") as w:
        assert types(await collect(w))[-1] == "completed"
    async with world(instance("a"), scripts={"a": Script([items])}) as w:
        with pytest.raises(BackendError) as caught:
            await collect(w)
    assert caught.value.code is ErrorCode.STREAM_TRUNCATED


async def test_an_answer_without_any_delta_commits_at_its_end() -> None:
    async with world(instance("a"), scripts={"a": Script([[STARTED, END]])}) as w:
        assert types(await collect(w)) == ["started", "completed"]


async def test_a_full_buffer_commits() -> None:
    scripts = {"a": Script([[*[text("")] * 10, broken()]]), "b": Script()}
    backends = [instance("a"), instance("b", priority=1)]
    limits = RouterLimits(commit_buffer_events=4)
    async with world(*backends, scripts=scripts, default_policy="priority", router=limits) as w:
        events = await collect(w)
    assert types(events) == ["content_delta"] * 10 + ["error"]


async def test_a_buffer_full_of_bytes_commits() -> None:
    big = Started(backend="a", extra={"x": "y" * 600})
    scripts = {"a": Script([[big, big, broken()]]), "b": Script()}
    backends = [instance("a"), instance("b", priority=1)]
    limits = RouterLimits(commit_buffer_bytes=1000)
    async with world(*backends, scripts=scripts, default_policy="priority", router=limits) as w:
        assert types(await collect(w)) == ["started", "started", "error"]
        scripts["a"].steps = [[big, broken()]]
        assert types(await collect(w))[-1] == "completed"


async def test_first_event_is_the_time_to_the_commit(autojump_clock: object) -> None:
    """Metadata in time does not stop the clock."""
    slow = Script([[STARTED, 1.0, text(""), 60.0, text("late"), END]])
    backends = [instance("a", timeouts=Timeouts(first_event=2.0, idle=100.0)), instance("b", priority=1)]
    async with world(*backends, scripts={"a": slow}, default_policy="priority") as w:
        begun = trio.current_time()
        events = await collect(w)
        assert trio.current_time() - begun == pytest.approx(2.0)
    assert events[-1].response.backend.name == "b"
    assert events[-1].response.backend.attempts[0].error_code is ErrorCode.TIMEOUT

    async with world(backends[0], scripts={"a": slow}) as w:
        with pytest.raises(BackendError) as caught:
            await collect(w)
    assert caught.value.error.clock == "first_event"


async def test_idle_is_the_gap_between_events(autojump_clock: object) -> None:
    items = [STARTED, text("a"), 1.0, text("b"), 1.0, text("c"), 60.0, END]
    async with world(instance("a", timeouts=Timeouts(idle=1.5)), scripts={"a": Script([items])}) as w:
        begun = trio.current_time()
        events = await collect(w)
        assert trio.current_time() - begun == pytest.approx(3.5)
    assert types(events) == ["started", *["content_delta"] * 3, "error"]
    assert (events[-1].error.code, events[-1].error.clock) == (ErrorCode.TIMEOUT, "idle")


async def test_a_slow_consumer_is_not_an_idle_backend(autojump_clock: object) -> None:
    items = [STARTED, *[text("x")] * 50, END]
    async with world(instance("a", timeouts=Timeouts(idle=1.0)), scripts={"a": Script([items])}) as w:
        seen = []
        async with stream(w.router, chat()) as events:
            async for event in events:
                await trio.sleep(5)
                seen.append(event)
    assert types(seen)[-1] == "completed"


async def test_total_ends_a_stream_that_goes_on_and_on(autojump_clock: object) -> None:
    items = [STARTED, *[text("x"), 1.0] * 100, END]
    async with world(instance("a"), scripts={"a": Script([items])}) as w:
        begun = trio.current_time()
        events = await collect(w, chat(timeout_ms=5500))
        assert trio.current_time() - begun == pytest.approx(5.5)
        await trio.testing.wait_all_tasks_blocked()
        assert_quiet(w)
    assert (events[-1].error.code, events[-1].error.clock) == (ErrorCode.TIMEOUT, "total")


async def test_the_total_of_an_attempt_before_the_commit_moves_on(autojump_clock: object) -> None:
    backends = [instance("a", timeouts=Timeouts(total=1.0)), instance("b", priority=1)]
    async with world(*backends, scripts={"a": Script([[STARTED, 60.0]])}, default_policy="priority") as w:
        events = await collect(w)
    assert events[-1].response.backend.name == "b"


async def test_a_consumer_that_leaves_ends_the_backends_turn(autojump_clock: object) -> None:
    """Elsewhere the upstream goes on generating and billing."""
    script = Script([[STARTED, *[text("x"), 1.0] * 1000, END]], cleanup_s=0.5)
    async with world(instance("a"), scripts={"a": script}) as w:
        async with stream(w.router, chat()) as events:
            async for _ in events:
                if trio.current_time() > 3:
                    break
        await trio.testing.wait_all_tasks_blocked()
        assert w.desk.generation.by_name["a"].load == 1, "still cleaning up"
        await trio.sleep(1)
        assert (script.running, script.cancelled) == (0, 1)
        assert_quiet(w)
        assert w.counts()["cancelled"] == 1


async def test_leaving_at_any_moment_leaves_nothing_behind(autojump_clock: object) -> None:
    for tenth in range(40):
        scripts = {
            "a": Script([[STARTED, 0.5, broken(Failure.CONNECT)]]),
            "b": Script([[STARTED, *[text("x"), 0.5] * 3, END]]),
        }
        async with world(instance("a"), instance("b", priority=1), scripts=scripts, default_policy="priority") as w:
            with trio.move_on_after(tenth / 10):
                await collect(w)
            await trio.testing.wait_all_tasks_blocked()
            assert_quiet(w)


async def test_an_error_of_the_consumer_is_its_own(autojump_clock: object) -> None:
    async with world(instance("a"), scripts={"a": Script([[STARTED, text("x"), 60.0, END]])}) as w:
        with pytest.raises(MailboxFull, match="mine"):
            async with stream(w.router, chat()):
                raise MailboxFull("mine")
        await trio.testing.wait_all_tasks_blocked()
        assert_quiet(w)


async def test_the_actor_stops_before_and_after_the_commit(autojump_clock: object) -> None:
    for items, ends in (([STARTED, 60.0, END], "completed"), ([STARTED, text("x"), 60.0, END], "error")):
        backends = [instance("a"), instance("b", priority=1)]
        async with world(*backends, scripts={"a": Script([items])}, default_policy="priority") as w:
            seen: list[StreamEvent] = []

            async def read(w: World = w, seen: list[StreamEvent] = seen) -> None:
                seen.extend(await collect(w))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                await trio.testing.wait_all_tasks_blocked()
                await w.supervisor.stop(w.desk.generation.by_name["a"].ref)
        assert types(seen)[-1] == ends
        if ends == "error":
            assert seen[-1].error.code is ErrorCode.BACKEND_UNAVAILABLE


async def test_the_router_stops_in_the_middle(autojump_clock: object) -> None:
    items = [STARTED, text("x"), 60.0, END]
    async with world(instance("a"), scripts={"a": Script([items])}) as w, stream(w.router, chat()) as events:
        first = [await anext(events), await anext(events)]
        await w.supervisor.stop(w.router)
        rest = [event async for event in events]
    assert types(first) == ["started", "content_delta"]
    assert types(rest) == ["error"]
    assert rest[-1].error.code is ErrorCode.BACKEND_UNAVAILABLE


async def test_routing_errors_are_raised_on_entering() -> None:
    async with world(instance("a", model="m")) as w:
        with pytest.raises(RoutingError) as caught:
            await collect(w, chat(model="other"))
        assert caught.value.code is ErrorCode.NO_CANDIDATE_BACKEND
        with pytest.raises(CallerError):
            await collect(w, chat(model="m", policy={"name": "no_such"}))
        await w.supervisor.stop(w.router)
        with pytest.raises(SpearError) as gone:
            await collect(w)
        assert gone.value.code is ErrorCode.BACKEND_UNAVAILABLE


async def test_a_full_router_refuses_a_stream(autojump_clock: object) -> None:
    limits = RouterLimits(max_requests=1, max_waiting=1)
    async with (
        world(instance("a"), scripts={"a": Script([60.0])}, router=limits) as w,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(invoke, w.router, chat())
        await trio.testing.wait_all_tasks_blocked()
        begun = trio.current_time()
        with pytest.raises(SpearError) as late:
            await collect(w, chat(timeout_ms=1000))
        assert (late.value.error.code, late.value.error.clock) == (ErrorCode.TIMEOUT, "queue")
        assert trio.current_time() - begun < 2
        nursery.start_soon(invoke, w.router, chat())
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(RoutingError) as full:
            await collect(w)
        assert full.value.code is ErrorCode.OVERLOADED
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("event", [Completed.model_construct(), ErrorEvent.model_construct()])
async def test_an_adapter_that_sends_the_routers_events_has_a_bug(event: StreamEvent) -> None:
    async with world(instance("a"), scripts={"a": Script([[STARTED, event]])}) as w:
        with pytest.raises(SpearError) as caught:
            await collect(w)
    assert caught.value.code is ErrorCode.INTERNAL


async def test_an_adapter_that_does_not_close_holds_the_answer_for_a_second_at_most(autojump_clock: object) -> None:
    items = [STARTED, text("x"), END, 60.0]
    async with world(instance("a", timeouts=Timeouts(idle=0.5)), scripts={"a": Script([items])}) as w:
        begun = trio.current_time()
        events = await collect(w)
        assert trio.current_time() - begun == pytest.approx(1.0)
        await trio.testing.wait_all_tasks_blocked()
        assert_quiet(w)
    assert types(events)[-1] == "completed"


async def test_memory_does_not_grow_with_a_long_stream() -> None:
    """Elsewhere every streamed chunk is kept."""
    items = [STARTED, *[text("x" * 100)] * 6_000, END]
    async with world(instance("a"), scripts={"a": Script([items])}) as w:
        count, early, late = 0, 0, 0
        tracemalloc.start()
        try:
            async with stream(w.router, chat()) as events:
                async for _ in events:
                    count += 1
                    if count == 2_000:
                        early = tracemalloc.get_traced_memory()[0]
                    elif count == 5_900:
                        late = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
    assert count == 6_002
    assert late - early < 100_000


async def test_the_raw_message_is_rejected_with_the_same_error() -> None:
    async with world(instance("a"), scripts={"a": Script([broken()])}) as w:
        with pytest.raises(BackendError):
            async with w.router.stream(RouteStream(chat())) as events:
                await anext(events)
