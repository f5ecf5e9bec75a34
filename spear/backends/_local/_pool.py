"""Worker processes, leased one request at a time.

A worker is started when a request finds none free, up to `most`, and kept. One whose answer was no good, or that was
left in the middle of it, because it hung, died, talked nonsense or its caller went, is killed before its place is free
again; the next request starts another. When the pool closes, all are killed.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

from spear.ir import BackendError

from ._process import Worker, broken


class Pool:
    def __init__(self, most: int, start_seconds: float, start: Callable[[], Awaitable[Worker]]) -> None:
        self._places = trio.CapacityLimiter(most)
        self._start_seconds = start_seconds
        self._start = start
        self._idle: list[Worker] = []
        self.started = 0
        """How many, in all."""

    @property
    def idle(self) -> tuple[Worker, ...]:
        return tuple(self._idle)

    @asynccontextmanager
    async def lease(self) -> AsyncGenerator[Worker, None]:
        """Waits for a place. Raises `BackendError` where no worker starts; a worker whose block raises one is ended."""
        async with self._places:
            worker = await self._living()
            try:
                yield worker
            except BackendError:
                worker.ready = False
                raise
            finally:
                if worker.ready and worker.alive:
                    self._idle.append(worker)
                else:
                    await worker.kill()

    async def close(self) -> None:
        while self._idle:
            await self._idle.pop().kill()

    async def _living(self) -> Worker:
        while self._idle:
            worker = self._idle.pop()
            if worker.alive:
                return worker
            await worker.kill()
        with trio.move_on_after(self._start_seconds):
            worker = await self._start()
            self.started += 1
            return worker
        raise broken(f"it was not ready after {self._start_seconds:g} s")
