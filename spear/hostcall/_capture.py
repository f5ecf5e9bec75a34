"""Captured output of a guest: the newest bytes up to a cap, what was dropped counted, and an optional live sink."""

from __future__ import annotations

from collections.abc import Callable

ByteSink = Callable[[bytes], None]


class Capture:
    """`dropped` counts the bytes that no longer fitted."""

    __slots__ = ("_cap", "_kept", "_sink", "dropped")

    def __init__(self, cap: int, sink: ByteSink | None = None) -> None:
        self._kept = bytearray()
        self._cap = cap
        self._sink = sink
        self.dropped = 0

    def write(self, data: bytes) -> None:
        """Keep and pass on. What the sink raises ends the guest."""
        if self._sink is not None and data:
            self._sink(data)
        self._kept += data
        excess = len(self._kept) - self._cap
        if excess > 0:
            del self._kept[:excess]  # moves the start, not the bytes
            self.dropped += excess

    def text(self) -> str:
        """What is kept, as UTF-8; bytes that are none become U+FFFD."""
        return self._kept.decode("utf-8", "replace")
