"""Whatever bytes a server sends: an answer or a BackendError, never another exception, never a socket left open."""

from __future__ import annotations

from random import Random

import pytest
import trio

from spear.ir import BackendError
from tests.spear.backends._support import CANARY, adapter_to, ask, call, use

LIMIT = 60.0
ROUNDS = 400
PLAIN = b'{"choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}]}'
EVENTS = b'data: {"choices":[{"index":0,"delta":{"content":"hi"}}]}\n\ndata: [DONE]\n\n'
SEEDS = [
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(PLAIN) + PLAIN,
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    b"%x\r\n%s\r\n0\r\n\r\n" % (len(EVENTS), EVENTS),
    b"HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + EVENTS,
    b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\nrest",
    b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 429 Slow\r\nretry-after: 3\r\ncontent-length: 2\r\n\r\n{}",
    b'HTTP/1.1 401 No\r\ncontent-type: application/json\r\n\r\n{"error": {"message": "no: %s"}}' % CANARY.encode(),
    b"",
]
PIECES = [b"\r\n", b"\r\n\r\n", b"\x00", b"\xff", b":", b"0", b"99999999999", b"chunked", b"{", b"data:", b"\n\n"]


def mutate(rng: Random) -> bytes:
    data = bytearray(rng.choice(SEEDS))
    for _ in range(rng.choice([0, 0, 1, 1, 2, 5])):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(4):
            case 0:
                del data[at : at + rng.randrange(1, 20)]
            case 1:
                data[at:at] = rng.choice(PIECES)
            case 2:
                data[at : at + 1] = bytes([rng.randrange(256)])
            case _:
                del data[at:]
    return bytes(data)


@pytest.mark.parametrize("how", ["plain", "stream"])
async def test_any_bytes(nursery: trio.Nursery, how: str) -> None:
    rng = Random(2026)
    open_streams: set[trio.SocketStream] = set()

    async def serve(stream: trio.SocketStream) -> None:
        open_streams.add(stream)
        async with stream:
            try:
                await stream.receive_some()
                await stream.send_all(mutate(rng))
                await stream.send_eof()
                await stream.receive_some()
            except trio.BrokenResourceError:
                pass
            finally:
                open_streams.discard(stream)

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, serve, [listener])
    answered = 0
    told: list[str] = []
    with trio.fail_after(LIMIT):
        async with adapter_to(f"http://127.0.0.1:{listener.socket.getsockname()[1]}/v1") as adapter:
            for _ in range(ROUNDS):
                try:
                    await use(adapter, how, ask(), call())
                    answered += 1
                except BackendError as error:
                    told.append(error.error.message)
        while open_streams:
            await trio.testing.wait_all_tasks_blocked(0.01)
    assert answered > ROUNDS / 20
    assert len(told) > ROUNDS / 4
    assert max(map(len, told)) < 600
    assert CANARY not in " ".join(told)
