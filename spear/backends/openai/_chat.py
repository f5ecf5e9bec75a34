"""The adapter: an IR request to one HTTP exchange, and its answer to the IR. Translations are those of
`spear.dialects.openai_chat`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Final

import trio
from pydantic import JsonValue

from spear.backends._http import HttpClient, Received, broken_answer, json_of, payloads_of, redacted
from spear.backends._http._client import Payloads
from spear.backends._protocol import Answer, Call, Finished, StreamItem
from spear.backends._resolve import with_inline_media
from spear.dialects.openai_chat import (
    ChatStreamDecoder,
    body_from_result,
    check_answer_size,
    fill_usage,
    one_line,
    request_body,
    result_from_body,
    told_error,
)
from spear.ir import (
    ChatRequest,
    ChatResult,
    ErrorCode,
    RequestEnvelope,
    RoutingError,
    Started,
    StreamEvent,
    Usage,
    dump_json,
    invalid_request,
    make_error,
)

from ._places import Place

_END_WAIT_S: Final = 0.05
"""How long after [DONE] the end of the body may take, for the connection to be used again."""
_DONE: Final = b"[DONE]"


class ChatAdapter:
    def __init__(self, client: HttpClient, place: Place) -> None:
        self._instance = client.instance
        self._client = client
        self._place = place

    async def invoke(self, request: RequestEnvelope, call: Call) -> Answer:
        chat = await with_inline_media(request, _chat(request), self._client.host.media)
        async with self._post(chat, call, stream=False) as received:
            value = await json_of(received, self._client.mask)
        return self._answer(chat, value)

    @asynccontextmanager
    async def stream(self, request: RequestEnvelope, call: Call) -> AsyncGenerator[AsyncIterator[StreamItem], None]:
        chat = await with_inline_media(request, _chat(request), self._client.host.media)
        async with self._post(chat, call, stream=True) as received:
            decoder = ChatStreamDecoder(
                backend=self._instance.name,
                request_id=request.request_id,
                audio_format=_audio_format(chat),
                clean=one_line,  # redacted before: see _chunk
            )
            payloads = payloads_of(received)
            if received.media_type == "text/event-stream":
                items = self._events(chat, received, payloads, decoder)
            elif received.is_json:
                items = self._whole(chat, received, decoder)
            else:
                raise broken_answer("the answer is neither an event stream nor JSON")
            async with aclosing(payloads), aclosing(items):
                yield items

    def _post(self, chat: ChatRequest, call: Call, *, stream: bool) -> AbstractAsyncContextManager[Received]:
        model = (self._instance.model or "").strip() or chat.model.strip()
        if not model:
            raise invalid_request("model", "is blank, and the backend's configuration has none either; name one")
        if not chat.messages:
            raise invalid_request("messages", "is empty; there must be at least one message")
        body = request_body(chat, model=model, stream=stream, stream_usage=self._instance.stream_usage)
        accept = b"text/event-stream" if stream else b"application/json"
        return self._client.post(
            self._place("/chat/completions", model), dump_json(body), call, streamed=stream, accept=accept
        )

    async def _events(
        self, chat: ChatRequest, received: Received, payloads: Payloads, decoder: ChatStreamDecoder
    ) -> AsyncGenerator[StreamItem, None]:
        done = False
        async for payload, at_end in payloads:
            done = payload == _DONE
            if done:
                break
            received.first_event_came()
            for event in decoder.feed(self._chunk(payload, at_end=at_end)):
                yield event
        result, usage = decoder.finish(done)
        yield Finished(self._finished(chat, result, usage, body_from_result(result, usage)))
        if done:
            # Mostly the end is there already, and the connection can serve the next request.
            with trio.move_on_after(_END_WAIT_S):
                await received.more()

    async def _whole(
        self, chat: ChatRequest, received: Received, decoder: ChatStreamDecoder
    ) -> AsyncGenerator[StreamItem, None]:
        """A server that does not stream: its complete answer, told as one chunk."""
        value = await json_of(received, self._client.mask)
        answer = self._answer(chat, value)
        events: list[StreamEvent] = [Started(backend=self._instance.name, model=answer.model)]
        chunk = _as_chunk(value)
        if chunk is not None:
            events = decoder.feed(chunk)
        for event in events:
            yield event
        yield Finished(answer)

    def _chunk(self, payload: bytes, *, at_end: bool) -> JsonValue:
        value = self._client.parsed(payload, at_end=at_end)
        if isinstance(value, dict) and _has_error(value):
            return redacted(value, self._client.redact)
        return value

    def _answer(self, chat: ChatRequest, value: JsonValue) -> Answer:
        if isinstance(value, dict) and not value.get("choices") and _has_error(value):
            told = redacted(value, self._client.redact)
            assert isinstance(told, dict)
            raise told_error(told, "in an answer with status 200", one_line)
        check_answer_size(value)
        result, usage = result_from_body(value)
        return self._finished(chat, result, usage, value)

    def _finished(self, chat: ChatRequest, result: ChatResult, usage: Usage, raw: JsonValue) -> Answer:
        model = result.extra.get("model")
        return Answer(
            payload=result,
            usage=fill_usage(usage, chat, result),
            model=model if isinstance(model, str) else "",
            raw=raw if self._client.host.debug_raw else None,
        )


def _has_error(value: dict[str, JsonValue]) -> bool:
    return value.get("error") is not None or value.get("object") == "error"


def _chat(request: RequestEnvelope) -> ChatRequest:
    if isinstance(request.payload, ChatRequest):
        return request.payload
    message = "this kind of backend does chat_completions only"
    raise RoutingError(make_error(ErrorCode.MISSING_CAPABILITIES, message, operation=request.operation))


def _audio_format(chat: ChatRequest) -> str:
    audio = chat.extra.get("audio")
    wanted = audio.get("format") if isinstance(audio, dict) else None
    return wanted if isinstance(wanted, str) else ""


def _as_chunk(value: JsonValue) -> JsonValue:
    """A chat.completion as the one chunk that says all of it; None where it has no choices to tell."""
    choices = value.get("choices") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(choices, list) or not choices:
        return None
    told: list[JsonValue] = []
    for choice in choices:
        if not isinstance(choice, dict):
            return None
        message = choice.get("message")
        rest = {key: item for key, item in choice.items() if key != "message"}
        told.append({**rest, "delta": message} if isinstance(message, dict) else rest)
    return {**value, "choices": told}
