"""One request and its answer, under the clocks of an attempt.

`connect` runs from the start until the request begins to leave, `first_event` from there to the head of the answer
(of a stream: to its first event), `idle` over each wait for more bytes after that. All failures of the connection
leave here as `BackendError`; a socket that is not fit for another request is closed before the block is left.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import cast

import httpx
import trio

from spear.backends._protocol import Call
from spear.egress import MAX_ERROR_BYTES
from spear.ir import BackendError, Clock

from ._failures import Redact, broken_answer, status_error, timed_out, truncated, unreachable


class _Outgoing(httpx.AsyncByteStream):
    """The body of a request, which notices that it begins to leave: from then on the backend may have it, and the
    clock is no longer that of the connection."""

    def __init__(self, content: tuple[bytes, ...], scope: trio.CancelScope, first_event: float) -> None:
        self._content = content
        self._scope = scope
        self._first_event = first_event
        self.left = False
        self.answered = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if not self.left:  # the second time it leaves, the clock goes on
            self.left = True
            self._scope.deadline = trio.current_time() + self._first_event
        for piece in self._content:
            yield piece


class Received:
    """The head of an answer with status 200, and its body as it comes."""

    def __init__(self, response: httpx.Response, call: Call, first_event_deadline: float) -> None:
        self._chunks = aiter(cast("httpx.AsyncByteStream", response.stream))
        self._call = call
        self._first_event_deadline = first_event_deadline
        self._began = False
        self.headers = response.headers
        self.media_type: str = response.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def is_json(self) -> bool:
        return self.media_type == "application/json" or self.media_type.endswith("+json")

    def first_event_came(self) -> None:
        self._began = True

    async def more(self) -> bytes | None:
        """The next bytes, None at the end. Under the `first_event` clock until `first_event_came`, then under
        `idle`."""
        clock: Clock
        if self._began:
            clock, seconds, deadline = "idle", self._call.idle, trio.current_time() + self._call.idle
        else:
            clock, seconds, deadline = "first_event", self._call.first_event, self._first_event_deadline
        with trio.CancelScope(deadline=deadline) as scope:
            return await anext(self._chunks, None)
        assert scope.cancelled_caught
        raise timed_out(clock, seconds)

    async def read(self, limit: int) -> tuple[bytes, bool]:
        """The body, and whether that is all of it: false where it has more than `limit` bytes."""
        self._began = True
        parts: list[bytes] = []
        size = 0
        while (part := await self.more()) is not None:
            size += len(part)
            if size > limit:
                return b"".join(parts), False
            parts.append(part)
        return b"".join(parts), True


@asynccontextmanager
async def exchange(
    transport: httpx.AsyncBaseTransport,
    method: str,
    url: httpx.URL,
    headers: list[tuple[bytes, bytes]],
    content: tuple[bytes, ...],
    call: Call,
    *,
    redact: Redact,
    streamed: bool,
) -> AsyncGenerator[Received, None]:
    """Send, and give the answer if its status is 200; else raise what it means. Inside the block the failures of
    reading are mapped as well: as a truncated stream where `streamed`."""
    scope = trio.CancelScope(deadline=trio.current_time() + call.connect)
    outgoing = _Outgoing(content, scope, call.first_event)
    request = httpx.Request(method, url, headers=headers, stream=outgoing)
    response: httpx.Response | None = None
    with _mapped(outgoing, redact, streamed=streamed):
        with scope:
            response = await transport.handle_async_request(request)
        if response is None:
            raise timed_out("first_event", call.first_event) if outgoing.left else timed_out("connect", call.connect)
        outgoing.answered = True
        try:
            received = Received(response, call, scope.deadline)
            if response.status_code != 200:
                raise await _refusal(response, received, redact)
            if response.headers.get("content-encoding", "identity").lower() != "identity":
                raise broken_answer("the answer is compressed, though that was not asked for")
            yield received
        finally:
            # Never waits: what is closed here is closed without a goodbye, and shielded by the pool.
            await response.aclose()


async def _refusal(response: httpx.Response, received: Received, redact: Redact) -> BackendError:
    body, whole = b"", False
    # The status alone says what is needed; that its explanation broke off is no news.
    with suppress(httpx.TransportError, BackendError):
        body, whole = await received.read(MAX_ERROR_BYTES)
    return status_error(response.status_code, response.headers, body, redact=redact, now=time.time(), part=not whole)


@contextmanager
def _mapped(outgoing: _Outgoing, redact: Redact, *, streamed: bool) -> Generator[None, None, None]:
    """Without their causes, which name addresses."""
    try:
        yield
    except httpx.ConnectError as error:
        raise unreachable(redact(str(error))) from None
    except httpx.LocalProtocolError:
        raise  # a request that HTTP does not allow is our bug
    except httpx.TransportError as error:
        why = _why(error)
        if not outgoing.left:
            raise unreachable(why) from None
        if streamed and outgoing.answered:
            raise truncated(why) from None
        raise broken_answer(f"the connection broke: {why}") from None


def _why(error: httpx.TransportError) -> str:
    """Not in the words of the HTTP library, which quotes what it received."""
    if not isinstance(error, httpx.RemoteProtocolError):
        return "the connection was reset"
    closed = str(error).startswith(("Server disconnected", "peer closed"))
    return "the connection was closed" if closed else "what came is not valid HTTP"
