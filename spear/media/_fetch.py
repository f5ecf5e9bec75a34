"""What lies elsewhere, over HTTP: a connection for each, to an address that was checked, and nothing else."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Final, TypeVar, cast

import httpcore2
import trio

from spear._about import DISTRIBUTION, __version__
from spear._sockets import TcpStream, connect, shared_ssl_context, start_tls
from spear.egress import Origin
from spear.ir import CallerError, ErrorCode, make_error

from ._errors import not_allowed, too_large
from ._policy import FetchPolicy, Place, check_addresses, checked_type, place_after, place_of
from ._port import MediaBytes

FETCHES: Final = 16
"""At a time; more wait, within their time."""
REDIRECTS: Final = 3
_MOST_ADDRESSES: Final = 4
_TURN: Final = 64
"""Chunks after which others get their turn: one read may bring ten thousand of them."""
_REDIRECTED: Final = frozenset({301, 302, 303, 307, 308})
_GONE: Final = frozenset({404, 410})

ResultT = TypeVar("ResultT")
Resolve = Callable[[str, int], Awaitable[list[str]]]


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of a name, each once. Raises OSError."""
    found = await trio.socket.getaddrinfo(host.encode("ascii"), port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class Fetcher:
    """All failures are `CallerError`: media_not_allowed by the policy, media_too_large, and media_not_found for what
    cannot be had. Cancelling closes the connection before the call returns."""

    def __init__(self, policy: FetchPolicy, *, resolve: Resolve = resolve) -> None:
        self._policy = policy
        self._resolve = resolve
        self._limiter = trio.CapacityLimiter(FETCHES)

    async def fetch(self, url: str, *, mime: str | None, limit: int) -> MediaBytes:
        place = place_of(url, self._policy)
        with trio.move_on_after(self._policy.timeout_s):
            async with self._limiter:
                for _ in range(REDIRECTS + 1):
                    found = await self._ask(place, mime, limit)
                    if isinstance(found, MediaBytes):
                        return found
                    place = place_after(place, found, self._policy)
                raise _unavailable(f"it is redirected more than {REDIRECTS} times")
        raise _unavailable(f"it took longer than {self._policy.timeout_s:g} s")

    async def _ask(self, place: Place, mime: str | None, limit: int) -> MediaBytes | str:
        """The object, or where it is said to be."""
        try:
            async with self._connection(place) as stream, self._answer(place, stream) as answer:
                if answer.status in _REDIRECTED:
                    return _header(answer, b"location")
                found = _checked(answer, mime)
                return MediaBytes(await self._body(answer, limit), found)
        except httpcore2.ConnectError as error:
            raise _unavailable(str(error)) from error
        except (httpcore2.NetworkError, httpcore2.ProtocolError) as error:
            raise _unavailable("the connection broke, or what came is not valid HTTP") from error

    async def _body(self, answer: httpcore2.Response, limit: int) -> bytes:
        length = _header(answer, b"content-length")
        if length.isdecimal() and int(length[:20]) > limit:
            raise too_large(f"what is at the URL has {length[:20]} bytes; at most {limit} can be used here")
        parts: list[bytes] = []
        size = 0
        chunks = cast("AsyncGenerator[bytes, None]", aiter(cast("AsyncIterable[bytes]", answer.stream)))
        async with aclosing(chunks):
            while (part := await self._soon(lambda: anext(chunks, None))) is not None:
                size += len(part)
                if size > limit:
                    raise too_large(f"what is at the URL has more than {limit} bytes, which is all that can be used")
                parts.append(part)
                if not len(parts) % _TURN:
                    await trio.lowlevel.checkpoint()
        return b"".join(parts)

    @asynccontextmanager
    async def _connection(self, place: Place) -> AsyncGenerator[TcpStream, None]:
        addresses = await self._addresses(place)
        stream = await self._first(addresses, place.origin)
        try:
            if place.origin.scheme == "https":
                tcp = stream
                stream = await self._soon(lambda: start_tls(tcp, shared_ssl_context(), place.origin.host))
            yield stream
        finally:
            with trio.CancelScope(shield=True):  # never waits
                await stream.aclose()

    async def _addresses(self, place: Place) -> list[str]:
        try:
            addresses = await self._soon(lambda: self._resolve(place.origin.host, place.origin.port))
        except OSError:
            raise _unavailable("its host name cannot be resolved") from None
        check_addresses(addresses, place)
        return addresses[:_MOST_ADDRESSES]

    async def _first(self, addresses: list[str], origin: Origin) -> TcpStream:
        """Of those that were checked, one that answers. The name is not looked up again."""
        why = "its host name has no address"
        for address in addresses:
            try:
                return await self._soon(lambda address=address: connect(address, origin.port))  # type: ignore[misc]
            except httpcore2.ConnectError as error:
                why = str(error)
        raise _unavailable(why)

    @asynccontextmanager
    async def _answer(self, place: Place, stream: TcpStream) -> AsyncGenerator[httpcore2.Response, None]:
        origin = place.origin
        core = httpcore2.Origin(origin.scheme.encode(), origin.host.encode(), origin.port)
        host = f"[{origin.host}]" if ":" in origin.host else origin.host
        port = "" if origin.port == {"http": 80, "https": 443}[origin.scheme] else f":{origin.port}"
        headers = [
            (b"Host", f"{host}{port}".encode()),
            (b"User-Agent", f"{DISTRIBUTION}/{__version__}".encode()),
            (b"Accept", b"image/*, audio/*, video/*, */*;q=0.1"),
            (b"Accept-Encoding", b"identity"),
            (b"Connection", b"close"),
        ]
        url = httpcore2.URL(scheme=core.scheme, host=core.host, port=core.port, target=place.target.encode())
        connection = httpcore2.AsyncHTTP11Connection(core, stream)
        request = httpcore2.Request(b"GET", url, headers=headers)
        try:
            yield await self._soon(lambda: connection.handle_async_request(request))
        finally:
            with trio.CancelScope(shield=True):  # never waits
                await connection.aclose()

    async def _soon(self, work: Callable[[], Awaitable[ResultT]]) -> ResultT:
        with trio.move_on_after(self._policy.idle_s):
            return await work()
        raise _unavailable(f"nothing came within {self._policy.idle_s:g} s")


def _checked(answer: httpcore2.Response, mime: str | None) -> str:
    """The type of what it answers."""
    if answer.status != 200:
        raise _unavailable(f"the answer has status {answer.status}", gone=answer.status in _GONE)
    if _header(answer, b"content-encoding").lower() not in {"", "identity"}:
        raise not_allowed("the answer of the URL is compressed")
    return checked_type(_header(answer, b"content-type"), mime)


def _header(answer: httpcore2.Response, name: bytes) -> str:
    """Empty where it is not there. One that is there twice is not one that says something."""
    found = [value for key, value in answer.headers if key.lower() == name]
    return found[0].decode("latin-1").strip() if len(found) == 1 else "" if not found else "?"


def _unavailable(why: str, *, gone: bool = False) -> CallerError:
    message = f"there is nothing at the URL: {why}" if gone else f"the URL cannot be fetched: {why}"
    return CallerError(make_error(ErrorCode.MEDIA_NOT_FOUND, message))
