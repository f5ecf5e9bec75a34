"""Ollama's and Anthropic's dialects: whatever comes, whatever is asked, and that streamed and plain say the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spear.dialects.anthropic import AnthropicStreamDecoder, anthropic_body, result_from_anthropic
from spear.dialects.ollama import (
    LineDecoder,
    OllamaStreamDecoder,
    embeddings_from_ollama,
    ollama_body,
    result_from_ollama,
)
from spear.dialects.openai_chat import body_from_result
from spear.ir import (
    BackendError,
    ChatMessage,
    ChatRequest,
    ChatResult,
    ContentDelta,
    EmbeddingsRequest,
    FunctionCall,
    ReasoningDelta,
    TextPart,
    ToolCall,
    ToolCallDelta,
    dump_json,
    parse_json,
)
from tests.servers import _anthropic_dialect as anthropic_server
from tests.servers import _ollama_dialect as ollama_server
from tests.servers._reply import BadRequest

FEW = settings(max_examples=50, deadline=None)
TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
SCALARS = st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False, allow_infinity=False) | TEXT
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=6
)


def near(*shapes: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values near those that a server sends: one of `shapes` with some of its keys missing or of any value."""
    return JSON | st.one_of([
        st.fixed_dictionaries({}, optional={
            key: st.just(value) | st.just(value) | JSON for key, value in shape.items()
        })
        for shape in shapes
    ])  # fmt: skip


