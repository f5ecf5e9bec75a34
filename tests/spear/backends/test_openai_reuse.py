"""A connection that is used again: never with bytes that belong to nobody, and never a failure where the server only
closed it as idle."""

from __future__ import annotations

import math
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio

from spear.backends import Adapter, Finished
from spear.backends._http import _transport
from spear.ir import BackendError, ErrorCode, Failure, dump_json
from tests.spear.backends._support import adapter_to, ask, call

LIMIT = 20.0
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n"


def plain(text: str) -> bytes:
    body = dump_json({"choices": [{"index": 0, "message": {"content": text}, "finish_reason": "stop"}]})
    return HEAD % (b"application/json", len(body)) + body


def streamed(text: str) -> bytes:
    chunk = dump_json({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": "stop"}]})
    body = b"data: " + chunk + b"\n\ndata: [DONE]\n\n"
    return HEAD % (b"text/event-stream", len(body)) + body


@dataclass(frozen=True)
class Asked:
    """A request that a server has read: the how-manieth of its connection, and of the server."""

    send: Callable[[bytes], Awaitable[None]]
    of_connection: int
    connection: int
    number: int


class Server:
    """Calls `answer` for each request; closes a connection where that returns False."""

    def __init__(self, answer: Callable[[Asked], Awaitable[bool]]) -> None:
        self.answer = answer
        self.connections = 0
        self.requests = 0

    async def serve(self, stream: trio.abc.Stream) -> None:
        self.connections += 1
        connection, mine, received = self.connections, 0, b""
        with suppress(trio.BrokenResourceError):
            while data := await stream.receive_some():
                received += data
                head, separator, body = received.partition(b"\r\n\r\n")
                lengths = [int(x.split(b":")[1]) for x in head.lower().split(b"\r\n") if b"content-length" in x]
                if not separator or len(body) < lengths[0]:
                    continue
                received, mine = b"", mine + 1
                self.requests += 1
                if not await self.answer(Asked(stream.send_all, mine, connection, self.requests)):
                    break
        await trio.aclose_forcefully(stream)


@asynccontextmanager
async def serving(nursery: trio.Nursery, server: Server) -> AsyncIterator[Adapter]:
    listeners = await nursery.start(_serve, server)
    with trio.fail_after(LIMIT):
        async with adapter_to(f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/v1") as adapter:
            yield adapter


async def _serve(server: Server, task_status: Any) -> None:
    await trio.serve_tcp(server.serve, 0, host="127.0.0.1", task_status=task_status)


async def text_of(adapter: Adapter, how: str = "plain", **conditions: Any) -> str:
    if how == "plain":
        answer = await adapter.invoke(ask(), call(**conditions))
    else:
        async with adapter.stream(ask(), call(**conditions)) as items:
            (answer,) = [item.answer async for item in items if isinstance(item, Finished)]
    return answer.payload.text  # type: ignore[union-attr]


@pytest.mark.parametrize("how", ["plain", "stream"])
@pytest.mark.parametrize("pause", [None, 0.0, 0.05], ids=["one packet", "two packets", "while idle"])
async def test_surplus_bytes_answer_nobody(nursery: trio.Nursery, how: str, pause: float | None) -> None:
    make = plain if how == "plain" else streamed

    async def answer(asked: Asked) -> bool:
        surplus = make("SURPLUS") if asked.number == 1 else b""
        if pause is None:
            await asked.send(make(f"answer {asked.number}") + surplus)
        else:
            await asked.send(make(f"answer {asked.number}"))
            await trio.sleep(pause)
            if surplus:
                await asked.send(surplus)
        return True

    server = Server(answer)
    async with serving(nursery, server) as adapter:
        assert await text_of(adapter, how) == "answer 1"
        await trio.sleep(0.1)
        assert [await text_of(adapter, how) for _ in range(3)] == ["answer 2", "answer 3", "answer 4"]
    assert (server.requests, server.connections) == (4, 2)


@pytest.mark.parametrize("how", ["plain", "stream"])
@pytest.mark.parametrize("delay", [0.0, 0.0005, 0.003])
async def test_a_server_that_soon_closes_what_is_idle(nursery: trio.Nursery, how: str, delay: float) -> None:
    make = plain if how == "plain" else streamed

    async def answer(asked: Asked) -> bool:
        await asked.send(make("ok"))
        await trio.sleep(delay)
        return False

    server = Server(answer)
    async with serving(nursery, server) as adapter:
        for _ in range(50):
            assert await text_of(adapter, how) == "ok"
    assert server.requests == 50  # what went twice was read once


async def test_what_dies_unanswered_goes_once_more_and_no_more(nursery: trio.Nursery) -> None:
    async def answer(asked: Asked) -> bool:
        if asked.number == 1:
            await asked.send(plain("first"))
        return asked.number == 1

    server = Server(answer)
    async with serving(nursery, server) as adapter:
        assert await text_of(adapter) == "first"
        with pytest.raises(BackendError, match="the connection was closed") as caught:
            await text_of(adapter)
    assert (caught.value.code, caught.value.failure) == (ErrorCode.BACKEND_ERROR, Failure.SERVER)
    assert (server.requests, server.connections) == (3, 2)


@pytest.mark.parametrize(
    ("said", "delay"), [(b"HTTP/1.1 200 OK\r\n", 0.0), (b"HTTP/1.1 103 \r\n\r\n", 0.0), (b"", 0.3)]
)
async def test_what_may_have_been_worked_on_does_not_go_twice(
    nursery: trio.Nursery, said: bytes, delay: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_transport, "_CLOSED_WITHIN_S", 0.2 if delay else math.inf)

    async def answer(asked: Asked) -> bool:
        if asked.number == 1:
            await asked.send(plain("first"))
            return True
        await trio.sleep(delay)
        await asked.send(said)
        return False

    server = Server(answer)
    async with serving(nursery, server) as adapter:
        assert await text_of(adapter) == "first"
        with pytest.raises(BackendError, match="the connection was closed"):
            await text_of(adapter)
    assert (server.requests, server.connections) == (2, 1)


async def test_the_clock_goes_on_where_a_request_goes_twice(nursery: trio.Nursery) -> None:
    async def answer(asked: Asked) -> bool:
        if asked.number == 1:
            await asked.send(plain("first"))
            return True
        await trio.sleep(0.3 if asked.number == 2 else math.inf)
        return False

    async with serving(nursery, Server(answer)) as adapter:
        assert await text_of(adapter) == "first"
        started = trio.current_time()
        with pytest.raises(BackendError) as caught:
            await text_of(adapter, first_event=0.5)
    assert (caught.value.code, caught.value.error.clock) == (ErrorCode.TIMEOUT, "first_event")
    assert trio.current_time() - started < 0.75


async def test_a_server_that_is_gone_by_then_was_asked_all_the_same(nursery: trio.Nursery) -> None:
    """Not `backend_unavailable`, which says that nothing was sent."""
    stop = trio.CancelScope()

    async def answer(asked: Asked) -> bool:
        if asked.number == 2:
            stop.cancel()  # the listener
            await trio.sleep(0.01)
        await asked.send(plain("first") if asked.number == 1 else b"")
        return asked.number == 1

    server = Server(answer)

    async def listen(task_status: Any) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        with stop:
            await trio.serve_listeners(server.serve, listeners, handler_nursery=nursery, task_status=task_status)
        for listener in listeners:
            await listener.aclose()

    listeners = await nursery.start(listen)
    with trio.fail_after(LIMIT):
        async with adapter_to(f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/v1") as adapter:
            assert await text_of(adapter) == "first"
            with pytest.raises(BackendError, match="the connection was closed") as caught:
                await text_of(adapter)
    assert caught.value.failure is Failure.SERVER


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's, of `localhost`; backends trust it."""
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    name = ["-addext", "subjectAltName=DNS:localhost", "-addext", "keyUsage=critical,digitalSignature,keyCertSign"]
    subprocess.run([*make, *name, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    trusting = ssl.create_default_context(cafile=str(cert))
    monkeypatch.setattr(_transport, "shared_ssl_context", lambda: trusting)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    return context


@pytest.mark.parametrize("surplus", [False, True])
async def test_over_tls(nursery: trio.Nursery, tls: ssl.SSLContext, surplus: bool) -> None:
    """Where the surplus is in a record of its own, which was received with the answer and not decrypted."""
    text = "x" * (16_384 - len(plain("x" * 16_300)) + 16_300)
    assert len(plain(text)) == 16_384  # a record holds as much

    async def answer(asked: Asked) -> bool:
        await asked.send(plain(text) + (plain("SURPLUS") if surplus and asked.number == 1 else b""))
        return True

    server = Server(answer)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    secure = trio.SSLListener(listener, tls, https_compatible=True)
    nursery.start_soon(trio.serve_listeners, server.serve, [secure])
    with trio.fail_after(LIMIT):
        async with adapter_to(f"https://localhost:{port}/v1") as adapter:
            assert [await text_of(adapter) for _ in range(3)] == [text] * 3
    assert server.connections == (2 if surplus else 1)
