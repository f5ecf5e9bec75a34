"""The adapter: an IR request to one HTTP exchange, and its answer to the IR. Translations are those of
`spear.dialects.anthropic`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, contextmanager
from typing import Final

import httpx
import trio
from pydantic import JsonValue

from spear.backends._http import HttpClient, Received, broken_answer, json_of, payloads_of, redacted
from spear.backends._lacking import lacking, without
from spear.backends._protocol import Answer, Call, Finished, StreamItem
from spear.backends._resolve import with_inline_media
from spear.dialects.anthropic import AnthropicStreamDecoder, anthropic_body, is_error, result_from_anthropic, schema_of
from spear.dialects.openai_chat import body_from_result, fill_usage, one_line, told_error
from spear.ir import (
    BackendError,
    ChatRequest,
    ChatResult,
    ContentDelta,
    ErrorCode,
    Failure,
    ReasoningDelta,
    RequestEnvelope,
    RoutingError,
    Started,
    StreamEvent,
    ToolCallDelta,
    Usage,
    UsageEvent,
    dump_json,
    invalid_request,
    make_error,
)

_END_WAIT_S: Final = 0.05
"""How long after the last event the end of the body may take, for the connection to be used again."""
_LACKING: Final = ("n", "seed", "logprobs", "top_logprobs", "presence_penalty", "frequency_penalty")
_SAMPLING: Final = ("temperature", "top_p")
_TOO_LONG: Final = ("prompt is too long", "exceed context limit")
_UNPAID: Final = "credit balance is too low"


def endpoint(base_url: str) -> str:
    """Below the base URL if that has `/v1` in it, else below its `/v1`."""
    base = base_url.rstrip("/")
    return f"{base}/messages" if "/v1" in base else f"{base}/v1/messages"


class AnthropicAdapter:
    def __init__(self, client: HttpClient, defaults: Mapping[str, JsonValue], *, sampling: bool) -> None:
        self._instance = client.instance
        self._client = client
        self._defaults = defaults
        self._lacking = _LACKING if sampling else (*_LACKING, *_SAMPLING)
        self._url = httpx.URL(endpoint(client.base))

    async def invoke(self, request: RequestEnvelope, call: Call) -> Answer:
        chat, degraded = await self._chat(request)
        with _in_its_words():
            async with self._post(chat, call, stream=False) as received:
                value = await json_of(received, self._client.mask)
        return self._answer(chat, value, degraded)

    @asynccontextmanager
    async def stream(self, request: RequestEnvelope, call: Call) -> AsyncGenerator[AsyncIterator[StreamItem], None]:
        chat, degraded = await self._chat(request)
        with _in_its_words():
            async with self._post(chat, call, stream=True) as received:
                payloads = payloads_of(received)
                if received.media_type == "text/event-stream":
                    items = self._events(request, chat, received, payloads, degraded)
                elif received.is_json:
                    items = self._whole(chat, received, degraded)
                else:
                    raise broken_answer("the answer is neither an event stream nor JSON")
                async with aclosing(payloads), aclosing(items):
                    yield items

    async def _chat(self, request: RequestEnvelope) -> tuple[ChatRequest, tuple[str, ...]]:
        """Ready to be sent, and what had to be left out."""
        chat = request.payload
        if not isinstance(chat, ChatRequest):
            message = "this kind of backend does chat_completions only"
            raise RoutingError(make_error(ErrorCode.MISSING_CAPABILITIES, message, operation=request.operation))
        if not chat.messages:
            raise invalid_request("messages", "is empty; there must be at least one message")
        missing = lacking(chat, self._lacking)
        if schema_of(chat)[0] == "json_object":
            missing = (*missing, "response_format")
        degraded = without(request, missing, "Anthropic's dialect")
        if degraded and any(name in missing for name in _SAMPLING):
            unsampled = chat.generation.model_copy(update=dict.fromkeys(_SAMPLING))
            chat = chat.model_copy(update={"generation": unsampled})
        return await with_inline_media(request, chat, self._client.host.media), degraded

    def _post(self, chat: ChatRequest, call: Call, *, stream: bool) -> AbstractAsyncContextManager[Received]:
        model = (self._instance.model or "").strip() or chat.model.strip()
        if not model:
            raise invalid_request("model", "is blank, and the backend's configuration has none either; name one")
        body = anthropic_body(chat, model=model, stream=stream, defaults=self._defaults)
        accept = b"text/event-stream" if stream else b"application/json"
        return self._client.post(self._url, dump_json(body), call, streamed=stream, accept=accept)

    async def _events(
        self,
        request: RequestEnvelope,
        chat: ChatRequest,
        received: Received,
        payloads: AsyncGenerator[tuple[bytes, bool], None],
        degraded: tuple[str, ...],
    ) -> AsyncGenerator[StreamItem, None]:
        # What it tells of an error is redacted before: see _event.
        decoder = AnthropicStreamDecoder(backend=self._instance.name, request_id=request.request_id)
        async for payload, at_end in payloads:
            event = self._event(payload, at_end=at_end)
            if not (isinstance(event, dict) and event.get("type") == "ping"):
                received.first_event_came()
            for item in decoder.feed(event):
                yield item
            if decoder.done:
                break
        result, usage = decoder.finish()
        yield Finished(self._finished(chat, result, usage, body_from_result(result, usage), degraded))
        # Mostly the end is there already, and the connection can serve the next request.
        with trio.move_on_after(_END_WAIT_S):
            await received.more()

    async def _whole(
        self, chat: ChatRequest, received: Received, degraded: tuple[str, ...]
    ) -> AsyncGenerator[StreamItem, None]:
        """A server that does not stream."""
        answer = self._answer(chat, await json_of(received, self._client.mask), degraded)
        assert isinstance(answer.payload, ChatResult)
        yield Started(backend=self._instance.name, model=answer.model)
        for delta in _deltas(answer.payload):
            yield delta
        yield UsageEvent(usage=answer.usage)
        yield Finished(answer)

    def _event(self, payload: bytes, *, at_end: bool) -> JsonValue:
        value = self._client.parsed(payload, at_end=at_end)
        return redacted(value, self._client.redact) if is_error(value) else value

    def _answer(self, chat: ChatRequest, value: JsonValue, degraded: tuple[str, ...]) -> Answer:
        if is_error(value):
            told = redacted(value, self._client.redact)
            assert isinstance(told, dict)
            raise told_error(told, "in an answer with status 200", one_line)
        result, usage = result_from_anthropic(value)
        return self._finished(chat, result, usage, value, degraded)

    def _finished(
        self, chat: ChatRequest, result: ChatResult, usage: Usage, raw: JsonValue, degraded: tuple[str, ...]
    ) -> Answer:
        model = result.extra.get("model")
        return Answer(
            payload=result,
            usage=fill_usage(usage, chat, result),
            model=model if isinstance(model, str) else "",
            degraded=degraded,
            raw=raw if self._client.host.debug_raw else None,
        )


def _deltas(result: ChatResult) -> Generator[StreamEvent, None, None]:
    message = result.choices[0].message if result.choices else None
    if message is None:
        return
    thought = message.extra.get("reasoning_content")
    if isinstance(thought, str) and thought:
        yield ReasoningDelta(delta=thought)
    if text := message.text():
        yield ContentDelta(delta=text)
    for index, call in enumerate(message.tool_calls):
        function = call.function
        yield ToolCallDelta(call_index=index, id=call.id, name=function.name, arguments=function.arguments)


@contextmanager
def _in_its_words() -> Generator[None, None, None]:
    """What this provider says with a 400 and no code of its own."""
    try:
        yield
    except BackendError as error:
        if error.status != 400:
            raise
        text = error.error.message.lower()
        if any(words in text for words in _TOO_LONG):
            raise BackendError(error.error, Failure.CONTEXT_WINDOW, status=400) from None
        if _UNPAID in text:
            raise BackendError(error.error, Failure.AUTH, status=400) from None
        raise
