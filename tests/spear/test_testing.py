"""spear.testing: scripted backends below a real runtime."""

from __future__ import annotations

import pytest
import trio
import trio.testing

import spear
from spear.guests import path as guest_path
from spear.ir import (
    BackendError,
    ChatMessage,
    ChatRequest,
    Completed,
    ConfigError,
    ContentDelta,
    ErrorCode,
    ErrorEvent,
    Failure,
    FunctionCall,
    InternalError,
    Operation,
    RequestEnvelope,
    Started,
    ToolCall,
    UsageEvent,
)
from spear.testing import FakeBackend, Reply, backend_failure, fake_kinds, open_test_runtime

HI = [{"role": "user", "content": "hi"}]


def request(**fields: object) -> RequestEnvelope:
    payload = ChatRequest(messages=(ChatMessage(role="user", content="hi"),))
    return RequestEnvelope(operation=Operation.CHAT_COMPLETIONS, payload=payload, **fields)


async def test_steps_are_taken_in_order_and_requests_recorded(autojump_clock):
    call = ToolCall(id="c1", function=FunctionCall(name="add", arguments="{}"))
    fake = FakeBackend("one", Reply(tool_calls=(call,)), lambda asked: f"model {asked.model}")
    async with open_test_runtime(fake) as runtime:
        assert (await runtime.chat(messages=HI)).text == "one"
        second = await runtime.chat(messages=HI)
        assert (second.text, second.tool_calls, second.result.finish_reason) == ("", (call,), "tool_calls")
        third = await runtime.chat("any", messages=HI, temperature=0.5)
    assert third.text == "model any"
    assert third.response.backend.name == "fake"
    assert third.response.usage.input_tokens == 1
    assert [asked.model for asked in fake.requests] == ["", "", "any"]
    assert fake.requests[2].payload.generation.temperature == pytest.approx(0.5)


async def test_the_observer_sees_each_answer(autojump_clock):
    seen = []
    async with open_test_runtime(
        FakeBackend("one"), observer=lambda asked, answered: seen.append((asked, answered))
    ) as runtime:
        response = await runtime.invoke(request())
    assert [answered for _, answered in seen] == [response]


async def test_a_script_that_is_over_says_so(autojump_clock):
    fake = FakeBackend("only one")
    async with open_test_runtime(fake) as runtime:
        await runtime.chat(messages=HI)
        with pytest.raises(InternalError, match="it has 1 steps, this is request 2"):
            await runtime.chat(messages=HI)


async def test_repeat_begins_anew(autojump_clock):
    async with open_test_runtime(FakeBackend("a", "b", repeat=True)) as runtime:
        assert [(await runtime.chat(messages=HI)).text for _ in range(5)] == ["a", "b", "a", "b", "a"]
    with pytest.raises(ValueError, match="at least one step"):
        FakeBackend(repeat=True)


async def test_failures_fall_back_in_the_order_given(autojump_clock):
    first, second = FakeBackend(backend_failure("down", code=ErrorCode.BACKEND_UNAVAILABLE)), FakeBackend("spare")
    async with open_test_runtime({"first": first, "second": second}) as runtime:
        reply = await runtime.chat(messages=HI)
    attempts = [(a.backend, a.outcome, a.error_code) for a in reply.response.backend.attempts]
    assert attempts == [("first", "failed", ErrorCode.BACKEND_UNAVAILABLE), ("second", "ok", None)]


async def test_a_refusal_does_not_fall_back(autojump_clock):
    refusal = backend_failure(code=ErrorCode.CONTENT_REFUSED, failure=Failure.REFUSED)
    spare = FakeBackend("never asked")
    async with open_test_runtime({"first": FakeBackend(refusal), "second": spare}) as runtime:
        with pytest.raises(BackendError) as caught:
            await runtime.chat(messages=HI)
    assert caught.value.code is ErrorCode.CONTENT_REFUSED
    assert spare.requests == []


async def test_an_exception_that_is_no_backend_error_is_an_adapter_bug(autojump_clock):
    async with open_test_runtime(FakeBackend(ZeroDivisionError("oops"), "fine")) as runtime:
        response = await runtime.invoke(request())
        assert response.result.error.code is ErrorCode.INTERNAL
        assert response.result.error.incident
        assert (await runtime.chat(messages=HI)).text == "fine"


