"""`hedge` and `continuation` of a route: where they do nothing, and what TOML writes otherwise."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from spear.ir import Operation

from ._model import Hedge, Route, RouterLimits
from ._positions import Path
from ._read import describe
from ._report import Report
from ._sections import DURATION_FORM, Table, durations, keys_of, only_known

NEVER_HEDGED: Final = frozenset({Operation.IMAGE_GENERATION, Operation.REALTIME_VOICE})
"""Operations whose calls cost too much, or hold a session, to be made twice."""
_PERCENTILE: Final = re.compile(r"p[0-9]{1,2}(\.[0-9]{1,3})?")
_UNIT_ENDS: Final = ("s", "m", "h", "d")
_PERCENTILE_FORM: Final = 'a percentile from "p0" to "p99.999" such as "p95"'


def check_continuation(report: Report, values: Table, path: Path) -> None:
    if "continuation" in values and _operation(values) not in (None, Operation.CHAT_COMPLETIONS.value):
        report.add((*path, "continuation"), "does nothing here: only chats are continued; take it out")


def hedge_of(report: Report, values: Table, path: Path) -> Table:
    """`values`, those of a route, with the delay of its hedge in seconds or as a percentile."""
    hedge = values.get("hedge")
    if not isinstance(hedge, dict):
        return values
    at = (*path, "hedge")
    operation = _operation(values)
    if operation in {each.value for each in NEVER_HEDGED}:
        report.add(at, f"does nothing here: {operation} is never hedged; take it out")
    hedge = only_known(report, hedge, at, keys_of(Hedge))
    delay = hedge.get("delay")
    if not isinstance(delay, str) or delay.strip()[-1:] in _UNIT_ENDS:
        hedge = durations(report, hedge, at, ("delay",))
    elif not _PERCENTILE.fullmatch(delay.strip()):
        form = f"{_PERCENTILE_FORM}, or {DURATION_FORM}"
        report.add((*at, "delay"), f"is {describe(delay)} and no percentile; expected {form}")
        del hedge["delay"]
    elif delay.strip().startswith("p0."):
        report.add(
            (*at, "delay"), 'is less than the first percentile; percentiles count to 100: expected such as "p95"'
        )
        del hedge["delay"]
    else:
        hedge["delay"] = delay.strip()
    return {**values, "hedge": hedge}


def check_hedges(report: Report, routes: Iterable[Route | None], router: RouterLimits | None) -> None:
    """A hedge is one of the request's attempts: where there is only one, it does nothing."""
    for index, route in enumerate(routes):
        if route is None or route.hedge is None or router is None:
            continue
        if (route.max_attempts or router.max_attempts) == 1:
            where = "this route" if route.max_attempts else "[spear.router]"
            message = f"does nothing here: {where} allows one attempt; make max_attempts 2 or more"
            report.add(("spear", "routes", index, "hedge"), message)


def _operation(values: Table) -> str | None:
    """What a route matches; what is no text there is the model's to complain of."""
    match = values.get("match")
    operation = match.get("operation") if isinstance(match, dict) else None
    return operation if isinstance(operation, str) else None
