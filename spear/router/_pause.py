"""Waiting between attempts: for a backoff, a Retry-After, the recovery of somebody, or what a filter says."""

from __future__ import annotations

import trio

from ._course import Course
from ._external import Consult, consult
from ._leg import Leg


async def next_leg(course: Course) -> Leg | None:
    """The next attempt, waited for where that is due; None where the course has none left."""
    while True:
        step = course.next()
        if step is None or isinstance(step, Leg):
            return step
        if isinstance(step, Consult):
            await consult(course, step)
            continue
        course.desk.pausing += 1
        try:
            with trio.move_on_at(step.until):
                if step.bell is None:
                    await trio.sleep_forever()
                else:
                    await step.bell.wait()
        except trio.Cancelled:
            course.left_between()
            raise
        finally:
            course.desk.pausing -= 1
