"""ewma_latency: the lower mean of the latest times, by weight, of two candidates drawn at random.

The mean is time-decayed with τ. It says how fast an instance was, not how busy it is: see peak_ewma.
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
    return race(candidates, facts, draws, now, options, _mean, _by_weight)


def _mean(estimate: Estimate) -> float:
    return estimate.mean


def _by_weight(seconds: float, candidate: Candidate) -> float:
    return seconds / candidate.weight
