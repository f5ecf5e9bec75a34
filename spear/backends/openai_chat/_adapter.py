"""The adapter: an IR request to one HTTP exchange, and its answer to the IR. Translations are those of
`spear.dialects.openai_chat`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Final

import httpx
import trio
from pydantic import JsonValue

from spear._about import DISTRIBUTION, __version__
from spear.backends._protocol import Answer, Call, Finished, Host, Key, StreamItem
from spear.config import InstanceConfig
from spear.dialects.openai_chat import (
    MAX_PARTS,
    ChatStreamDecoder,
    PartCounter,
    SseDecoder,
    body_from_result,
    bracket_count,
    check_answer_size,
    fill_usage,
    one_line,
    request_body,
    result_from_body,
    told_error,
    too_many_parts,
)
from spear.egress import MAX_RESPONSE_BYTES, MAX_STREAM_BYTES
from spear.ir import (
    BackendError,
    ChatRequest,
    ChatResult,
    ErrorCode,
    Failure,
    MalformedJson,
    Operation,
    RequestEnvelope,
    RoutingError,
    Started,
    StreamEvent,
    Usage,
    dump_json,
    invalid_request,
    make_error,
    parse_json,
)
from spear.secrets import KeyMask, Redactor, Secret

from ._exchange import Received, post
from ._failures import broken_answer, redacted, truncated

_END_WAIT_S: Final = 0.05
"""How long after [DONE] the end of the body may take, for the connection to be used again."""
_DONE: Final = b"[DONE]"
_PIECE: Final = 256 * 1024
"""How much of a JSON text is counted before others get their turn: milliseconds."""
_SLICE: Final = 4096
"""How much of a stream is cut into lines before others get their turn: it may be nothing but line breaks."""

_Payloads = AsyncGenerator[tuple[bytes, bool], None]


def endpoint(base_url: str) -> str:
    """Where chat completions are: below the base URL if that has `/v1` in it, else below its `/v1`."""
    base = base_url.rstrip("/")
    return f"{base}/chat/completions" if "/v1" in base else f"{base}/v1/chat/completions"


class OpenAIChatAdapter:
    def __init__(self, instance: InstanceConfig, host: Host, transport: httpx.AsyncBaseTransport) -> None:
        assert instance.base_url is not None  # the kind's check saw to it
        self._instance = instance
        self._debug_raw = host.debug_raw
        self._secrets = (*host.redact, instance.base_url)
        self._redact = Redactor(self._secrets)
        self._mask = KeyMask(self._secrets)
        self._transport = transport
        self._url = httpx.URL(endpoint(instance.base_url.reveal()))
        self._headers = [
            (b"Host", self._url.netloc),
            (b"User-Agent", f"{DISTRIBUTION}/{__version__}".encode()),
            (b"Accept-Encoding", b"identity"),
            (b"Content-Type", b"application/json"),
        ]

    async def invoke(self, request: RequestEnvelope, call: Call) -> Answer:
        chat = _chat(request)
        async with self._post(chat, call, stream=False) as received:
            value = await _json(received, self._mask)
        return self._answer(chat, value)

    @asynccontextmanager
    async def stream(self, request: RequestEnvelope, call: Call) -> AsyncGenerator[AsyncIterator[StreamItem], None]:
        chat = _chat(request)
        async with self._post(chat, call, stream=True) as received:
            decoder = ChatStreamDecoder(
                backend=self._instance.name,
                request_id=request.request_id,
                audio_format=_audio_format(chat),
                clean=one_line,  # redacted before: see _chunk
            )
            payloads = _payloads(received)
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
        content = dump_json(body)
        headers = [
            *self._headers,
            (b"Accept", b"text/event-stream" if stream else b"application/json"),
            (b"Content-Length", b"%d" % len(content)),
        ]
        redact = self._redact
        if call.key is not None:
            headers.append((b"Authorization", _bearer(call.key)))
            redact = self._redact_with(call.key.secret)
        return post(self._transport, self._url, headers, content, call, redact=redact, streamed=stream)

    def _redact_with(self, key: Secret) -> Redactor:
        """The host lists its secrets; that this attempt's key is among them is not taken on trust."""
        if key not in self._secrets:
            self._secrets = (*self._secrets, key)
            self._redact = Redactor(self._secrets)
            self._mask = KeyMask(self._secrets)
        return self._redact

    async def _events(
        self, chat: ChatRequest, received: Received, payloads: _Payloads, decoder: ChatStreamDecoder
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
        value = await _json(received, self._mask)
        answer = self._answer(chat, value)
        events: list[StreamEvent] = [Started(backend=self._instance.name, model=answer.model)]
        chunk = _as_chunk(value)
        if chunk is not None:
            events = decoder.feed(chunk)
        for event in events:
            yield event
        yield Finished(answer)

    def _chunk(self, payload: bytes, *, at_end: bool) -> JsonValue:
        try:
            value = parse_json(self._mask(payload))
        except MalformedJson as error:
            if at_end:
                raise truncated("the last event is incomplete") from None
            raise broken_answer(f"an event of the stream is not JSON: {error}") from None
        if isinstance(value, dict) and _has_error(value):
            return redacted(value, self._redact)
        return value

    def _answer(self, chat: ChatRequest, value: JsonValue) -> Answer:
        if isinstance(value, dict) and not value.get("choices") and _has_error(value):
            told = redacted(value, self._redact)
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
            raw=raw if self._debug_raw else None,
        )


