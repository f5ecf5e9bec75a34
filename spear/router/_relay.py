"""A stream: attempts until one commits, then that one to its end, whatever it is.

The first content-bearing event is the commit point. Until then the events are held back, so that a failure can be
replaced without a trace; a full buffer commits, too. After it nothing is replaced: a failure is the terminal `error`
event, unless the route wants the rest from somebody else. The first-event clock runs to the commit, the idle clock
between events while the backend is waited for, never while the consumer is behind; the total clock always runs.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from functools import partial
from typing import Final

import trio

from actors import ActorCrashed, ActorStopped, MailboxFull, Sink
from spear.backends import Answer, Finished, OpenStream, StreamItem
from spear.ir import (
    AudioDelta,
    CanonicalError,
    Clock,
    Completed,
    ContentDelta,
    ErrorCode,
    ErrorEvent,
    Failure,
    ReasoningDelta,
    SegmentEvent,
    SpearError,
    Started,
    StreamEvent,
    ToolCallDelta,
    Usage,
    UsageEvent,
    bears_content,
    error_to_exception,
    make_error,
)

from ._continuation import Before, SoFar, add_usage, rest_of, whole
from ._course import Course
from ._failures import Fault, fault_of, timed_out, truncated
from ._leg import Leg
from ._pause import next_leg
from ._race import Race, late_of
from ._routes import find_route

_AHEAD: Final = 8
"""Items that a backend may be ahead of the router."""
_END_S: Final = 1.0
"""How long a backend may take to close a stream that is complete."""


async def run_stream(course: Course, out: Sink[StreamEvent]) -> None:
    """Ends after a terminal event, or raises the `SpearError` of a stream that never committed."""
    while (leg := await next_leg(course)) is not None:
        if course.generation.hedged and (late := late_of(course, leg)) is not None:
            race = Race(course, late)
            goes_on = await race.run(leg, partial(_attempt, course, out, race))
            if race.winner is not None:
                return
            if not goes_on:
                break
            continue
        relay = _Relay(course, leg, out)
        try:
            fault = await relay.run()
        except MailboxFull:
            course.refused(leg)
            continue
        if fault is None:
            return
        goes_on = course.failed(leg, fault)
        if relay.committed:
            await _broke(course, relay, goes_on)
            return
        if not goes_on:
            break
    error = course.error()
    course.ended(error)
    raise error_to_exception(error)


async def _attempt(course: Course, out: Sink[StreamEvent], race: Race, leg: Leg) -> Fault | None:
    """One of several: the first that commits goes on to its end."""
    relay = _Relay(course, leg, out, race)
    fault = await relay.run()
    if fault is None or not relay.committed:
        return fault
    await _broke(course, relay, course.failed(leg, fault))
    return None


async def _broke(course: Course, relay: _Relay, goes_on: bool) -> None:
    """After the commit: the rest from another instance, where the route wants that and it can be had, else the end."""
    asked, so_far = course.request, relay.so_far
    while goes_on and so_far is not None and so_far.usable:
        before = Before(so_far.text, relay.used(), so_far.first_event_at)
        course.take_up(rest_of(asked, before.text), relay.leg)
        following = None
        while (leg := await next_leg(course)) is not None:
            following = _Relay(course, leg, relay.out, so_far=so_far, before=before)
            try:
                fault = await following.run()
            except MailboxFull:
                course.refused(leg)
                continue
            if fault is None:
                return
            goes_on = course.failed(leg, fault)
            if following.committed or not goes_on:
                break
        if following is None or not following.committed:
            break
        relay = following
    await relay.broke(course.error())


class _Relay:
    """One attempt of a stream, alone or in a `race`. With `before`, of what is missing of one that broke off."""

    def __init__(
        self,
        course: Course,
        leg: Leg,
        out: Sink[StreamEvent],
        race: Race | None = None,
        so_far: SoFar | None = None,
        before: Before | None = None,
    ) -> None:
        self.course = course
        self.leg = leg
        self.out = out
        self.race = race
        self.so_far = so_far
        self.before = before
        if (
            so_far is None
            and course.generation.continued
            and find_route(course.generation.routes, leg.plan.facts).continued
        ):
            self.so_far = SoFar(course.request)
        self.committed = False
        self._held: list[StreamEvent] = []
        self._held_bytes = 0
        leg.streamed = True
        self._clock: Clock = "first_event"
        self._scope = trio.CancelScope()

    async def run(self) -> Fault | None:
        """None once the stream is over and its `completed` has been sent."""
        leg = self.leg
        self._wait_until(leg.started + leg.call.first_event)
        answer: Answer | Fault | None = None
        leg.instance.turns.add(leg)
        try:
            with self._scope:
                answer = await self._events()
        except (SpearError, ActorStopped, ActorCrashed) as error:
            return fault_of(error, leg.instance.name)
        except trio.Cancelled:
            if self.race is None:
                self.course.left(leg)
            raise
        finally:
            leg.instance.leave(leg)
        if answer is None:
            clock: Clock = "total" if trio.current_time() >= leg.deadline else self._clock
            return timed_out(leg.instance.name, clock)
        if isinstance(answer, Fault):
            return answer
        await self._complete(answer)
        return None

    async def _complete(self, answer: Answer) -> None:
        """The backend is done: from here on a consumer that leaves takes nothing from the success."""
        if self.race is not None:
            await self.race.win(self.leg)
        response = self.course.answered(self.leg, answer)
        if self.before is not None:
            response = whole(response, self.before, self.course.arrived)
        completed = Completed(response=response)
        await self._commit()
        await self.out.send(completed)

    def used(self) -> Usage:
        """By this attempt as far as it came, and by those before it."""
        usage = self.course.partial_usage(self.leg)
        return usage if self.before is None else add_usage(self.before.usage, usage)

    async def broke(self, error: CanonicalError) -> None:
        """After the commit: the failure is the stream's terminal event."""
        self.course.ended(error)
        await self.out.send(ErrorEvent(error=error, usage=self.used()))

    async def _events(self) -> Answer | Fault:
        leg, scope = self.leg, self._scope
        async with leg.ref.stream_nowait(
            OpenStream(leg.request, leg.call), buffer=_AHEAD, joined=self.race is not None
        ) as items:
            while True:
                try:  # what came at once goes on at once: a switch of tasks costs more than all of the rest
                    item = items.next_nowait()
                except trio.WouldBlock:
                    if self.committed:
                        self._wait_until(trio.current_time() + leg.call.idle)
                    following = await anext(items, None)
                    if following is None:
                        return truncated(leg.instance.name)
                    item = following
                if isinstance(item, Finished):
                    await self._wait_for_end(items)
                    return item.answer
                event = self._event(item)
                if isinstance(event, Fault):
                    return event
                if self.so_far is not None and self._left_out(event):
                    continue
                if self.committed:
                    if not self.out.send_nowait(event):
                        scope.deadline = leg.deadline
                        await self.out.send(event)
                elif bears_content(event) or self._hold(event):
                    scope.deadline = leg.deadline
                    await self._commit(event)

    def _left_out(self, event: StreamEvent) -> bool:
        """Notes what is said; True for the second `started` of a stream that is continued."""
        assert self.so_far is not None
        self.so_far.add(event)
        return self.before is not None and isinstance(event, Started)

    def _event(self, item: StreamItem) -> StreamEvent | Fault:
        """What the consumer sees of it."""
        match item:
            case ContentDelta(delta=text) | ReasoningDelta(delta=text):
                self.leg.chars += len(text)
            case ToolCallDelta(arguments=text):
                self.leg.chars += len(text)
            case UsageEvent(usage=usage):
                self.leg.usage = usage
                return UsageEvent(usage=self.used())
            case AudioDelta() | SegmentEvent():
                pass
            case Completed() | ErrorEvent():
                message = f"the adapter of backend {self.leg.instance.name} sent {item.type}, which is the router's"
                return Fault(make_error(ErrorCode.INTERNAL, message), Failure.INTERNAL)
            case Finished():
                raise AssertionError("unreachable: the caller took it")
            case _:  # Started
                return item.model_copy(update={"request_id": self.course.request.request_id})
        return item

    def _hold(self, event: StreamEvent) -> bool:
        """Keep `event` back; True where there is no room for it, which commits."""
        limits = self.course.generation.config.router
        size = len(event.model_dump_json())
        if len(self._held) >= limits.commit_buffer_events or self._held_bytes + size > limits.commit_buffer_bytes:
            return True
        self._held.append(event)
        self._held_bytes += size
        return False

    async def _commit(self, event: StreamEvent | None = None) -> None:
        if not self.committed:
            if self.race is not None:
                await self.race.win(self.leg)
            self.committed = True
            self._clock = "idle"
            self.course.committed(self.leg)
            if self.so_far is not None and self.so_far.first_event_at is None:
                self.so_far.first_event_at = self.leg.first_event_at
            held, self._held = self._held, []
            for each in held:
                await self.out.send(each)
        if event is not None:
            await self.out.send(event)

    async def _wait_for_end(self, items: AsyncIterator[StreamItem]) -> None:
        """Let the adapter give its connection back; leaving at once would cut it off. Complete is complete: what
        goes wrong here is the backend actor's to count."""
        self._scope.deadline = math.inf
        with trio.move_on_after(_END_S):
            try:
                await anext(items, None)
            except (SpearError, ActorStopped, ActorCrashed):
                return

    def _wait_until(self, deadline: float) -> None:
        self._scope.deadline = min(deadline, self.leg.deadline)
