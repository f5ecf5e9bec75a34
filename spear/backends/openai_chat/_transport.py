"""An httpx transport over httpcore2's pool, for one origin."""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import contextmanager
from functools import cache
from typing import Final, cast

import httpcore2
import httpx

from spear.egress import KEEPALIVE_S, Origin

from ._network import TrioNetwork

# At DEBUG it writes addresses and the headers of answers; a host that turns on all debug logs did not ask for that.
logging.getLogger("httpcore2").setLevel(logging.INFO)


class OtherOriginError(Exception):
    """A request to somewhere else than the instance's own origin: refused before anything is connected."""


@cache
def shared_ssl_context() -> ssl.SSLContext:
    """The process's one context, made when the first backend needs it (it takes some 100 ms)."""
    return httpcore2.default_ssl_context()


class PoolTransport(httpx.AsyncBaseTransport):
    """HTTP/1.1 to one origin: no redirects, no proxies, no retries, nothing from the environment but the certificate
    authorities. How many connections there are is up to the caller, that is, to the actor's `concurrency`; all of them
    are kept for the next request.

    Cancelling a request closes its socket before the call returns. `aclose` closes all of them.
    """

    def __init__(self, origin: Origin) -> None:
        self._origin = (origin.scheme.encode(), origin.host.encode(), origin.port)
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=shared_ssl_context() if origin.scheme == "https" else None,
            max_connections=None,
            keepalive_expiry=KEEPALIVE_S,
            network_backend=TrioNetwork(),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        scheme, host = url.raw_scheme, url.raw_host
        port = url.port or (443 if scheme == b"https" else 80)
        if (scheme, host, port) != self._origin:
            raise OtherOriginError("a request to another origin than the backend's own")
        core = httpcore2.Request(
            request.method.encode(),
            httpcore2.URL(scheme=scheme, host=host, port=port, target=url.raw_path),
            headers=request.headers.raw,
            content=cast("httpx.AsyncByteStream", request.stream),
        )
        with _httpx_errors():
            response = await self._pool.handle_async_request(core)
        return httpx.Response(response.status, headers=response.headers, stream=_Body(response))

    async def aclose(self) -> None:
        await self._pool.aclose()


class _Body(httpx.AsyncByteStream):
    """Read once; an iterator itself, so that closing it closes everything below."""

    def __init__(self, response: httpcore2.Response) -> None:
        self._stream = cast("httpx.AsyncByteStream", response.stream)
        self._chunks = cast("AsyncGenerator[bytes, None]", aiter(self._stream))

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        with _httpx_errors():
            return await anext(self._chunks)

    async def aclose(self) -> None:
        await self._chunks.aclose()
        await self._stream.aclose()


_SAME: Final[dict[type[Exception], type[httpx.TransportError]]] = {
    httpcore2.ConnectError: httpx.ConnectError,
    httpcore2.ReadError: httpx.ReadError,
    httpcore2.WriteError: httpx.WriteError,
    httpcore2.RemoteProtocolError: httpx.RemoteProtocolError,
    httpcore2.LocalProtocolError: httpx.LocalProtocolError,
}


@contextmanager
def _httpx_errors() -> Generator[None, None, None]:
    try:
        yield
    except tuple(_SAME) as error:
        raise _SAME[type(error)](str(error)) from error
