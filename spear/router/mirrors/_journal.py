"""A file of lines that never grows beyond its bound: when it is full it becomes `.1`, that one `.2`, and the last goes.

Synchronous, for a thread. The file is opened for each line, so that whoever moves or removes it meanwhile does no harm.
Who died in the middle of a line left a piece of one: the next line does not go on with it.
"""

from __future__ import annotations

import os
from pathlib import Path


class Journal:
    """One writer at a time. `max_bytes` bounds each of `files` files."""

    def __init__(self, path: Path, max_bytes: int, files: int) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.files = files

    def check(self) -> None:
        """Raise OSError where it cannot be written to; makes an empty file where there is none."""
        with self.path.open("ab"):
            pass

    def write(self, line: bytes) -> None:
        """Raises OSError. A line longer than a whole file may be gets a file of its own."""
        size = self._size()
        if size and size + len(line) + 1 > self.max_bytes:
            self._rotate()
        with self.path.open("ab") as file:
            whole = line if self._ends_well(file.tell()) else b"\n" + line
            file.write(whole)

    def _size(self) -> int:
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def _ends_well(self, size: int) -> bool:
        if size == 0:
            return True
        with self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    def _rotate(self) -> None:
        for number in range(self.files - 1, 0, -1):
            older = self.path.with_name(f"{self.path.name}.{number}")
            newer = self.path if number == 1 else self.path.with_name(f"{self.path.name}.{number - 1}")
            if newer.exists():
                newer.replace(older)
        if self.files == 1:
            self.path.unlink()
