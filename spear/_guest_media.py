"""The media store as the hostcalls of one guest see it: synchronous, and for its task alone."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import trio

from .ir import CallerError, StoredMedia
from .media import MediaStore

if TYPE_CHECKING:
    from .hostcall import MediaReader, MediaWriter


class GuestMedia:
    def __init__(self, store: MediaStore, task_id: str) -> None:
        self._store = store
        self._task_id = task_id

    def create(self, mime: str) -> MediaWriter:
        return self._store.files.create(mime, self._task_id)

    def open(self, uri: str) -> MediaReader:
        return self._store.files.open(uri, self._task_id)

    def find(self, uri: str) -> StoredMedia | None:
        try:
            return self._store.files.find(uri, self._task_id).ref
        except CallerError:
            return None

    def may_fetch(self, url: str) -> bool:
        return self._store.fetches(url)

    @asynccontextmanager
    async def kept(self, pieces: Iterable[bytes], mime: str) -> AsyncGenerator[StoredMedia, None]:
        """An object of the task for as long as the block lasts: for what goes to a backend and is of no use then. Waits
        for the disk's cache, not for the disk. Raises `CallerError` (media_too_large) where there is no room."""
        store = self._store
        files = await store.ready()
        writing = files.create(mime, self._task_id)
        try:
            for piece in pieces:
                await store.in_thread(partial(writing.append, piece))
            yield await store.in_thread(writing.commit)
        finally:
            with trio.CancelScope(shield=True):  # some milliseconds
                if writing.committed is None:
                    await store.in_thread(writing.discard)
                else:
                    await store.in_thread(partial(files.delete, writing.id))
