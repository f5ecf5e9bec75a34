"""What a policy is: a pure function that picks one of the candidates, all of which are admissible.

    choose(candidates, facts, state, draws, now, options) -> Choice

`state` is what this policy remembers for exactly this set of candidates (None at first), and the choice carries the
next one; neither is ever changed in place. `settle`, where a policy has it, gives the state after an attempt at the
candidate at `position` has failed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from spear.config import Price
from spear.router._draws import Draws
from spear.router._facts import Affinity, Facts
from spear.router._latency import DEFAULT_TAU_S, Estimate, Timing

State = object


class Candidate(Protocol):
    """`load` counts what is running and queued there. `weight` is above 0: a drained instance is no candidate.
    `identity` is a hash of the name, between 0 and 1."""

    @property
    def name(self) -> str: ...
    @property
    def weight(self) -> int: ...
    @property
    def priority(self) -> int: ...
    @property
    def load(self) -> int: ...
    @property
    def identity(self) -> float: ...
    @property
    def price(self) -> Price | None: ...
    def estimate(self, timing: Timing, tau: float) -> Estimate | None:
        """How long it takes; None = nobody knows."""


class Options(NamedTuple):
    """What a route says about its policy; `standing` alone comes with the decision."""

    within_level: str = "weighted_round_robin"
    """`priority`: the policy inside a level."""
    spill: Literal["strict", "proportional"] = "strict"
    """`priority`: when the next level is used."""
    tau: float = DEFAULT_TAU_S
    """Latency policies: how fast the past fades, in seconds."""
    hash_key: tuple[str, ...] = Affinity._fields
    """`consistent_hash`: what keeps requests together, the first of these that a request has."""
    load_bound: float = 1.25
    """`consistent_hash`: how many times its share of what is running an instance may have."""
    standing: Mapping[int, int] = {}
    """`priority`, proportional: by level, the weight of all that could take the request if all were up and free."""


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
    remembers: bool = False
    """Whether it has a state at all."""
