"""Several objects of one answer, stored together or not at all."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AsyncExitStack

from spear.ir import StoredMedia
from spear.media import MediaAccess


async def keep_all(
    objects: Iterable[tuple[bytes, str]], media: MediaAccess, *, task_id: str | None
) -> tuple[StoredMedia, ...]:
    """A reference to each, given as bytes and type. Raises `CallerError` where one has no place; then none is kept."""
    async with AsyncExitStack() as stack:
        writings = []
        for data, mime in objects:
            writing = await stack.enter_async_context(media.write(mime, task_id=task_id))
            await writing.write(data)
            writings.append(writing)
        return tuple([await writing.commit() for writing in writings])
