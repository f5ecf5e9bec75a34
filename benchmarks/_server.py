"""The least server that an HTTP client can be measured against: it reads requests whole and looks at nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio

Answer = Callable[[trio.SocketStream], Awaitable[None]]
"""Called for each request, with the connection that it came by."""


async def answer_all(answer: Answer, stream: trio.SocketStream) -> None:
    """One connection to its end; requests with a content-length, one after the other."""
    received = b""
    with suppress(trio.BrokenResourceError):  # the client left
        while data := await stream.receive_some():
            received += data
            head, end_of_head, body = received.partition(b"\r\n\r\n")
            if end_of_head and len(body) >= int(head.lower().split(b"content-length:")[1].split(b"\r\n", 1)[0]):
                received = b""
                await answer(stream)


async def serve(answer: Answer, core: int) -> None:
    """On `core`; prints its port and ends when its stdin does."""
    os.sched_setaffinity(0, {core})
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    print(listener.socket.getsockname()[1], flush=True)

    async def one(stream: trio.SocketStream) -> None:
        await answer_all(answer, stream)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, one, [listener])
        await trio.to_thread.run_sync(sys.stdin.read)
        nursery.cancel_scope.cancel()
