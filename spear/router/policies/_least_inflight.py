"""least_inflight: the smallest (load + 1) / weight.

Up to four candidates are all compared; of more, two are drawn at random and the better one is taken, which avoids
that everybody runs to the same momentary minimum. Equals are decided by chance, so that nobody is pinned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from spear.router._draws import Draws
from spear.router._facts import Facts

from ._pair import two_of
from ._policy import Candidate, Choice, Options, State

_COMPARE_ALL: Final = 4


def choose(
    candidates: Sequence[Candidate], facts: Facts, state: State, draws: Draws, now: float, options: Options
) -> Choice:
    count = len(candidates)
    positions = range(count) if count <= _COMPARE_ALL else two_of(count, draws)
    scores: list[float | None] = [None] * count
    best: list[int] = []
    least = 0.0
    for position in positions:
        candidate = candidates[position]
        score = scores[position] = (candidate.load + 1) / candidate.weight
        if not best or score < least:
            best, least = [position], score
        elif score == least:
            best.append(position)
    position = best[0] if len(best) == 1 else best[draws.below(len(best))]
    note = "" if count <= _COMPARE_ALL else f"power of two choices among {count}"
    return Choice(position, scores, note=note, best="lowest")
