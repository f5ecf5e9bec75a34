"""Configurations with one filter, over stubs, and an HTTP service that answers as the test says."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import trio

from spear.ir import RequestEnvelope
from tests.system.kit import chat, config, stub

Answer = Callable[["FilterService", trio.SocketStream], Awaitable[None]]


def filtered(kind: str, *backends, **more):
    """Stubs `a` and `b` behind one filter `f` that has to be asked within a second."""
    own = {"name": "f", "kind": kind, "timeout": "1s", "on_error": "closed", **more}
    stubs = backends or (stub("a"), stub("b"))
    return config(*stubs, filters=[own], routes=[{"filter": "f"}], default_policy="weighted_round_robin")


def question(text: str = "hi") -> RequestEnvelope:
    return chat(text, model="")


def why(response) -> str:
    """Why the filter failed, of a response that was refused for that."""
    head, _, rest = response.result.error.message.partition(" and failed (")
    assert head == "the filter f has to be asked,"
    return rest.removesuffix(")")


class FilterService:
    """A real server on loopback. `answer` writes the answer to one request; then the connection is kept."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.requests: list[tuple[bytes, bytes]] = []
        self.connections = self.open = 0
        self.url = ""

    async def serve(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        self.open += 1
        try:
            while True:
                head, body = await self._read(stream)
                if not head:
                    return
                self.requests.append((head, body))
                await self._until_gone(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
        finally:
            self.open -= 1
            await trio.aclose_forcefully(stream)

    async def _until_gone(self, stream: trio.SocketStream) -> None:
        """Answer, and notice meanwhile that the client goes away."""
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                with suppress(trio.ClosedResourceError, OSError):
                    while await stream.socket.recv(1, socket.MSG_PEEK):  # noqa: ASYNC110
                        await trio.sleep(0.01)
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            await self.answer(self, stream)
            nursery.cancel_scope.cancel()

    @staticmethod
    async def _read(stream: trio.SocketStream) -> tuple[bytes, bytes]:
        data = b""
        while b"\r\n\r\n" not in data:
            more = await stream.receive_some(65_536)
            if not more:
                return b"", b""
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        while len(body) < length:
            body += await stream.receive_some(65_536)
        return head, body


def http(status: str = "200 OK", body: bytes = b"{}", headers: str = "") -> Answer:
    async def answer(service: FilterService, stream: trio.SocketStream) -> None:
        head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n{headers}\r\n"
        await stream.send_all(head.encode() + body)

    return answer


def raw(data: bytes, *, close: bool = True) -> Answer:
    async def answer(service: FilterService, stream: trio.SocketStream) -> None:
        await stream.send_all(data)
        if close:
            await stream.aclose()

    return answer


def after(seconds: float, then: Answer) -> Answer:
    async def answer(service: FilterService, stream: trio.SocketStream) -> None:
        await trio.sleep(seconds)
        await then(service, stream)

    return answer


@asynccontextmanager
async def filter_service(answer: Answer) -> AsyncIterator[FilterService]:
    service = FilterService(answer)
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        service.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/filter"
        nursery.start_soon(trio.serve_listeners, service.serve, listeners)
        try:
            yield service
        finally:
            nursery.cancel_scope.cancel()
