"""What the latency policies share: of two candidates drawn at random, the one whose answer is expected to cost less.

An estimate says the less the older it is. Between the two it moves towards the lower one as the past fades, so that an
instance that was slow, or failed, comes back by and by, and never looks faster than one whose speed is known. After 3 τ
without a sample it is forgotten. An instance of which nothing is known is asked at once if it is idle, and else comes
last: one call finds out, the others do not wait behind it. For its first τ it gets a share that grows from a tenth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import exp, inf
from typing import Final

from spear.router._draws import Draws
from spear.router._facts import Facts
from spear.router._latency import Estimate

from ._pair import two_of
from ._policy import Candidate, Choice, Options

UNKNOWN_S: Final = 1000.0
"""What an answer is expected to take of one that is busy and has never answered."""
_LEAST_SHARE: Final = 0.1

Average = Callable[[Estimate], float]
Weigh = Callable[[float, Candidate], float]
"""From the seconds of an answer to the score; the lower one wins."""


def race(
    candidates: Sequence[Candidate],
    facts: Facts,
    draws: Draws,
    now: float,
    options: Options,
    average: Average,
    weigh: Weigh,
) -> Choice:
    count = len(candidates)
    pair: tuple[int, ...] = (0,) if count == 1 else two_of(count, draws)
    timing, tau = facts.timing, options.tau
    known: list[tuple[int, Estimate | None, float]] = []
    lowest = inf
    for position in pair:
        estimate = candidates[position].estimate(timing, tau)
        if estimate is None or estimate.forgotten(tau, now):
            known.append((position, None, 0.0))
        else:
            cost = average(estimate)
            lowest = min(lowest, cost)
            known.append((position, estimate, cost))
    scores: list[float | None] = [None] * count
    best, least = pair[0], 0.0  # of equals the first: which that is, is chance
    for position, estimate, cost in known:
        candidate = candidates[position]
        if estimate is not None:
            score = weigh(_expected(estimate, cost, lowest, tau, now), candidate)
        else:
            score = weigh(UNKNOWN_S, candidate) if candidate.load else 0.0
        scores[position] = score
        if position == pair[0] or score < least:
            best, least = position, score
    note = f"power of two choices among {count}" if count > len(pair) else ""
    return Choice(best, scores, note=note, best="lowest")


def _expected(estimate: Estimate, cost: float, lowest: float, tau: float, now: float) -> float:
    faded = cost if cost == lowest else lowest + (cost - lowest) * exp(min(0.0, estimate.at - now) / tau)
    share = (now - estimate.since) / tau
    return faded if share >= 1.0 else faded / max(_LEAST_SHARE, share)
