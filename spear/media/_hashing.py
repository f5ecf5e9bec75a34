"""The checksum of an object, worked out beside what is done with its bytes."""

from __future__ import annotations

import hashlib
from threading import Thread
from typing import Final

_WORTH_A_THREAD: Final = 512 * 1024
"""That many bytes take as long as a few starts of a thread."""


class Hashing:
    """SHA-256 of what was added, in order. Large pieces are hashed in a thread while the caller goes on; the next call
    waits for it, so that at most one is out, and `finish` leaves none."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._thread: Thread | None = None

    def add(self, data: bytes | memoryview) -> None:
        """`data` must stay as it is until the next call."""
        self.finish()
        if len(data) < _WORTH_A_THREAD:
            self._hash.update(data)
            return
        self._thread = Thread(target=self._hash.update, args=(data,), name="spear media checksum")
        self._thread.start()

    def finish(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def copy(self) -> Hashing:
        self.finish()
        made = Hashing()
        made._hash = self._hash.copy()
        return made

    def hexdigest(self) -> str:
        self.finish()
        return self._hash.hexdigest()
