"""A large recording is sent as it is: not joined with its form, not copied on its way to the socket."""

from __future__ import annotations

import tracemalloc
from functools import partial

import trio

from spear.backends import Host, find_kind
from spear.ir import SpeechToTextRequest
from tests.spear.backends._memory_media import MemoryMedia
from tests.spear.backends._support import call, instance
from tests.spear.backends.test_openai_operations import asking

SIZE = 48 * 1024 * 1024
MORE = 8 * 1024 * 1024  # what may be added to it
ANSWER = b'{"text":"long"}'


async def test_a_large_recording_is_not_copied() -> None:
    received = 0

    async def server(stream: trio.SocketStream) -> None:
        nonlocal received
        head = b""
        while b"\r\n\r\n" not in head:
            head += await stream.receive_some(65_536)
        head, _, body = head.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        received = len(body)
        while received < length:
            received += len(await stream.receive_some(65_536))
        assert received == length
        await stream.send_all(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(ANSWER) + ANSWER
        )

    media = MemoryMedia()
    ref = await media.save(bytes(SIZE), "audio/wav", task_id=None)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            (listener,) = await nursery.start(partial(trio.serve_tcp, host="127.0.0.1"), server, 0)
            configured = instance(kind="openai", base_url=f"http://127.0.0.1:{listener.socket.getsockname()[1]}/v1")
            async with find_kind("openai").open(configured, Host(media=media)) as adapter:
                tracemalloc.start()
                try:
                    answer = await adapter.invoke(asking(SpeechToTextRequest(audio=ref)), call())
                    _, peak = tracemalloc.get_traced_memory()
                finally:
                    tracemalloc.stop()
            nursery.cancel_scope.cancel()
    assert answer.payload.text == "long"  # type: ignore[union-attr]
    assert received > SIZE
    assert peak < MORE
