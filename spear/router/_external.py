"""Asking an external filter: once per request and filter, before anybody is chosen, inside the request's own time.

What it said is kept in the request's facts, so that each fallback, repeat and further leg passes the same verdict, and
so does a decision that is replayed from its facts. Whoever runs a filter is behind `ExternalFilter`; nothing here does
any I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol

import trio

from spear.config import FilterConfig
from spear.ir import Json
from spear.telemetry import get_logger

from ._facts import Facts
from ._question import question_of
from ._routes import find_route
from ._verdict import BadAnswer, Verdict, parse_verdict

if TYPE_CHECKING:
    from ._course import Course

_log = get_logger("spear.router")


class FilterFailed(Exception):
    """The filter did not answer. The text says why, in a few words, without an address."""


class ExternalFilter(Protocol):
    async def ask(self, question: Mapping[str, Json]) -> Json:
        """Waits for the filter's answer; the caller keeps the time. Cancelled, all that was started for it has ended.
        Raises `FilterFailed`."""


class Consult(NamedTuple):
    """A filter has to be asked before the course goes on."""

    config: FilterConfig
    facts: Facts


async def consult(course: Course, step: Consult) -> None:
    """Ask, and let `course` know. Waits for the filter's `timeout` at most, and not beyond the request's deadline."""
    config, generation, now = step.config, course.generation, trio.current_time()
    candidates = course.desk.considered(step.facts, now)
    if not candidates:  # nobody to say anything of; the decision will tell why
        course.heard(Verdict(config.name))
        return
    failed = f"timeout after {config.timeout:g} s"
    verdict: Verdict | None = None
    tau = find_route(generation.routes, step.facts).options.tau
    question = question_of(config, course.request, step.facts, candidates, tau, now)
    weights = {each.name: each.weight for each in candidates}
    try:
        with trio.CancelScope(deadline=min(now + config.timeout, course.deadline)):
            port = generation.ports.get(config.name)
            if port is None:
                raise FilterFailed("not running")
            verdict = parse_verdict(config.name, await port.ask(question), weights, config.max_reweight)
    except FilterFailed as error:
        failed = str(error)
    except BadAnswer as error:
        failed = f"its answer {error}"
    except trio.Cancelled:
        course.left_between()
        raise
    if verdict is None:
        verdict = Verdict(config.name, failed=failed, closed=config.on_error == "closed")
    # The first failure is news; a filter that is down would else write a line for each request.
    log = _log.warning if course.desk.counts.heard(verdict) else _log.debug
    if verdict.failed:
        log("filter_failed", filter=config.name, reason=failed, on_error=config.on_error)
    course.heard(verdict)
