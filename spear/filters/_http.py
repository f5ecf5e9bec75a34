"""A filter behind HTTP: one POST of JSON, one JSON answer, over connections to its one origin and to no other.

A redirect is no answer, nor is a compressed body, nor one that is too long. The clock is the caller's: it covers the
connection, too, and cancelled, the socket is closed before the call returns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import httpx

from spear._about import DISTRIBUTION, __version__
from spear.backends._http import PoolTransport
from spear.config import FilterConfig
from spear.egress import origin_of
from spear.ir import Json, dump_json
from spear.router import FilterFailed
from spear.secrets import Secret

from ._answer import parse_answer
from ._port import MAX_ANSWER_BYTES, Port


def open_http(config: FilterConfig, key: Secret | None) -> Port:
    assert config.url is not None  # the configuration's check saw to it
    transport = PoolTransport(origin_of(config.url.reveal()))
    url = httpx.URL(config.url.reveal())
    headers = [
        (b"Host", url.netloc),
        (b"User-Agent", f"{DISTRIBUTION}/{__version__}".encode()),
        (b"Accept", b"application/json"),
        (b"Accept-Encoding", b"identity"),
        (b"Content-Type", b"application/json"),
    ]
    if key is not None:
        headers.append((b"Authorization", f"Bearer {key.reveal()}".encode("ascii", "replace")))

    async def ask(question: Mapping[str, Json]) -> Json:
        content = dump_json(question, sort=True)
        request = httpx.Request(
            "POST", url, headers=[*headers, (b"Content-Length", b"%d" % len(content))], content=content
        )
        try:
            response = await transport.handle_async_request(request)
            try:
                return await _answer(response)
            finally:
                await response.aclose()
        except httpx.ConnectError:
            raise FilterFailed("cannot be reached") from None
        except httpx.TransportError:
            raise FilterFailed("the connection broke") from None

    return Port(config, ask, transport.aclose)


async def _answer(response: httpx.Response) -> Json:
    if response.status_code != 200:
        raise FilterFailed(f"status {response.status_code}")
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise FilterFailed("its answer is compressed")
    parts: list[bytes] = []
    size = 0
    async for part in cast("httpx.AsyncByteStream", response.stream):
        size += len(part)
        if size > MAX_ANSWER_BYTES:
            raise FilterFailed(f"its answer has more than {MAX_ANSWER_BYTES} bytes")
        parts.append(part)
    return parse_answer(b"".join(parts))
