"""Ends guests that neither loop nor call: a straight line of hostcalls passes no place where the epoch is compared, so
it cannot be suspended, however long it is.

The thread of the epoch clock looks at every tick at the guest whose code runs, and tells it to stop when its time is
over or when it has held the event loop for too long in one stretch; its next hostcall then traps. A stretch is
measured in CPU time of the loop's thread, so that neither a busy machine nor a slow terminal counts against a guest.
"""

from __future__ import annotations

import time

from spear.hostcall._fiber import Runtime
from spear.hostcall._guest import HELD, TIMEOUT


class Watchdog:
    """`look` belongs to the clock's thread; `cpu_clock` is the CPU clock of the thread that runs the guests."""

    def __init__(self, runtime: Runtime, cpu_clock: int) -> None:
        self._runtime = runtime
        self._cpu_clock = cpu_clock
        self._stretch = 0
        self._begin = 0.0

    def look(self) -> None:
        stretch = self._runtime.stretches
        guest = getattr(self._runtime, "current", None)
        if stretch % 2 == 0 or guest is None:
            return  # no guest code runs
        if time.perf_counter() >= guest.deadline:
            reason = TIMEOUT
        elif self._held(stretch) > guest.limits.stretch_s:
            reason = HELD
        else:
            return
        if self._runtime.stretches == stretch:  # else it may have been another guest that was looked at
            guest.interrupt(reason)

    def _held(self, stretch: int) -> float:
        """Seconds since a tick first saw this stretch."""
        now = time.clock_gettime(self._cpu_clock)
        if stretch != self._stretch:
            self._stretch, self._begin = stretch, now
        return now - self._begin
