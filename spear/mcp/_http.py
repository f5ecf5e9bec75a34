"""A connection to a server behind streamable HTTP: each message is a POST, answered with JSON or a stream of events.

One origin and no other, no redirects, nothing from the environment, as for backends. The stream that a server could
use to speak unasked (GET) is not opened: what it wants to say comes with an answer.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, cast

import httpx
import trio

from spear._about import DISTRIBUTION, __version__
from spear.backends._http import PoolTransport
from spear.config import McpHttp
from spear.dialects.openai_chat import SseDecoder
from spear.egress import origin_of
from spear.ir import SpearError
from spear.secrets import Secret

from ._failures import ConnectionLost, McpFailed, ServerError
from ._messages import (
    MAX_MESSAGE_BYTES,
    Answer,
    Message,
    Notice,
    Question,
    Unasked,
    notification,
    read_message,
    reply,
    request,
)

FAREWELL_S: Final = 1.0
_FAREWELLS: Final = 16
_SESSION_CHARS: Final = 512
_SLICE: Final = 4096


class HttpTransport:
    """`run` has to run beside everything else."""

    def __init__(self, config: McpHttp, key: Secret | None, on_notice: Callable[[str], None]) -> None:
        address = config.url.reveal()
        self._url = httpx.URL(address)
        self._pool = PoolTransport(origin_of(address))
        self._headers = [
            (b"Host", self._url.netloc),
            (b"User-Agent", f"{DISTRIBUTION}/{__version__}".encode()),
            (b"Accept", b"application/json, text/event-stream"),
            (b"Accept-Encoding", b"identity"),
            *((name.encode(), value.reveal().encode()) for name, value in config.headers.items()),
        ]
        if key is not None:
            self._headers.append((b"Authorization", f"Bearer {key.reveal().strip()}".encode("ascii", "replace")))
        self._on_notice = on_notice
        self._version = b""
        self._session = b""
        self._next = 0
        self._lost: ConnectionLost | None = None
        self._over = trio.Event()
        self._unasked = Unasked(trio.current_time())
        self._given_up, self._farewells = trio.open_memory_channel[int](_FAREWELLS)
        self.garbage = 0

    async def request(self, method: str, params: dict[str, Any]) -> Any:
        if self._lost is not None:
            raise McpFailed(str(self._lost))
        self._next += 1
        number = self._next
        try:
            answer = await self._ask(number, request(number, method, params), first=method == "initialize")
        except trio.Cancelled:
            if method != "initialize":
                try:
                    self._given_up.send_nowait(number)
                except trio.WouldBlock:
                    self.garbage += 1
            raise
        except ConnectionLost as lost:
            self._lost = lost
            self._over.set()
            raise McpFailed(str(lost)) from None
        if answer.error is not None:
            raise ServerError(answer.error)
        return answer.result

    async def notify(self, method: str) -> None:
        async with self._post(notification(method)):
            pass

    def agreed(self, version: str) -> None:
        self._version = version.encode()

    async def run(self) -> None:
        """Ends only by raising `ConnectionLost`."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tell_given_up)
            await self._over.wait()
            nursery.cancel_scope.cancel()
        assert self._lost is not None
        raise self._lost

    async def aclose(self) -> None:
        """Says goodbye, for a second at most."""
        with trio.CancelScope(shield=True):
            if self._session and self._lost is None:
                with trio.move_on_after(FAREWELL_S):
                    try:
                        async with self._post(b"", method="DELETE"):
                            pass
                    except (McpFailed, ConnectionLost):
                        pass  # it may not offer that, or be gone
            await self._pool.aclose()

    async def _tell_given_up(self) -> None:
        async for number in self._farewells:
            with trio.move_on_after(FAREWELL_S):
                try:
                    params = {"requestId": number, "reason": "given up"}
                    async with self._post(notification("notifications/cancelled", params)):
                        pass
                except (McpFailed, ConnectionLost):
                    self.garbage += 1

    async def _ask(self, number: int, content: bytes, *, first: bool) -> Answer:
        async with self._post(content) as response:
            if first:
                self._session = _session_of(response)
            kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind == "text/event-stream":
                return await self._from_events(response, number)
            if kind != "application/json":
                raise McpFailed("the server's answer is neither JSON nor a stream of events")
            message = read_message(await _whole(response))
            if isinstance(message, Answer) and message.id == number:
                return message
            raise McpFailed("the server answered something else than what it was asked")

    async def _from_events(self, response: httpx.Response, number: int) -> Answer:
        sse = SseDecoder(max_line=MAX_MESSAGE_BYTES)
        try:
            async for data in cast("httpx.AsyncByteStream", response.stream):
                for start in range(0, len(data), _SLICE):
                    if start:
                        await trio.lowlevel.checkpoint()
                    for payload in sse.feed(data[start : start + _SLICE]):
                        message = read_message(payload)
                        if isinstance(message, Answer) and message.id == number:
                            return message
                        await self._unasked_for(message, len(payload))
        except SpearError:
            raise ConnectionLost(f"the server sent a message of more than {MAX_MESSAGE_BYTES} bytes") from None
        raise McpFailed("the server's stream ended without an answer")

    async def _unasked_for(self, message: Message, size: int) -> None:
        self._unasked.add(size, trio.current_time())
        if isinstance(message, Question):
            async with self._post(reply(message)):
                pass
        elif isinstance(message, Notice):
            self._on_notice(message.method)
        else:
            self.garbage += 1

    @asynccontextmanager
    async def _post(self, content: bytes, *, method: str = "POST") -> AsyncGenerator[httpx.Response, None]:
        """Gives the answer if its status is one of success. Cancelled, its socket is closed."""
        headers = [*self._headers, (b"Content-Length", b"%d" % len(content))]
        if content:
            headers.append((b"Content-Type", b"application/json"))
        if self._version:
            headers.append((b"MCP-Protocol-Version", self._version))
        if self._session:
            headers.append((b"Mcp-Session-Id", self._session))
        sent = httpx.Request(method, self._url, headers=headers, content=content)
        with _mapped():
            response = await self._pool.handle_async_request(sent)
            try:
                self._check(response)
                yield response
            finally:
                await response.aclose()  # never waits

    def _check(self, response: httpx.Response) -> None:
        status = response.status_code
        if status == 404 and self._session:
            raise ConnectionLost("the server has ended the session")
        if not 200 <= status < 300:
            raise McpFailed(f"the server refused: status {status}")
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise McpFailed("the server's answer is compressed, though that was not asked for")


