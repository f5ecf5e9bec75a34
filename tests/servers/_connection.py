"""One client connection of the test server: reads requests with h11, carries the steps of answers out.

While a request is being answered, a second task reads from the socket, so that a client's leaving is seen at once, also
when the answer is a long wait. A client that only shuts down its sending side counts as gone, too.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import h11
import trio

from tests.servers._counts import Counts, Exchange
from tests.servers._plan import End, Hang, Pause, Send, Step, plain

_MAX_HEAD = 65_536
_MAX_BODY = 64 << 20
_MAX_AHEAD = 1 << 20  # bytes a client may send while it is still owed an answer
_LINGER_S = 2.0


@dataclass(frozen=True, slots=True)
class Reply:
    steps: Iterator[Step]
    close: bool = False


class Service(Protocol):
    """Who decides the answers. `early` sees a request's head only; None means: read the body first."""

    @property
    def counts(self) -> Counts: ...
    def is_control(self, target: str) -> bool: ...
    def control(self, method: str, target: str, body: bytes) -> tuple[int, bytes]: ...
    def early(self, exchange: Exchange) -> Reply | None: ...
    def reply(self, exchange: Exchange, body: bytes) -> Reply: ...


class _Left(Exception):
    """The client closed the connection."""


class _Refused(Exception):
    """The request cannot be read; the connection ends after an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Connection:
    def __init__(self, stream: trio.SocketStream, service: Service) -> None:
        self._stream = stream
        self._service = service
        self._counts = service.counts  # those of this connection's time: a reset starts new ones
        self._ahead = b""
        self._counted = False
        self.is_control = False

    async def serve(self) -> None:
        self._counts.connections_opened += 1
        self._counts.connections_open += 1
        self._counted = True
        try:
            while await self._one_request():
                pass
        except (_Left, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # counted where it mattered
        except _Refused as refusal:
            await self._refuse(refusal)
        finally:
            if self._counted:
                self._counts.connections_open -= 1

    def _uncount(self) -> None:
        self.is_control = True
        if self._counted:
            self._counted = False
            self._counts.connections_opened -= 1
            self._counts.connections_open -= 1

    async def _refuse(self, refusal: _Refused) -> None:
        body = b'{"error":{"message":"%s","type":"invalid_request_error"}}' % str(refusal).encode()
        try:
            await self._stream.send_all(plain(refusal.status, body, close=True))
            await self._linger()
        except trio.BrokenResourceError:
            pass  # it left without waiting for the reason

    async def _receive(self) -> bytes:
        try:
            data = await self._stream.receive_some(65_536)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise _Left from None
        if not data:
            raise _Left
        return bytes(data)

    async def _next_event(self, parser: h11.Connection) -> h11.Event:
        while True:
            try:
                event = parser.next_event()
            except h11.RemoteProtocolError as error:
                raise _Refused(error.error_status_hint, str(error)) from None
            if event is h11.NEED_DATA:
                if parser.they_are_waiting_for_100_continue:
                    parser.send(h11.InformationalResponse(status_code=100, headers=[]))
                    await self._stream.send_all(b"HTTP/1.1 100 Continue\r\n\r\n")
                parser.receive_data(await self._receive())
            elif isinstance(event, h11.Event):
                return event
            else:  # PAUSED: the request is over
                raise _Left

    async def _one_request(self) -> bool:
        """Returns whether the connection goes on. h11 only reads here, so every request has a fresh one."""
        parser = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD)
        if self._ahead:
            parser.receive_data(self._ahead)
        event = await self._next_event(parser)
        if not isinstance(event, h11.Request):
            raise _Left
        target = event.target.decode("latin-1")
        if self._service.is_control(target):
            self._uncount()
            body = await self._body(parser)
            await self._stream.send_all(plain(*self._service.control(event.method.decode(), target, body)))
            return True
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers.raw_items()]
        exchange = self._counts.begin(event.method.decode(), target, headers)
        try:
            reply = self._service.early(exchange)
            if reply is None:
                body = await self._body(parser)
                self._counts.keep_body(exchange, body)
                reply = self._service.reply(exchange, body)
                early = False
            else:
                early = True
            await self._answer(exchange, reply, keep_ahead=not early)
        finally:
            if exchange.outcome == "open":
                self._counts.finish(exchange, "aborted")
        if early:
            await self._linger()
        return not (early or reply.close or exchange.outcome != "completed") and not _wants_close(exchange)

    async def _body(self, parser: h11.Connection) -> bytes:
        body = bytearray()
        while not isinstance(event := await self._next_event(parser), h11.EndOfMessage):
            if isinstance(event, h11.Data):
                body += event.data
            if len(body) > _MAX_BODY:
                raise _Refused(413, "the body is too large")
        self._ahead = parser.trailing_data[0]
        return bytes(body)

    async def _answer(self, exchange: Exchange, reply: Reply, *, keep_ahead: bool) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, nursery.cancel_scope, keep_ahead)
            with suppress(trio.BrokenResourceError):  # it left while we wrote: our caller counts it
                await self._carry_out(exchange, reply.steps)
            nursery.cancel_scope.cancel()

    async def _watch(self, answer: trio.CancelScope, keep: bool) -> None:
        with suppress(_Left):
            while len(self._ahead) < _MAX_AHEAD:
                data = await self._receive()
                self._ahead += data if keep else b""
        answer.cancel()  # gone, or flooding us

    async def _carry_out(self, exchange: Exchange, steps: Iterator[Step]) -> None:
        for step in steps:
            match step:
                case Send(data):
                    await self._stream.send_all(data)
                case Pause(seconds):
                    await trio.sleep(seconds)
                case Hang():
                    await trio.sleep_forever()
                case End(how):
                    self._counts.finish(exchange, "broken")
                    self._hang_up(how)
                    return
        # send_all has no checkpoint that could be cancelled behind the last byte: a client that leaves now is too late.
        self._counts.finish(exchange, "completed")

    def _hang_up(self, how: str) -> None:
        if how == "rst":
            self._stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._stream.socket.close()

    async def _linger(self) -> None:
        """Let the client finish writing, or the kernel would reset the connection under the answer."""
        await self._stream.send_eof()
        with trio.move_on_after(_LINGER_S):
            try:
                while await self._stream.receive_some(65_536):
                    pass
            except trio.BrokenResourceError:
                pass


def _wants_close(exchange: Exchange) -> bool:
    return exchange.header("connection").lower() == "close"
