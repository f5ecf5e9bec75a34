"""Waiting between attempts: for a backoff, a Retry-After, or the recovery of somebody."""

from __future__ import annotations

import trio

from ._course import Course
from ._leg import Leg, Pause


async def next_leg(course: Course) -> Leg | None:
    """The next attempt, waited for where that is due; None where the course has none left."""
    while isinstance(step := course.next(), Pause):
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
    return step
