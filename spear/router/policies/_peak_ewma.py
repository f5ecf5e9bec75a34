"""peak_ewma: the lower (expected time) x (load + 1) / weight of two candidates drawn at random.

The time is an average that a higher sample replaces at once and that fades with τ: quick to believe that an instance
has become slow, slow to believe that it has become fast.
"""

from __future__ import annotations

from collections.abc import Sequence

from spear.router._draws import Draws
from spear.router._facts import Facts
from spear.router._latency import Estimate

from ._policy import Candidate, Choice, Options, State
from ._race import race


def choose(
    candidates: Sequence[Candidate], facts: Facts, state: State, draws: Draws, now: float, options: Options
) -> Choice:
    return race(candidates, facts, draws, now, options, _peak, _by_load)


def _peak(estimate: Estimate) -> float:
    return estimate.peak


def _by_load(seconds: float, candidate: Candidate) -> float:
    return seconds * (candidate.load + 1) / candidate.weight
