"""Virtual time: it stands still while anything can run, then jumps to the next deadline.

Trio asks a clock how long to sleep only when no task is ready, so that the jump can be made in the answer: no pass of
the loop is spent on finding out that all is idle. For runs without sockets and threads only: nobody waits for them.

What the modelled world waits for (an arrival, an answer) is in a heap of the clock's own: a task that sleeps there
needs no cancel scope and no deadline of Trio's, which cost more than all that a model does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any, Final

import trio
from trio.lowlevel import Abort, Task, current_task, reschedule, wait_task_rescheduled

START: Final = 1_000_000.0
"""Not 0: nothing may depend on where a clock begins."""
_Alarm = list[Any]
"""When, which one of those at that time, whom; nobody once it was cancelled."""


class JumpClock(trio.abc.Clock):
    __slots__ = ("_alarms", "_gone", "_number", "now")

    def __init__(self) -> None:
        self.now = START
        self._alarms: list[_Alarm] = []
        self._number = 0
        self._gone = 0

    def start_clock(self) -> None:
        pass

    def current_time(self) -> float:
        return self.now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """No task can run before `deadline`, or before the first alarm: those that it wakes run in this pass."""
        alarms = self._alarms
        while alarms and alarms[0][2] is None:
            heappop(alarms)
            self._gone -= 1
        if alarms and alarms[0][0] <= deadline:
            self.now = now = max(self.now, alarms[0][0])
            while alarms and alarms[0][0] <= now:
                task: Task | None = heappop(alarms)[2]
                if task is None:
                    self._gone -= 1
                else:
                    reschedule(task)
            return 0.0
        if deadline == math.inf:
            return math.inf
        self.now = max(self.now, deadline)
        return 0.0

    async def sleep(self, seconds: float) -> None:
        """As `trio.sleep`; only in a run with this clock. Cancelled, it ends at once."""
        await self.sleep_until(self.now + seconds)

    async def sleep_until(self, at: float) -> None:
        self._number += 1
        alarm: _Alarm = [at, self._number, current_task()]

        def abort(_: Callable[[], Any]) -> Abort:
            alarm[2] = None
            self._forget()
            return Abort.SUCCEEDED

        heappush(self._alarms, alarm)
        await wait_task_rescheduled(abort)

    def _forget(self) -> None:
        """One was cancelled. They leave the heap at their time, or when they are most of it."""
        self._gone += 1
        if self._gone > 64 and self._gone * 2 > len(self._alarms):
            self._alarms[:] = sorted(each for each in self._alarms if each[2] is not None)
            self._gone = 0
