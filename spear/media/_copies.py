"""The second tier: what is copied to a bucket, what is brought back from there, and what waits for it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from spear.config import S3Config
from spear.ir import SpearError
from spear.telemetry import get_logger

from ._errors import damaged, not_found
from ._record import DamagedRecord, Record, parse_record
from ._s3 import Bucket, BucketError

if TYPE_CHECKING:
    from ._files import FileStore

ResultT = TypeVar("ResultT")
_log = get_logger("spear.media")
THREADS: Final = 4
_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 30.0


class Copies:
    """A call of the bucket that is cancelled goes on in its thread until its time is over; nothing depends on it."""

    def __init__(self, config: S3Config, files: FileStore) -> None:
        self._bucket = Bucket(config)
        self._config = config
        self._files = files
        self._limiter = trio.CapacityLimiter(THREADS)
        self._bringing: dict[str, trio.Lock] = {}
        self.copied = self.brought = self.failed = 0
        self.problem = ""

    async def copy_now(self, object_id: str) -> None:
        """Waits until it is copied, for as long as the bucket may take; what is not copied then, is later."""
        done = False
        try:
            with trio.move_on_after(2 * self._config.timeout_s):
                done = await self._copy(object_id)
        finally:
            if not done:
                self._files.copy_later(object_id)

    async def bring(self, object_id: str, task_id: str | None) -> None:
        """Store an object that is only in the bucket. Raises `CallerError` (media_not_found) where it is not there,
        has expired, is damaged, or may not be read by this task."""
        async with self._alone(object_id):
            if self._files.has(object_id):
                return  # others asked for it, too
            try:
                await self._in_thread(partial(self._bring, object_id, task_id))
            except BucketError as error:
                self._fail(error)
                raise not_found() from None

    @asynccontextmanager
    async def _alone(self, object_id: str) -> AsyncGenerator[None, None]:
        lock = self._bringing.setdefault(object_id, trio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.statistics().tasks_waiting:
                self._bringing.pop(object_id, None)

    async def keep_up(self, woken: Callable[[], trio.Event]) -> None:
        """Copy and delete what waits, as it comes, for ever."""
        pause = _PAUSE_S
        while True:
            event = woken()
            if not self._files.uncopied and not self._files.removed:
                await event.wait()
            elif await self.catch_up():
                pause = _PAUSE_S
            else:
                await trio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_S)

    async def catch_up(self) -> bool:
        """What waits now; whether nothing failed."""
        files = self._files
        for waiting, work in ((files.uncopied, self._copy), (files.removed, self._remove)):
            while waiting:
                object_id, done = waiting.popleft(), False
                try:
                    done = await work(object_id)
                finally:
                    if not done:
                        waiting.appendleft(object_id)
                if not done:
                    return False
        return True

    async def _remove(self, object_id: str) -> bool:
        try:
            await self._in_thread(partial(self._bucket.delete, object_id))
        except BucketError as error:
            self._fail(error)
            return False
        return True

    async def _copy(self, object_id: str) -> bool:
        record = self._files.record(object_id)
        if record is None:
            return True
        try:
            await self._in_thread(partial(self._put, record))
        except FileNotFoundError:
            return True  # deleted in the meantime
        except (BucketError, OSError) as error:
            self._fail(error)
            return False
        self.copied += 1
        self.problem = ""
        return True

    def _put(self, record: Record) -> None:
        self._bucket.put(record, self._files.path_of(record.id))
        self._files.mark_copied(record.id)

    def _bring(self, object_id: str, task_id: str | None) -> None:
        data = self._bucket.record(object_id)
        if data is None:
            raise not_found()
        try:
            record = parse_record(data, object_id)
        except DamagedRecord:
            raise not_found() from None
        if record.expires <= self._files.now() or not record.readable_by(task_id):
            raise not_found()
        writing = self._files.recreate(record)
        try:
            if not self._bucket.get(record, writing.append):
                raise not_found()
            if writing.commit_as(record):
                self.brought += 1
            else:
                raise damaged()
        finally:
            with suppress(SpearError):
                writing.discard()

    def _fail(self, error: Exception) -> None:
        self.failed += 1
        if str(error) != self.problem:
            self.problem = str(error)
            _log.warning("media_bucket", problem=self.problem)

    async def _in_thread(self, work: Callable[[], ResultT]) -> ResultT:
        return await trio.to_thread.run_sync(work, limiter=self._limiter, abandon_on_cancel=True)
