"""Virtual time: it stands still while anything can run, then jumps to the next deadline.

Trio asks a clock how long to sleep only when no task is ready, so that the jump can be made in the answer: no pass of
the loop is spent on finding out that all is idle. For runs without sockets and threads only: nobody waits for them.
"""

from __future__ import annotations

import math
from typing import Final

import trio

START: Final = 1_000_000.0
"""Not 0: nothing may depend on where a clock begins."""


class JumpClock(trio.abc.Clock):
    __slots__ = ("now",)

    def __init__(self) -> None:
        self.now = START

    def start_clock(self) -> None:
        pass

    def current_time(self) -> float:
        return self.now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """No task can run before `deadline`."""
        if deadline == math.inf:
            return math.inf
        self.now = max(self.now, deadline)
        return 0.0
