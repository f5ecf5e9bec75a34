"""One instance's requests and answers over HTTP: its headers, the key of an attempt, what is redacted from what comes
back, and bodies as JSON or as server-sent events. What they mean is the adapter's."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

import httpx
import trio
from pydantic import JsonValue

from spear._about import DISTRIBUTION, __version__
from spear.backends._protocol import Call, Host, Key
from spear.config import InstanceConfig
from spear.dialects.ollama import LineDecoder
from spear.dialects.openai_chat import MAX_PARTS, PartCounter, SseDecoder, bracket_count, too_many_parts
from spear.egress import MAX_RESPONSE_BYTES, MAX_STREAM_BYTES, check_base_url, origin_of
from spear.ir import BackendError, ErrorCode, Failure, MalformedJson, make_error, parse_json
from spear.secrets import KeyMask, Redactor, Secret

from ._exchange import Received, exchange
from ._failures import Redact, broken_answer, truncated
from ._transport import PoolTransport

_PIECE: Final = 256 * 1024
"""How much of a JSON text is counted before others get their turn: milliseconds."""
_SLICE: Final = 4096
"""How much of a stream is cut into lines before others get their turn: it may be nothing but line breaks."""

Payloads = AsyncGenerator[tuple[bytes, bool], None]
Header = tuple[bytes, bytes]
KeyHeader = Callable[[bytes], Header]
"""How this dialect says a key."""


def bearer(key: bytes) -> Header:
    return b"Authorization", b"Bearer " + key


def check_address(instance: InstanceConfig) -> None:
    """Raise ValueError, naming the key, unless there is a base URL and it may be called."""
    if instance.base_url is None:
        raise ValueError("base_url: is missing; write the address of the server, such as https://api.example.com/v1")
    try:
        check_base_url(instance.base_url.reveal(), hosting=instance.hosting, allow_plaintext=instance.allow_plaintext)
    except ValueError as error:
        raise ValueError(f"base_url: {error}") from None


class HttpClient:
    """`base` is the instance's base URL without slashes at its end."""

    def __init__(
        self,
        instance: InstanceConfig,
        host: Host,
        transport: httpx.AsyncBaseTransport,
        *,
        key_header: KeyHeader = bearer,
        headers: tuple[Header, ...] = (),
    ) -> None:
        assert instance.base_url is not None  # the kind's check saw to it
        self.instance = instance
        self.host = host
        self.base = instance.base_url.reveal().rstrip("/")
        self.redact: Redact
        self.mask: KeyMask
        self._secrets: tuple[Secret, ...] = ()
        self._know(*host.redact, instance.base_url)
        self._transport = transport
        self._key_header = key_header
        self._headers = [
            (b"Host", httpx.URL(self.base).netloc),
            (b"User-Agent", f"{DISTRIBUTION}/{__version__}".encode()),
            (b"Accept-Encoding", b"identity"),
            *headers,
        ]

    def url(self, path: str) -> httpx.URL:
        """`path` is put behind the base URL; it begins with a slash and may have a query."""
        return httpx.URL(self.base + path)

    def post(
        self,
        url: httpx.URL,
        content: bytes | tuple[bytes, ...],
        call: Call,
        *,
        streamed: bool = False,
        content_type: bytes = b"application/json",
        accept: bytes = b"application/json",
        method: str = "POST",
        headers: tuple[Header, ...] = (),
    ) -> AbstractAsyncContextManager[Received]:
        """Send, and give the answer if its status is 200; raises `BackendError` for everything else. `streamed`: the
        answer comes in pieces that mean something, so that its breaking off is a truncated stream. Leaving the block,
        or cancelling, closes what cannot be used again. Content in several pieces is not joined: that may be large."""
        pieces = (content,) if isinstance(content, bytes) else content
        sent = [*self._headers, *headers, (b"Content-Type", content_type), (b"Accept", accept)]
        sent.append((b"Content-Length", b"%d" % sum(map(len, pieces))))
        if call.key is not None:
            sent.append(self._key_header(_key_text(call.key)))
            if call.key.secret not in self._secrets:
                # The host lists its secrets; that this attempt's key is among them is not taken on trust.
                self._know(*self._secrets, call.key.secret)
        return exchange(self._transport, method, url, sent, pieces, call, redact=self.redact, streamed=streamed)

    def parsed(self, piece: bytes, *, at_end: bool, what: str = "event") -> JsonValue:
        """A piece of a stream as JSON, keys masked. `at_end`: it was only complete because the stream ended."""
        try:
            return parse_json(self.mask(piece))
        except MalformedJson as error:
            if at_end:
                raise truncated(f"the last {what} is incomplete") from None
            raise broken_answer(
                f"{'an' if what == 'event' else 'a'} {what} of the stream is not JSON: {error}"
            ) from None

    def _know(self, *secrets: Secret) -> None:
        self._secrets = secrets
        self.redact = Redactor(secrets)
        self.mask = KeyMask(secrets)


