"""The store as the rest of Spear sees it: the files behind it in threads, and references of every kind."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from spear._extras import MissingExtra, need
from spear.config import MediaConfig
from spear.ir import CallerError, ErrorCode, InlineMedia, MediaRef, StoredMedia, UrlMedia, make_error

from ._account import Quotas
from ._claims import Claim, private_folder, sweep_claims
from ._errors import not_allowed, of_disk, too_large
from ._names import check_mime, id_of
from ._policy import place_of, policy_of
from ._port import MediaBytes, MediaReading, MediaWriting
from ._writing import Writing

if TYPE_CHECKING:
    from ._copies import Copies
    from ._fetch import Fetcher
    from ._files import FileStore
    from ._reading import Reading

ResultT = TypeVar("ResultT")

STEP_BYTES: Final = 4 * 1024 * 1024
"""In a thread at a time; a cancellation waits for that."""
THREADS: Final = 4
"""At work for the store at a time; more wait."""


class MediaStore:
    """`MediaAccess` over files. Nothing is made on the disk before the first use, unless a folder is configured.

    `files` is the synchronous face of the same objects, for hostcalls, which must not wait. Every call here may be
    cancelled: an object is then committed whole or not at all, and what is open is closed. A call waits for what it
    has under way on the disk (at most a few MiB), never leaves it behind."""

    def __init__(self, config: MediaConfig | None = None) -> None:
        """Raises ValueError for an origin that is none."""
        self.config = MediaConfig() if config is None else config
        self._files: FileStore | None = None
        self._claim: Claim | None = None
        self._opening = Lock()
        self._closed = False
        self._fetching = policy_of(self.config)
        self._fetcher: Fetcher | None = None
        self._limiter = trio.CapacityLimiter(THREADS)
        self.opened: Callable[[], Awaitable[None]] | None = None
        """Awaited before each asynchronous use: starts whoever looks after the store."""
        self.copies: Copies | None = None
        """The second tier, where there is one."""

    @property
    def used(self) -> bool:
        return self._files is not None

    @property
    def files(self) -> FileStore:
        """Opened by the first who asks: a new private folder takes a millisecond, a configured one is open already.
        Raises SpearError where the disk does not allow it."""
        files = self._files
        return self._open() if files is None else files

    def _open(self) -> FileStore:
        from ._files import FileStore

        with self._opening:
            if self._files is not None:
                return self._files
            if self._closed:
                raise not_allowed("the media store is closed")
            config = self.config
            quotas = Quotas(
                object_bytes=config.max_object_bytes,
                task_bytes=config.max_task_bytes,
                task_objects=config.max_task_objects,
                bytes=config.max_bytes,
                objects=config.max_objects,
            )
            try:
                root = config.path or self._private_folder()
                self._files = FileStore(root, quotas, expire_s=config.expire_s, lasting=config.path is not None)
            except OSError as error:
                raise of_disk(error) from None
            return self._files

    def _private_folder(self) -> Path:
        """One that goes with the runtime. Those of processes that were killed go now."""
        parent = Path(tempfile.gettempdir(), f"spear-media-{os.getuid()}")
        if not private_folder(parent):
            parent = Path(tempfile.mkdtemp(prefix="spear-media-"))
        sweep_claims(parent)
        self._claim = Claim(parent)
        return self._claim.path / "store"

    def close(self) -> None:
        """For threads: removing a private folder takes a while. Objects that are open can still be read."""
        with self._opening:
            self._closed = True
            files, self._files = self._files, None
            if files is not None:
                files.close()
            if self._claim is not None:
                self._claim.release()

    async def ready(self) -> FileStore:
        """`files`, with somebody who looks after them."""
        if self.opened is not None:
            await self.opened()
        return await self.opened_files()

    async def opened_files(self) -> FileStore:
        """`files`, opened in a thread where they are not."""
        if self._files is None:
            await self.in_thread(self._open)
        if self.config.s3 is not None and self.copies is None:
            from ._copies import Copies

            self.copies = Copies(self.config.s3, self.files)
            await self.in_thread(self.files.copy_to_second_tier)
        return self.files

    # --- MediaAccess --------------------------------------------------------------------------------------------

    async def save(self, data: bytes, mime: str, *, task_id: str | None) -> StoredMedia:
        async with self.write(mime, task_id=task_id) as writing:
            await writing.write(data)
            return await writing.commit()

    async def load(self, ref: MediaRef, *, task_id: str | None, max_bytes: int | None = None) -> MediaBytes:
        """As `MediaAccess.load`."""
        limit = self.config.max_object_bytes if max_bytes is None else min(max_bytes, self.config.max_object_bytes)
        if isinstance(ref, InlineMedia):
            await trio.lowlevel.checkpoint()
            data = ref.decode()
            _check_size(len(data), limit)
            return MediaBytes(data, ref.mime)
        if isinstance(ref, UrlMedia):
            return await self._fetch(ref, limit)
        async with self.read(ref, task_id=task_id) as reading:
            _check_size(reading.size, limit)
            parts = []
            while part := await reading.read(STEP_BYTES):
                parts.append(part)
            return MediaBytes(b"".join(parts), reading.mime)

    def fetches(self, url: str) -> bool:
        """Whether anything is fetched from that URL's origin; it does not say that there is something."""
        try:
            place_of(url, self._fetching)
        except CallerError:
            return False
        return True

    async def _fetch(self, ref: UrlMedia, limit: int) -> MediaBytes:
        if self._fetcher is None:
            try:
                fetcher = need("spear.media._fetch", None).Fetcher  # which needs an HTTP client
            except MissingExtra as error:
                message = f"nothing can be fetched: {error}"
                raise CallerError(make_error(ErrorCode.MEDIA_NOT_ALLOWED, message)) from None
            self._fetcher = fetcher(self._fetching)
        return await self._fetcher.fetch(ref.url, mime=ref.mime, limit=limit)

    @asynccontextmanager
    async def write(self, mime: str, *, task_id: str | None) -> AsyncGenerator[MediaWriting, None]:
        check_mime(mime)
        files = await self.ready()
        writing = files.create(mime, task_id)
        try:
            yield _Writing(self, writing)
        finally:
            if writing.committed is None:
                with trio.CancelScope(shield=True):  # some milliseconds
                    await self.in_thread(writing.discard)

    @asynccontextmanager
    async def read(self, ref: MediaRef, *, task_id: str | None) -> AsyncGenerator[MediaReading, None]:
        if not isinstance(ref, StoredMedia):
            yield _InMemory(await self.load(ref, task_id=task_id))
            return
        files = await self.ready()
        reading = await self._opened(files, ref.uri, task_id)
        try:
            yield _Reading(self, reading)
        finally:
            reading.close()

    async def _opened(self, files: FileStore, uri: str, task_id: str | None) -> Reading:
        # Opened here, not in a thread: there it could be lost to a cancellation.
        await trio.lowlevel.checkpoint()
        object_id = id_of(uri)
        if self.copies is not None and object_id is not None and not files.has(object_id):
            await self.copies.bring(object_id, task_id)
        return files.open(uri, task_id)

    # --- for the host -------------------------------------------------------------------------------------------

    async def grant(self, ref: StoredMedia, *, task_id: str) -> None:
        """Let one more task read it. Raises `CallerError` (media_not_found)."""
        files = await self.ready()
        await self.in_thread(partial(files.grant, ref.uri, task_id))

    async def delete(self, ref: StoredMedia) -> None:
        """Whoever has it open reads it to its end. Nothing happens where it is not there."""
        object_id = id_of(ref.uri)
        if object_id is not None:
            files = await self.ready()
            await self.in_thread(partial(files.delete, object_id))

    async def delete_task(self, task_id: str) -> int:
        """All objects of that task; how many they were."""
        if self._files is None:
            return 0
        files = await self.ready()
        return await self.in_thread(partial(files.delete_task, task_id))

    async def in_thread(self, work: Callable[[], ResultT]) -> ResultT:
        return await trio.to_thread.run_sync(work, limiter=self._limiter)


