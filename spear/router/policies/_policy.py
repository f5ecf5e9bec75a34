"""What a policy is: a pure function that picks one of the candidates, all of which are admissible.

    choose(candidates, facts, state, draws, now, options) -> Choice

`state` is what this policy remembers for exactly this set of candidates (None at first), and the choice carries the
next one; neither is ever changed in place. `settle`, where a policy has it, gives the state after an attempt at the
candidate at `position` has failed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from spear.router._draws import Draws
from spear.router._facts import Facts

State = object


class Candidate(Protocol):
    """`load` counts what is running and queued there. `weight` is above 0: a drained instance is no candidate."""

    @property
    def name(self) -> str: ...
    @property
    def weight(self) -> int: ...
    @property
    def priority(self) -> int: ...
    @property
    def load(self) -> int: ...


class Options(NamedTuple):
    """What a route says about its policy."""

    within_level: str = "weighted_round_robin"
    """`priority`: the policy inside a level."""


class Choice(NamedTuple):
    """`scores` has one number for each candidate, None for those that were not looked at; `best` says which end of
    them is preferred."""

    position: int
    scores: Sequence[float | None]
    state: State = None
    note: str = ""
    best: Literal["highest", "lowest"] = "highest"


Choose = Callable[[Sequence[Candidate], Facts, State, Draws, float, Options], Choice]


@dataclass(frozen=True, slots=True)
class Policy:
    choose: Choose
    settle: Callable[[State, int], State] | None = None
