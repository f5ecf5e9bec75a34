"""Kind `ollama_chat`, against a server that speaks Ollama's dialect."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from spear.backends import find_kind
from spear.backends.ollama import ask_models
from spear.ir import (
    BackendError,
    CallerError,
    ChatMessage,
    ContentDelta,
    Degradation,
    EmbeddingsRequest,
    EmbeddingsResult,
    ErrorCode,
    FunctionCall,
    Generation,
    ImagePart,
    InlineMedia,
    Operation,
    ReasoningDelta,
    RequestEnvelope,
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
    CANCELLED,
    COMMON,
    GIF,
    LIMIT,
    TOOL,
    Fault,
    chat,
    check_cancelled,
    check_fault,
    finished,
    opened,
    said,
)

FAULTS = [
    *COMMON,
    Fault("an error with status 200", {"body": f'{{"error":"no room: {CANARY}"}}'}, ANSWER, ANSWER,
          says="no room: [secret]"),
    Fault("a call without a name", {"body": '{"message":{"tool_calls":[{}]},"done":true}'}, ANSWER, ANSWER),
]  # fmt: skip


@pytest.mark.parametrize("how", ["plain", "stream"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
async def test_fault(dialect_server: DialectServer, fault: Fault, how: str) -> None:
    await check_fault(dialect_server, "ollama", fault, how)


@pytest.mark.parametrize("how", ["plain", "stream"])
@pytest.mark.parametrize("does", CANCELLED)
async def test_cancelling_closes_the_socket(dialect_server: DialectServer, does: dict[str, Any], how: str) -> None:
    await check_cancelled(dialect_server, "ollama", does, how)


@pytest.mark.parametrize("how", ["plain", "stream"])
async def test_what_is_sent(dialect_server: DialectServer, how: str) -> None:
    request = ask(
        "2 and 3",
        model="asked-for",
        generation=Generation(temperature=0.5, max_tokens=9, stop="end", seed=7),
        response_format=ResponseFormat(type="json_schema", json_schema={"name": "n", "schema": {"type": "object"}}),
        extra={"top_k": 3, "think": True, "stream": "evil", "model": "evil", "options": {"num_ctx": 1}},
    )
    options = {"keep_alive": "9m", "options": {"num_ctx": 5, "top_k": 1, "min_p": 0.1}}
    with trio.fail_after(LIMIT):
        async with opened("ollama", dialect_server.base_url, options=options) as adapter:
            await use(adapter, how, request, call())
    (seen,) = dialect_server.requests()
    headers = {name.lower(): value for name, value in seen["headers"]}
    assert (seen["method"], seen["path"]) == ("POST", "/api/chat")
    assert headers["authorization"] == f"Bearer {CANARY}"
    assert seen["json"] == {
        "model": "test-model",
        "messages": [{"role": "user", "content": "2 and 3"}],
        "stream": how == "stream",
        "format": {"type": "object"},
        "keep_alive": "9m",
        "think": True,
        "options": {
            "num_ctx": 1,
            "min_p": 0.1,
            "top_k": 3,
            "temperature": 0.5,
            "num_predict": 9,
            "stop": ["end"],
            "seed": 7,
        },
    }


async def test_a_whole_conversation(dialect_server: DialectServer) -> None:
    calls = (
        ToolCall(id="a", function=FunctionCall(name="add", arguments='{"a": 1, "b": 2}')),
        ToolCall(id="b", function=FunctionCall(name="now", arguments="")),
    )
    picture = ImagePart(media=InlineMedia(mime="image/gif", data=GIF))
    request = said(
        ("developer", "be brief"),
        ChatMessage(role="user", content_parts=(TextPart(text="look "), picture, TextPart(text="here"))),
        ChatMessage(role="assistant", content=None, tool_calls=calls, extra={"reasoning_content": "hm"}),
        ChatMessage(role="tool", tool_call_id="b", content="noon"),
        ChatMessage(role="tool", tool_call_id="a", content=[{"type": "text", "text": "3"}]),
        tools=(TOOL,),
    )
    with trio.fail_after(LIMIT):
        async with opened("ollama", dialect_server.base_url) as adapter:
            answer = await adapter.invoke(request, call())
    assert chat(answer).text == "tool said: 3"
    (seen,) = dialect_server.requests()
    assert seen["json"]["tools"] == [TOOL]
    assert seen["json"]["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "look here", "images": [GIF]},
        {
            "role": "assistant",
            "content": "",
            "thinking": "hm",
            "tool_calls": [
                {"id": "a", "function": {"name": "add", "arguments": {"a": 1, "b": 2}}},
                {"id": "b", "function": {"name": "now", "arguments": {}}},
            ],
        },
        {"role": "tool", "content": "noon", "tool_call_id": "b", "tool_name": "now"},
        {"role": "tool", "content": "3", "tool_call_id": "a", "tool_name": "add"},
    ]


@pytest.mark.parametrize("does", [{}, {"split": 1}, {"newline": "\r\n"}, {"text": "grüße, 世界 {text}", "split": 3}])
async def test_a_stream_ends_with_what_a_plain_call_answers(
    dialect_server: DialectServer, does: dict[str, Any]
) -> None:
    dialect_server.script(times=2, reasoning="well then", **does)
    request = ask("add 2 and 3" if not does else "hello", tools=(TOOL,))
    with trio.fail_after(LIMIT):
        async with opened("ollama", dialect_server.base_url) as adapter:
            plain = await adapter.invoke(request, call())
            items = await use(adapter, "stream", request, call())
    streamed = finished(items)
    assert (streamed.payload, streamed.usage, streamed.model) == (plain.payload, plain.usage, "test-model")
    assert isinstance(items[0], Started)
    assert "".join(each.delta for each in items if isinstance(each, ContentDelta)) == chat(plain).text
    assert "".join(each.delta for each in items if isinstance(each, ReasoningDelta)) == "well then"
    assert [each.usage for each in items if isinstance(each, UsageEvent)] == [plain.usage]
    assert not plain.usage.estimated
    if not does:
        (told,) = [each for each in items if isinstance(each, ToolCallDelta)]
        (made,) = chat(plain).choices[0].message.tool_calls  # type: ignore[union-attr]
        assert (told.id, told.name, told.arguments) == (made.id, "add", made.function.arguments)
        assert made.function.arguments == '{"a":2,"b":3}'
        assert chat(plain).finish_reason == "tool_calls"
    assert chat(plain).extra == {
        "id": f"chatcmpl-{request.request_id}",
        "object": "chat.completion",
        "created": 1767323045,
        "model": "test-model",
    }


async def test_calls_of_one_conversation_have_ids_of_their_own(dialect_server: DialectServer) -> None:
    with trio.fail_after(LIMIT):
        async with opened("ollama", dialect_server.base_url) as adapter:
            answers = [await adapter.invoke(ask("2 3", tools=(TOOL,)), call()) for _ in range(2)]
    ids = {each.id for answer in answers for each in chat(answer).choices[0].message.tool_calls}  # type: ignore[union-attr]
    assert len(ids) == 2


async def test_a_server_that_does_not_stream(dialect_server: DialectServer) -> None:
    dialect_server.script(body='{"model":"m","message":{"role":"assistant","content":"whole"},"done":true}')
    with trio.fail_after(LIMIT):
        async with opened("ollama", dialect_server.base_url) as adapter:
            answer = finished(await use(adapter, "stream", ask("12345"), call()))
    assert chat(answer).text == "whole"
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.estimated) == (2, 2, True)


@pytest.mark.parametrize("body", ["[1, 2]", "7", "{}", '{"message": 3}'])
async def test_json_that_is_no_answer_is_one_without_choices(dialect_server: DialectServer, body: str) -> None:
    dialect_server.script(body=body)
    with trio.fail_after(LIMIT):
        async with opened("ollama", dialect_server.base_url) as adapter:
            assert chat(await adapter.invoke(ask(), call())).choices == ()


def embedding(*inputs: str, **fields: Any) -> RequestEnvelope:
    return RequestEnvelope(operation=Operation.EMBEDDINGS, payload=EmbeddingsRequest(input=inputs, **fields))


async def test_embeddings(dialect_server: DialectServer) -> None:
    with trio.fail_after(LIMIT):
        async with opened("ollama", dialect_server.base_url, options={"keep_alive": 5, "think": True}) as adapter:
            answer = await adapter.invoke(embedding("a b", "c", dimensions=2, extra={"truncate": False}), call())
    assert answer.payload == EmbeddingsResult(
        vectors=((3.0, 3.125), (1.0, 1.125)), dimensions=2, extra={"model": "test-model"}
    )
    assert (answer.usage.input_tokens, answer.usage.estimated) == (3, False)
    (seen,) = dialect_server.requests()
    assert seen["path"] == "/api/embed"
    assert seen["json"] == {
        "model": "test-model",
        "input": ["a b", "c"],
        "dimensions": 2,
        "truncate": False,
        "keep_alive": 5,
    }


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("[[1.0]]", "1 vectors for 2 inputs"),
        ("[[1.0], [1.0, 2.0]]", "vectors of different lengths"),
        ("[[1.0], [null]]", "vector 1 has something in it that is no number"),
        ("[[1.0], [true]]", "vector 1 has something in it that is no number"),
        ('[[1.0], "AAAA"]', "vector 1 has 3 bytes, which are no 32-bit numbers"),
        ("[[], []]", "vectors of 0 numbers"),
        ("[[1.0], [" + "9" * 400 + "]]", "vector 1 has|not JSON"),
        ("{}", "no list of vectors"),
        ("[[1.0], [NaN]]", "not JSON"),
    ],
)
async def test_vectors_that_cannot_be_used(dialect_server: DialectServer, given: str, says: str) -> None:
    dialect_server.script(body=f'{{"embeddings": {given}}}')
    with trio.fail_after(LIMIT):
        async with opened("ollama", dialect_server.base_url) as adapter:
            with pytest.raises(BackendError, match=says) as caught:
                await adapter.invoke(embedding("a", "b"), call())
    assert (caught.value.code, caught.value.failure) == ANSWER


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"generation": Generation(n=2)}, "Ollama has no n"),
        ({"tools": (TOOL,), "tool_choice": "required"}, "Ollama has no tool_choice"),
        (
            {"tools": (TOOL,), "tool_choice": {"type": "function", "function": {"name": "add"}}},
            "Ollama has no tool_choice",
        ),
    ],
)
async def test_what_the_dialect_has_no_word_for(
    dialect_server: DialectServer, fields: dict[str, Any], says: str
) -> None:
    request = ask(**fields)
    with trio.fail_after(LIMIT):
        async with opened("ollama", dialect_server.base_url) as adapter:
            with pytest.raises(RoutingError, match=says) as caught:
                await adapter.invoke(request, call())
            assert dialect_server.counts()["total"] == 0
            answer = await adapter.invoke(request.model_copy(update={"degradation": Degradation(mode="allow")}), call())
    assert caught.value.code is ErrorCode.MISSING_CAPABILITIES
    assert answer.degraded == (f"parameters_dropped:{says.rpartition(' ')[2]}",)


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (ask(model=" "), "model: is blank"),
        (ask(messages=()), "messages: is empty"),
        (
            said(
                ChatMessage(
                    role="assistant",
                    tool_calls=(ToolCall(id="a", function=FunctionCall(name="f", arguments="[1]")),),
                )
            ),
            r"messages\[0\].tool_calls\[0\].function.arguments: is JSON, but no object",
        ),
        (embedding(), "input: is empty"),
    ],
)
async def test_what_is_not_sent(dialect_server: DialectServer, request_: RequestEnvelope, says: str) -> None:
    async with opened("ollama", dialect_server.base_url, model=None if "blank" in says else "m") as adapter:
        with pytest.raises(CallerError, match=says):
            await adapter.invoke(request_, call())
    assert dialect_server.counts()["total"] == 0


async def test_a_connection_is_used_again(dialect_server: DialectServer) -> None:
    with trio.fail_after(LIMIT):
        async with opened("ollama", dialect_server.base_url) as adapter:
            for how in ("plain", "stream", "stream", "plain"):
                await use(adapter, how, ask(), call())
            counts = dialect_server.counts()
    assert (counts["total"], counts["connections_opened"]) == (4, 1)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "base_url: is missing"),
        ({"base_url": "https://a.example", "options": {"num_ctx": 1}}, "options.num_ctx: unknown"),
        ({"base_url": "https://a.example", "options": {"options": 1}}, "options.options: must be a table"),
        ({"base_url": "https://a.example", "options": {"think": "much"}}, "options.think: must be"),
        ({"base_url": "https://a.example", "options": {"keep_alive": True}}, "options.keep_alive: must be"),
    ],
)
def test_a_configuration_that_cannot_work(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        find_kind("ollama").check(instance(kind="ollama", **fields))


async def test_which_models_there_are(dialect_server: DialectServer) -> None:
    dialect_server.models("a:latest", "idle-b", "c")
    config = instance(kind="ollama", base_url=dialect_server.base_url)
    with trio.fail_after(LIMIT):
        assert await ask_models(config, "serving", 5.0) == ("a:latest", "c")
        assert await ask_models(config, "installed", 5.0) == ("a:latest", "idle-b", "c")
        dialect_server.script(operation="models", drip={"bytes": 1, "every": 0.05})
        with pytest.raises(BackendError, match=r"did not come within 0\.3 s"):
            await ask_models(config, "installed", 0.3)
        await dialect_server.until(open=0, connections_open=0)