@contextmanager
def _mapped() -> Iterator[None]:
    """Without their causes, which name addresses."""
    try:
        yield
    except httpx.ConnectError:
        raise McpFailed("the server cannot be reached") from None
    except httpx.TransportError:
        raise McpFailed("the connection to the server broke") from None


def _session_of(response: httpx.Response) -> bytes:
    found: str = response.headers.get("mcp-session-id", "")
    if len(found) > _SESSION_CHARS or not (found.isascii() and found.isprintable()):
        raise ConnectionLost("the handshake failed: the server's session id is none")
    return found.encode()


async def _whole(response: httpx.Response) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in cast("httpx.AsyncByteStream", response.stream):
        size += len(part)
        if size > MAX_MESSAGE_BYTES:
            raise ConnectionLost(f"the server sent a message of more than {MAX_MESSAGE_BYTES} bytes")
        parts.append(part)
    return b"".join(parts)


@asynccontextmanager
async def open_http(
    config: McpHttp, key: Secret | None, on_notice: Callable[[str], None]
) -> AsyncIterator[HttpTransport]:
    """The transport runs in the block. Raises `ConnectionLost`, from the block as well. Afterwards its sockets are
    closed."""
    transport = HttpTransport(config, key, on_notice)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transport.run)
            yield transport
            nursery.cancel_scope.cancel()
    finally:
        await transport.aclose()
