"""One answer: attempt after attempt, until one succeeds or none is left."""

from __future__ import annotations

import trio

from actors import ActorCrashed, ActorStopped, MailboxFull
from spear.backends import Answer, Invoke
from spear.ir import ResponseEnvelope, SpearError

from ._course import Course
from ._failures import Fault, fault_of, timed_out
from ._leftovers import forget
from ._leg import Leg
from ._pause import next_leg
from ._race import Race, late_of


async def run_invoke(course: Course) -> ResponseEnvelope:
    """Every failure is inside the envelope. Cancelled, the backend's turn is cancelled, too."""
    while (leg := await next_leg(course)) is not None:
        if course.generation.hedged and (late := late_of(course, leg)) is not None:
            answer, goes_on = await _race(course, Race(course, late), leg)
            if answer is not None:
                return answer
            if not goes_on:
                break
            continue
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


async def _race(course: Course, race: Race, first: Leg) -> tuple[ResponseEnvelope | None, bool]:
    """The answer of the first that has one; and, where none has, whether another attempt may follow."""
    answers: list[Answer] = []

    async def attempt(leg: Leg) -> Fault | None:
        outcome = await _send(course, leg, raced=True)
        if isinstance(outcome, Fault):
            return outcome
        if race.claim(leg):
            answers.append(outcome)
        else:
            await forget(course.desk.media, leg.request.payload, outcome)
        return None

    goes_on = await race.run(first, attempt)
    if race.winner is None:
        return None, goes_on
    return course.answered(race.winner, answers[0]), False


async def _send(course: Course, leg: Leg, *, raced: bool = False) -> Answer | Fault:
    """Cancelled in a race, which then says what became of the attempt, it waits for the end of the backend's turn."""
    instance = leg.instance
    instance.turns.add(leg)
    try:
        with trio.CancelScope(deadline=leg.deadline):
            message = Invoke(leg.request, leg.call)
            return await leg.ref.ask_nowait(message, deadline=leg.call.deadline, joined=raced)
        instance.leave(leg)
        return timed_out(instance.name, "total")
    except (SpearError, ActorStopped, ActorCrashed) as error:
        return fault_of(error, instance.name)
    except trio.Cancelled:
        instance.leave(leg)
        if not raced:
            course.left(leg)
        raise
    finally:
        instance.turns.discard(leg)
