"""Several attempts of one request side by side. The first that has something to show wins; the others are ended.

The race is a nursery in the request's own scope. Its attempts ask their backends *joined*: one that is cancelled ends
only when the backend's turn has ended and its connection is closed. So the race cannot return, and a stream that has
won cannot send its first event, while a loser is still at it.

An attempt that fails while others run is replaced at once, if the budget allows that, else those others are waited
for. One that fails in a way that no other could mend ends the race.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from actors import MailboxFull

from ._course import Course
from ._failures import Fault
from ._hedge import Late, delay_of, may_be_hedged
from ._leg import Leg
from ._routes import find_route

Attempt = Callable[[Leg], Awaitable[Fault | None]]
"""Runs an attempt to its end. None where it has claimed the race, or came too late for that. Raises MailboxFull."""


def late_of(course: Course, leg: Leg) -> Late | None:
    """When `leg`, which has just been made, is to be hedged; None = never. The first attempt of a request pays into
    its route's purse here."""
    route = find_route(course.generation.routes, leg.plan.facts)
    hedge = route.hedge
    if hedge is None or not may_be_hedged(course.request):
        return None
    if leg.reason != "hedge" and all(each.outcome == "refused" for each in course.attempts):
        leg.purse = course.desk.purses.of(route.match, hedge)
        leg.purse.put_in()
    delay = delay_of(hedge, leg.instance.latencies.get(leg.plan.facts.timing))
    return None if delay is None else Late(delay, hedge.max_attempts)


class Race:
    def __init__(self, course: Course, late: Late) -> None:
        self.winner: Leg | None = None
        self._course = course
        self._late = late
        self._lanes: dict[Leg, trio.CancelScope] = {}
        self._timer = trio.CancelScope()
        self._alone = trio.Event()
        self._over = False  # nobody else starts
        self._goes_on = True

    async def run(self, first: Leg, attempt: Attempt) -> bool:
        """Waits until all have ended. Without a `winner`: whether another attempt may follow.

        Cancelled, all attempts are cancelled and waited for."""
        self._attempt = attempt
        try:
            async with trio.open_nursery() as self._nursery:
                self._start(first)
                with self._timer:
                    await self._hedge(first)
        except BaseException as error:
            if not isinstance(error, Exception):  # else it is a bug, for which the router answers
                self._course.left_race(won=self.winner is not None)
            raise
        return self._goes_on

    def claim(self, leg: Leg) -> bool:
        """Whether `leg` is the first; the others are cancelled then."""
        if self.winner is None and not self._over:
            self.winner = leg
            self._course.won(leg)
            self._end()
        return self.winner is leg

    async def win(self, leg: Leg) -> None:
        """Claim it, and wait until the others have ended. A leg that comes too late sees its cancellation."""
        if not self.claim(leg):
            await trio.sleep_forever()
        if len(self._lanes) > 1:
            await self._alone.wait()

    async def _hedge(self, leg: Leg) -> None:
        late: Late | None = self._late
        while late is not None:
            await trio.sleep_until(leg.started + late.after)
            if len(self._lanes) >= late.most:
                return
            hedge = self._pay(leg)
            if hedge is None:
                return
            self._start(hedge)
            leg, late = hedge, late_of(self._course, hedge)

    def _pay(self, leg: Leg) -> Leg | None:
        """A hedge of `leg`, if tokens and budget allow one and there is somebody to take it."""
        course, desk = self._course, self._course.desk
        route = find_route(course.generation.routes, leg.plan.facts)
        if route.hedge is None:  # any more, since a reload
            return None
        purse = desk.purses.of(route.match, route.hedge)
        if not desk.may_hedge() or not purse.pay():
            desk.counts.hedges_denied += 1
            return None
        hedge = course.beside(self._lanes, "hedge")
        if hedge is None:
            purse.refund()
        else:
            hedge.purse = purse
            desk.counts.hedges += 1
        return hedge

    def _start(self, leg: Leg) -> None:
        self._lanes[leg] = trio.CancelScope()
        self._nursery.start_soon(self._lane, leg)

    async def _lane(self, leg: Leg) -> None:
        fault: Fault | None = None
        refused = False
        with self._lanes[leg]:
            try:
                fault = await self._attempt(leg)
            except MailboxFull:
                refused = True
        del self._lanes[leg]
        if refused:
            self._course.refused(leg)
        elif fault is not None:
            self._failed(leg, fault)
        elif leg is not self.winner:  # cancelled, or too late
            self._course.superseded(leg)
        if (refused or fault is not None) and self._lanes and not self._over:
            self._replace(leg, refused)
        if not self._lanes:
            self._timer.cancel()
        elif len(self._lanes) == 1 and self.winner in self._lanes:
            self._alone.set()

    def _failed(self, leg: Leg, fault: Fault) -> None:
        goes_on = self._course.failed(leg, fault)
        if self.winner is leg:  # it had claimed, but its time ran out before the others had ended
            self.winner = None
        if self.winner is None and not goes_on:
            self._goes_on = False
            self._end()

    def _replace(self, leg: Leg, refused: bool) -> None:
        """By the next candidate: a hedge that found a full mailbox, or an attempt that failed."""
        another: Leg | None = None
        if refused:
            another = self._pay(leg)
        elif self._course.desk.may_hedge():
            another = self._course.beside(self._lanes, "fallback")
        if another is not None:
            self._start(another)

    def _end(self) -> None:
        self._over = True
        self._timer.cancel()
        for leg, scope in self._lanes.items():
            if leg is not self.winner:
                scope.cancel()
