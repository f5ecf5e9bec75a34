"""A whole answer, told as a stream: for operations and servers that do not stream."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable

import trio

from spear.ir import Started, StreamEvent, UsageEvent

from ._protocol import Answer, Finished, StreamItem


async def told_whole(
    backend: str, answer: Answer, deltas: Iterable[StreamEvent] = ()
) -> AsyncGenerator[StreamItem, None]:
    """`deltas` say what is in `answer`, piece by piece."""
    await trio.lowlevel.checkpoint()
    yield Started(backend=backend, model=answer.model)
    for delta in deltas:
        yield delta
    yield UsageEvent(usage=answer.usage)
    yield Finished(answer)
