"""How one of the two calls went: that of the primary, as the router saw it, or that of the mirror."""

from __future__ import annotations

from typing import Final, NamedTuple

import trio

from spear.backends import Answer
from spear.config import Price
from spear.router._leg import Leg

OK: Final = "ok"
LEFT: Final = "left"
UNFINISHED: Final = "unfinished"


class Side(NamedTuple):
    """`outcome`: `ok`, an error's code, `left` (its caller did), `unfinished` (it was not waited for any longer).
    Times in seconds from the send."""

    backend: str
    model: str
    outcome: str
    answer: Answer | None = None
    elapsed: float | None = None
    first_event: float | None = None
    price: Price | None = None


class Primary:
    """What the mirror's turn waits for: how the primary ended. Written once, by the router; it holds no task."""

    __slots__ = ("_done", "_leg", "_side")

    def __init__(self, leg: Leg) -> None:
        self._leg = leg
        self._side: Side | None = None
        self._done = trio.Event()

    def answered(self, leg: Leg, answer: Answer, now: float) -> None:
        self._tell(leg, OK, answer, now)

    def failed(self, leg: Leg, code: str, now: float) -> None:
        self._tell(leg, code, None, now)

    def left(self, leg: Leg, now: float) -> None:
        self._tell(leg, LEFT, None, now)

    async def wait(self) -> None:
        await self._done.wait()

    def now(self) -> Side:
        """How it has ended; `unfinished` as long as it has not."""
        return self._side or Side(self._leg.instance.name, self._leg.request.model, UNFINISHED)

    def _tell(self, leg: Leg, outcome: str, answer: Answer | None, now: float) -> None:
        if leg is not self._leg or self._side is not None:
            return
        first = leg.first_event_at
        self._side = Side(
            leg.instance.name,
            (answer.model if answer is not None else "") or leg.request.model,
            outcome,
            answer,
            now - leg.started,
            None if first is None else first - leg.started,
            leg.instance.price,
        )
        self._done.set()


class NotMirrored(Primary):
    """Of a request that is not mirrored: whatever it is told, nobody hears."""

    __slots__ = ()

    def __init__(self) -> None:
        pass

    def _tell(self, leg: Leg, outcome: str, answer: Answer | None, now: float) -> None:
        pass
