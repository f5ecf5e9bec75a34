"""What a turn has stored: the objects of an answer that nobody gets are deleted again.

A caller that leaves while the last bytes are committed, an attempt that another one overtakes, pieces that were joined
into one: each would leave an object that nobody knows of until it expires.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from typing import Final

import trio

from spear.ir import MediaRef, Operation, StoredMedia
from spear.media import MediaAccess, MediaBytes, MediaReading, MediaWriting

from ._protocol import Answer

MAKING: Final = frozenset({Operation.IMAGE_GENERATION, Operation.TEXT_TO_SPEECH})
"""Operations whose answers are objects."""
_made: ContextVar[list[StoredMedia] | None] = ContextVar("spear_made_in_this_turn", default=None)


class TurnMedia:
    """`MediaAccess` for one instance."""

    def __init__(self, media: MediaAccess) -> None:
        self._media = media

    @asynccontextmanager
    async def turn(self) -> AsyncGenerator[list[StoredMedia], None]:
        """For one turn: what it stored. What is still in the list at the end is deleted."""
        made: list[StoredMedia] = []
        token = _made.set(made)
        try:
            yield made
        finally:
            _made.reset(token)
            if made:
                with trio.CancelScope(shield=True):  # as long as the disk takes
                    for ref in made:
                        await self._media.delete(ref)

    async def save(self, data: bytes, mime: str, *, task_id: str | None) -> StoredMedia:
        async with self.write(mime, task_id=task_id) as writing:
            await writing.write(data)
            return await writing.commit()

    async def load(self, ref: MediaRef, *, task_id: str | None, max_bytes: int | None = None) -> MediaBytes:
        return await self._media.load(ref, task_id=task_id, max_bytes=max_bytes)

    @asynccontextmanager
    async def write(self, mime: str, *, task_id: str | None) -> AsyncGenerator[MediaWriting, None]:
        async with self._media.write(mime, task_id=task_id) as writing:
            yield _Noted(writing)

    def read(self, ref: MediaRef, *, task_id: str | None) -> AbstractAsyncContextManager[MediaReading]:
        return self._media.read(ref, task_id=task_id)

    async def delete(self, ref: StoredMedia) -> None:
        await self._media.delete(ref)


class _Noted:
    def __init__(self, writing: MediaWriting) -> None:
        self._writing = writing

    async def write(self, data: bytes) -> None:
        await self._writing.write(data)

    async def commit(self) -> StoredMedia:
        ref = await self._writing.commit()
        made = _made.get()
        if made is not None and ref not in made:
            made.append(ref)
        return ref


def hand_over(made: list[StoredMedia], answer: Answer) -> None:
    """Those that `answer` names, anywhere in it, are its caller's."""
    told = answer.payload.model_dump_json()
    made[:] = [ref for ref in made if ref.uri not in told]
