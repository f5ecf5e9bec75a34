"""Rings when a probe has ended or another configuration holds: those who wait for somebody's recovery look again."""

from __future__ import annotations

import trio


class Bell:
    __slots__ = ("_rung",)

    def __init__(self) -> None:
        self._rung = trio.Event()

    def ring(self) -> None:
        self._rung.set()
        self._rung = trio.Event()

    async def wait(self) -> None:
        """Until it rings next. Nothing is left behind where it is cancelled."""
        await self._rung.wait()
