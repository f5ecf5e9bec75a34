"""Sizes that nobody would write, of callers and of backends: no error of ours, no memory, no time."""

from __future__ import annotations

import json
import time

import pytest
import trio

from spear.config import Budget, Price, Route
from spear.ir import (
    ChatMessage,
    ChatRequest,
    ErrorCode,
    Failure,
    Generation,
    ImageRequest,
    Limits,
    Operation,
    RequestEnvelope,
    ResponseFormat,
    Usage,
    make_error,
)
from spear.router import Desk, facts_of, invoke
from spear.router._course import Course
from spear.router._failures import Fault
from spear.router._leg import Leg
from spear.router._usage import settle_usage
from spear.router.mirrors._conform import conforms
from tests.spear.router.world import Script, answer, chat, instance, still_generation, world

HUGE = 10**400
TOKENS = {"limits": Limits(tpm=1_000_000), "price": Price(input=1.0, output=1.0)}


def asking(max_tokens: int) -> RequestEnvelope:
    payload = ChatRequest(
        messages=(ChatMessage(role="user", content="hi"),), generation=Generation(max_tokens=max_tokens)
    )
    return RequestEnvelope(operation=Operation.CHAT_COMPLETIONS, payload=payload)


async def test_more_output_than_any_number_can_say_is_more_than_is_allowed() -> None:
    async with world(instance("a", **TOKENS)) as found:
        error = (await invoke(found.router, asking(HUGE))).result.error
        assert error is not None
        assert error.code is ErrorCode.RATE_LIMITED
        assert not error.retryable
    async with world(instance("a", price=Price(input=1.0, output=1.0)), default_policy="cheapest") as found:
        assert (await invoke(found.router, asking(HUGE))).result.error is None


@pytest.mark.parametrize("size", ["9" * 5000, f"1x{'9' * 5000}", "0" * 5000])
async def test_an_image_larger_than_any_number_can_say(size: str) -> None:
    request = RequestEnvelope(
        operation=Operation.IMAGE_GENERATION, payload=ImageRequest(prompt="a cat", model="x", size=size)
    )
    assert facts_of(request).sizes.size > 1_000_000
    async with world(instance("a")) as found:
        error = (await invoke(found.router, request)).result.error
        assert error is not None
        assert error.code is ErrorCode.MISSING_CAPABILITIES


@pytest.mark.parametrize("said", [HUGE, 2**63])
async def test_a_backend_that_says_more_tokens_than_any_call_can_take(said: int) -> None:
    """It has answered, and takes its limit from nobody."""
    script = Script([answer("fine", input_tokens=said, output_tokens=said)])
    budget = Budget(name="all", window=60.0, cost=1.0)
    async with world(instance("a", **TOKENS), scripts={"a": script}, budgets=(budget,)) as found:
        for _ in range(3):
            response = await invoke(found.router, chat())
            assert response.result.error is None
            assert response.usage.estimated
            assert (response.usage.input_tokens, response.usage.output_tokens) == (1, 1)
        counts = found.counts()
        assert (counts["requests"], counts["ok"]) == (3, 3)


def test_counts_that_can_be_stay_as_they_are() -> None:
    usage = Usage(input_tokens=1_000_000_000, output_tokens=0)
    assert settle_usage(usage, facts_of(chat()), 0, None) == usage


async def test_a_request_that_cannot_even_be_looked_at_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(instance("a")) as found:
        with monkeypatch.context() as patched:
            patched.setattr(Desk, "facts", lambda *_: 1 / 0)
            error = (await invoke(found.router, chat())).result.error
        assert error is not None
        assert error.code is ErrorCode.INTERNAL
        assert found.desk.counts.requests == 1
        assert found.desk.counts.active == 0


def test_what_the_filter_left_is_not_kept_for_those_that_name_very_much() -> None:
    generation = still_generation(instance("a"))
    desk = Desk(generation)
    for number in range(20):
        desk.decide(facts_of(chat(model=f"{number}{'m' * 100_000}")), 0.0)
        desk.decide(facts_of(chat(routing={"denylist": tuple(f"{number}-{each}" for each in range(1000))})), 0.0)
        desk.decide(facts_of(chat(routing={"denylist": (f"{number}{'m' * 100_000}",)})), 0.0)
    assert len(generation.remembered) == 0
    for number in range(20):
        desk.decide(facts_of(chat(model=f"model-{number}")), 0.0)
    assert len(generation.remembered) == 20


def test_a_budget_keeps_little_of_a_long_name_and_tells_them_apart() -> None:
    names = [f"{'t' * 100_000}{number}" for number in range(3)]
    facts = [facts_of(chat(task_id=name, meta={"execution_id": name})) for name in names]
    assert len({each.task_id for each in facts}) == len({each.execution_id for each in facts}) == 3
    assert all(len(each.task_id or "") <= 128 and len(each.execution_id or "") <= 128 for each in facts)
    assert facts_of(chat(task_id="t" * 128)).task_id == "t" * 128


def sent(desk: Desk) -> tuple[Course, Leg | None]:
    course = Course(desk, chat(), trio.current_time(), float("inf"))
    leg = course.next()
    assert leg is None or isinstance(leg, Leg)
    return course, leg


async def test_the_free_retry_takes_nothing_that_somebody_else_has_taken_meanwhile() -> None:
    """A connection was refused, which gives back what was reserved; before the retry another request takes it."""
    desk = Desk(still_generation(instance("a", limits=Limits(rpm=1)), routes=(Route(),)))
    course, leg = sent(desk)
    assert leg is not None
    refused = Fault(make_error(ErrorCode.BACKEND_UNAVAILABLE, "refused"), Failure.CONNECT)
    assert course.failed(leg, refused)
    await trio.lowlevel.checkpoint()
    _, other = sent(desk)
    assert other is not None, "there was room for one"
    assert course.next() is None, "but not for two"


LONG, MANY = "x" * 900_000, list(range(200_000))


@pytest.mark.parametrize(
    ("value", "schema"),
    [
        ("x" * 200_000, {"enum": [f"a{each}" for each in range(4000)]}),
        (LONG, {"anyOf": [{"const": each} for each in range(4000)]}),
        ([{}] * 4000, {"items": {"required": MANY}}),
        ([1] * 4000, {"items": {"type": ["integer"] * 100_000}}),
        ([1] * 4000, {"items": {"$ref": "#/" + "a/" * 100_000}}),
        ([LONG, LONG], {}),
    ],
)
def test_a_schema_of_a_caller_takes_no_time(value: object, schema: object) -> None:
    """These took seconds to minutes, during which nothing else ran. CPU time, and a bound far above what it takes."""
    text = json.dumps(value)
    wanted = ResponseFormat(type="json_schema", json_schema={"name": "x", "schema": schema})
    before = time.thread_time()
    assert conforms(text, wanted) is None
    assert time.thread_time() - before < 0.5
