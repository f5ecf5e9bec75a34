"""However an answer is made, others get their turn while it is read."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from spear.backends._http._client import check_parts, payloads_of


class Piece:
    """Stands for what a connection gave: one piece that is there at once, then the end."""

    def __init__(self, data: bytes) -> None:
        self.left: list[bytes | None] = [data, None]

    async def more(self) -> bytes | None:
        return self.left.pop(0)


async def turns_of_others(work: Any) -> int:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        await work()
        nursery.cancel_scope.cancel()
    return turns


@pytest.mark.parametrize("line", [b"\n", b":\n", b"\r\n"])
async def test_lines_that_say_nothing(line: bytes) -> None:
    async def read() -> None:
        piece: Any = Piece(line * (65_536 // len(line)))
        assert [payload async for payload in payloads_of(piece)] == []

    assert await turns_of_others(read) >= 12


async def test_events(autojump_clock: trio.testing.MockClock) -> None:
    async def read() -> None:
        piece: Any = Piece(b"data: {}\n\n" * 6500 + b"data: [")
        assert [payload async for payload in payloads_of(piece)] == [(b"{}", False)] * 6500 + [(b"[", True)]

    assert await turns_of_others(read) >= 12


async def test_commas_in_a_text() -> None:
    async def check() -> None:
        await check_parts(b'"' + b"," * 4_194_304 + b'"')

    assert await turns_of_others(check) >= 12