@asynccontextmanager
async def open_client(
    instance: InstanceConfig,
    host: Host,
    *,
    key_header: KeyHeader = bearer,
    headers: tuple[Header, ...] = (),
) -> AsyncGenerator[HttpClient, None]:
    """A client over connections of its own, which are closed with the block."""
    assert instance.base_url is not None
    transport = PoolTransport(origin_of(instance.base_url.reveal()))
    try:
        yield HttpClient(instance, host, transport, key_header=key_header, headers=headers)
    finally:
        await transport.aclose()


def _key_text(key: Key) -> bytes:
    secret = key.secret.reveal().strip()
    if not secret or not secret.isascii() or not secret.isprintable():
        message = f"the credential {key.id} is empty or has characters that no header can carry"
        raise BackendError(make_error(ErrorCode.BACKEND_ERROR, message, retryable=False), Failure.AUTH)
    return secret.encode()


def payloads_of(received: Received) -> Payloads:
    """The payloads of an event stream; with each, whether it was only complete because the stream ended."""
    return _cut(received, SseDecoder())


def lines_of(received: Received) -> Payloads:
    """The lines of newline-delimited JSON that are not blank; with each, whether it was only complete because the
    stream ended."""
    return _cut(received, LineDecoder())


async def _cut(received: Received, decoder: SseDecoder | LineDecoder) -> Payloads:
    size = 0
    while (data := await received.more()) is not None:
        size += len(data)
        if size > MAX_STREAM_BYTES:
            raise broken_answer("response too large")
        for start in range(0, len(data), _SLICE):
            if start:
                await trio.lowlevel.checkpoint()
            for piece in decoder.feed(data[start : start + _SLICE]):
                if len(piece) > MAX_PARTS:
                    await check_parts(piece)
                yield piece, False
    for piece in decoder.finish():
        yield piece, True


async def json_of(
    received: Received,
    mask: KeyMask,
    *,
    limit: int = MAX_RESPONSE_BYTES,
    parts: int = MAX_PARTS,
    exact: bool = True,
) -> JsonValue:
    """The whole answer, at most `limit` bytes and `parts` values, as JSON; `exact` as for `parse_json`."""
    if not received.is_json:
        raise broken_answer("the answer is not JSON by its content type")
    body, whole = await received.read(limit)
    if not whole:
        raise broken_answer("response too large")
    await check_parts(body, parts)
    try:
        return parse_json(mask(body), exact=exact)
    except MalformedJson as error:
        raise broken_answer(f"the answer is not JSON: {error}") from None


async def check_parts(text: bytes, limit: int = MAX_PARTS) -> None:
    """Before it is parsed: raise for a JSON text of too many parts."""
    if bracket_count(text) <= limit:
        return
    counter = PartCounter()  # some of those may be in strings
    for start in range(0, len(text), _PIECE):
        counter.feed(text[start : start + _PIECE])
        if counter.parts > limit:
            raise too_many_parts(limit)
        await trio.lowlevel.checkpoint()