CALLS = [{"id": "c", "function": {"name": "f", "arguments": {"a": 1}}}, {"function": {"name": "g"}}]
OLLAMA = near(
    {"model": "m", "message": {"role": "assistant", "content": "hi"}, "done": False},
    {"message": {"content": "", "thinking": "hm", "tool_calls": CALLS}, "done": False},
    {"model": "m", "created_at": "2026-01-02T03:04:05Z", "message": {"content": ""}, "done": True, "eval_count": 1},
    {"message": {"tool_calls": [{}]}, "error": "no"},
)
BLOCKS = [{"type": "text", "text": ""}, {"type": "tool_use", "id": "t", "name": "n", "input": {}}, {"type": "thinking"}]
DELTAS = [
    {"type": "text_delta", "text": "a"},
    {"type": "input_json_delta", "partial_json": "{"},
    {"type": "thinking_delta", "thinking": "b"},
    {"type": "signature_delta", "signature": "s"},
    {"type": "citations_delta", "citation": {}},
]
ANTHROPIC = near(
    {"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 1}}},
    *({"type": "content_block_start", "index": at, "content_block": block} for at, block in enumerate(BLOCKS)),
    *({"type": "content_block_delta", "index": at % 3, "delta": delta} for at, delta in enumerate(DELTAS)),
    {"type": "content_block_stop", "index": 1},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
    {"type": "message_stop"},
    {"type": "error", "error": {"type": "overloaded_error", "message": "m"}},
)
START = {"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 1}}}


def ollama_decoder() -> OllamaStreamDecoder:
    return OllamaStreamDecoder(backend="b", request_id="r")


def anthropic_decoder() -> AnthropicStreamDecoder:
    decoder = AnthropicStreamDecoder(backend="b", request_id="r")
    decoder.feed(START)
    return decoder


@FEW
@given(st.lists(OLLAMA, max_size=6))
def test_any_lines_from_ollama(lines: list[Any]) -> None:
    check_stream(ollama_decoder(), lines)


@FEW
@given(st.lists(ANTHROPIC, max_size=10))
def test_any_events_from_anthropic(events: list[Any]) -> None:
    check_stream(anthropic_decoder(), events)


def check_stream(decoder: Any, events: list[Any]) -> None:
    """A result that says what the deltas said, or a BackendError."""
    told: list[Any] = []
    try:
        for each in events:
            told += decoder.feed(each)
            if decoder.done:
                break
        result, usage = decoder.finish()
    except BackendError:
        return
    dump_json(body_from_result(result, usage))
    assert result.text == "".join(each.delta for each in told if isinstance(each, ContentDelta))


@FEW
@given(OLLAMA | ANTHROPIC | near({"content": BLOCKS, "usage": {"input_tokens": 1}, "stop_reason": "end_turn"}))
def test_any_answer(value: Any) -> None:
    readers: list[Callable[[Any], Any]] = [
        lambda each: result_from_ollama(each, request_id="r"),
        result_from_anthropic,
        lambda each: embeddings_from_ollama(each, EmbeddingsRequest(input=("a",))),
    ]
    for read in readers:
        try:
            result, usage = read(value)
        except BackendError:
            continue
        if isinstance(result, ChatResult):
            dump_json(body_from_result(result, usage))


@FEW
@given(st.lists(st.sampled_from(["text", "thinking", "redacted_thinking", "tool_use"]), max_size=6), st.data())
def test_what_anthropic_streams_is_what_it_says_at_once(kinds: list[str], data: st.DataObject) -> None:
    blocks: list[Any] = []
    events: list[Any] = []
    for index, kind in enumerate(kinds):
        pieces = data.draw(st.lists(TEXT, max_size=3))
        said = "".join(pieces)
        if kind == "tool_use":
            given_input = {"k": pieces}
            text = json.dumps(given_input)
            block: Any = {"type": kind, "id": f"t{index}", "name": "n", "input": given_input}
            start: Any = {**block, "input": {}}
            deltas = [{"type": "input_json_delta", "partial_json": part} for part in (text[:3], text[3:])]
        elif kind == "redacted_thinking":
            block = start = {"type": kind, "data": said}
            deltas = []
        elif kind == "thinking":
            block = {"type": kind, "thinking": said, "signature": "sg"}
            start = {"type": kind, "thinking": "", "signature": ""}
            deltas = [{"type": "thinking_delta", "thinking": part} for part in pieces]
            deltas += [{"type": "signature_delta", "signature": part} for part in "sg"]
        else:
            block, start = {"type": kind, "text": said}, {"type": kind, "text": ""}
            deltas = [{"type": "text_delta", "text": part} for part in pieces]
        blocks.append(block)
        events.append({"type": "content_block_start", "index": index, "content_block": start})
        events += [{"type": "content_block_delta", "index": index, "delta": each} for each in deltas]
        events.append({"type": "content_block_stop", "index": index})
    decoder = anthropic_decoder()
    told = [item for event in events for item in decoder.feed(event)]
    decoder.feed({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}})
    decoder.feed({"type": "message_stop"})
    result, usage = decoder.finish()
    whole = {
        "model": "m",
        "content": blocks,
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 1, "output_tokens": 2},
    }
    plain, plain_usage = result_from_anthropic(whole)
    assert usage == plain_usage
    assert loose(result) == loose(plain)
    assert "".join(each.delta for each in told if isinstance(each, ReasoningDelta)) == "".join(
        block["thinking"] for block in blocks if block["type"] == "thinking"
    )
    calls = result.choices[0].message.tool_calls  # type: ignore[union-attr]
    for index, call in enumerate(calls):
        parts = [each.arguments for each in told if isinstance(each, ToolCallDelta) and each.call_index == index]
        assert "".join(parts) == call.function.arguments


def loose(result: ChatResult) -> Any:
    """Arguments as values: streamed, they are the text that the model wrote."""
    value = result.model_dump()
    for call in value["choices"][0]["message"]["tool_calls"]:
        call["function"]["arguments"] = parse_json(call["function"]["arguments"])
    return value


CONTENT = st.none() | TEXT | st.lists(st.builds(lambda text: {"type": "text", "text": text}, TEXT), max_size=2)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[ChatMessage, ...]:
    """Such as a caller may have them: all calls answered, in any order, other messages in between."""
    messages: list[ChatMessage] = [ChatMessage(role="user", content="x")]
    number = 0
    for _ in range(draw(st.integers(0, 4))):
        role = draw(st.sampled_from(["system", "developer", "user", "assistant", "calls"]))
        if role != "calls":
            parts = (TextPart(text=draw(TEXT)),) if draw(st.booleans()) else None
            content = None if parts else draw(CONTENT)
            messages.append(ChatMessage(role=role, content=content, content_parts=parts))
            continue
        count = draw(st.integers(1, 3))
        calls = [
            ToolCall(id=f"c{number + at}", function=FunctionCall(name="f", arguments=draw(st.sampled_from(["", "{}"]))))
            for at in range(count)
        ]
        number += count
        messages.append(ChatMessage(role="assistant", content=draw(CONTENT), tool_calls=tuple(calls)))
        messages += [
            ChatMessage(role="tool", tool_call_id=call.id, content=draw(CONTENT))
            for call in draw(st.permutations(calls))
        ]
    messages.append(ChatMessage(role="user", content="y"))
    return tuple(messages)


