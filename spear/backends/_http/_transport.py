"""An httpx transport for one origin, over httpcore2's HTTP/1.1 connections.

With its own pool: one origin and no limit of its own need no more than a stack of idle connections, where httpcore2's
pool looks at every connection twice for each request (a third of all CPU at 64 in flight).
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import contextmanager
from typing import Final, cast

import h11
import httpcore2
import httpx
import trio

from spear.egress import KEEPALIVE_S, Origin

from ._network import TcpStream, connect, shared_ssl_context, start_tls

_CLOSED_WITHIN_S: Final = 1.0
"""How soon after a request it shows that the server had closed the connection before: a round trip."""


class OtherOriginError(Exception):
    """A request to somewhere else than the instance's own origin: refused before anything is connected."""


class PoolTransport(httpx.AsyncBaseTransport):
    """HTTP/1.1 to one origin: no redirects, no proxies, nothing from the environment but the certificate authorities.
    How many connections there are is up to the caller, that is, to the actor's `concurrency`; all of them are kept for
    the next request, the latest used first, up to `KEEPALIVE_S` idle seconds.

    No retries but one: a request that meets a connection which the server was just closing as idle goes once more,
    over a new one. Not a byte of an answer has come then.

    Cancelling a request closes its socket before the call returns. `aclose` closes all of them.
    """

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._core_origin = httpcore2.Origin(origin.scheme.encode(), origin.host.encode(), origin.port)
        self._ssl_context = shared_ssl_context() if origin.scheme == "https" else None
        self._open: set[_Connection] = set()
        self._idle: deque[_Connection] = deque()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = httpcore2.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        )
        if url.origin != self._core_origin:
            raise OtherOriginError("a request to another origin than the backend's own")
        core = httpcore2.Request(
            request.method.encode(),
            url,
            headers=request.headers.raw,
            content=cast("httpx.AsyncByteStream", request.stream),
        )
        with _httpx_errors():
            connection, response = await self._exchange(core)
        return httpx.Response(response.status, headers=response.headers, stream=_Body(self, connection, response))

    async def _exchange(self, core: httpcore2.Request) -> tuple[_Connection, httpcore2.Response]:
        connection = await self._idle_connection()
        if connection is None:
            connection = await self._new_connection()
            return connection, await self._send(connection, core)
        connection.reuse()
        try:
            return connection, await self._send(connection, core)
        except (httpcore2.ReadError, httpcore2.RemoteProtocolError) as error:
            if not connection.was_closed_as_idle():
                raise
            closed = error
        try:
            connection = await self._new_connection()
        except httpcore2.ConnectError:
            raise closed from None  # not "cannot connect", which means that nothing was sent
        return connection, await self._send(connection, core)

    async def _send(self, connection: _Connection, core: httpcore2.Request) -> httpcore2.Response:
        try:
            return await connection.handle_async_request(core)
        except BaseException:
            with trio.CancelScope(shield=True):  # closing never waits
                await self._close(connection)  # left before it had begun, it has not closed itself
            raise

    async def aclose(self) -> None:
        while self._open:
            await self._open.pop().aclose()
        self._idle.clear()

    async def release(self, connection: _Connection) -> None:
        """Its answer is closed: keep it where it is fit for another request, and close those idle for too long."""
        if connection.is_idle() and not connection.has_surplus():
            self._idle.append(connection)
        else:
            await self._close(connection)
        while self._idle and self._idle[0].has_expired():
            await self._close(self._idle.popleft())

    async def _idle_connection(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if not connection.has_expired():  # nor closed by the server, nor has it said anything
                return connection
            await self._close(connection)
        return None

    async def _new_connection(self) -> _Connection:
        stream = await connect(self._origin.host, self._origin.port)
        if self._ssl_context is not None:
            stream = await start_tls(stream, self._ssl_context, self._origin.host)
        connection = _Connection(self._core_origin, stream)
        self._open.add(connection)
        return connection

    async def _close(self, connection: _Connection) -> None:
        self._open.discard(connection)
        await connection.aclose()


class _Connection(httpcore2.AsyncHTTP11Connection):
    def __init__(self, origin: httpcore2.Origin, stream: TcpStream) -> None:
        super().__init__(origin, stream, keepalive_expiry=KEEPALIVE_S)
        self._stream = stream
        self._reused_at = 0.0

    async def _receive_response_body(self, request: httpcore2.Request) -> AsyncGenerator[bytes, None]:
        """As in the class above, but all that has come at once is one piece: a model's events come in chunks of some
        hundred bytes each, and every piece goes through half a dozen layers."""
        state, stream = self._h11_state, self._network_stream
        pieces: list[bytes] = []
        while True:
            try:
                event = state.next_event()
            except h11.RemoteProtocolError as error:
                if pieces:  # what came before it is told before it
                    yield b"".join(pieces)
                raise httpcore2.RemoteProtocolError(error) from error
            if isinstance(event, h11.Data):
                pieces.append(event.data)
                continue
            if pieces:
                yield b"".join(pieces)
                pieces.clear()
            if event is not h11.NEED_DATA:  # the end
                return
            state.receive_data(await stream.read(self.READ_NUM_BYTES))

    def reuse(self) -> None:
        self._stream.heard = False
        self._reused_at = trio.current_time()

    def was_closed_as_idle(self) -> bool:
        """Of one that was used again and broke: not a byte came, and it broke so soon that the server cannot have
        begun to answer."""
        return not self._stream.heard and trio.current_time() - self._reused_at < _CLOSED_WITHIN_S

    def has_surplus(self) -> bool:
        """More came than the answer. Whoever asks next over this connection would take it for theirs."""
        surplus, _ = self._h11_state.trailing_data
        return bool(surplus)


class _Body(httpx.AsyncByteStream):
    """Read once; an iterator itself, so that closing it closes everything below."""

    def __init__(self, transport: PoolTransport, connection: _Connection, response: httpcore2.Response) -> None:
        self._transport = transport
        self._connection = connection
        self._stream = cast("httpx.AsyncByteStream", response.stream)
        self._chunks = cast("AsyncGenerator[bytes, None]", aiter(self._stream))
        self._closed = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:  # not the context manager: this is once per piece of a stream
            return await anext(self._chunks)
        except _CORE_ERRORS as error:
            raise _SAME[type(error)](str(error)) from error

    async def aclose(self) -> None:
        """Never waits: what is closed is closed without a goodbye. So it is shielded."""
        if self._closed:
            return
        self._closed = True
        with trio.CancelScope(shield=True):
            await self._chunks.aclose()
            await self._stream.aclose()
            await self._transport.release(self._connection)


_SAME: Final[dict[type[Exception], type[httpx.TransportError]]] = {
    httpcore2.ConnectError: httpx.ConnectError,
    httpcore2.ReadError: httpx.ReadError,
    httpcore2.WriteError: httpx.WriteError,
    httpcore2.RemoteProtocolError: httpx.RemoteProtocolError,
    httpcore2.LocalProtocolError: httpx.LocalProtocolError,
}
_CORE_ERRORS: Final = tuple(_SAME)


@contextmanager
def _httpx_errors() -> Generator[None, None, None]:
    try:
        yield
    except _CORE_ERRORS as error:
        raise _SAME[type(error)](str(error)) from error
