"""Sockets for httpcore2's connections, on Trio.

httpcore2's own network layer leaves the socket to the garbage collector when a TLS handshake is cancelled, and puts a
deadline on every single read. Here nothing is left open, and there are no deadlines: the clocks of an attempt are
scopes around all of it. The head of a request waits for the first piece of its body, so that a small request is one
write.
"""

from __future__ import annotations

import logging
import os
import socket
import ssl
from functools import cache
from typing import Any, Final

import httpcore2
import trio

# At DEBUG it writes addresses and the headers of answers; a host that turns on all debug logs did not ask for that.
logging.getLogger("httpcore2").setLevel(logging.INFO)


@cache
def shared_ssl_context() -> ssl.SSLContext:
    """The process's one context, made when the first connection needs it (it takes some 100 ms)."""
    return httpcore2.default_ssl_context()


async def connect(host: str, port: int) -> TcpStream:
    """Raises httpcore2.ConnectError, whose text has no address in it."""
    try:
        # As bytes: the name is ASCII already, and a local name may have an underscore, which IDNA refuses.
        stream = await trio.open_tcp_stream(host.encode("ascii"), port)
    except OSError as error:
        raise httpcore2.ConnectError(_connect_reason(error)) from error
    return TcpStream(stream, stream.socket)


async def start_tls(tcp: TcpStream, context: ssl.SSLContext, host: str) -> TcpStream:
    """Raises httpcore2.ConnectError; where it does not return, the connection is closed."""
    stream = trio.SSLStream(tcp.stream, context, server_hostname=host, https_compatible=True)
    try:
        await stream.do_handshake()
    except BaseException as error:
        await trio.aclose_forcefully(stream)
        if isinstance(error, trio.BrokenResourceError):
            raise httpcore2.ConnectError(_tls_reason(error.__cause__)) from error
        raise
    return TcpStream(stream, tcp.socket)


_LARGE: Final = 64 * 1024
"""Bytes that are not copied for the sake of one segment less."""


class TcpStream(httpcore2.AsyncNetworkStream):
    def __init__(self, stream: trio.abc.Stream, sock: trio.socket.SocketType) -> None:
        self.stream = stream
        self.socket = sock
        self.heard = False
        """Whether anything came since whoever looks at this set it to False."""
        self._held = b""

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            data = bytes(await self.stream.receive_some(max_bytes))
            self.heard = self.heard or bool(data)
            return data
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise httpcore2.ReadError("the connection was reset") from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Of each request the head comes first, then its body or at least an empty end."""
        if not self._held:
            self._held = buffer
            return
        first, self._held = self._held, b""
        large = max(len(first), len(buffer)) > _LARGE
        try:
            await self.stream.send_all(first if large else first + buffer)
            if large:
                await self.stream.send_all(buffer)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise httpcore2.WriteError("the connection was reset") from error

    async def aclose(self) -> None:
        # Not politely: nobody waits for the goodbye of a peer that is given up.
        self._held = b""
        await trio.aclose_forcefully(self.stream)

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":  # of an idle connection: the peer has closed it, or said what nobody asked for
            return self.socket.fileno() < 0 or _held_by_tls(self.stream) or self.socket.is_readable()
        return None


def _held_by_tls(stream: trio.abc.Stream) -> bool:
    """Whether bytes have come that nobody has read yet: decrypted, or not even that."""
    if not isinstance(stream, trio.SSLStream):
        return False
    return stream.pending() > 0 or stream._incoming.pending > 0


def _connect_reason(error: OSError) -> str:
    """Without the address, which the text of the error has."""
    if isinstance(error, socket.gaierror):
        return "its host name cannot be resolved"
    cause: BaseException | None = error.__cause__
    while isinstance(cause, BaseExceptionGroup):  # one for each address of the name
        cause = cause.exceptions[0]
    number = cause.errno if isinstance(cause, OSError) else error.errno
    return os.strerror(number).lower() if number else "no connection"


def _tls_reason(cause: BaseException | None) -> str:
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted ({cause.verify_message})"
    return "the TLS handshake failed"