def _has_error(value: dict[str, JsonValue]) -> bool:
    return value.get("error") is not None or value.get("object") == "error"


def _chat(request: RequestEnvelope) -> ChatRequest:
    if isinstance(request.payload, ChatRequest):
        return request.payload
    message = "this kind of backend does chat_completions only"
    raise RoutingError(make_error(ErrorCode.MISSING_CAPABILITIES, message, operation=request.operation))


def _bearer(key: Key) -> bytes:
    secret = key.secret.reveal().strip()
    if not secret or not secret.isascii() or not secret.isprintable():
        message = f"the credential {key.id} is empty or has characters that no header can carry"
        error = make_error(ErrorCode.BACKEND_ERROR, message, retryable=False, operation=Operation.CHAT_COMPLETIONS)
        raise BackendError(error, Failure.AUTH)
    return b"Bearer " + secret.encode()


async def _payloads(received: Received) -> _Payloads:
    """Of the events of a stream; with each, whether it was only complete because the stream ended."""
    sse = SseDecoder()
    size = 0
    while (data := await received.more()) is not None:
        size += len(data)
        if size > MAX_STREAM_BYTES:
            raise broken_answer("response too large")
        for start in range(0, len(data), _SLICE):
            if start:
                await trio.lowlevel.checkpoint()
            for payload in sse.feed(data[start : start + _SLICE]):
                if len(payload) > MAX_PARTS:
                    await _check_parts(payload)
                yield payload, False
    for payload in sse.finish():
        yield payload, True


async def _json(received: Received, mask: KeyMask) -> JsonValue:
    if not received.is_json:
        raise broken_answer("the answer is not JSON by its content type")
    body, whole = await received.read(MAX_RESPONSE_BYTES)
    if not whole:
        raise broken_answer("response too large")
    await _check_parts(body)
    try:
        return parse_json(mask(body))
    except MalformedJson as error:
        raise broken_answer(f"the answer is not JSON: {error}") from None


async def _check_parts(text: bytes) -> None:
    """Before it is parsed: raise for a JSON text of too many parts."""
    if bracket_count(text) <= MAX_PARTS:
        return
    counter = PartCounter()  # some of those may be in strings
    for start in range(0, len(text), _PIECE):
        counter.feed(text[start : start + _PIECE])
        if counter.parts > MAX_PARTS:
            raise too_many_parts()
        await trio.lowlevel.checkpoint()


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
