"""What the router asks: one filter, so many calls at a time, closed when it is retired and its last call has ended."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import trio

from spear.config import FilterConfig
from spear.ir import Json
from spear.router import FilterFailed

Ask = Callable[[Mapping[str, Json]], Awaitable[Json]]
Close = Callable[[], Awaitable[None]]
MAX_ANSWER_BYTES = 262_144
"""Of what a filter answers; more is a failure of it."""


async def _not_running(question: Mapping[str, Json]) -> Json:  # noqa: RUF029 -- an Ask
    raise FilterFailed("not running")


class Port:
    """`close` never waits for anybody. Belongs to one Trio thread."""

    def __init__(self, config: FilterConfig, ask: Ask, close: Close | None = None) -> None:
        self.config = config
        self.asked = self.failed = self.inflight = 0
        self._ask = ask
        self._close = close
        self._retired = False
        self._places = trio.CapacityLimiter(config.max_inflight)

    async def ask(self, question: Mapping[str, Json]) -> Json:
        """Waits for a place, then for the answer; whoever asks keeps the time."""
        self.asked += 1
        self.inflight += 1
        answered = False
        try:
            async with self._places:
                answer = await self._ask(question)
            answered = True
            return answer
        finally:
            self.failed += not answered
            self.inflight -= 1
            if self._retired and not self.inflight:
                await self._shut()

    async def retire(self) -> None:
        """Nobody new asks: close, or let the last call that is under way do so."""
        self._retired = True
        if not self.inflight:
            await self._shut()

    async def aclose(self) -> None:
        """At once; calls that are under way fail."""
        self._retired = True
        await self._shut()

    async def _shut(self) -> None:
        self._ask = _not_running  # what it was made of is not kept
        close, self._close = self._close, None
        if close is not None:
            with trio.CancelScope(shield=True):
                await close()
