"""The router as an actor, and the two ways to ask it."""

from __future__ import annotations

import math
import traceback
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final
from uuid import uuid4

import trio

from actors import (
    Actor,
    ActorCrashed,
    ActorStopped,
    Context,
    MailboxFull,
    Ref,
    Request,
    Sink,
    Spec,
    Stream,
    StreamRequest,
)
from spear.ir import (
    CanonicalError,
    Completed,
    ErrorCode,
    ErrorEvent,
    InternalError,
    RequestEnvelope,
    ResponseEnvelope,
    SpearError,
    StreamEvent,
    error_to_exception,
    make_error,
)
from spear.secrets import Redactor
from spear.telemetry import get_logger

from ._course import Course
from ._decide import RETRY_HINT_MS
from ._desk import Desk
from ._explain import Explanation
from ._invoke import run_invoke
from ._relay import run_stream
from ._respond import failed_response

_log = get_logger("spear.router")
_QUEUE_MARGIN_S: Final = 0.25
_AHEAD: Final = 8
_TERMINAL: Final = (Completed, ErrorEvent)


@dataclass(frozen=True, slots=True)
class Route(Request[ResponseEnvelope]):
    """Ask for one answer; every failure is inside the envelope. `arrived` starts the request's clock."""

    request: RequestEnvelope
    arrived: float = field(default_factory=trio.current_time)


@dataclass(frozen=True, slots=True)
class RouteStream(StreamRequest[StreamEvent]):
    """Ask for a stream. Rejected with a `SpearError` where it never committed to a backend."""

    request: RequestEnvelope
    arrived: float = field(default_factory=trio.current_time)


RouterMessage = Route | RouteStream


class Router(Actor[RouterMessage]):
    """A turn is one request, from its decision to its end."""

    rejects = (SpearError,)

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    async def handle(self, msg: RouterMessage, ctx: Context[RouterMessage]) -> ResponseEnvelope:
        course: Course | None = None
        try:
            course = Course(self.desk, msg.request, msg.arrived, ctx.deadline)
            return await run_invoke(course)
        except Exception as bug:  # noqa: BLE001 -- one request must not end the router; the log has the traceback
            return failed_response(msg.request, self._incident(bug, msg.request, course))

    async def handle_stream(self, msg: RouterMessage, out: Sink[StreamEvent], ctx: Context[RouterMessage]) -> None:
        course: Course | None = None
        try:
            course = Course(self.desk, msg.request, msg.arrived, ctx.deadline)
            await run_stream(course, out)
        except SpearError:
            raise
        except Exception as bug:  # noqa: BLE001 -- as above
            raise InternalError(self._incident(bug, msg.request, course)) from None

    def explain(self, request: RequestEnvelope) -> Explanation:
        """What would be decided for `request` now. Sends nothing, changes nothing, never waits."""
        return self.desk.explain(request)

    def observe(self) -> Mapping[str, object]:
        return self.desk.observe()

    def _incident(self, bug: Exception, request: RequestEnvelope, course: Course | None) -> CanonicalError:
        if course is None:
            self.desk.counts.failed(ErrorCode.INTERNAL)
        else:
            course.abandoned()
        incident = uuid4().hex[:16]
        redact = Redactor(
            secret for each in self.desk.generation.instances for secret in each.host(debug_raw=False).redact
        )
        text = redact("".join(traceback.format_exception(bug)))
        _log.error("router_bug", incident=incident, request_id=request.request_id, traceback=text)
        return make_error(
            ErrorCode.INTERNAL,
            f"the router failed, incident {incident}",
            operation=request.operation,
            incident=incident,
        )


def router_spec(desk: Desk, *, name: str = "router", drain: float = 0.0) -> Spec[RouterMessage]:
    """`max_requests` turns at a time, `max_waiting` more in the mailbox."""
    limits = desk.generation.config.router
    return Spec(
        name=name,
        factory=partial(Router, desk),
        mailbox=limits.max_waiting,
        concurrency=limits.max_requests,
        drain=drain,
    )


