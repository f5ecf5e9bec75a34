"""priority: the lowest number first, strictly: the next level only when nobody of this one is admissible.

Inside a level another policy chooses (`within_level`), with that policy's scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from spear.router._draws import Draws
from spear.router._facts import Facts

from ._policy import Candidate, Choice, Options, Policy, State


class Level(NamedTuple):
    """What the inner policy remembers, and where its candidates stand among all."""

    within: str
    positions: tuple[int, ...]
    state: State


def spill_strictly(policies: Mapping[str, Policy]) -> Policy:
    """The policy over those that may order a level."""

    def choose(
        candidates: Sequence[Candidate], facts: Facts, state: State, draws: Draws, now: float, options: Options
    ) -> Choice:
        top = min(candidate.priority for candidate in candidates)
        positions = tuple([p for p, candidate in enumerate(candidates) if candidate.priority == top])
        within = options.within_level
        remembered: State = None
        if isinstance(state, Level) and state.within == within and state.positions == positions:
            remembered = state.state
        inner = policies[within].choose([candidates[p] for p in positions], facts, remembered, draws, now, options)
        scores: list[float | None] = [None] * len(candidates)
        for position, score in zip(positions, inner.scores, strict=True):
            scores[position] = score
        note = f"level {top} of {len(positions)}, {within}"
        return Choice(positions[inner.position], scores, Level(within, positions, inner.state), note, inner.best)

    def settle(state: State, position: int) -> State:
        if not isinstance(state, Level) or position not in state.positions:
            return state
        inner = policies[state.within].settle
        if inner is None:
            return state
        return state._replace(state=inner(state.state, state.positions.index(position)))

    return Policy(choose, settle)
