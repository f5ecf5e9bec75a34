"""weighted_round_robin and round_robin: the smooth form that nginx made known.

Add to each candidate's current value its effective weight, pick the largest (the first of equals), and subtract the
sum from it: over one period everybody is picked exactly by weight, as evenly spread as possible (5/1/1 gives
a a b a c a a). A failed attempt halves the effective weight of the one that failed; it creeps back by a sixteenth of
the weight with each decision.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from spear.router._draws import Draws
from spear.router._facts import Facts

from ._policy import Candidate, Choice, Options, State

_CREEP: Final = 16


class Wheel(NamedTuple):
    """`effective` is None while every effective weight is the weight itself."""

    weights: tuple[int, ...]
    current: tuple[int, ...]
    effective: tuple[int, ...] | None = None


def choose(
    candidates: Sequence[Candidate], facts: Facts, state: State, draws: Draws, now: float, options: Options
) -> Choice:
    return _turn(tuple([candidate.weight for candidate in candidates]), state)


def choose_evenly(
    candidates: Sequence[Candidate], facts: Facts, state: State, draws: Draws, now: float, options: Options
) -> Choice:
    return _turn((1,) * len(candidates), state)


def settle(state: State, position: int) -> State:
    """After a failure of the candidate at `position`."""
    if not isinstance(state, Wheel):
        return state
    effective = list(state.effective or state.weights)
    effective[position] //= 2
    return state._replace(effective=tuple(effective))


def _turn(weights: tuple[int, ...], state: State) -> Choice:
    if isinstance(state, Wheel) and state.weights == weights:
        current, effective = state.current, _creep(weights, state.effective)
    else:
        current, effective = (0,) * len(weights), None
    added = effective or weights
    raised = [value + weight for value, weight in zip(current, added, strict=True)]
    largest = max(raised)
    position = raised.index(largest)
    after = list(raised)
    after[position] = largest - sum(added)
    return Choice(position, raised, Wheel(weights, tuple(after), effective))


def _creep(weights: tuple[int, ...], effective: tuple[int, ...] | None) -> tuple[int, ...] | None:
    if effective is None:
        return None
    crept = tuple([min(w, e + 1 + w // _CREEP) for w, e in zip(weights, effective, strict=True)])
    return None if crept == weights else crept
