"""What an attempt came to, in the quantities of its limits. What nobody knows counts as it was reserved, never as 0."""

from __future__ import annotations

from typing import Final

from spear.config import Price
from spear.ir import Failure, Usage

from ._facts import estimate_tokens
from ._failures import Fault
from ._leg import Leg, Outcome
from ._usage import TOKENS_BOTH_WAYS, believable
from .limits import ASKED, NOTHING, Amounts, Reservation, amounts_of

_UNSENT: Final = frozenset({Failure.CONNECT, Failure.OVERLOAD})
_UNWORKED: Final = frozenset({Failure.RATE_LIMIT, Failure.AUTH, Failure.REQUEST})


def settle_leg(leg: Leg, reservation: Reservation, outcome: Outcome, fault: Fault | None, now: float) -> None:
    """Once for each attempt, when it ends."""
    used = used_by(leg, reservation.amounts, outcome, fault)
    reservation.settle(used, now)
    operation, bounds = leg.plan.facts.operation, leg.instance.bounds
    if outcome == "ok" and bounds is not None and operation in TOKENS_BOTH_WAYS:
        bounds.outputs(operation).learn(used.output_tokens)


def used_by(leg: Leg, reserved: Amounts, outcome: Outcome, fault: Fault | None) -> Amounts:
    if outcome == "refused":  # its mailbox was full
        return NOTHING
    if fault is not None and leg.first_event_at is None:
        if fault.failure in _UNSENT and not fault.actor_gone:
            return NOTHING
        if fault.failure in _UNWORKED:
            return ASKED
    usage = leg.usage
    # What came before the commit and then failed says nothing of what was worked at.
    came = leg.streamed and (fault is None or leg.first_event_at is not None)
    if came and (usage is None or usage.output_tokens is None):
        usage = (usage or Usage()).model_copy(update={"output_tokens": estimate_tokens(leg.chars)})
    return used_of(usage, reserved, leg.instance.price)


def used_of(usage: Usage | None, reserved: Amounts, price: Price | None) -> Amounts:
    """What `usage` says, and what it does not say as it was reserved."""
    if usage is None:
        return reserved
    usage = believable(usage)
    known, output = usage.input_tokens, usage.output_tokens
    amounts = amounts_of(
        reserved.input_tokens if known is None else known,
        reserved.output_tokens if output is None else output,
        price,
    )
    if price is not None and price.beside_tokens:
        return amounts._replace(cost=reserved.cost if usage.cost is None else usage.cost)
    return amounts