async def invoke(router: Ref[RouterMessage], request: RequestEnvelope) -> ResponseEnvelope:
    """Ask `router` for one answer. Waits until there is one or the request's time is over; never raises a
    `SpearError`: failures, a full or stopped router included, are inside the envelope. Cancelled, the backend's turn
    is cancelled."""
    message = Route(request)
    try:
        if request.timeout_ms is None:
            return await router.ask_nowait(message)
        with trio.CancelScope(deadline=_waits_until(request, message.arrived)):
            return await router.ask_nowait(message)
        error = _error(request, ErrorCode.TIMEOUT, "out of time (queue)", clock="queue")
    except MailboxFull:
        error = _full(request)
    except (ActorStopped, ActorCrashed):
        error = _gone(request)
    return failed_response(request, error)


@asynccontextmanager
async def stream(router: Ref[RouterMessage], request: RequestEnvelope) -> AsyncIterator[AsyncIterator[StreamEvent]]:
    """Ask `router` for a stream. Entering waits for the commit to a backend and raises the `SpearError` of a stream
    that never comes to it; after that the events end with exactly one `completed` or `error`, and iterating raises
    nothing. Leaving the block cancels the backend's turn."""
    message = RouteStream(request)
    async with AsyncExitStack() as stack:
        try:
            events = await stack.enter_async_context(router.stream_nowait(message, buffer=_AHEAD))
            with trio.CancelScope(deadline=_waits_until(request, message.arrived)) as clock:
                first = await anext(events, None)
            if clock.cancelled_caught:
                raise error_to_exception(_error(request, ErrorCode.TIMEOUT, "out of time (queue)", clock="queue"))
        except MailboxFull:
            raise error_to_exception(_full(request)) from None
        except (ActorStopped, ActorCrashed):
            raise error_to_exception(_gone(request)) from None
        yield _Committed(first, events, request)


class _Committed:
    """The events after the commit, the first included; with a terminal event whatever becomes of the router."""

    def __init__(self, first: StreamEvent | None, events: Stream[StreamEvent], request: RequestEnvelope) -> None:
        self._first = first
        self._events = events
        self._request = request
        self._over = False

    def __aiter__(self) -> AsyncIterator[StreamEvent]:
        return self

    async def __anext__(self) -> StreamEvent:
        if self._over:
            raise StopAsyncIteration
        event, self._first = self._first, None
        if event is None:
            await trio.lowlevel.checkpoint_if_cancelled()
            try:
                event = self._events.next_nowait()
            except trio.WouldBlock:
                event = await self._wait()
        self._over = isinstance(event, _TERMINAL)
        return event

    async def _wait(self) -> StreamEvent:
        try:
            event = await anext(self._events, None)
        except (ActorStopped, ActorCrashed):
            return ErrorEvent(error=_gone(self._request))
        if event is None:
            return ErrorEvent(error=_error(self._request, ErrorCode.STREAM_TRUNCATED, "the stream has no end"))
        return event


def _waits_until(request: RequestEnvelope, arrived: float) -> float:
    """The router keeps the request's time itself once it has begun; this is for one that waits in its mailbox."""
    return math.inf if request.timeout_ms is None else arrived + request.timeout_ms / 1000 + _QUEUE_MARGIN_S


def _full(request: RequestEnvelope) -> CanonicalError:
    return _error(request, ErrorCode.OVERLOADED, "the router is full", retry_after_ms=RETRY_HINT_MS)


def _gone(request: RequestEnvelope) -> CanonicalError:
    return _error(request, ErrorCode.BACKEND_UNAVAILABLE, "the router stopped or restarted")


def _error(request: RequestEnvelope, code: ErrorCode, message: str, **fields: object) -> CanonicalError:
    return make_error(code, message, operation=request.operation, **fields)
