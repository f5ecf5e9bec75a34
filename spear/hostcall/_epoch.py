"""The clock that interrupts guests: one thread that raises the engine's epoch, alive only while guests are.

wasmtime compares the epoch at every loop header and function entry. A guest whose deadline has passed is suspended
and its poll returns, so a spinning guest holds the event loop for about one tick.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from spear.hostcall import _binding as native

TICK_S: Final = 0.002
LINGER_S: Final = 0.25  # a thread start costs more than a guest start, so the thread outlives its last guest a little


class EpochTicker:
    """Ticks while at least one guest is registered. `enter`, `leave` and `close` never wait for a tick.

    `each_tick` is called in the thread of the clock; it must not raise.
    """

    def __init__(self, engine_address: int, each_tick: Callable[[], None]) -> None:
        self._engine = engine_address
        self._each_tick = each_tick
        self._lock = threading.Lock()
        self._guests = 0
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    def enter(self) -> None:
        with self._lock:
            self._guests += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="spear-epoch", daemon=True)
                self._thread.start()

    def leave(self) -> None:
        with self._lock:
            self._guests -= 1

    @property
    def guests(self) -> int:
        return self._guests

    def close(self) -> None:
        """End the thread; at most one tick of waiting. Guests must be gone."""
        self._closed.set()
        thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        idle = 0.0
        while not self._closed.wait(TICK_S):
            native.increment_epoch(self._engine)
            self._each_tick()
            idle = idle + TICK_S if self._guests == 0 else 0.0
            if idle >= LINGER_S:
                with self._lock:
                    if self._guests == 0:
                        self._thread = None
                        return
