"""cchat_send in its three ways, blocking, in the background and streaming, and cchat_recv."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from spear.hostcall import _json
from spear.hostcall._chat import writable
from spear.hostcall._chat_events import completed_event, delta_event, tool_call_event, tool_result_event, usage_event
from spear.hostcall._chat_port import ChatReply, ChatSnapshot
from spear.hostcall._chat_response import ChatResponse
from spear.hostcall._errno import Refused
from spear.hostcall._mcp import offer_tools
from spear.hostcall._session import ChatSession
from spear.hostcall._tool_loop import Blocking, ToolLoop
from spear.hostcall._tool_plan import LoopLimits, ToolCall
from spear.hostcall._usage import Tokens, measure
from spear.ir import CanonicalError, ErrorCode, StreamEvent, make_error

if TYPE_CHECKING:
    from spear.hostcall._guest import Guest

ENABLE_METRICS: Final = 1
AUTO_TOOL_CALL: Final = 2
STREAM: Final = 4
ASYNC: Final = 8
MAX_TIMEOUT_MS: Final = 10**12


async def send(guest: Guest, fd: int, flags: int) -> int:
    session = writable(guest, fd)
    if flags & (STREAM | ASYNC):
        return _send_in_background(guest, session, flags)
    response = ChatResponse(guest.requests)
    response_fd = guest.fds.add(response)  # reserved before anything is contacted
    if flags & AUTO_TOOL_CALL:
        loop = ToolLoop(guest, session, Blocking(guest))
        reply, tokens = await loop.run(), loop.tokens
    else:
        reply, tokens = await _ask(guest, session, session.snapshot(), guest.chat)
    try:
        _fill(guest, response, reply, tokens, flags)
    except Refused:
        guest.fds.close(response_fd)  # the number is never seen by the guest
        raise
    return response_fd


async def _ask(
    guest: Guest, session: ChatSession, snapshot: ChatSnapshot, ask: Callable[[ChatSnapshot], Any]
) -> tuple[ChatReply, Tokens]:
    """Once, with the tools of MCP servers beside the session's, and without running any."""
    snapshot = (await offer_tools(guest, session.mcp)).into(snapshot)
    reply: ChatReply = await ask(snapshot)
    tokens, used = measure(snapshot, reply)
    guest.usage += used
    return reply, tokens


def _send_in_background(guest: Guest, session: ChatSession, flags: int) -> int:
    guest.requests.check_room()
    response = ChatResponse(guest.requests, stream=bool(flags & STREAM))
    response_fd = guest.fds.add(response)
    admitted = guest.requests.admit(response, session.text_bytes + session.media_bytes)
    if admitted < 0:
        return response_fd
    way = InBackground(guest, response)
    loop = None
    if flags & AUTO_TOOL_CALL:
        session.loop = loop = ToolLoop(guest, session, way)
        response.on_closed = loop.leave
    session.pin()
    work = partial(_work, guest, session, response, way, loop, session.snapshot(), flags)
    guest.requests.start(response, work, _timeout_s(session.params.get("timeout_ms")), admitted=admitted)
    return response_fd


async def _work(
    guest: Guest,
    session: ChatSession,
    response: ChatResponse,
    way: InBackground,
    loop: ToolLoop | None,
    snapshot: ChatSnapshot,
    flags: int,
) -> None:
    try:
        if loop is not None:
            try:
                reply, tokens = await loop.run(), loop.tokens
            finally:
                loop.leave()
        else:
            reply, tokens = await _ask(guest, session, snapshot, way.ask)
            if not reply.failed:
                await way.tell_tokens(tokens)
    finally:
        session.unpin()
    if response.events is None:
        _fill(guest, response, reply, tokens, flags)
    else:
        await _finish(guest, response, reply, tokens, flags)


class InBackground:
    """How a loop in the background goes about it; see `Way`."""

    def __init__(self, guest: Guest, response: ChatResponse) -> None:
        self._guest = guest
        self._response = response
        self._began = -1  # the round whose answer has begun

    async def ask(self, session: ChatSnapshot) -> ChatReply:
        if self._response.events is None:
            return await self._guest.chat(session)
        return await self._guest.chat.stream(session, self._emit)

    async def _emit(self, event: StreamEvent) -> None:
        told = delta_event(event)
        if told is None:
            return
        if told["type"] == "started":
            if self._began == self._response.round:
                return  # a stream that was continued elsewhere
            self._began = self._response.round
            self._response.backend = told["backend"]
        await self._response.put(told)

    async def run_guest_tool(
        self, index: int, call: ToolCall, limits: LoopLimits, answer: Callable[[str], None]
    ) -> None:
        await self._response.run_tool(index, call, limits, answer)

    async def tell_tokens(self, tokens: Tokens) -> None:
        await self._response.put(usage_event(tokens))

    async def tell_call(self, call: ToolCall) -> None:
        await self._response.put(tool_call_event(call))

    async def tell_result(self, call: ToolCall, content: str, is_error: bool) -> None:
        await self._response.put(tool_result_event(call, content, is_error))

    def next_round(self) -> None:
        self._response.round += 1


def _fill(guest: Guest, response: ChatResponse, reply: ChatReply, tokens: Tokens, flags: int) -> None:
    body, problem = _encode(reply, guest.limits.body_bytes)
    failure = problem or reply.failure
    metrics = tokens.metrics() if flags & ENABLE_METRICS and failure is None else {}
    response.fill(body, metrics, failure)


async def _finish(guest: Guest, response: ChatResponse, reply: ChatReply, tokens: Tokens, flags: int) -> None:
    failure = reply.failure or _encode(reply, guest.limits.body_bytes)[1]
    if failure is not None:
        response.fail(failure)
        return
    event = completed_event(reply.body)
    event["round"] = response.round
    await response.finish(event, tokens.metrics() if flags & ENABLE_METRICS else {})


def _encode(reply: ChatReply, max_bytes: int) -> tuple[bytes, CanonicalError | None]:
    try:
        body = _json.dump(reply.body)
    except ValueError:
        return _unusable("response is not representable as JSON")
    return (body, None) if len(body) <= max_bytes else _unusable("response too large")


def _unusable(text: str) -> tuple[bytes, CanonicalError]:
    return _json.dump({"error": {"message": f"Runtime error: {text}"}}), make_error(ErrorCode.BACKEND_ERROR, text)


def _timeout_s(value: object) -> float | None:
    """Of the whole request; a value of another type, or 0, is none."""
    return min(value, MAX_TIMEOUT_MS) / 1000 if type(value) is int and value > 0 else None


def recv_at_once(guest: Guest, fd: int, out_ptr: int, out_len_ptr: int) -> int | None:
    """None where a tool has to run first."""
    response = guest.fds.open(fd, ChatResponse)
    return None if response.tool_waits else response.receive(guest, out_ptr, out_len_ptr)


async def recv(guest: Guest, fd: int, out_ptr: int, out_len_ptr: int) -> int:
    response = guest.fds.open(fd, ChatResponse)
    if response.tool_waits:
        await response.run_due(guest)
    return response.receive(guest, out_ptr, out_len_ptr)
