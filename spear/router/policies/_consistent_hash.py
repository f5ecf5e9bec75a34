"""consistent_hash: requests of one key go to one instance, while it has no more than its share.

Weighted rendezvous: each candidate scores -weight / ln(h), h in (0, 1) made of the key and the candidate's name; the
highest wins. So an instance that goes away moves only its own keys, by weight to the others, and one that comes takes
only its share; the order of the scores is also the order in which a key falls back. Whoever has more than `load_bound`
times its share of what is running is passed over, so that one hot key cannot bury an instance.

h is the fraction of the product of two hashed numbers, a large one of the key and one below 1 of the name: 26 bits
that scatter well enough, for a fifth of what mixing integers costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import Final

from spear.router._draws import Draws
from spear.router._facts import Affinity, Facts

from . import _least_inflight
from ._policy import Candidate, Choice, Options, State

_LARGE: Final = 2.0**26
_BITS: Final = (1 << 52) - 1
_HALF_STEP: Final = 2.0**-27


def choose(
    candidates: Sequence[Candidate], facts: Facts, state: State, draws: Draws, now: float, options: Options
) -> Choice:
    kind, key = _key(facts.affinity, options.hash_key)
    if key is None:
        choice = _least_inflight.choose(candidates, facts, state, draws, now, options)
        note = f"no {' or '.join(options.hash_key)} to hash: least_inflight"
        return choice._replace(note=f"{note}, {choice.note}" if choice.note else note)
    loads = [each.load for each in candidates]
    weights = [each.weight for each in candidates]
    least = min(weights)
    large = _LARGE + (key & _BITS) / _LARGE  # below twice _LARGE, so that 26 bits are left behind the point
    # The middle of a step, so that h is neither 0 nor 1.
    scores = [large * each.identity % 1.0 + _HALF_STEP for each in candidates]
    if least != max(weights):  # else h orders them as -weight / ln(h) does, at less than half the price
        scores = [-weight / log(h) for weight, h in zip(weights, scores, strict=True)]
    # Of all that runs, this request included: there is always one below its share.
    share = options.load_bound * (sum(loads) + 1) / sum(weights)
    if max(loads) < share * least:
        return Choice(scores.index(max(scores)), scores, note=f"by {kind}")
    kept = [score if load < share * w else None for score, load, w in zip(scores, loads, weights, strict=True)]
    over = kept.count(None)
    note = f"by {kind}; {over} above {options.load_bound:g} x their share" if over else f"by {kind}"
    return Choice(kept.index(max(score for score in kept if score is not None)), kept, note=note)


def _key(affinity: Affinity, kinds: Sequence[str]) -> tuple[str, int | None]:
    """The first of `kinds` that this request has."""
    for kind in kinds:
        key = getattr(affinity, kind)
        if key is not None:
            return kind, key
    return "", None
