"""Streams that break off after they have begun: the rest from another instance, or the error as without it."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from spear.backends import Finished
from spear.config import Hedge, Price, Route, RouterLimits
from spear.ir import (
    ChatMessage,
    ChatRequest,
    Completed,
    ContentDelta,
    ErrorEvent,
    Failure,
    Generation,
    ReasoningDelta,
    RequestEnvelope,
    Started,
    StreamEvent,
    ToolCallDelta,
    Usage,
    UsageEvent,
)
from spear.router import stream
from spear.router._continuation import SoFar, add_usage, rest_of
from tests.spear.router.test_router_invoke import assert_quiet
from tests.spear.router.world import CHAT, Script, World, answer, broken, chat, instance, world

ABC = [instance(name, priority=at) for at, name in enumerate("abc")]
CONTINUED = {"default_policy": "priority", "routes": (Route(continuation="prefill"),)}


def said(*texts: str) -> list[object]:
    return [Started(backend="x"), *[ContentDelta(delta=text) for text in texts]]


def half(*texts: str, failure: Failure = Failure.SERVER) -> Script:
    return Script([[*said(*texts), broken(failure)]])


def rest(*texts: str, **usage: object) -> Script:
    return Script([[*said(*texts), Finished(answer("".join(texts), **usage))]])


async def collect(w: World, request: RequestEnvelope | None = None) -> list[StreamEvent]:
    async with stream(w.router, request or chat()) as events:
        seen = [event async for event in events]
    await trio.testing.wait_all_tasks_blocked()
    assert_quiet(w)
    assert len(w.desk.budget) == 0
    return seen


def text_of(events: list[StreamEvent]) -> str:
    return "".join(event.delta for event in events if isinstance(event, ContentDelta))


def attempts(event: StreamEvent) -> list[tuple[str, str, str]]:
    if isinstance(event, ErrorEvent):
        found = event.error.attempts
    else:
        assert isinstance(event, Completed)
        assert event.response.backend is not None
        found = event.response.backend.attempts
    return [(each.backend, each.reason, each.outcome) for each in found]


async def test_the_rest_comes_from_another_instance(autojump_clock: object) -> None:
    scripts = {"a": half("The ", "sky is"), "b": rest(" blue", ".")}
    async with world(*ABC, scripts=scripts, **CONTINUED) as w:
        seen = await collect(w, chat("what colour?"))
        assert w.counts()["continued"] == 1
        assert w.counts()["ok"] == 1
    assert [event.type for event in seen] == ["started", *["content_delta"] * 4, "completed"]
    assert text_of(seen) == "The sky is blue."
    response = seen[-1].response
    assert response.unwrap().text == "The sky is blue."
    assert response.backend.name == "b"
    assert response.backend.degraded == ("continued",)
    assert attempts(seen[-1]) == [("a", "chosen", "failed"), ("b", "continued", "ok")]
    (asked,) = scripts["b"].requests
    assert [(each.role, each.content) for each in asked.payload.messages] == [
        ("user", "what colour?"),
        ("assistant", "The sky is"),
    ]


async def test_without_the_setting_nothing_is_continued(autojump_clock: object) -> None:
    scripts = {"a": half("The sky"), "b": rest(" is blue")}
    async with world(*ABC, scripts=scripts, default_policy="priority") as w:
        seen = await collect(w)
        assert w.scripts["b"].requests == []
    assert [event.type for event in seen] == ["started", "content_delta", "error"]


async def test_both_are_paid_for(autojump_clock: object) -> None:
    scripts = {"a": half("12345678"), "b": rest("1234", input_tokens=10, output_tokens=1)}
    backends = [
        instance("a", price=Price(input=1.0, output=10.0)),
        instance("b", priority=1, price=Price(input=100.0, output=1000.0)),
    ]
    async with world(*backends, scripts=scripts, **CONTINUED) as w:
        seen = await collect(w, chat("12345678"))
    usage = seen[-1].response.usage
    assert (usage.input_tokens, usage.output_tokens, usage.estimated) == (2 + 10, 2 + 1, True)
    assert usage.cost == pytest.approx((2 * 1 + 2 * 10 + 10 * 100 + 1 * 1000) / 1e6)


async def test_it_may_break_off_again(autojump_clock: object) -> None:
    scripts = {"a": half("one "), "b": half("two "), "c": rest("three")}
    async with world(*ABC, scripts=scripts, **CONTINUED) as w:
        seen = await collect(w)
    assert text_of(seen) == seen[-1].response.unwrap().text == "one two three"
    assert seen[-1].response.backend.degraded == ("continued",)
    assert [reason for _, reason, _ in attempts(seen[-1])] == ["chosen", "continued", "continued"]
    assert scripts["c"].requests[0].payload.messages[-1].content == "one two "
    assert len(scripts["c"].requests[0].payload.messages) == 2


async def test_one_that_fails_before_it_says_anything_is_replaced_without_a_trace(autojump_clock: object) -> None:
    scripts = {"a": half("one "), "b": Script([broken()]), "c": rest("two")}
    async with world(*ABC, scripts=scripts, **CONTINUED) as w:
        seen = await collect(w)
    assert text_of(seen) == "one two"
    assert [event.type for event in seen].count("started") == 1
    assert [outcome for _, _, outcome in attempts(seen[-1])] == ["failed", "failed", "ok"]


@pytest.mark.parametrize("most", [1, 2, 3])
async def test_attempts_are_bounded_and_the_end_is_an_error(autojump_clock: object, most: int) -> None:
    scripts = {name: half(name, "xyz") for name in "abc"}
    async with world(*ABC, scripts=scripts, router=RouterLimits(max_attempts=most), **CONTINUED) as w:
        seen = await collect(w)
        assert w.counts()["errors"] == {"backend_error": 1}
    assert isinstance(seen[-1], ErrorEvent)
    assert len(attempts(seen[-1])) == most
    assert text_of(seen) == "axyzbxyzcxyz"[: 4 * most]
    assert seen[-1].usage is not None
    assert seen[-1].usage.output_tokens == most, "a token for each four characters, none counted twice"


async def test_never_the_one_that_broke_off(autojump_clock: object) -> None:
    scripts = {"a": Script([[*said("one"), broken()], answer("two")])}
    async with world(instance("a"), scripts=scripts, **CONTINUED) as w:
        seen = await collect(w)
        assert len(scripts["a"].requests) == 1
    assert attempts(seen[-1]) == [("a", "chosen", "failed")]


async def test_with_nobody_left_the_usage_is_counted_once(autojump_clock: object) -> None:
    scripts = {"a": half("1234"), "b": half("5678"), "c": Script([broken()])}
    async with world(*ABC, scripts=scripts, **CONTINUED) as w:
        seen = await collect(w, chat(""))
    assert isinstance(seen[-1], ErrorEvent)
    assert seen[-1].usage is not None
    assert seen[-1].usage.output_tokens == 2


@pytest.mark.parametrize("failure", [Failure.REQUEST, Failure.REFUSED])
async def test_what_another_would_refuse_too_is_not_continued(autojump_clock: object, failure: Failure) -> None:
    async with world(*ABC, scripts={"a": half("x", failure=failure)}, **CONTINUED) as w:
        seen = await collect(w)
    assert attempts(seen[-1]) == [("a", "chosen", "failed")]


TOOL = ToolCallDelta(id="1", name="f", arguments="{")


@pytest.mark.parametrize(
    ("items", "fields"),
    [
        ([*said("x"), TOOL], {}),
        ([TOOL], {}),
        ([ReasoningDelta(delta="hm")], {}),
        ([ContentDelta(choice=1, delta="x")], {}),
        (said("x"), {"generation": Generation(n=2)}),
        (said('{"a":'), {"response_format": {"type": "json_object"}}),
    ],
)
async def test_what_cannot_be_handed_on(autojump_clock: object, items: list[object], fields: dict[str, object]) -> None:
    messages = (ChatMessage(role="user", content="hi"),)
    payload = ChatRequest.model_validate({"messages": messages, **fields})
    async with world(*ABC, scripts={"a": Script([[*items, broken()]])}, **CONTINUED) as w:
        seen = await collect(w, RequestEnvelope(operation=CHAT, payload=payload))
        assert w.scripts["b"].requests == []
    assert isinstance(seen[-1], ErrorEvent)


async def test_reasoning_is_left_behind(autojump_clock: object) -> None:
    scripts = {"a": Script([[ReasoningDelta(delta="hm"), *said("one "), broken()]]), "b": rest("two")}
    async with world(*ABC, scripts=scripts, **CONTINUED) as w:
        seen = await collect(w)
    assert text_of(seen) == "one two"
    assert scripts["b"].requests[0].payload.messages[-1].content == "one "


async def test_the_usage_event_is_that_of_all(autojump_clock: object) -> None:
    usage = UsageEvent(usage=Usage(input_tokens=5, output_tokens=1))
    tail = Script([[*said("5678"), usage, Finished(answer("5678", input_tokens=5, output_tokens=1))]])
    async with world(*ABC, scripts={"a": half("1234"), "b": tail}, **CONTINUED) as w:
        seen = await collect(w, chat("1234"))
    (told,) = [event for event in seen if isinstance(event, UsageEvent)]
    assert told.usage.output_tokens == seen[-1].response.usage.output_tokens == 2


async def test_a_winner_of_a_race_is_continued_too(autojump_clock: object) -> None:
    route = Route(continuation="prefill", hedge=Hedge(max_extra_load=1.0, delay=1.0))
    scripts = {"a": Script([[20.0]]), "b": half("one "), "c": rest("two")}
    async with world(*ABC, scripts=scripts, default_policy="priority", routes=(route,)) as w:
        seen = await collect(w)
        assert w.counts()["requests"] == w.counts()["ok"] == 1
    assert text_of(seen) == "one two"
    assert attempts(seen[-1]) == [
        ("a", "chosen", "superseded"),
        ("b", "hedge", "failed"),
        ("c", "continued", "ok"),
    ]


@pytest.mark.parametrize("raced", [False, True])
@pytest.mark.parametrize("after", [0.5, 1.5, 2.5, 3.5])
async def test_a_caller_that_leaves(autojump_clock: object, raced: bool, after: float) -> None:
    hedge = Hedge(max_extra_load=1.0, delay=1.0) if raced else None
    route = Route(continuation="prefill", hedge=hedge)
    first = [2.0, *said("one "), broken()]
    scripts = {"a": Script([first]), "b": Script([[20.0]]), "c": Script([[20.0]])}
    if not raced:
        scripts["b"] = Script([[*said("two "), 20.0]])
    async with world(*ABC, scripts=scripts, default_policy="priority", routes=(route,)) as w:
        with trio.move_on_after(after) as scope:
            async with stream(w.router, chat()) as events:
                async for _ in events:
                    pass
        assert scope.cancelled_caught
        await trio.testing.wait_all_tasks_blocked()
        assert_quiet(w)
        assert len(w.desk.budget) == 0
        assert w.counts()["cancelled"] == 1


@given(st.lists(st.text(max_size=9), min_size=1, max_size=9), st.integers(0, 50) | st.none())
def test_the_request_for_the_rest(texts: list[str], most: int | None) -> None:
    messages = (ChatMessage(role="user", content="hi"),)
    payload = ChatRequest(messages=messages, generation=Generation(max_tokens=most))
    request = RequestEnvelope(operation=CHAT, payload=payload)
    so_far = SoFar(request)
    for text in texts:
        so_far.add(ContentDelta(delta=text))
    assert so_far.usable == any(texts)
    asked = rest_of(request, so_far.text)
    assert asked.request_id == request.request_id
    assert asked.payload.messages[:-1] == messages
    assert asked.payload.messages[-1].content == "".join(texts)
    left = asked.payload.generation.max_tokens
    assert left is None if most is None else 1 <= left <= max(1, most)


COUNTS = st.none() | st.integers(0, 1000)
USAGES = st.builds(Usage, input_tokens=COUNTS, output_tokens=COUNTS, cached_tokens=COUNTS, estimated=st.booleans())


@given(USAGES, USAGES)
def test_usages_add_up(one: Usage, other: Usage) -> None:
    both = add_usage(one, other)
    for name in ("input_tokens", "output_tokens", "cached_tokens"):
        parts = [getattr(each, name) for each in (one, other)]
        expected = None if parts == [None, None] else sum(part or 0 for part in parts)
        assert getattr(both, name) == expected
    assert both.estimated == (one.estimated or other.estimated)