class _Writing:
    def __init__(self, store: MediaStore, writing: Writing) -> None:
        self._store = store
        self._writing = writing

    async def write(self, data: bytes) -> None:
        whole = memoryview(data)
        for start in range(0, len(data), STEP_BYTES):
            await self._store.in_thread(partial(self._writing.append, whole[start : start + STEP_BYTES]))

    async def commit(self) -> StoredMedia:
        first = self._writing.committed is None
        ref = await self._store.in_thread(partial(self._writing.commit, durable=True))
        if first and self._store.copies is not None:
            await self._store.copies.copy_now(self._writing.id)
        return ref


class _Reading:
    def __init__(self, store: MediaStore, reading: Reading) -> None:
        self._store = store
        self._reading = reading
        self.size = reading.size
        self.mime = reading.mime

    async def read(self, max_bytes: int) -> bytes:
        return await self._store.in_thread(partial(self._reading.read, min(max_bytes, STEP_BYTES)))


class _InMemory:
    def __init__(self, media: MediaBytes) -> None:
        self._data = media.data
        self._position = 0
        self.size = len(media.data)
        self.mime = media.mime

    async def read(self, max_bytes: int) -> bytes:
        await trio.lowlevel.checkpoint()
        data = self._data[self._position : self._position + max(0, max_bytes)]
        self._position += len(data)
        return data


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise too_large(f"the object has {size} bytes; at most {limit} can be used here")
