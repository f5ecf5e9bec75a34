"""What one request's course leaves for the record: its decisions, and what was sent by each.

A request that is not sampled has none until something goes wrong; then it keeps the plans that led there.
"""

from __future__ import annotations

from spear.ir import Attempt, Json
from spear.router._decide import Plan


class Step:
    """One decision. `inputs` and `header` (its generation's record) are None where nobody looked at its time. That it
    found nobody is told of a request that went well only where it is `news`."""

    __slots__ = ("attempts", "header", "inputs", "news", "plan", "time")

    def __init__(
        self, plan: Plan, header: bytes | None, inputs: dict[str, Json] | None, time: float, *, news: bool = True
    ) -> None:
        self.plan = plan
        self.header = header
        self.inputs = inputs
        self.time = time
        self.attempts: list[Json] = []
        self.news = news

    @property
    def found_nobody(self) -> bool:
        """And that is to be recorded whatever becomes of the request."""
        return self.news and self.plan.error is not None


class Trail:
    __slots__ = ("sampled", "steps")

    def __init__(self, *, sampled: bool) -> None:
        self.sampled = sampled
        self.steps: list[Step] = []

    @property
    def found_nobody(self) -> bool:
        return any(step.found_nobody for step in self.steps)

    def decided(self, step: Step) -> None:
        self.steps.append(step)

    def came_to(self, plan: Plan, attempt: Attempt, time: float) -> None:
        """What was sent by `plan` has ended."""
        step = next((each for each in self.steps if each.plan.seed == plan.seed), None)
        if step is None:
            step = Step(plan, None, None, time)
            self.steps.append(step)
        step.attempts.append(
            {
                "backend": attempt.backend,
                "reason": attempt.reason,
                "outcome": attempt.outcome,
                "started_ms": attempt.started_ms,
                "elapsed_ms": attempt.elapsed_ms,
                "error": None if attempt.error_code is None else attempt.error_code.value,
            }
        )
