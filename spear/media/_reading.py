"""An open object."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ._errors import damaged, disk_errors
from ._hashing import Hashing
from ._record import Record

if TYPE_CHECKING:
    from ._files import FileStore


class Reading:
    """One at a time may use it. Keeps a descriptor, and with it its bytes, until it is closed, whatever becomes of the
    object. All calls are plain file operations, up to 1 MiB a call fit for the loop.

    The checksum is that of all bytes, so it is looked at with the last of them: what is damaged shows before they are
    given."""

    def __init__(self, store: FileStore, record: Record, descriptor: int, task_id: str | None) -> None:
        self.record = record
        self.size = record.size
        self.mime = record.mime
        self.position = 0
        self._store = store
        self._task_id = task_id
        self._descriptor = descriptor
        self._hash = Hashing()
        self._peeked = b""

    def peek(self, max_bytes: int) -> bytes:
        """The next bytes, empty at the end; the position stays. Raises `CallerError` (media_not_found) where they are
        damaged."""
        wanted = max(0, min(max_bytes, self.size - self.position))
        if len(self._peeked) != wanted:
            self._peeked = self._fetch(wanted)
        return self._peeked

    def advance(self) -> None:
        """Go on behind what was peeked at."""
        self._hash.add(self._peeked)
        self.position += len(self._peeked)
        self._peeked = b""

    def read(self, max_bytes: int) -> bytes:
        data = self.peek(max_bytes)
        self.advance()
        return data

    def close(self) -> None:
        if self._descriptor >= 0:
            self._hash.finish()
            os.close(self._descriptor)
            self._descriptor = -1
            self._store.closed_reading(self._task_id)

    def _fetch(self, wanted: int) -> bytes:
        with disk_errors():
            data = os.pread(self._descriptor, wanted, self.position)  # of a file: less only at its end
        ends = self.position + wanted == self.size
        if len(data) != wanted or (ends and wanted and not self._agrees(data)):
            self._store.unshare(self.record)
            raise damaged()
        return data

    def _agrees(self, last: bytes) -> bool:
        found = self._hash.copy()
        found.add(last)
        return found.hexdigest() == self.record.sha256
