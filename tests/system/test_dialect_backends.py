"""Kinds of other dialects in a whole runtime: one request, whoever answers, and one dialect in the place of another."""

from __future__ import annotations

from typing import Any

import pytest
import trio

import spear
from spear.ir import ContentDelta, EmbeddingsRequest, EmbeddingsResult, Operation, RequestEnvelope
from tests.servers.dialect_server import DialectServer
from tests.system.kit import chat

LIMIT = 20.0
ODD = {
    "embeddings": {"path": "/odd/embed", "body": {"texts": "{input}"}, "vectors": "/rows/*/v"},
    "chat_completions": {"path": "/odd/chat", "body": {"ask": "{last_user}"}, "text": "/out/0/t"},
}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


def config(server: DialectServer, *kinds: str) -> dict[str, Any]:
    shared = {"hosting": "local", "base_url": server.root_url, "model": "small"}
    odd = {"options": ODD, "ops": ["chat_completions", "embeddings"], "features": ["supports_stream"]}
    backends = [
        {"name": kind, "kind": kind, "priority": at, **shared, **(odd if kind == "json_http" else {})}
        for at, kind in enumerate(kinds)
    ]
    return {"spear": {"backends": backends, "default_policy": "priority", "retries": {"per_instance": 1}}}


@pytest.mark.parametrize("kind", ["ollama", "anthropic", "json_http"])
async def test_chat_plain_and_streamed(dialect_server: DialectServer, kind: str) -> None:
    with trio.fail_after(LIMIT):
        async with spear.open_runtime(config(dialect_server, kind)) as runtime:
            assert (await runtime.chat(messages=[{"role": "user", "content": "hi there"}])).text == "echo: hi there"
            async with runtime.stream(chat("hi there")) as events:
                said = "".join([event.delta async for event in events if isinstance(event, ContentDelta)])
            assert said == "echo: hi there"
        await dialect_server.until(open=0, connections_open=0)


async def test_a_conversation_goes_on_in_another_dialect(dialect_server: DialectServer) -> None:
    """The first backend calls a tool and then fails; the second takes up the history that the first has made."""
    with trio.fail_after(LIMIT):
        async with spear.open_runtime(config(dialect_server, "ollama", "anthropic")) as runtime:
            messages: list[Any] = [{"role": "user", "content": "2 and 3"}]
            first = await runtime.chat(messages=messages, tools=[TOOL])
            (call,) = first.tool_calls
            function = {"name": call.function.name, "arguments": call.function.arguments}
            made = {"id": call.id, "type": "function", "function": function}
            messages += [
                {"role": "assistant", "content": None, "tool_calls": [made]},
                {"role": "tool", "tool_call_id": call.id, "content": "5"},
            ]
            dialect_server.script(status=500)
            second = await runtime.chat(messages=messages, tools=[TOOL])
    assert second.text == "tool said: 5"
    backend = second.response.backend
    assert backend is not None
    assert [(each.backend, each.outcome) for each in backend.attempts] == [("ollama", "failed"), ("anthropic", "ok")]
    assert [each["path"] for each in dialect_server.requests()] == ["/api/chat", "/api/chat", "/v1/messages"]


@pytest.mark.parametrize(("kind", "dimensions"), [("ollama", 4), ("json_http", 2)])
async def test_embeddings(dialect_server: DialectServer, kind: str, dimensions: int) -> None:
    request = RequestEnvelope(
        operation=Operation.EMBEDDINGS, payload=EmbeddingsRequest(model="small", input=("a", "bcd"))
    )
    with trio.fail_after(LIMIT):
        async with spear.open_runtime(config(dialect_server, kind)) as runtime:
            result = (await runtime.invoke(request)).unwrap()
    assert isinstance(result, EmbeddingsResult)
    assert result.dimensions == dimensions
    assert [vector[0] for vector in result.vectors or ()] == [1.0, 3.0]
