from __future__ import annotations

from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from spear.backends import Finished, Host, find_kind
from spear.backends.stub import words
from spear.ir import (
    AudioPart,
    ChatMessage,
    ChatResult,
    ContentDelta,
    EmbeddingsRequest,
    ImagePart,
    InlineMedia,
    Operation,
    RequestEnvelope,
    RoutingError,
    Started,
    TextPart,
    ToolCallDelta,
    UsageEvent,
    parse_json,
)
from tests.spear.backends._support import ask, call, instance

TOOLS = ({"type": "function", "function": {"name": "add"}}, {"type": "function", "function": {"name": "other"}})


async def answer(request: RequestEnvelope, **fields: Any) -> Any:
    """The plain answer, after checking that the stream says the same."""
    kind = find_kind("stub")
    async with kind.open(instance(kind="stub", **fields), Host()) as adapter:
        plain = await adapter.invoke(request, call())
        async with adapter.stream(request, call()) as stream:
            items = [item async for item in stream]
    assert items[-1] == Finished(plain)
    assert isinstance(items[0], Started)
    assert items[-2] == UsageEvent(usage=plain.usage)
    assert isinstance(plain.payload, ChatResult)
    assert "".join(item.delta for item in items if isinstance(item, ContentDelta)) == plain.payload.text
    return plain, items[1:-2]


async def test_echo() -> None:
    plain, deltas = await answer(ask("say  hello\tto me"))
    assert plain.payload.text == "stub chat completion: say  hello\tto me"
    assert plain.payload.finish_reason == "stop"
    assert [delta.delta for delta in deltas] == ["stub ", "chat ", "completion: ", "say  ", "hello\t", "to ", "me"]
    assert (plain.usage.input_tokens, plain.usage.output_tokens, plain.usage.estimated) == (4, 10, True)
    assert plain.model == "test-model"


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("add 2 and 3", '{"a":2,"b":3}'),
        ("2 3 4", '{"a":2,"b":3}'),
        ("-7plus007", '{"a":-7,"b":7}'),
        ("1-2", '{"a":1,"b":-2}'),
        ("-0 and 00", '{"a":0,"b":0}'),
        (f"{'9' * 5000} 1", f'{{"a":{"9" * 5000},"b":1}}'),
    ],
)
async def test_the_first_tool_is_called_with_two_integers(text: str, arguments: str) -> None:
    plain, deltas = await answer(ask(text, tools=TOOLS))
    (choice,) = plain.payload.choices
    (called,) = choice.message.tool_calls
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    assert (called.id, called.function.name, called.function.arguments) == ("call_stub_1", "add", arguments)
    assert deltas == [ToolCallDelta(id="call_stub_1", name="add", arguments=arguments)]
    if len(text) < 4000:
        assert isinstance(parse_json(arguments), dict)


@pytest.mark.parametrize("text", ["add one and two", "only 1", ""])
async def test_without_two_integers_it_echoes(text: str) -> None:
    plain, _ = await answer(ask(text, tools=TOOLS))
    assert plain.payload.text == f"stub chat completion: {text}"


async def test_without_tools_it_echoes() -> None:
    plain, _ = await answer(ask("add 2 and 3"))
    assert plain.payload.text == "stub chat completion: add 2 and 3"


async def test_after_a_tool() -> None:
    messages = (
        ChatMessage(role="user", content="add 2 and 3"),
        ChatMessage(role="tool", content="5", tool_call_id="call_stub_1"),
        ChatMessage(role="user", content="and 4 5"),
    )
    plain, _ = await answer(ask(messages=messages, tools=TOOLS))
    assert plain.payload.text == "stub chat completion after tool"


async def test_the_last_user_text_counts() -> None:
    messages = (
        ChatMessage(role="user", content="first"),
        ChatMessage(role="user", content=[{"type": "text", "text": "second"}]),
        ChatMessage(role="assistant", content="third"),
    )
    plain, _ = await answer(ask(messages=messages))
    assert plain.payload.text == "stub chat completion: second"


async def test_pictures_and_recordings_are_counted_not_looked_at() -> None:
    media = InlineMedia(mime="image/png", data="AAAA")
    parts = (TextPart(text="what"), ImagePart(media=media), ImagePart(media=media), AudioPart(media=media))
    plain, _ = await answer(ask(messages=(ChatMessage(role="user", content_parts=parts),)))
    assert plain.payload.text == "stub chat completion: what (with 2 images and 1 recording, unseen)"
    plain, _ = await answer(ask(messages=(ChatMessage(role="user", content_parts=parts[:1]),)))
    assert plain.payload.text == "stub chat completion: what"


async def test_the_name_of_the_model() -> None:
    assert (await answer(ask(model="asked"), model=None))[0].model == "asked"
    assert (await answer(ask(), model=None))[0].model == "stub"


async def test_another_operation() -> None:
    request = RequestEnvelope(operation=Operation.EMBEDDINGS, payload=EmbeddingsRequest(input=("a",)))
    with pytest.raises(RoutingError, match="chat_completions only"):
        await answer(request)


async def test_delay(autojump_clock: trio.testing.MockClock) -> None:
    started = trio.current_time()
    await answer(ask(), options={"delay_ms": 1500})
    assert trio.current_time() - started == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"delay": 1}, "options.delay: unknown"),
        ({"delay_ms": -1}, "options.delay_ms: must be"),
        ({"delay_ms": 60_001}, "options.delay_ms: must be"),
        ({"delay_ms": True}, "options.delay_ms: must be"),
        ({"delay_ms": "1"}, "options.delay_ms: must be"),
    ],
)
def test_options(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        find_kind("stub").check(instance(kind="stub", options=options))


@given(st.text())
def test_words_lose_nothing(text: str) -> None:
    cut = words(text)
    assert "".join(cut) == text
    assert all(cut)
    assert len(cut) <= max(1, len(text.split()))
