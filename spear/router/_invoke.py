"""One answer: attempt after attempt, until one succeeds or none is left."""

from __future__ import annotations

import trio

from actors import ActorCrashed, ActorStopped, MailboxFull
from spear.backends import Answer, Invoke
from spear.ir import ResponseEnvelope, SpearError

from ._course import Course
from ._failures import Fault, fault_of
from ._leg import Leg
from ._pause import next_leg


async def run_invoke(course: Course) -> ResponseEnvelope:
    """Every failure is inside the envelope. Cancelled, the backend's turn is cancelled, too."""
    while (leg := await next_leg(course)) is not None:
        try:
            outcome = await _send(course, leg)
        except MailboxFull:
            course.refused(leg)
            continue
        if isinstance(outcome, Answer):
            return course.answered(leg, outcome)
        if not course.failed(leg, outcome):
            break
    return course.failure()


async def _send(course: Course, leg: Leg) -> Answer | Fault:
    instance = leg.instance
    instance.turns.add(leg)
    try:
        with trio.CancelScope(deadline=leg.deadline):
            return await leg.ref.ask_nowait(Invoke(leg.request, leg.call), deadline=leg.call.deadline)
        instance.leave(leg)
        return course.timed_out(leg, "total")
    except (SpearError, ActorStopped, ActorCrashed) as error:
        return fault_of(error, instance.name)
    except trio.Cancelled:
        instance.leave(leg)
        course.left(leg)
        raise
    finally:
        instance.turns.discard(leg)
