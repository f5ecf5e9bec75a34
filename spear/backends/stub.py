"""The stub: answers chat in process, by rule, without any model. For tests, demos and first steps.

It echoes the last user text, and counts images and recordings beside it without looking at them; with tools and two
integers in that text it calls the first tool with them; after a tool's answer it says so. It needs no key, no address
and no network, and says of itself in every answer that it is a stub. Token counts are estimated as a quarter of the
characters.

Options: `delay_ms`, how long each answer takes (0 to 60 000, default 0), so that waiting and cancelling can be shown.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from itertools import islice
from typing import Final

import trio

from spear.config import InstanceConfig
from spear.dialects.openai_chat import fill_usage
from spear.ir import (
    AudioPart,
    Capabilities,
    ChatChoice,
    ChatMessage,
    ChatRequest,
    ChatResult,
    ContentDelta,
    ErrorCode,
    Feature,
    FunctionCall,
    Hosting,
    ImagePart,
    Operation,
    RequestEnvelope,
    RoutingError,
    Started,
    ToolCall,
    ToolCallDelta,
    Transport,
    Usage,
    UsageEvent,
    make_error,
    trusted,
)

from ._protocol import Adapter, Answer, Call, Finished, Host, StreamItem

_INTEGER: Final = re.compile(r"-?[0-9]+")
_WORD: Final = re.compile(r"\s*\S+\s*|\s+")
_MAX_DELAY_MS: Final = 60_000
_MODEL: Final = "stub"
_NO_COUNT: Final = Usage()
# Texts of a request that was checked, and our own.
_message, _choice, _result = trusted(ChatMessage), trusted(ChatChoice), trusted(ChatResult)


def reply(chat: ChatRequest) -> ChatChoice:
    """What the stub says to `chat`."""
    text, unseen = "", ""
    for message in chat.messages:
        if message.role == "tool":
            return _say("stub chat completion after tool")
        if message.role == "user":
            text, unseen = message.text(), _unseen(message)
    if chat.tools:
        numbers = [match.group() for match in islice(_INTEGER.finditer(text), 2)]
        if len(numbers) == 2:
            return _call_first_tool(chat, numbers)
    return _say(f"stub chat completion: {text}{unseen}")


def _unseen(message: ChatMessage) -> str:
    """What else is in the message: a stub takes it, and does not look at it."""
    if type(message.content) is str or message.content_parts is None:
        return ""
    told = []
    for kind, name in ((ImagePart, "image"), (AudioPart, "recording")):
        count = sum(isinstance(part, kind) for part in message.content_parts)
        if count:
            told.append(f"{count} {name}{'s' if count > 1 else ''}")
    return f" (with {' and '.join(told)}, unseen)" if told else ""


def words(text: str) -> list[str]:
    """Cut `text` into one piece for each word, with the blanks after it: the pieces joined are the text."""
    return _WORD.findall(text)


def _say(text: str) -> ChatChoice:
    return _choice(index=0, message=_message(role="assistant", content=text), finish_reason="stop")


def _call_first_tool(chat: ChatRequest, numbers: list[str]) -> ChatChoice:
    function = chat.tools[0].get("function")
    name = function.get("name") if isinstance(function, dict) else None
    first, second = map(_as_json, numbers)
    call = ToolCall(
        id="call_stub_1",
        function=FunctionCall(name=name if isinstance(name, str) else "", arguments=f'{{"a":{first},"b":{second}}}'),
    )
    return ChatChoice(index=0, message=ChatMessage(role="assistant", tool_calls=(call,)), finish_reason="tool_calls")


def _as_json(integer: str) -> str:
    """Digit for digit (an `int` may be too long for Python to parse), without the leading zeros JSON does not have."""
    digits = integer.lstrip("-").lstrip("0") or "0"
    return f"-{digits}" if integer.startswith("-") and digits != "0" else digits


class _StubAdapter:
    def __init__(self, instance: InstanceConfig) -> None:
        self._name = instance.name
        self._model = (instance.model or "").strip()
        self._delay = _delay_s(instance)

    async def invoke(self, request: RequestEnvelope, call: Call) -> Answer:
        answer = self._answer(request)
        if self._delay:  # without one, the ask that led here is checkpoint enough
            await trio.sleep(self._delay)
        return answer

    @asynccontextmanager
    async def stream(self, request: RequestEnvelope, call: Call) -> AsyncGenerator[AsyncIterator[StreamItem], None]:
        answer = self._answer(request)
        await trio.sleep(self._delay)
        async with aclosing(self._items(answer)) as items:
            yield items

    async def _items(self, answer: Answer) -> AsyncGenerator[StreamItem, None]:
        assert isinstance(answer.payload, ChatResult)
        message = answer.payload.choices[0].message
        assert message is not None
        yield Started(backend=self._name, model=answer.model)
        for word in words(message.text()):
            yield ContentDelta(delta=word)
        for index, tool in enumerate(message.tool_calls):
            yield ToolCallDelta(
                call_index=index, id=tool.id, name=tool.function.name, arguments=tool.function.arguments
            )
        yield UsageEvent(usage=answer.usage)
        yield Finished(answer)

    def _answer(self, request: RequestEnvelope) -> Answer:
        chat = request.payload
        if not isinstance(chat, ChatRequest):
            message = "the stub does chat_completions only"
            raise RoutingError(make_error(ErrorCode.MISSING_CAPABILITIES, message, operation=request.operation))
        choice = reply(chat)
        model = self._model or chat.model.strip() or _MODEL
        result = _result(choices=(choice,))
        return Answer(result, fill_usage(_NO_COUNT, chat, result), model=model)


class _StubKind:
    name = "stub"
    capabilities = Capabilities(
        ops=(Operation.CHAT_COMPLETIONS,),
        features=(
            Feature.STREAM,
            Feature.TOOLS,
            Feature.SYSTEM_ROLE,
            Feature.IMAGE_INPUT,
            Feature.AUDIO_INPUT,
        ),
        transports=(Transport.IN_PROCESS,),
        hosting=Hosting.LOCAL,
    )

    def check(self, instance: InstanceConfig) -> None:
        unknown = sorted(set(instance.options) - {"delay_ms"})
        if unknown:
            raise ValueError(f"options.{unknown[0]}: unknown; the stub has delay_ms")
        _delay_s(instance)

    def open(self, instance: InstanceConfig, host: Host) -> AbstractAsyncContextManager[Adapter]:
        return _open(instance)


@asynccontextmanager
async def _open(instance: InstanceConfig) -> AsyncGenerator[Adapter, None]:
    yield _StubAdapter(instance)


def _delay_s(instance: InstanceConfig) -> float:
    value = instance.options.get("delay_ms", 0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MAX_DELAY_MS:
        raise ValueError(f"options.delay_ms: must be a number of milliseconds from 0 to {_MAX_DELAY_MS}")
    return value / 1000


KIND = _StubKind()