async def test_delay_and_timeout(autojump_clock):
    fake = FakeBackend(Reply("late", delay_s=60), repeat=True)
    async with open_test_runtime(fake) as runtime:
        began = trio.current_time()
        response = await runtime.invoke(request(timeout_ms=5_000))
        assert response.result.error.code is ErrorCode.TIMEOUT
        assert trio.current_time() - began == pytest.approx(5.0)
        await trio.testing.wait_all_tasks_blocked()
        assert (fake.running, fake.cancelled) == (0, 1)
        assert (await runtime.chat(messages=HI)).text == "late"


async def test_a_caller_that_leaves_is_counted(autojump_clock):
    fake = FakeBackend(Reply("late", delay_s=60))
    async with open_test_runtime(fake) as runtime:
        with trio.move_on_after(1) as scope:
            await runtime.chat(messages=HI)
        assert scope.cancelled_caught
        await trio.testing.wait_all_tasks_blocked()  # the backend hears of it a moment later
        assert (fake.running, fake.cancelled) == (0, 1)


async def test_stream_word_by_word(autojump_clock):
    async with open_test_runtime(FakeBackend("to be or")) as runtime, runtime.stream(request()) as events:
        seen = [event async for event in events]
    assert [type(event) for event in seen] == [Started, *[ContentDelta] * 3, UsageEvent, Completed]
    assert "".join(event.delta for event in seen if isinstance(event, ContentDelta)) == "to be or"
    assert seen[-1].response.unwrap().text == "to be or"


async def test_a_stream_with_text_and_error_breaks_after_the_commit(autojump_clock):
    spare = FakeBackend("never asked")
    broken = FakeBackend(Reply("half a", error=backend_failure("cut")))
    async with (
        open_test_runtime({"broken": broken, "spare": spare}) as runtime,
        runtime.stream(request()) as events,
    ):
        seen = [event async for event in events]
    assert isinstance(seen[-1], ErrorEvent)
    assert seen[-1].error.code is ErrorCode.BACKEND_ERROR
    assert spare.requests == []


async def test_a_stream_that_fails_before_its_first_word_falls_back(autojump_clock):
    backends = {"broken": FakeBackend(backend_failure("cut")), "spare": FakeBackend("whole")}
    async with open_test_runtime(backends) as runtime, runtime.stream(request()) as events:
        assert (await anext(events)).backend == "spare"


async def test_fakes_under_a_configuration_of_ones_own(autojump_clock):
    config = {
        "spear": {
            "backends": [
                {
                    "name": "gpt",
                    "kind": "openai_chat",
                    "hosting": "remote",
                    "base_url": "https://api.example.com/v1",
                    "model": "gpt-x",
                    "model_class": "small-chat",
                },
                {"name": "local", "kind": "stub", "hosting": "local", "model_class": "other"},
            ]
        }
    }
    gpt = FakeBackend("scripted")
    async with spear.open_runtime(config, kinds=fake_kinds({"gpt": gpt})) as runtime:
        reply = await runtime.chat("small-chat", messages=HI)
        other = await runtime.chat("other", messages=[{"role": "user", "content": "real stub"}])
    assert reply.text == "scripted"
    assert reply.response.backend.kind == "openai_chat_completion"
    assert gpt.requests[0].model == "gpt-x"
    assert other.text == "stub chat completion: real stub"


async def test_an_instance_without_a_fake_is_a_configuration_error(autojump_clock):
    config = {"spear": {"backends": [{"name": "gtp", "kind": "fake", "hosting": "local"}]}}
    with pytest.raises(ConfigError, match=r"no FakeBackend for 'gtp'; there are: gpt"):
        async with spear.open_runtime(config, kinds=fake_kinds({"gpt": FakeBackend("x")}, kind="fake")):
            pass


async def test_a_guest_talks_to_a_fake():
    """Real time: the guest engine has threads."""
    call = ToolCall(id="c1", function=FunctionCall(name="add", arguments='{"a":1,"b":2}'))
    fake = FakeBackend(Reply(tool_calls=(call,)), lambda asked: f"it is {asked.payload.messages[-1].content}")
    with trio.fail_after(20):
        async with open_test_runtime(fake) as runtime:
            execution = await runtime.run_guest(guest_path("chat_tool"))
    assert execution.exit_code == 0, execution
    assert execution.stdout.startswith("it is 3\n")
    assert fake.requests[1].payload.messages[-1].role == "tool"
