"""The store as files.

    objects/<id>/data, record.json     an object; it exists from the rename of this folder to the rename away from it
    blobs/<sha256>                     one more name of the bytes, by which objects with the same bytes share them
    writing/<process>/<id>/            what is being written or removed; goes when the process has gone

Every step in between leaves either no object or a whole one, so that a killed process leaves nothing to repair. Several
processes may use one folder; each counts what it has seen of it.
"""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Final

from spear.ir import CallerError, ErrorCode, StoredMedia
from spear.telemetry import get_logger

from ._account import Account, Quotas
from ._claims import Claim, sweep_claims
from ._errors import damaged, not_found, of_disk, overloaded
from ._names import check_mime, check_task, id_of, is_id, new_id
from ._reading import Reading
from ._record import MAX_RECORD_BYTES, MOST_GRANTS, DamagedRecord, Record, parse_record
from ._writing import DATA, RECORD, Writing, share, sync, write_record

COPIED: Final = "copied"
"""Stands beside an object that is in the second tier."""
OPEN_OBJECTS: Final = 256
"""Open for reading at a time: each keeps a descriptor."""
OPEN_OBJECTS_OF_TASK: Final = 64
"""Of these, by one task: what it keeps open nobody else has to do without."""
_log = get_logger("spear.media")


