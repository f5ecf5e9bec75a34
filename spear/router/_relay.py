"""A stream: attempts until one commits, then that one to its end, whatever it is.

The first content-bearing event is the commit point. Until then the events are held back, so that a failure can be
replaced without a trace; a full buffer commits, too. After it nothing is replaced: a failure is the terminal `error`
event. The first-event clock runs to the commit, the idle clock between events while the backend is waited for, never
while the consumer is behind; the total clock always runs.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
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
    SpearError,
    StreamEvent,
    ToolCallDelta,
    UsageEvent,
    bears_content,
    error_to_exception,
    make_error,
)

from ._course import Course
from ._failures import Fault, fault_of, truncated
from ._leg import Leg
from ._pause import next_leg

_AHEAD: Final = 8
"""Items that a backend may be ahead of the router."""
_END_S: Final = 1.0
"""How long a backend may take to close a stream that is complete."""


async def run_stream(course: Course, out: Sink[StreamEvent]) -> None:
    """Ends after a terminal event, or raises the `SpearError` of a stream that never committed."""
    while (leg := await next_leg(course)) is not None:
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
            await relay.broke(course.error())
            return
        if not goes_on:
            break
    error = course.error()
    course.ended(error)
    raise error_to_exception(error)


class _Relay:
    """One attempt of a stream."""

    def __init__(self, course: Course, leg: Leg, out: Sink[StreamEvent]) -> None:
        self.course = course
        self.leg = leg
        self.out = out
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
            self.course.left(leg)
            raise
        finally:
            leg.instance.leave(leg)
        if answer is None:
            clock: Clock = "total" if trio.current_time() >= leg.deadline else self._clock
            return self.course.timed_out(leg, clock)
        if isinstance(answer, Fault):
            return answer
        await self._complete(answer)
        return None

    async def _complete(self, answer: Answer) -> None:
        """The backend is done: from here on a consumer that leaves takes nothing from the success."""
        completed = Completed(response=self.course.answered(self.leg, answer))
        await self._commit()
        await self.out.send(completed)

    async def broke(self, error: CanonicalError) -> None:
        """After the commit: the failure is the stream's terminal event."""
        self.course.ended(error)
        usage = self.course.partial_usage(self.leg)
        await self.out.send(ErrorEvent(error=error, usage=usage))

    async def _events(self) -> Answer | Fault:
        leg, scope = self.leg, self._scope
        async with leg.ref.stream_nowait(OpenStream(leg.request, leg.call), buffer=_AHEAD) as items:
            async for item in items:
                if isinstance(item, Finished):
                    await self._wait_for_end(items)
                    return item.answer
                event = self._event(item)
                if isinstance(event, Fault):
                    return event
                if self.committed:
                    scope.deadline = leg.deadline
                    await self.out.send(event)
                elif bears_content(event) or self._hold(event):
                    scope.deadline = leg.deadline
                    await self._commit(event)
                else:
                    continue
                self._wait_until(trio.current_time() + leg.call.idle)
        return truncated(leg.instance.name)

    def _event(self, item: StreamItem) -> StreamEvent | Fault:
        """What the consumer sees of it."""
        match item:
            case ContentDelta(delta=text) | ReasoningDelta(delta=text):
                self.leg.chars += len(text)
            case ToolCallDelta(arguments=text):
                self.leg.chars += len(text)
            case UsageEvent(usage=usage):
                self.leg.usage = usage
                return UsageEvent(usage=self.course.partial_usage(self.leg))
            case AudioDelta():
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
            self.committed = True
            self._clock = "idle"
            self.course.committed(self.leg)
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
