"""An answer as newline-delimited JSON, line by line as it comes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final

import trio

from spear.dialects.ollama import LineDecoder
from spear.dialects.openai_chat import MAX_PARTS
from spear.egress import MAX_STREAM_BYTES

from ._client import check_parts
from ._exchange import Received
from ._failures import broken_answer

_SLICE: Final = 4096
"""How much is cut into lines before others get their turn."""


async def lines_of(received: Received) -> AsyncGenerator[tuple[bytes, bool], None]:
    """The lines that are not blank; with each, whether it was only complete because the stream ended."""
    decoder = LineDecoder()
    size = 0
    while (data := await received.more()) is not None:
        size += len(data)
        if size > MAX_STREAM_BYTES:
            raise broken_answer("response too large")
        for start in range(0, len(data), _SLICE):
            if start:
                await trio.lowlevel.checkpoint()
            for line in decoder.feed(data[start : start + _SLICE]):
                if len(line) > MAX_PARTS:
                    await check_parts(line)
                yield line, False
    for line in decoder.finish():
        yield line, True
