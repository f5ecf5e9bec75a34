"""The error where everybody is well, but nobody has room: which of the three it is, and when to ask again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, inf
from typing import TYPE_CHECKING, Final

from spear.ir import CanonicalError, ErrorCode, make_error

from ._facts import Facts
from ._instance import Instance
from ._moment import FULL
from .limits import BUDGET, RATE_REASONS

if TYPE_CHECKING:
    from ._registry import Generation

RETRY_HINT_MS: Final = 1000
"""When to ask again, where nothing better is known."""
_ROUNDING: Final = 1e-6
"""Of a millisecond: what the difference of two times may be off by."""


def no_room(
    generation: Generation, instances: Sequence[Instance], facts: Facts, rejected: Mapping[str, str], now: float
) -> CanonicalError:
    """`overloaded` where anybody is only full, since that passes soonest; else `rate_limited` where a rate is in the
    way; else `budget_exceeded`. The last two say when the first of those will have room."""
    full = any(reason == FULL for reason in rejected.values())
    rates = [each for each in instances if rejected.get(each.name) in RATE_REASONS]
    paid = [each for each in instances if rejected.get(each.name, "").startswith(BUDGET)]
    what: dict[str, object] = {
        "operation": facts.operation,
        "required": (facts.operation.value, *facts.ops, *facts.features, *facts.transports),
        "candidates_checked": tuple(generation.by_name),
        "rejected_reasons": rejected,
    }
    if full:
        message = "every backend that could take the request is full"
        return make_error(ErrorCode.OVERLOADED, message, retry_after_ms=RETRY_HINT_MS, **what)
    ready = min((each.room_at(facts, now) for each in rates or paid), default=inf)
    names = ", ".join(sorted({rejected[each.name] for each in rates or paid}))
    if ready == inf:
        message = f"the request is larger than what is allowed at all ({names})"
        what["retryable"] = False
    else:
        message = f"every backend that could take the request has reached a limit ({names})"
        what["retry_after_ms"] = ceil((ready - now) * 1000 - _ROUNDING)
    return make_error(ErrorCode.RATE_LIMITED if rates else ErrorCode.BUDGET_EXCEEDED, message, **what)
