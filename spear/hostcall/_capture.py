"""Captured output of a guest: the newest bytes up to a cap, what was dropped counted, and an optional live sink."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

ByteSink = Callable[[bytes], None]


class Capture:
    def __init__(self, cap: int, sink: ByteSink | None = None) -> None:
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._cap = cap
        self._sink = sink
        self.dropped = 0

    def write(self, data: bytes) -> None:
        """Keep and pass on. What the sink raises ends the guest."""
        if self._sink is not None and data:
            self._sink(data)
        self._chunks.append(data)
        self._size += len(data)
        while self._size > self._cap:
            oldest = self._chunks.popleft()
            excess = self._size - self._cap
            if len(oldest) > excess:
                self._chunks.appendleft(oldest[excess:])
            cut = min(len(oldest), excess)
            self._size -= cut
            self.dropped += cut
        if len(self._chunks) > 1024:  # a guest that writes byte by byte must not make the list long
            self._chunks = deque([b"".join(self._chunks)])

    def text(self) -> str:
        """What is kept, as UTF-8; bytes that are none become U+FFFD."""
        return b"".join(self._chunks).decode("utf-8", "replace")
