"""What has come of a body is one piece, however many chunks it came in; what is wrong behind it is told behind it."""

from __future__ import annotations

from functools import partial

import pytest
import trio

from spear.backends import Finished, Host, find_kind
from spear.ir import BackendError, ContentDelta, ErrorCode
from tests.spear.backends._support import ask, call, instance

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(text: str) -> bytes:
    return b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % text.encode()


async def told(*pieces: bytes) -> tuple[list[str], BaseException | None]:
    """By a server that writes these, each in a segment of its own."""

    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some(65_536)
        for piece in pieces:
            await stream.send_all(piece)
            await trio.sleep(0.02)
        await stream.aclose()

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            (listener,) = await nursery.start(partial(trio.serve_tcp, host="127.0.0.1"), serve, 0)
            answer = await _read(f"http://127.0.0.1:{listener.socket.getsockname()[1]}/v1")
            nursery.cancel_scope.cancel()
    return answer


async def _read(base_url: str) -> tuple[list[str], BaseException | None]:
    said: list[str] = []
    async with find_kind("openai_chat").open(instance(base_url=base_url), Host()) as adapter:
        try:
            async with adapter.stream(ask(), call()) as items:
                async for item in items:
                    said += [item.delta] if isinstance(item, ContentDelta) else []
                    said += ["end"] if isinstance(item, Finished) else []
        except BackendError as error:
            return said, error
    return said, None


BODY = b"".join(map(chunk, [event("a"), event("b") + event("c"), event("d"), b"data: [DONE]\n\n"])) + END


@pytest.mark.parametrize("size", [1, 7, 50, 100, 10_000])
async def test_however_it_is_cut(size: int) -> None:
    whole = HEAD + BODY
    pieces = [whole] if size > 1000 else [whole[:300], *(whole[at : at + size] for at in range(300, len(whole), size))]
    assert await told(*pieces[:40], b"".join(pieces[40:])) == (["a", "b", "c", "d", "end"], None)


async def test_what_came_before_a_broken_chunk_is_told_before_the_failure() -> None:
    said, error = await told(HEAD + chunk(event("a")) + chunk(event("b")) + b"no chunk at all\r\n")
    assert said == ["a", "b"]
    assert isinstance(error, BackendError)
    assert error.code == ErrorCode.STREAM_TRUNCATED
    assert "not valid HTTP" in error.error.message


async def test_a_body_without_a_length_ends_with_its_connection() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
    assert await told(head, event("a") + event("b"), b"data: [DONE]\n\n") == (["a", "b", "end"], None)