class FileStore:
    """Its calls are plain file operations and never wait for anything else; they may be made from any thread.
    `lasting`: the folder outlives the process, so that writing to the disk for good makes sense."""

    def __init__(
        self,
        root: Path,
        quotas: Quotas,
        *,
        expire_s: float,
        lasting: bool = True,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Opens the folder, which is made if need be, and reads what is in it. Raises OSError."""
        self.root = root
        self.account = Account(quotas)
        self.expire_s = expire_s
        self.lasting = lasting
        self.now = now
        self.unsynced: deque[str] = deque(maxlen=quotas.objects)
        """Objects that were committed without `durable`, where that means something. Of more than there may be objects,
        the oldest are left to the system, which syncs by itself."""
        self.copies = False
        """Whether objects are copied to a second tier: then these two say what waits for it. Of more than there may be
        objects, the oldest wait for the next start, and for the bucket's own expiry."""
        self.uncopied: deque[str] = deque(maxlen=quotas.objects)
        self.removed: deque[str] = deque(maxlen=quotas.objects)
        self.on_commit: Callable[[], None] | None = None
        """Called, in the thread of the commit, when there is one more of any of these."""
        self._objects, self._blobs, self._writing = (root / name for name in ("objects", "blobs", "writing"))
        for folder in (root, self._objects, self._blobs, self._writing):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._index: dict[str, Record] = {}
        self._lock = Lock()
        self._readings: Counter[str | None] = Counter()  # of whom
        sweep_claims(self._writing)
        self._own = Claim(self._writing)
        self.sweep()

    def close(self) -> None:
        """What is being written is dropped. Objects that are open for reading can still be read."""
        self._own.release()

    # --- objects ------------------------------------------------------------------------------------------------

    def create(self, mime: str, owner: str | None) -> Writing:
        """A new object of that task; it counts from here on. Raises `CallerError`: invalid_request, media_too_large."""
        check_mime(mime)
        check_task(owner)
        self._within(lambda: self.account.take_object(owner))
        object_id = new_id()
        folder = self._own.path / object_id
        try:
            folder.mkdir(mode=0o700)
        except OSError as error:
            self.account.give_back(owner, 0)
            raise of_disk(error) from None
        return Writing(self, object_id, mime, owner, folder)

    def open(self, uri: str, task_id: str | None) -> Reading:
        """Raises `CallerError` (media_not_found) for what is not there, has expired, is damaged, or may not be read by
        this task; RoutingError (overloaded) where too many are open."""
        record = self.find(uri, task_id)
        with self._lock:
            if self._readings.total() >= OPEN_OBJECTS:
                raise overloaded(f"{OPEN_OBJECTS} objects are open for reading already")
            if task_id is not None and self._readings[task_id] >= OPEN_OBJECTS_OF_TASK:
                raise overloaded(f"the task has {OPEN_OBJECTS_OF_TASK} objects open for reading already")
            self._readings[task_id] += 1
        try:
            return Reading(self, record, self._open(record), task_id)
        except BaseException:
            self.closed_reading(task_id)
            raise

    def _open(self, record: Record) -> int:
        try:
            descriptor = os.open(self._objects / record.id / DATA, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            self._forget(record.id)  # another process has deleted it
            raise not_found() from None
        except OSError as error:
            raise of_disk(error) from None
        if os.fstat(descriptor).st_size != record.size:
            os.close(descriptor)
            self.unshare(record)
            raise damaged()
        return descriptor

    def find(self, uri: str, task_id: str | None) -> Record:
        """The record of an object; raises as `open`."""
        object_id = id_of(uri)
        record = None if object_id is None else self._index.get(object_id)
        if record is None and object_id is not None:
            record = self._look(object_id)
        if record is None or record.expires <= self.now() or not record.readable_by(task_id):
            raise not_found()
        return record

    def grant(self, uri: str, task_id: str) -> None:
        """Let one more task read it. Raises `CallerError`: media_not_found, invalid_request."""
        record = self.find(uri, None)
        check_task(task_id)
        if record.readable_by(task_id):
            return
        if len(record.grants) >= MOST_GRANTS:
            raise overloaded(f"the object is granted to {MOST_GRANTS} tasks already")
        granted = record.model_copy(update={"grants": (*record.grants, task_id)})
        try:
            write_record(self._objects / record.id, granted, durable=self.lasting)
        except FileNotFoundError:
            self._forget(record.id)
            raise not_found() from None
        except OSError as error:
            raise of_disk(error) from None
        with self._lock:
            if record.id in self._index:
                self._index[record.id] = granted

    def delete(self, object_id: str) -> None:
        """Nothing happens where it is not there. Whoever has it open can read it to its end."""
        if not is_id(object_id):
            return
        gone = self._own.path / f"gone-{new_id()}"
        try:
            os.rename(self._objects / object_id, gone)
        except FileNotFoundError:
            self._forget(object_id)
            return
        except OSError as error:
            raise of_disk(error) from None
        record = self._forget(object_id)
        shutil.rmtree(gone, ignore_errors=True)
        if record is not None:
            self.drop_blob(record.sha256)
        if self.copies:
            self.removed.append(object_id)
            self._tell()

    def delete_task(self, task_id: str) -> int:
        """All committed objects of a task; how many."""
        with self._lock:
            owned = [each.id for each in self._index.values() if each.owner == task_id]
        for object_id in owned:
            self.delete(object_id)
        return len(owned)

    def sweep(self) -> int:
        """Delete what has expired, and look for what other processes have stored. How many were deleted."""
        now = self.now()
        for name in self._names():
            if name not in self._index and self._look(name) is None:
                self._remove_old_damage(name, now)
        with self._lock:
            expired = [each.id for each in self._index.values() if each.expires <= now]
        for object_id in expired:
            self.delete(object_id)
        with suppress(OSError):
            for entry in list(os.scandir(self._blobs)):
                self.drop_blob(entry.name)
        return len(expired)

    def copy_to_second_tier(self) -> None:
        """From now on, and what is there without having been copied."""
        self.copies = True
        for object_id in self.all_ids():
            if not (self._objects / object_id / COPIED).exists():
                self.uncopied.append(object_id)

    def all_ids(self) -> list[str]:
        with self._lock:
            return list(self._index)

    # --- for handles --------------------------------------------------------------------------------------------

    def take_bytes(self, owner: str | None, count: int) -> None:
        self._within(lambda: self.account.take_bytes(owner, count))

    def _within(self, take: Callable[[], None]) -> None:
        """What has expired makes place first."""
        try:
            take()
        except CallerError as error:
            if error.code is not ErrorCode.MEDIA_TOO_LARGE or not self._expired():
                raise
            self.sweep()
            take()

    def _expired(self) -> bool:
        now = self.now()
        with self._lock:
            return any(each.expires <= now for each in self._index.values())

    def recreate(self, record: Record) -> Writing:
        """To write an object that was elsewhere, under its own name. Raises `CallerError` (media_too_large)."""
        self._within(lambda: self.account.take_object(record.owner))
        folder = self._own.path / f"back-{new_id()}"
        try:
            folder.mkdir(mode=0o700)
        except OSError as error:
            self.account.give_back(record.owner, 0)
            raise of_disk(error) from None
        return Writing(self, record.id, record.mime, record.owner, folder)

    def seal(self, folder: Path, record: Record, *, durable: bool, copied: bool = False) -> None:
        """Make an object of what stands in `folder`."""
        durable = durable and self.lasting
        if copied:
            (folder / COPIED).touch()
        share(folder / DATA, self._blobs / record.sha256, record.size, sure=durable)
        write_record(folder, record, durable=durable)
        if durable:
            sync(folder / DATA)
            sync(folder)
        with self._lock:
            first = self._index.setdefault(record.id, record) is record  # so that nobody counts it as found
        try:
            os.rename(folder, self._objects / record.id)
        except BaseException:
            if first:
                with self._lock:
                    self._index.pop(record.id, None)
            raise
        if durable:
            sync(self._objects)
            return
        if self.lasting:
            self.unsynced.append(record.id)
        if self.copies:
            self.uncopied.append(record.id)
        self._tell()

    def _tell(self) -> None:
        if self.on_commit is not None:
            self.on_commit()

    def copy_later(self, object_id: str) -> None:
        self.uncopied.append(object_id)
        self._tell()

    def mark_copied(self, object_id: str) -> None:
        with suppress(FileNotFoundError):
            (self._objects / object_id / COPIED).touch()

    def make_durable(self, object_id: str) -> None:
        """What `durable` would have done. Raises OSError; nothing happens where the object is gone."""
        folder = self._objects / object_id
        with suppress(FileNotFoundError):
            for path in (folder / DATA, folder / RECORD, folder, self._objects):
                sync(path)

    def closed_reading(self, task_id: str | None) -> None:
        with self._lock:
            self._readings[task_id] -= 1
            if not self._readings[task_id]:
                del self._readings[task_id]

    def unshare(self, record: Record) -> None:
        """Its bytes are damaged: nobody else gets them."""
        _log.error("media_damaged", sha256=record.sha256, size=record.size)
        with suppress(OSError):
            blob = self._blobs / record.sha256
            if os.path.samefile(blob, self._objects / record.id / DATA):
                blob.unlink()

    def path_of(self, object_id: str) -> Path:
        """Where its bytes are."""
        return self._objects / object_id / DATA

    def has(self, object_id: str) -> bool:
        return object_id in self._index or self._look(object_id) is not None

    def ref(self, object_id: str) -> StoredMedia | None:
        record = self._index.get(object_id)
        return None if record is None else record.ref

    def record(self, object_id: str) -> Record | None:
        return self._index.get(object_id)

    # --- what is on the disk ------------------------------------------------------------------------------------

    def _names(self) -> Iterator[str]:
        with suppress(OSError), os.scandir(self._objects) as entries:
            for entry in entries:
                if is_id(entry.name):
                    yield entry.name

    def _look(self, object_id: str) -> Record | None:
        """Into an object that is not known yet, by this process."""
        folder = self._objects / object_id
        try:
            record = parse_record(_read_record(folder), object_id)
        except FileNotFoundError:
            return None
        except (OSError, DamagedRecord) as error:
            _log.warning("media_record_damaged", object=object_id, error=str(error)[:100])
            return None
        with self._lock:
            if object_id not in self._index:
                self._index[object_id] = record
                self.account.count(record.owner, record.size)
        return record

    def _forget(self, object_id: str) -> Record | None:
        with self._lock:
            record = self._index.pop(object_id, None)
        if record is not None:
            self.account.give_back(record.owner, record.size)
        return record

    def _remove_old_damage(self, object_id: str, now: float) -> None:
        """What has no record that can be read is kept for as long as an object would be."""
        with suppress(OSError):
            if os.lstat(self._objects / object_id).st_mtime + self.expire_s < now:
                self.delete(object_id)

    def drop_blob(self, sha256: str) -> None:
        """Unless an object has the bytes. One that gets them just now keeps them, and only the shared name goes."""
        blob = self._blobs / sha256
        with suppress(OSError):
            if os.lstat(blob).st_nlink <= 1:
                blob.unlink()


def _read_record(folder: Path) -> bytes:
    """Not through a link, and not waiting at a pipe: somebody else may have put it there."""
    descriptor = os.open(folder / RECORD, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.read(descriptor, MAX_RECORD_BYTES + 1)
    finally:
        os.close(descriptor)
