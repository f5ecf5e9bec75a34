"""A real server on loopback that behaves as a scenario says: refuses beyond a rate, is not there for a while.

Draws as the model draws and in its order, so that what differs is the way there: HTTP, connections, real time.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from random import Random

import trio

from spear.simulate._model import Bucket
from spear.simulate._scenario import Behaviour

_ANSWER = {
    "id": "twin",
    "object": "chat.completion",
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "real"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 20, "completion_tokens": 20, "total_tokens": 40},
}


class TwinServer:
    """Knows latency, errors, one rate limit for all with a fixed Retry-After, and outages that refuse connections.
    `failed` as a model counts it, but for connections, which nobody here sees. `start` = when the traffic began."""

    def __init__(self, behaviour: Behaviour, seed: int) -> None:
        self.failed: dict[str, int] = {}
        self.start = 0.0
        self._behaviour = behaviour
        self._rng = Random(f"{seed}:backend:{behaviour.name}")
        self._draw = behaviour.latency.draws()
        self._bucket: Bucket | None = None
        self._idle: set[trio.SocketStream] = set()
        self._listener: trio.SocketListener | None = None
        self.port = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator[None, None]:
        async with trio.open_nursery() as nursery:
            await self._listen(nursery)
            try:
                yield
            finally:
                nursery.cancel_scope.cancel()

    async def play(self, start: float) -> None:
        """The outages, until the last one has ended."""
        self.start = start
        if self._behaviour.rate_limit is not None:
            self._bucket = Bucket(self._behaviour.rate_limit, 0.0)
        async with trio.open_nursery() as nursery:
            for event in self._behaviour.events:
                assert event.outage == "refuse"
                assert event.until is not None
                await trio.sleep_until(start + event.at)
                await self._close()
                await trio.sleep_until(start + event.until)
                await self._listen(self._nursery)
            nursery.cancel_scope.cancel()

    async def _listen(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        (listener,) = await trio.open_tcp_listeners(self.port, host="127.0.0.1")
        self.port = listener.socket.getsockname()[1]
        self._listener = listener
        nursery.start_soon(self._accept, listener)

    async def _close(self) -> None:
        """New connections are refused, those without a call are closed; calls under way go on."""
        listener, self._listener = self._listener, None
        assert listener is not None
        await listener.aclose()
        for stream in list(self._idle):
            await trio.aclose_forcefully(stream)

    async def _accept(self, listener: trio.SocketListener) -> None:
        async with listener:
            while True:
                try:
                    stream = await listener.accept()
                except trio.ClosedResourceError:
                    return
                self._nursery.start_soon(self._connection, stream)

    async def _connection(self, stream: trio.SocketStream) -> None:
        data = b""
        async with stream:
            try:  # noqa: PLW0717 -- one connection is one block
                while self._listener is not None:
                    self._idle.add(stream)
                    try:
                        data = await _request(stream, data)
                    finally:
                        self._idle.discard(stream)
                    await stream.send_all(await self._reply())
            except (EOFError, trio.BrokenResourceError, trio.ClosedResourceError):
                return

    async def _reply(self) -> bytes:
        if self._bucket is not None and self._bucket.take(trio.current_time() - self.start, 1.0):
            self._count("rate_limit")
            limit = self._behaviour.rate_limit
            assert limit is not None
            return _response(429, {"error": {"message": "slow down"}}, f"Retry-After: {limit.retry_after:g}\r\n")
        errors = self._behaviour.errors
        if errors is not None and self._rng.random() < errors.share:
            await trio.sleep(errors.after)
            self._count("server")
            return _response(500, {"error": {"message": "scripted"}})
        await trio.sleep(self._draw(self._rng))
        return _response(200, _ANSWER)

    def _count(self, kind: str) -> None:
        self.failed[kind] = self.failed.get(kind, 0) + 1


async def _request(stream: trio.SocketStream, data: bytes) -> bytes:
    """What came after one whole request."""
    while b"\r\n\r\n" not in data:
        data += await _more(stream)
    head, _, rest = data.partition(b"\r\n\r\n")
    fields = (line.partition(b":") for line in head.split(b"\r\n")[1:])
    length = next(int(value) for name, _, value in fields if name.strip().lower() == b"content-length")
    while len(rest) < length:
        rest += await _more(stream)
    return rest[length:]


async def _more(stream: trio.SocketStream) -> bytes:
    data = await stream.receive_some()
    if not data:
        raise EOFError
    return bytes(data)


def _response(status: int, body: object, more: str = "") -> bytes:
    content = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n{more}\r\n"
    return head.encode() + content
