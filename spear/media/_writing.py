"""An object that is being written: a folder of its own, which a single rename makes an object."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

from spear.ir import StoredMedia, invalid_request

from ._errors import disk_errors, of_disk, too_large
from ._hashing import Hashing
from ._record import Record
from ._writeback import EVERY_BYTES, begin_writeback

if TYPE_CHECKING:
    from ._files import FileStore

PIECE_BYTES: Final = 1024 * 1024
DATA, RECORD = "data", "record.json"


class Writing:
    """One at a time may use it. All calls are plain file operations: into the page cache, some 0.5 ms for a MiB,
    checksum included, so that up to 4 MiB are fit for the loop. Nothing is visible before `commit`; what is neither
    committed nor discarded goes with the process."""

    def __init__(self, store: FileStore, object_id: str, mime: str, owner: str | None, folder: Path) -> None:
        self.id = object_id
        self.mime = mime
        self.owner = owner
        self.size = 0
        self.committed: Record | None = None
        self._store = store
        self._folder = folder
        self._hash = Hashing()
        self._open = True
        self._begun = 0

    def append(self, data: bytes | memoryview) -> None:
        """All of it or nothing. `data` is still read when this has returned, until the next call: it must not change.
        Raises `CallerError`: media_too_large beyond the limits of an object, of its task or of
        the store, or where the disk is full; invalid_request once it is committed or discarded."""
        if not self._open or self.committed is not None:
            raise invalid_request("media", "the object is committed or discarded; nothing can be appended to it")
        limit = self._store.account.quotas.object_bytes
        if self.size + len(data) > limit:
            raise too_large(f"an object has at most {limit} bytes (media.max_object_bytes)")
        self._store.take_bytes(self.owner, len(data))
        try:
            self._write(data)
        except BaseException:
            self._store.account.give_back(self.owner, len(data), 0)
            raise
        self._hash.add(data)
        self.size += len(data)

    def _write(self, data: bytes | memoryview) -> None:
        with disk_errors():
            # No descriptor is kept: a thousand objects that are being written take none.
            fd = os.open(self._folder / DATA, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                _write_all(fd, data)
                self._begin_writeback(fd, self.size + len(data))
            except OSError:
                os.ftruncate(fd, self.size)
                raise
            finally:
                os.close(fd)

    def _begin_writeback(self, fd: int, size: int) -> None:
        if self._store.lasting and size - self._begun >= EVERY_BYTES:
            begin_writeback(fd, self._begun, size - self._begun)
            self._begun = size

    def commit(self, *, durable: bool = False, expires: float | None = None) -> StoredMedia:
        """Seal it; repeatable, with the same answer. From here on it survives the end of the process, however that
        comes. With `durable` it is on the disk when this returns, and survives that of the machine: that waits for the
        disk, so it is for threads. Raises `CallerError`: invalid_request where it is empty or discarded,
        media_too_large where the disk is full; it can be tried again then."""
        if self.committed is not None:
            return self.committed.ref
        if not self._open or not self.size:
            state = "has no bytes" if self._open else "was discarded"
            raise invalid_request("media", f"the object {state}; only one with bytes can be committed")
        now = self._store.now()
        record = Record(
            id=self.id,
            mime=self.mime,
            size=self.size,
            sha256=self._hash.hexdigest(),
            owner=self.owner,
            created=now,
            expires=now + self._store.expire_s if expires is None else expires,
        )
        with disk_errors():
            self._store.seal(self._folder, record, durable=durable)
        self.committed = record
        return record.ref

    def commit_as(self, record: Record) -> bool:
        """Seal it as an object that was elsewhere; False where these are not its bytes."""
        if self.size != record.size or self._hash.hexdigest() != record.sha256:
            return False
        try:
            self._store.seal(self._folder, record, durable=True, copied=True)
            self.committed = record
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise of_disk(error) from None
            # Somebody else was first, with the same bytes.
        return True

    def discard(self) -> None:
        """Delete it unless it is committed. Repeatable."""
        if not self._open or self.committed is not None:
            return
        self._open = False
        shutil.rmtree(self._folder, ignore_errors=True)
        self._store.drop_blob(self._hash.hexdigest())  # a commit may have failed half-way
        self._store.account.give_back(self.owner, self.size)


def share(data: Path, blob: Path, size: int, *, sure: bool) -> None:
    """Make `data` and `blob` one file: the one that is there, or else this one. `sure`: the one that is there is
    read first, since it may have been written shortly before the machine went down. Where the file system has no more
    links to give, each keeps its own bytes."""
    try:
        os.link(data, blob)
        return
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return
    shared = data.with_name("shared")
    shared.unlink(missing_ok=True)
    try:
        os.link(blob, shared)
    except FileNotFoundError:
        return  # just now nobody had it any more
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return
    if not os.path.samefile(shared, data):
        if shared.stat().st_size == size and (not sure or digest(shared) == blob.name):
            os.replace(shared, data)
            return
        blob.unlink(missing_ok=True)  # whoever has it keeps it, and nobody gets it any more
    shared.unlink()


_NO_LINKS: Final = frozenset({errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP, errno.EXDEV})


def digest(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while piece := file.read(PIECE_BYTES):
            found.update(piece)
    return found.hexdigest()


def write_record(folder: Path, record: Record, *, durable: bool) -> None:
    """Whole or not at all, also where there is one already."""
    fresh = folder / "record.new"
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        _write_all(fd, record.dump())
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(fresh, folder / RECORD)


def _write_all(fd: int, data: bytes | memoryview) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def sync(path: Path) -> None:
    """What stands there is on the disk afterwards; of a folder, its names."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
