"""Kind `anthropic`, against a server that speaks the dialect and is as strict about its shape."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from spear.backends import find_kind
from spear.backends.anthropic._adapter import endpoint
from spear.ir import (
    AudioPart,
    BackendError,
    CallerError,
    ChatMessage,
    ContentDelta,
    Degradation,
    ErrorCode,
    Failure,
    FunctionCall,
    Generation,
    ImagePart,
    InlineMedia,
    ReasoningDelta,
    ResponseFormat,
    RoutingError,
    Started,
    TextPart,
    ToolCall,
    ToolCallDelta,
    UsageEvent,
)
from tests.servers.dialect_server import DialectServer
from tests.spear.backends._support import CANARY, ask, call, instance, use
from tests.spear.backends.dialect_kit import (
    ANSWER,
    AUTH,
    CANCELLED,
    COMMON,
    GIF,
    LIMIT,
    LIMITED,
    TOOL,
    Fault,
    chat,
    check_cancelled,
    check_fault,
    finished,
    opened,
    said,
    status,
)

CONTEXT = ErrorCode.BACKEND_ERROR, Failure.CONTEXT_WINDOW
TWO_CALLS = ({"name": "add", "arguments": '{"a":2,"b":3}'}, {"name": "now", "arguments": "{}"})
FAULTS = [
    *COMMON,
    status(400, CONTEXT, error_message="prompt is too long: 210000 tokens > 200000 maximum"),
    status(400, AUTH, error_message="Your credit balance is too low to access the API"),
    status(529, ANSWER, says="529: overloaded_error: Overloaded", error_type="overloaded_error",
           error_message="Overloaded", leak_key=False),
    Fault("overloaded in the stream", {"error_after": 3, "error_type": "overloaded_error"}, None, ANSWER,
          says="overloaded_error: scripted failure"),
    Fault("limited in the stream", {"error_after": 1, "error_type": "rate_limit_error"}, None, LIMITED),
    Fault("an error with status 200 of a proxy", {"body": '{"error":{"type":"busy","message":"m"}}'}, ANSWER,
          ANSWER, says="error in an answer with status 200: busy: m"),
    Fault("an error with status 200", {"body": '{"type":"error","error":{"type":"api_error","message":"m"}}'}, ANSWER,
          ANSWER, says="error in an answer with status 200: api_error: m"),
    Fault("a block without a type", {"body": '{"content":[{}]}'}, ANSWER, ANSWER),
]  # fmt: skip


@pytest.mark.parametrize("how", ["plain", "stream"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
async def test_fault(dialect_server: DialectServer, fault: Fault, how: str) -> None:
    await check_fault(dialect_server, "anthropic", fault, how)


@pytest.mark.parametrize("how", ["plain", "stream"])
@pytest.mark.parametrize("does", CANCELLED)
async def test_cancelling_closes_the_socket(dialect_server: DialectServer, does: dict[str, Any], how: str) -> None:
    await check_cancelled(dialect_server, "anthropic", does, how)


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("https://a.example", "https://a.example/v1/messages"),
        ("https://a.example/v1/", "https://a.example/v1/messages"),
        ("https://a.example/anthropic", "https://a.example/anthropic/v1/messages"),
    ],
)
def test_endpoint(base: str, url: str) -> None:
    assert endpoint(base) == url


@pytest.mark.parametrize("how", ["plain", "stream"])
async def test_what_is_sent(dialect_server: DialectServer, how: str) -> None:
    request = said(
        ("system", "be brief"),
        ("developer", "be kind"),
        ("user", "2 and 3"),
        model="asked-for",
        generation=Generation(temperature=0.5, stop="end", user="u1", presence_penalty=0.0, n=1),
        tools=(TOOL,),
        tool_choice="required",
        response_format=ResponseFormat(type="json_schema", json_schema={"name": "n", "schema": {"type": "object"}}),
        extra={"top_k": 3, "parallel_tool_calls": False, "reasoning_effort": "low", "stream": "evil", "system": "evil"},
    )
    options = {"beta": ["b1", "b2"], "max_tokens": 77, "body": {"top_k": 1, "service_tier": "auto"}}
    with trio.fail_after(LIMIT):
        async with opened("anthropic", dialect_server.base_url, options=options) as adapter:
            await use(adapter, how, request, call())
    (seen,) = dialect_server.requests()
    headers = {name.lower(): value for name, value in seen["headers"]}
    assert (seen["method"], seen["path"]) == ("POST", "/v1/messages")
    assert (headers["x-api-key"], headers["anthropic-version"]) == (CANARY, "2023-06-01")
    assert headers["anthropic-beta"] == "b1,b2"
    assert "authorization" not in headers
    assert seen["json"] == {
        "model": "test-model",
        "max_tokens": 77,
        "system": [{"type": "text", "text": "be brief"}, {"type": "text", "text": "be kind"}],
        "messages": [{"role": "user", "content": "2 and 3"}],
        "temperature": 0.5,
        "top_k": 3,
        "service_tier": "auto",
        "stop_sequences": ["end"],
        "metadata": {"user_id": "u1"},
        "tools": [{"name": "add", "input_schema": {"type": "object"}}],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
        "output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}, "effort": "low"},
        **({"stream": True} if how == "stream" else {}),
    }


@pytest.mark.parametrize("how", ["plain", "stream"])
async def test_turns_with_parallel_tools_images_and_signed_thoughts(dialect_server: DialectServer, how: str) -> None:
    """Each answer goes back into the next request, as a caller would send it; the server checks the shape."""
    dialect_server.script(tools=TWO_CALLS, reasoning="let me see")
    picture = ImagePart(media=InlineMedia(mime="image/gif", data=GIF))
    turns: list[ChatMessage] = [
        ChatMessage(role="system", content="be brief"),
        ChatMessage(role="user", content_parts=(TextPart(text="what is this"), picture)),
    ]

    async def turn() -> ChatMessage:
        request = said(*turns, tools=(TOOL,))
        if how == "plain":
            answer = await adapter.invoke(request, call())
        else:
            answer = finished(await use(adapter, "stream", request, call()))
        message = chat(answer).choices[0].message
        assert message is not None
        turns.append(message)
        return message

    with trio.fail_after(LIMIT):
        async with opened("anthropic", dialect_server.base_url) as adapter:
            first = await turn()
            assert [(each.function.name, each.function.arguments) for each in first.tool_calls] == [
                ("add", '{"a":2,"b":3}'),
                ("now", "{}"),
            ]
            assert first.content is None
            assert first.extra["reasoning_content"] == "let me see"
            for each, result in zip(reversed(first.tool_calls), ("noon", "5"), strict=True):
                turns.append(ChatMessage(role="tool", tool_call_id=each.id, content=result))
            turns.append(ChatMessage(role="user", content="and now?"))
            second = await turn()
            assert second.text() == "tool said: noon, 5"
            turns.append(ChatMessage(role="user", content=[{"type": "text", "text": "4 and 5"}]))
            third = await turn()
            assert third.tool_calls[0].function.arguments == '{"a":4,"b":5}'
    sent = dialect_server.requests()[-1]["json"]["messages"]
    assert [each["role"] for each in sent] == ["user", "assistant", "user", "assistant", "user"]
    assert sent[0]["content"][1]["source"] == {"type": "base64", "media_type": "image/gif", "data": GIF}
    assert sent[1]["content"] == [
        {"type": "thinking", "thinking": "let me see", "signature": "c2lnbmVk"},
        {"type": "tool_use", "id": "toolu_1_0", "name": "add", "input": {"a": 2, "b": 3}},
        {"type": "tool_use", "id": "toolu_1_1", "name": "now", "input": {}},
    ]
    assert sent[2]["content"] == [
        {"type": "tool_result", "tool_use_id": "toolu_1_1", "content": "noon"},
        {"type": "tool_result", "tool_use_id": "toolu_1_0", "content": "5"},
        {"type": "text", "text": "and now?"},
    ]


@pytest.mark.parametrize("does", [{}, {"split": 1}, {"newline": "\r\n"}, {"tools": TWO_CALLS, "split": 7}])
async def test_a_stream_ends_with_what_a_plain_call_answers(
    dialect_server: DialectServer, does: dict[str, Any]
) -> None:
    dialect_server.script(times=2, reasoning="grüße, 世界", extra={"id": "msg_1"}, **does)
    request = ask("hello", tools=(TOOL,))
    with trio.fail_after(LIMIT):
        async with opened("anthropic", dialect_server.base_url) as adapter:
            plain = await adapter.invoke(request, call())
            items = await use(adapter, "stream", request, call())
    streamed = finished(items)
    if "tools" in does:  # their ids have the number of the request
        assert [call.function for call in _calls(streamed)] == [call.function for call in _calls(plain)]
    else:
        assert streamed.payload == plain.payload
    assert (streamed.usage, streamed.model) == (plain.usage, "test-model")
    assert isinstance(items[0], Started)
    assert "".join(each.delta for each in items if isinstance(each, ContentDelta)) == chat(plain).text
    assert "".join(each.delta for each in items if isinstance(each, ReasoningDelta)) == "grüße, 世界"
    for index, made in enumerate(_calls(streamed)):
        told = [each for each in items if isinstance(each, ToolCallDelta) and each.call_index == index]
        assert (told[0].id, told[0].name) == (made.id, made.function.name)
        assert "".join(each.arguments for each in told) == made.function.arguments
    assert [each.usage for each in items if isinstance(each, UsageEvent)] == [plain.usage]


def _calls(answer: Any) -> tuple[ToolCall, ...]:
    message = chat(answer).choices[0].message
    return message.tool_calls if message is not None else ()


async def test_usage_counts_what_the_cache_holds(dialect_server: DialectServer) -> None:
    with trio.fail_after(LIMIT):
        async with opened("anthropic", dialect_server.base_url) as adapter:
            usage = (await adapter.invoke(ask("one two"), call())).usage
    assert (usage.input_tokens, usage.cached_tokens, usage.output_tokens, usage.estimated) == (14, 7, 3, False)
    assert usage.extra == {"cache_creation_input_tokens": 5, "service_tier": "standard"}


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("refusal", "content_filter"),
        ("pause_turn", "pause_turn"),
    ],
)
async def test_why_it_ended(dialect_server: DialectServer, reason: str, finish: str) -> None:
    dialect_server.script(finish_reason=reason, times=2)
    with trio.fail_after(LIMIT):
        async with opened("anthropic", dialect_server.base_url) as adapter:
            answers = [await adapter.invoke(ask(), call()), finished(await use(adapter, "stream", ask(), call()))]
    for answer in answers:
        (choice,) = chat(answer).choices
        assert (choice.finish_reason, choice.extra) == (finish, {"stop_reason": reason})


async def test_a_server_that_does_not_stream(dialect_server: DialectServer) -> None:
    body = (
        '{"type":"message","model":"m","content":[{"type":"thinking","thinking":"hm","signature":"s"},'
        '{"type":"text","text":"whole"},{"type":"tool_use","id":"t","name":"n","input":{"a":1}}],'
        '"stop_reason":"tool_use","usage":{"input_tokens":1,"output_tokens":2}}'
    )
    dialect_server.script(body=body, times=2)
    with trio.fail_after(LIMIT):
        async with opened("anthropic", dialect_server.base_url) as adapter:
            plain = await adapter.invoke(ask(), call())
            items = await use(adapter, "stream", ask(), call())
    assert finished(items) == plain
    assert [type(each) for each in items[:-1]] == [Started, ReasoningDelta, ContentDelta, ToolCallDelta, UsageEvent]


@pytest.mark.parametrize("body", ["[1, 2]", "7", "{}", '{"content": 3}'])
async def test_json_that_is_no_message_is_an_answer_without_choices(dialect_server: DialectServer, body: str) -> None:
    dialect_server.script(body=body)
    with trio.fail_after(LIMIT):
        async with opened("anthropic", dialect_server.base_url) as adapter:
            answer = await adapter.invoke(ask(), call())
    assert chat(answer).choices == ()
    assert answer.usage.estimated


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"generation": Generation(seed=1, n=2)}, "has no n, seed;"),
        ({"response_format": ResponseFormat(type="json_object")}, "has no response_format;"),
    ],
)
async def test_what_the_dialect_has_no_word_for(
    dialect_server: DialectServer, fields: dict[str, Any], says: str
) -> None:
    request = ask(**fields)
    with trio.fail_after(LIMIT):
        async with opened("anthropic", dialect_server.base_url) as adapter:
            with pytest.raises(RoutingError, match=says) as caught:
                await adapter.invoke(request, call())
            other = request.model_copy(update={"degradation": Degradation(mode="allow", steps=("ssml",))})
            with pytest.raises(RoutingError):
                await adapter.invoke(other, call())
            assert dialect_server.counts()["total"] == 0
            allowed = Degradation(mode="allow", steps=("parameters_dropped",))
            answer = await adapter.invoke(request.model_copy(update={"degradation": allowed}), call())
    assert caught.value.code is ErrorCode.MISSING_CAPABILITIES
    assert answer.degraded == tuple(f"parameters_dropped:{name}" for name in caught.value.error.required)


@pytest.mark.parametrize("options", [{"sampling": False}, {"version": "2026-10-21"}])
async def test_models_that_take_no_temperature(dialect_server: DialectServer, options: dict[str, Any]) -> None:
    request = ask(generation=Generation(temperature=0.2, top_p=0.9, max_tokens=5))
    with trio.fail_after(LIMIT):
        async with opened("anthropic", dialect_server.base_url, options=options) as adapter:
            with pytest.raises(RoutingError, match="has no temperature, top_p;"):
                await adapter.invoke(request, call())
            allowed = request.model_copy(update={"degradation": Degradation(mode="allow")})
            answer = await adapter.invoke(allowed, call())
        async with opened("anthropic", dialect_server.base_url, options={**options, "sampling": True}) as adapter:
            await adapter.invoke(request, call())
    assert answer.degraded == ("parameters_dropped:temperature", "parameters_dropped:top_p")
    first, second = (each["json"] for each in dialect_server.requests())
    assert (first.get("temperature"), first.get("top_p"), first["max_tokens"]) == (None, None, 5)
    assert (second["temperature"], second["top_p"]) == (0.2, 0.9)


MP3 = AudioPart(media=InlineMedia(mime="audio/mpeg", data="AAAA"))
BMP = ImagePart(media=InlineMedia(mime="image/bmp", data="AAAA"))


@pytest.mark.parametrize(
    ("messages", "error", "says"),
    [
        ((), CallerError, "messages: is empty"),
        ((("system", "alone"),), CallerError, "messages: has nothing for the model to answer"),
        ((("user", ""),), CallerError, "messages: has nothing for the model to answer"),
        ((("tool", "x"),), CallerError, r"messages\[0\].tool_call_id: is missing"),
        ((ChatMessage(role="user", content_parts=(BMP,)),), CallerError, "is an image of another type than"),
        ((ChatMessage(role="user", content_parts=(MP3,)),), RoutingError, "takes no audio"),
        (
            (
                ChatMessage(
                    role="assistant",
                    tool_calls=(ToolCall(id="a", function=FunctionCall(name="f", arguments="nope")),),
                ),
            ),
            CallerError,
            r"messages\[0\].tool_calls\[0\].function.arguments: is not JSON",
        ),
    ],
)
async def test_what_is_not_sent(
    dialect_server: DialectServer, messages: tuple[Any, ...], error: type[Exception], says: str
) -> None:
    async with opened("anthropic", dialect_server.base_url) as adapter:
        with pytest.raises(error, match=says):
            await adapter.invoke(said(*messages), call())
    assert dialect_server.counts()["total"] == 0


async def test_the_beginning_of_an_answer_is_taken_up(dialect_server: DialectServer) -> None:
    with trio.fail_after(LIMIT):
        async with opened("anthropic", dialect_server.base_url) as adapter:
            await adapter.invoke(said(("user", "hi"), ("assistant", "Well, ")), call())
    assert dialect_server.requests()[0]["json"]["messages"][-1] == {"role": "assistant", "content": "Well,"}


async def test_an_error_after_the_beginning_is_told_in_its_words(dialect_server: DialectServer) -> None:
    dialect_server.script(status=400, error_message=f"prompt is too long, {CANARY}")
    with trio.fail_after(LIMIT):
        async with opened("anthropic", dialect_server.base_url) as adapter:
            with pytest.raises(BackendError, match=r"prompt is too long, \[secret\]") as caught:
                await use(adapter, "stream", ask(), call())
    assert (caught.value.failure, caught.value.status) == (Failure.CONTEXT_WINDOW, 400)


async def test_a_connection_is_used_again(dialect_server: DialectServer) -> None:
    with trio.fail_after(LIMIT):
        async with opened("anthropic", dialect_server.base_url) as adapter:
            for how in ("plain", "stream", "stream", "plain"):
                await use(adapter, how, ask(), call())
            counts = dialect_server.counts()
    assert (counts["total"], counts["connections_opened"]) == (4, 1)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_token": 1}, "options.max_token: unknown"),
        ({"max_tokens": 0}, "options.max_tokens: must be"),
        ({"sampling": "no"}, "options.sampling: must be true or false"),
        ({"beta": "b"}, "options.beta: must be a list"),
        ({"version": "a\nb"}, "options.version: must be"),
        ({"body": {"stream": True}}, "options.body.stream: is not for"),
    ],
)
def test_a_configuration_that_cannot_work(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        find_kind("anthropic").check(instance(kind="anthropic", base_url="https://a.example", options=options))
