"""A file of lines that never grows beyond its bound: when it is full it becomes `.1`, that one `.2`, and the last goes.

Synchronous, for a thread. The file is opened for each line, so that whoever moves or removes it meanwhile does no harm,
and locked for as long as that takes, so that several processes may write it. Who died in the middle of a line left a
piece of one: the next line does not go on with it. Only its owner can read it: it may hold what was said.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_TRIES: Final = 50
_PAUSE_S: Final = 0.02


class Journal:
    """`max_bytes` bounds each of `files` files."""

    def __init__(self, path: Path, max_bytes: int, files: int) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.files = files

    def check(self) -> None:
        """Raise OSError where it cannot be written to; makes an empty file where there is none."""
        with self._opened():
            pass

    def write(self, line: bytes) -> None:
        """Raises OSError; then nothing of the line is there. A line longer than a whole file may be gets a file of its
        own. Waits up to a second for another process that writes."""
        for _ in range(_TRIES):
            with self._opened() as fd:
                if not self._claimed(fd):
                    time.sleep(_PAUSE_S)
                    continue
                size = os.fstat(fd).st_size
                if size and size + len(line) + 1 > self.max_bytes:
                    self._rotate()
                    continue
                whole = line if size == 0 or os.pread(fd, 1, size - 1) == b"\n" else b"\n" + line
                _write_all(fd, whole, size)
                return
        raise OSError(errno.EBUSY, "another process keeps it locked")

    @contextmanager
    def _opened(self) -> Iterator[int]:
        # Not blocking: opening a pipe that nobody reads would wait for ever.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        fd = os.open(self.path, flags, 0o600)
        try:
            _check_regular(fd)
            yield fd
        finally:
            os.close(fd)

    def _claimed(self, fd: int) -> bool:
        """Whether nobody else writes it, and it still is the file of that name."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return os.path.samestat(os.fstat(fd), os.stat(self.path))
        except (BlockingIOError, FileNotFoundError):
            return False

    def _rotate(self) -> None:
        for number in range(self.files - 1, 0, -1):
            older = self.path.with_name(f"{self.path.name}.{number}")
            newer = self.path if number == 1 else self.path.with_name(f"{self.path.name}.{number - 1}")
            if newer.exists():
                newer.replace(older)
        if self.files == 1:
            self.path.unlink()


def _check_regular(fd: int) -> None:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise OSError(errno.EINVAL, "is no regular file")


def _write_all(fd: int, data: bytes, size: int) -> None:
    left = memoryview(data)
    try:
        while left:
            left = left[os.write(fd, left) :]
    except OSError:
        with suppress(OSError):  # if this fails, too, the next line closes the piece off
            os.ftruncate(fd, size)
        raise
