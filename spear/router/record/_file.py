"""A file that never grows beyond its bound: full, it becomes `NAME.1`, that becomes `NAME.2`, and the oldest goes.

Everything here blocks; a thread calls it. Each file can be read alone: a generation stands in it before the first of
its decisions. Nothing half-written stays behind a failed write; what a crash left half-written is closed off by a line
end, so that it costs one line.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ._log import Entry


class RotatingFile:
    """Nothing is opened before the first append. One process has it at a time."""

    def __init__(self, path: Path, max_bytes: int, files: int) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._files = files
        self._fd = -1
        self._size = 0
        self._stated: set[bytes] = set()
        self.appended = 0
        """Lines that the last append has written."""

    def append(self, entries: Sequence[Entry]) -> int:
        """How many of them have no room in a file. Raises OSError where nothing, or not all, could be written: then
        the file ends with a whole line all the same."""
        self.appended = 0
        self._check()
        too_long, count, pending, size = 0, 0, bytearray(), self._size
        for header, line in entries:
            alone = line if header is None else header + line
            if len(alone) > self._max_bytes:
                too_long += 1
                continue
            needed = line if header in self._stated else alone
            if size and size + len(needed) > self._max_bytes:
                self._write(pending, count)
                self._rotate()
                count, pending, size, needed = 0, bytearray(), 0, alone
            if header is not None:
                self._stated.add(header)
            pending += needed
            size += len(needed)
            count += 1
        self._write(pending, count)
        return too_long

    def close(self) -> None:
        """Also after a failure; the next append opens it again."""
        fd, self._fd = self._fd, -1
        self._stated.clear()
        if fd >= 0:
            os.close(fd)

    def _check(self) -> None:
        """Open it, also where somebody has moved or removed it meanwhile."""
        if self._fd >= 0:
            try:
                if os.path.samestat(os.fstat(self._fd), os.stat(self.path)):
                    return
            except FileNotFoundError:
                pass
            self.close()
        fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
        try:
            self._claim(fd)
            self._size = os.fstat(fd).st_size
            if self._size and os.pread(fd, 1, self._size - 1) != b"\n":
                self._size += os.write(fd, b"\n")
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd

    def _claim(self, fd: int) -> None:
        _check_regular(fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(errno.EBUSY, "another process writes it") from None
        if not os.path.samestat(os.fstat(fd), os.stat(self.path)):
            raise OSError(errno.EBUSY, "another process has just rotated it")

    def _write(self, data: bytearray, lines: int) -> None:
        left = memoryview(data)
        try:
            while left:
                left = left[os.write(self._fd, left) :]
        except OSError:
            with suppress(OSError):  # if this fails, too, the reopened file is closed off by a line end
                os.ftruncate(self._fd, self._size)
            self.close()
            raise
        self._size += len(data)
        self.appended += lines

    def _rotate(self) -> None:
        self.close()
        for number in itertools.count(max(1, self._files - 1)):  # the oldest, and those of a greater bound before
            try:
                os.remove(self._numbered(number))
            except FileNotFoundError:
                break
        for number in range(self._files - 1, 0, -1):
            with suppress(FileNotFoundError):
                os.rename(self._numbered(number - 1), self._numbered(number))
        if self._files == 1:
            with suppress(FileNotFoundError):
                os.remove(self.path)
        self._check()

    def _numbered(self, number: int) -> Path:
        return self.path if number == 0 else self.path.with_name(f"{self.path.name}.{number}")


def _check_regular(fd: int) -> None:
    """A pipe would hold the writer, and a device would be renamed."""
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise OSError(errno.EINVAL, "is no regular file")
