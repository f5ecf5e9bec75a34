"""cheapest: the lowest price of the request's estimated tokens; among equals, peak_ewma.

An instance without a price is taken only where none of the candidates has one: what is unknown must not look cheap.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from spear.ir import Operation
from spear.router._draws import Draws
from spear.router._facts import Facts
from spear.router._usage import others_cost

from . import _peak_ewma
from ._policy import Candidate, Choice, Options, State

OUTPUT_GUESS: Final = 256
"""Tokens of a chat's answer where the request sets no maximum."""
_PER: Final = 1_000_000


def choose(
    candidates: Sequence[Candidate], facts: Facts, state: State, draws: Draws, now: float, options: Options
) -> Choice:
    scores = expected_costs(candidates, facts)
    costs = [cost for cost in scores if cost is not None]
    if not costs:
        choice = _peak_ewma.choose(candidates, facts, state, draws, now, options)
        note = "nobody has a price: peak_ewma"
        return choice._replace(note=f"{note}, {choice.note}" if choice.note else note)
    least = min(costs)
    equals = [position for position, cost in enumerate(scores) if cost == least]
    if len(equals) == 1:
        return Choice(equals[0], scores, best="lowest")
    inner = _peak_ewma.choose([candidates[p] for p in equals], facts, None, draws, now, options)
    return Choice(equals[inner.position], scores, note=f"{len(equals)} cost the same: peak_ewma", best="lowest")


def expected_costs(candidates: Sequence[Candidate], facts: Facts) -> list[float | None]:
    """What the request is expected to cost at each; None where it has no price."""
    output = 0
    if facts.operation is Operation.CHAT_COMPLETIONS:
        output = facts.sizes.output_tokens or OUTPUT_GUESS
    once, more = facts.input_tokens / _PER, output / _PER
    prices = [candidate.price for candidate in candidates]
    costs = [None if price is None else once * price.input + more * price.output for price in prices]
    if facts.operation is Operation.CHAT_COMPLETIONS:
        return costs
    return [
        cost if cost is None or price is None else cost + others_cost(facts, price)
        for cost, price in zip(costs, prices, strict=True)
    ]
