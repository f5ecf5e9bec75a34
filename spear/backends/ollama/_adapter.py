"""The adapter: an IR request to one HTTP exchange, and its answer to the IR. Translations are those of
`spear.dialects.ollama`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Final

import trio
from pydantic import JsonValue

from spear.backends._http import HttpClient, Received, broken_answer, json_of, lines_of, redacted, vectors_of
from spear.backends._lacking import lacking, without
from spear.backends._protocol import Answer, Call, Finished, StreamItem
from spear.backends._resolve import with_inline_media
from spear.dialects.ollama import (
    OllamaStreamDecoder,
    embeddings_from_ollama,
    ollama_body,
    ollama_embed_body,
    result_from_ollama,
)
from spear.dialects.openai_chat import body_from_result, fill_usage, one_line, told_error
from spear.ir import (
    ChatRequest,
    ChatResult,
    EmbeddingsRequest,
    EmbeddingsResult,
    ErrorCode,
    RequestEnvelope,
    RoutingError,
    Usage,
    dump_json,
    invalid_request,
    make_error,
)

_END_WAIT_S: Final = 0.05
"""How long after the last line the end of the body may take, for the connection to be used again."""
_STREAMED: Final = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl"})


class OllamaAdapter:
    def __init__(self, client: HttpClient) -> None:
        self._instance = client.instance
        self._client = client
        self._chat_url = client.url("/api/chat")
        self._embed_url = client.url("/api/embed")

    async def invoke(self, request: RequestEnvelope, call: Call) -> Answer:
        if isinstance(request.payload, EmbeddingsRequest):
            return await self._embed(request.payload, call)
        chat, degraded = await self._chat(request)
        async with self._post(chat, call, stream=False) as received:
            value = await json_of(received, self._client.mask)
        return self._answer(request, chat, value, degraded)

    @asynccontextmanager
    async def stream(self, request: RequestEnvelope, call: Call) -> AsyncGenerator[AsyncIterator[StreamItem], None]:
        chat, degraded = await self._chat(request)
        async with self._post(chat, call, stream=True) as received:
            lines = lines_of(received)
            if received.media_type in _STREAMED:
                items = self._events(request, chat, received, lines, degraded)
            elif received.is_json:
                items = self._whole(request, chat, received, degraded)
            else:
                raise broken_answer("the answer is neither lines of JSON nor JSON")
            async with aclosing(lines), aclosing(items):
                yield items

    async def _chat(self, request: RequestEnvelope) -> tuple[ChatRequest, tuple[str, ...]]:
        """Ready to be sent, and what had to be left out."""
        chat = request.payload
        if not isinstance(chat, ChatRequest):
            message = "this kind of backend does chat_completions and embeddings only"
            raise RoutingError(make_error(ErrorCode.MISSING_CAPABILITIES, message, operation=request.operation))
        if not chat.messages:
            raise invalid_request("messages", "is empty; there must be at least one message")
        missing = lacking(chat, ("n",))
        if chat.tools and chat.tool_choice not in ("none", "auto", None):
            missing = (*missing, "tool_choice")
        degraded = without(request, missing, "Ollama")
        return await with_inline_media(request, chat, self._client.host.media), degraded

    def _model(self, asked: str) -> str:
        model = (self._instance.model or "").strip() or asked.strip()
        if not model:
            raise invalid_request("model", "is blank, and the backend's configuration has none either; name one")
        return model

    def _post(self, chat: ChatRequest, call: Call, *, stream: bool) -> AbstractAsyncContextManager[Received]:
        model = self._model(chat.model)
        body = ollama_body(chat, model=model, stream=stream, defaults=self._instance.options)
        accept = b"application/x-ndjson" if stream else b"application/json"
        return self._client.post(self._chat_url, dump_json(body), call, streamed=stream, accept=accept)

    async def _embed(self, request: EmbeddingsRequest, call: Call) -> Answer:
        if not request.input:
            raise invalid_request("input", "is empty; there must be at least one text")
        model = self._model(request.model)
        body = ollama_embed_body(request, model=model, defaults=self._instance.options)
        async with self._client.post(self._embed_url, dump_json(body), call) as received:
            value = await vectors_of(received, self._client.mask, len(request.input))
        self._raise_told(value)
        result, usage = embeddings_from_ollama(value, request)
        return self._finished(result, usage, value, ())

    async def _events(
        self,
        request: RequestEnvelope,
        chat: ChatRequest,
        received: Received,
        lines: AsyncGenerator[tuple[bytes, bool], None],
        degraded: tuple[str, ...],
    ) -> AsyncGenerator[StreamItem, None]:
        # What it tells of an error is redacted before: see _line.
        decoder = OllamaStreamDecoder(backend=self._instance.name, request_id=request.request_id, clean=one_line)
        async for line, at_end in lines:
            received.first_event_came()
            for event in decoder.feed(self._line(line, at_end=at_end)):
                yield event
            if decoder.done:
                break
        result, usage = decoder.finish()
        raw = body_from_result(result, usage) if self._client.host.debug_raw else None
        yield Finished(self._finished(result, fill_usage(usage, chat, result), raw, degraded))
        # Mostly the end is there already, and the connection can serve the next request.
        with trio.move_on_after(_END_WAIT_S):
            await received.more()

    async def _whole(
        self, request: RequestEnvelope, chat: ChatRequest, received: Received, degraded: tuple[str, ...]
    ) -> AsyncGenerator[StreamItem, None]:
        """A server that does not stream: its complete answer, told as the last line."""
        value = await json_of(received, self._client.mask)
        answer = self._answer(request, chat, value, degraded)
        decoder = OllamaStreamDecoder(backend=self._instance.name, request_id=request.request_id)
        told = isinstance(value, dict) and isinstance(value.get("message"), dict)
        for event in decoder.feed(value if told else {}):
            yield event
        yield Finished(answer)

    def _line(self, line: bytes, *, at_end: bool) -> JsonValue:
        value = self._client.parsed(line, at_end=at_end, what="line")
        if isinstance(value, dict) and value.get("error") is not None:
            return redacted(value, self._client.redact)
        return value

    def _answer(
        self, request: RequestEnvelope, chat: ChatRequest, value: JsonValue, degraded: tuple[str, ...]
    ) -> Answer:
        self._raise_told(value)
        result, usage = result_from_ollama(value, request_id=request.request_id)
        return self._finished(result, fill_usage(usage, chat, result), value, degraded)

    def _raise_told(self, value: JsonValue) -> None:
        if isinstance(value, dict) and value.get("error") is not None:
            told = redacted(value, self._client.redact)
            assert isinstance(told, dict)
            raise told_error(told, "in an answer with status 200", one_line)

    def _finished(
        self, result: ChatResult | EmbeddingsResult, usage: Usage, raw: JsonValue, degraded: tuple[str, ...]
    ) -> Answer:
        model = result.extra.get("model")
        return Answer(
            payload=result,
            usage=usage,
            model=model if isinstance(model, str) else "",
            degraded=degraded,
            raw=raw if self._client.host.debug_raw else None,
        )
