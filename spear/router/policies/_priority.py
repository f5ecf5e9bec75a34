"""priority: the lowest number first. How the next levels come in is the spill:

strict        the next level only when nobody of this one is admissible
proportional  a level takes 1.4 times the part of its weight that is admissible, at most what the levels before it
              left; so it may lose 2 of 7 before anything spills. Where all levels together take less than everything,
              their parts are scaled up.

Inside a level another policy chooses (`within_level`), with that policy's scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from spear.router._draws import Draws
from spear.router._facts import Facts

from ._policy import Candidate, Choice, Options, Policy, State

OVERPROVISIONING: Final = 1.4


class Level(NamedTuple):
    """What the inner policy remembers, and where its candidates stand among all."""

    within: str
    positions: tuple[int, ...]
    state: State


def over(policies: Mapping[str, Policy]) -> Policy:
    """The policy over those that may order a level. Its state is a `Level` for each that has been used."""

    def choose(
        candidates: Sequence[Candidate], facts: Facts, state: State, draws: Draws, now: float, options: Options
    ) -> Choice:
        within = options.within_level
        number, share = _level(candidates, draws, options)
        positions = tuple([p for p, candidate in enumerate(candidates) if candidate.priority == number])
        levels = _levels(state)
        remembered = next((each.state for each in levels if each[:2] == (within, positions)), None)
        inner = policies[within].choose([candidates[p] for p in positions], facts, remembered, draws, now, options)
        scores: list[float | None] = [None] * len(candidates)
        for position, score in zip(positions, inner.scores, strict=True):
            scores[position] = score
        part = "" if share is None else f" with {share:.0%}"
        note = f"level {number} of {len(positions)}{part}, {within}"
        # Levels never share a candidate, so that there is no more than one of each.
        others = tuple(each for each in levels if each.within == within and each.positions[0] not in positions)
        after = (*others, Level(within, positions, inner.state))
        return Choice(positions[inner.position], scores, tuple(sorted(after, key=_first)), note, inner.best)

    def settle(state: State, position: int) -> State:
        return tuple(_settled(policies, each, position) for each in _levels(state))

    return Policy(choose, settle, remembers=True)


def _levels(state: State) -> tuple[Level, ...]:
    return state if isinstance(state, tuple) else ()


def _first(level: Level) -> int:
    return level.positions[0]


def _settled(policies: Mapping[str, Policy], level: Level, position: int) -> Level:
    inner = policies[level.within].settle
    if inner is None or position not in level.positions:
        return level
    return level._replace(state=inner(level.state, level.positions.index(position)))


def _level(candidates: Sequence[Candidate], draws: Draws, options: Options) -> tuple[int, float | None]:
    """Which level, and which share of the requests it has, where it has not all."""
    if options.spill == "strict":
        return min(candidate.priority for candidate in candidates), None
    shares = _shares(candidates, options.standing)
    point = draws.random()
    for number, share in shares:
        point -= share
        if point < 0:
            return number, share if share < 1 else None
    return shares[-1]  # the shares add up to 1 but for rounding


def _shares(candidates: Sequence[Candidate], standing: Mapping[int, int]) -> list[tuple[int, float]]:
    """By level, in order; those that get nothing left out. They add up to 1."""
    here: dict[int, int] = {}
    for candidate in candidates:
        here[candidate.priority] = here.get(candidate.priority, 0) + candidate.weight
    taken: list[tuple[int, float]] = []
    left = 1.0
    for number, weight in sorted(here.items()):
        share = min(left, OVERPROVISIONING * weight / max(weight, standing.get(number, 0)))
        if share > 0:
            taken.append((number, share))
        left -= share
    whole = 1.0 - left
    return [(number, share / whole) for number, share in taken]
