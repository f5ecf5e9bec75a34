"""Carries out plans: stop these, wait, start those. One task per failure, or one per group of siblings."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

import trio

from ._plan import Plan
from ._stopping import stop_cells

if TYPE_CHECKING:
    from ._supervisor import Supervisor

__all__ = ["Repair"]


class Repair:
    """Plans that come while it works are taken in: what is down then starts together, after the latest delay."""

    __slots__ = ("_down", "_due", "_plans", "_running", "_supervisor", "_wake")

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._plans: deque[Plan] = deque()
        self._down: set[str] = set()
        self._due = -math.inf
        self._wake = trio.Event()
        self._running = False

    def add(self, plan: Plan) -> None:
        """Synchronous: the caller is a child that has just ended."""
        self._plans.append(plan)
        self._due = max(self._due, trio.current_time() + plan.delay)
        if self._running:
            self._wake.set()
        else:
            self._running = True
            self._supervisor._nursery.start_soon(self._run, name=f"repair of {self._supervisor.path}")

    async def _run(self) -> None:
        while True:
            while self._plans:
                await self._stop(self._plans.popleft())
            self._wake = trio.Event()
            with trio.move_on_at(self._due):
                await self._wake.wait()
            if not self._plans:
                await self._start()
            if not self._plans:
                break
        if self._supervisor._repair is self:  # no checkpoint since the last look at the plans
            self._supervisor._repair = None

    async def _stop(self, plan: Plan) -> None:
        supervisor = self._supervisor
        for name in plan.stop:
            cell = supervisor._children.get(name)
            if cell is None or not cell.alive:
                continue
            temporary = cell.spec.restart == "temporary"
            await stop_cells([cell], orderly=True, reason="stopped" if temporary else None)
            await cell.wait_gone()  # a hung one must have gone before its successor starts
        self._down.update(plan.start)

    async def _start(self) -> None:
        supervisor = self._supervisor
        for name, cell in list(supervisor._children.items()):
            if name not in self._down or cell.alive or cell.exit is not None:
                continue
            if supervisor._closing:
                return
            self._down.discard(name)
            cell.restarting = False
            cell.restarts += 1
            cell.launch(supervisor._nursery)
            assert cell.started_event is not None
            await cell.started_event.wait()
            if self._plans:
                return  # it failed again: what follows it waits for the new plan