@FEW
@given(conversations())
def test_any_conversation_is_one_that_the_servers_take(messages: tuple[ChatMessage, ...]) -> None:
    request = ChatRequest(messages=messages)
    body: Any = parse_json(dump_json(anthropic_body(request, model="m", stream=False, defaults={"max_tokens": 1})))
    anthropic_server.read("/v1/messages", body)
    results = sum(message.role == "tool" for message in messages)
    blocks = [b for m in body["messages"] if isinstance(m["content"], list) for b in m["content"]]
    assert sum(block["type"] == "tool_result" for block in blocks) == results
    assert sum(block["type"] == "tool_use" for block in blocks) == results
    body = parse_json(dump_json(ollama_body(request, model="m", stream=False)))
    ollama_server.read("/api/chat", body)
    assert len(body["messages"]) == len(messages)


def test_the_test_server_is_as_strict_as_that_needs() -> None:
    """So that the test above could fail."""
    for wrong in (
        [{"role": "user", "content": ""}],
        [{"role": "tool", "content": "x"}],
        [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a"}]}],
        [{"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "n", "input": "{}"}]}],
    ):
        with pytest.raises(BadRequest):
            anthropic_server.read("/v1/messages", {"model": "m", "max_tokens": 1, "messages": wrong})
    with pytest.raises(BadRequest):
        ollama_server.read("/api/chat", {"model": "m", "messages": [{"role": "user", "content": None}]})


@FEW
@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=4))
def test_lines_however_they_are_cut(data: bytes, cuts: list[int]) -> None:
    whole, cut = LineDecoder(), LineDecoder()
    expected = whole.feed(data) + whole.finish()
    edges = [0, *sorted(min(at, len(data)) for at in cuts), len(data)]
    found = [line for start, end in pairwise(edges) for line in cut.feed(data[start:end])]
    assert found + cut.finish() == expected
    assert [line for line in data.split(b"\n") if line.strip()] == [
        line for line in data.split(b"\n") if line.strip() in expected
    ]


def test_a_line_that_is_too_long() -> None:
    decoder = LineDecoder(max_line=4)
    assert decoder.feed(b"ab\nabcde\nab\n") == [b"ab"]
    with pytest.raises(BackendError, match="longer than 4 bytes"):
        decoder.feed(b"")
    with pytest.raises(BackendError):
        LineDecoder(max_line=4).feed(b"abcde")


@pytest.mark.parametrize("dialect", ["ollama", "anthropic"])
def test_a_stream_that_is_too_large(dialect: str) -> None:
    big = "x" * 600
    if dialect == "ollama":
        decoder: Any = OllamaStreamDecoder(backend="b", request_id="r", max_characters=1000)
        event: Any = {"message": {"content": big}}
    else:
        decoder = AnthropicStreamDecoder(backend="b", max_characters=2000)
        decoder.feed(START)
        decoder.feed({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
        event = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": big}}
    decoder.feed(event)
    with pytest.raises(BackendError, match="response too large"):
        decoder.feed(event)


@pytest.mark.parametrize("odd", [{}, [], None, 5])
def test_what_is_of_an_odd_type_is_no_bug(odd: Any) -> None:
    """Where a text is expected that something is looked up by."""
    ollama = OllamaStreamDecoder(backend="b", request_id="r")
    ollama.feed({"message": {"tool_calls": CALLS}, "done_reason": odd, "done": True})
    result, _ = ollama.finish()
    assert result.choices[0].finish_reason == "tool_calls"
    anthropic = AnthropicStreamDecoder(backend="b")
    anthropic.feed({"type": "message_start", "message": {}})
    with pytest.raises(BackendError, match="has no type"):
        anthropic.feed({"type": "content_block_start", "index": 0, "content_block": {"type": odd, "text": "a"}})


def test_an_error_of_a_proxy_ends_a_stream_of_anthropics() -> None:
    with pytest.raises(BackendError, match="no room"):
        AnthropicStreamDecoder(backend="b").feed({"error": {"message": "no room"}})
