"""weighted_random: each candidate with probability weight / sum of weights. It remembers nothing."""

from __future__ import annotations

from collections.abc import Sequence

from spear.router._draws import Draws
from spear.router._facts import Facts

from ._policy import Candidate, Choice, Options, State


def choose(
    candidates: Sequence[Candidate], facts: Facts, state: State, draws: Draws, now: float, options: Options
) -> Choice:
    weights = [candidate.weight for candidate in candidates]
    point = draws.below(sum(weights))
    for position, weight in enumerate(weights):
        point -= weight
        if point < 0:
            return Choice(position, weights)
    raise AssertionError("unreachable: the point lies below the sum of the weights")
