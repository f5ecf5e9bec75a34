"""What the adapter sends and what it makes of good answers, against a real server."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from spear.backends import Finished, Host, find_kind
from spear.backends.openai._places import openai_place
from spear.ir import (
    CallerError,
    ChatResult,
    ContentDelta,
    EmbeddingsRequest,
    ErrorCode,
    Generation,
    Operation,
    RequestEnvelope,
    RoutingError,
    Started,
    ToolCallDelta,
    UsageEvent,
)
from spear.secrets import Secret
from tests.servers.fault_server import FaultServer
from tests.spear.backends._support import CANARY, adapter_to, ask, call, instance, use

TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
LIMIT = 20.0


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("https://a.example", "https://a.example/v1/chat/completions"),
        ("https://a.example/", "https://a.example/v1/chat/completions"),
        ("https://a.example/v1", "https://a.example/v1/chat/completions"),
        ("https://a.example/v1/", "https://a.example/v1/chat/completions"),
        ("https://a.example/api", "https://a.example/api/v1/chat/completions"),
        ("https://a.example/v1beta/openai", "https://a.example/v1beta/openai/chat/completions"),
    ],
)
def test_endpoint(base: str, url: str) -> None:
    assert str(openai_place(base)("/chat/completions", "m")) == url


@pytest.mark.parametrize("how", ["plain", "stream"])
async def test_what_is_sent(fault_server: FaultServer, how: str) -> None:
    request = ask(
        "2 and 3",
        model="asked-for",
        generation=Generation(temperature=0.5, max_tokens=9, stream=True),
        extra={"reasoning_effort": "low", "model": "evil", "stream": "evil"},
    )
    with trio.fail_after(LIMIT):
        async with adapter_to(fault_server.base_url) as adapter:
            await use(adapter, how, request, call())
    (seen,) = fault_server.requests()
    headers = {name.lower(): value for name, value in seen["headers"]}
    assert (seen["method"], seen["path"]) == ("POST", "/v1/chat/completions")
    assert headers["authorization"] == f"Bearer {CANARY}"
    assert headers["content-type"] == "application/json"
    assert headers["accept"] == ("application/json" if how == "plain" else "text/event-stream")
    expected: dict[str, Any] = {
        "model": "test-model",
        "messages": [{"role": "user", "content": "2 and 3"}],
        "temperature": 0.5,
        "max_tokens": 9,
        "reasoning_effort": "low",
    }
    if how == "stream":
        expected |= {"stream": True, "stream_options": {"include_usage": True}}
    assert seen["json"] == expected


async def test_without_a_key_and_without_stream_usage(fault_server: FaultServer) -> None:
    with trio.fail_after(LIMIT):
        async with adapter_to(fault_server.base_url, stream_usage=False, model=None) as adapter:
            await use(adapter, "stream", ask(model=" asked-for "), call(key=None))
    (seen,) = fault_server.requests()
    assert "authorization" not in {name.lower() for name, _ in seen["headers"]}
    assert seen["json"]["model"] == "asked-for"
    assert "stream_options" not in seen["json"]


@pytest.mark.parametrize("how", ["plain", "stream"])
@pytest.mark.parametrize(
    ("fields", "says"), [({"model": "  "}, "model: is blank"), ({"model": "m", "messages": ()}, "messages: is empty")]
)
async def test_what_is_not_sent(fault_server: FaultServer, how: str, fields: dict[str, Any], says: str) -> None:
    with trio.fail_after(LIMIT):
        async with adapter_to(fault_server.base_url, model=None) as adapter:
            with pytest.raises(CallerError, match=says) as caught:
                await use(adapter, how, ask(**fields), call())
    assert caught.value.code is ErrorCode.INVALID_REQUEST
    assert fault_server.counts()["total"] == 0


async def test_another_operation(fault_server: FaultServer) -> None:
    request = RequestEnvelope(operation=Operation.EMBEDDINGS, payload=EmbeddingsRequest(input=("a",)))
    async with adapter_to(fault_server.base_url) as adapter:
        with pytest.raises(RoutingError, match="chat_completions only"):
            await adapter.invoke(request, call())


async def test_a_stream_ends_with_what_a_plain_call_answers(fault_server: FaultServer) -> None:
    with trio.fail_after(LIMIT):
        async with adapter_to(fault_server.base_url) as adapter:
            plain = await adapter.invoke(ask("add 2 and 3", tools=(TOOL,)), call())
            items = await use(adapter, "stream", ask("add 2 and 3", tools=(TOOL,)), call())
    assert isinstance(items[0], Started)
    finished = items[-1]
    assert isinstance(finished, Finished)
    assert isinstance(finished.answer.payload, ChatResult)
    assert isinstance(plain.payload, ChatResult)
    streamed, answered = finished.answer.payload.choices[0], plain.payload.choices[0]
    assert (streamed.message, streamed.finish_reason) == (answered.message, "tool_calls")
    assert "".join(item.arguments for item in items if isinstance(item, ToolCallDelta)) == (
        answered.message.tool_calls[0].function.arguments  # type: ignore[union-attr]
    )
    assert [item.usage for item in items if isinstance(item, UsageEvent)] == [finished.answer.usage]
    assert (finished.answer.usage, finished.answer.model) == (plain.usage, "test-model")
    assert not plain.usage.estimated


@pytest.mark.parametrize("does", [{"split": 1}, {"newline": "\r\n"}, {"newline": "\r", "split": 3}, {"done": False}])
async def test_however_a_stream_is_cut(fault_server: FaultServer, does: dict[str, Any]) -> None:
    fault_server.script(text="grüße, 世界 {text}", **does)
    with trio.fail_after(LIMIT):
        async with adapter_to(fault_server.base_url) as adapter:
            items = await use(adapter, "stream", ask("x"), call())
    assert "".join(item.delta for item in items if isinstance(item, ContentDelta)) == "grüße, 世界 x"
    assert isinstance(items[-1], Finished)


@pytest.mark.parametrize("how", ["plain", "stream"])
async def test_informational_heads_are_passed_over(fault_server: FaultServer, how: str) -> None:
    fault_server.script(informational=(100, 103))
    with trio.fail_after(LIMIT):
        async with adapter_to(fault_server.base_url) as adapter:
            await use(adapter, how, ask(), call())


BODY = (
    '{"model": "other", "choices": [{"index": 0, "finish_reason": "stop", "logprobs": null, "message": '
    '{"role": "assistant", "content": "whole"}}], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}'
)


async def test_a_server_that_does_not_stream(fault_server: FaultServer) -> None:
    fault_server.script(body=BODY, times=2)
    with trio.fail_after(LIMIT):
        async with adapter_to(fault_server.base_url) as adapter:
            plain = await adapter.invoke(ask(), call())
            started, delta, usage, finished = await use(adapter, "stream", ask(), call())
    assert isinstance(started, Started)
    assert started.model == "other"
    assert delta == ContentDelta(delta="whole")
    assert usage == UsageEvent(usage=plain.usage)
    assert finished == Finished(plain)


@pytest.mark.parametrize("body", ["[1, 2]", "7", '"text"', "{}", '{"choices": []}', '{"choices": [3]}'])
async def test_json_that_is_no_completion_is_an_answer(fault_server: FaultServer, body: str) -> None:
    fault_server.script(body=body, times=2)
    with trio.fail_after(LIMIT):
        async with adapter_to(fault_server.base_url) as adapter:
            plain = await adapter.invoke(ask(), call())
            items = await use(adapter, "stream", ask(), call())
    assert isinstance(plain.payload, ChatResult)
    assert plain.payload.choices == ()
    assert [type(item) for item in items] == [Started, Finished]
    assert items[-1] == Finished(plain)


@pytest.mark.parametrize("how", ["plain", "stream"])
async def test_usage_that_is_not_given_is_estimated(fault_server: FaultServer, how: str) -> None:
    fault_server.script(usage=False, text="twelve chars")
    with trio.fail_after(LIMIT):
        async with adapter_to(fault_server.base_url) as adapter:
            if how == "plain":
                answer = await adapter.invoke(ask("12345"), call())
            else:
                last = (await use(adapter, "stream", ask("12345"), call()))[-1]
                assert isinstance(last, Finished)
                answer = last.answer
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.estimated) == (2, 3, True)


async def test_raw_only_where_the_host_debugs(fault_server: FaultServer) -> None:
    kind = find_kind("openai_chat")
    config = instance(base_url=fault_server.base_url)
    with trio.fail_after(LIMIT):
        for debug in (True, False):
            async with kind.open(config, Host(debug_raw=debug)) as adapter:
                answer = await adapter.invoke(ask(), call())
                last = (await use(adapter, "stream", ask(), call()))[-1]
            assert isinstance(last, Finished)
            assert isinstance(answer.raw, dict) is debug
            assert isinstance(last.answer.raw, dict) is debug


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "base_url: is missing"),
        ({"base_url": "http://127.0.0.1/v1", "hosting": "remote"}, "base_url: plain http"),
        ({"base_url": "https://u:p@a.example"}, "base_url: must not have a user name"),
        ({"base_url": "https://a.example", "options": {"temprature": 1}}, "options.temprature: unknown"),
    ],
)
def test_a_configuration_that_cannot_work(fields: dict[str, Any], says: str) -> None:
    from spear.ir import Hosting

    if "hosting" in fields:
        fields = {**fields, "hosting": Hosting(fields["hosting"])}
    with pytest.raises(ValueError, match=says):
        find_kind("openai_chat").check(instance(**fields))


@pytest.mark.parametrize("how", ["plain", "stream", "not streamed"])
@pytest.mark.parametrize("listed", [True, False])
async def test_a_key_that_a_good_answer_repeats_is_masked(fault_server: FaultServer, how: str, listed: bool) -> None:
    text = f"you sent Bearer {CANARY}, didn't you"
    if how != "stream":
        fault_server.script(body=f'{{"choices":[{{"index":0,"message":{{"content":"{text}"}}}}],"id":"{CANARY}"}}')
    else:
        chunk = f'{{"choices":[{{"index":0,"delta":{{"content":"{text}"}},"finish_reason":"stop"}}],"id":"{CANARY}"}}'
        fault_server.script(body=f"data: {chunk}\n\ndata: [DONE]\n\n", content_type="text/event-stream")
    host = Host(debug_raw=True, redact=(Secret(CANARY),) if listed else ())
    with trio.fail_after(LIMIT):
        async with find_kind("openai_chat").open(instance(base_url=fault_server.base_url), host) as adapter:
            if how == "plain":
                items: list[Any] = [await adapter.invoke(ask(), call())]
            else:
                items = await use(adapter, "stream", ask(), call())
    assert "you sent Bearer [secret], didn't you" in repr(items)
    assert CANARY not in repr(items)
