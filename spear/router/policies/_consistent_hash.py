"""consistent_hash: requests of one key go to one instance, while it has no more than its share.

Weighted rendezvous: each candidate scores -weight / ln(h), h in (0, 1) made of the key and the candidate's name; the
highest wins. So an instance that goes away moves only its own keys, by weight to the others, and one that comes takes
only its share; the order of the scores is also the order in which a key falls back. Whoever has more than `load_bound`
times its share of what is running is passed over, so that one hot key cannot bury an instance.

h is the product of two odd hashes: that scatters well enough, and costs half of mixing them.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import Final

from spear.router._draws import Draws
from spear.router._facts import Affinity, Facts

from . import _least_inflight
from ._policy import Candidate, Choice, Options, State

_MASK: Final = (1 << 64) - 1
_STEP: Final = 2.0**-52


def choose(
    candidates: Sequence[Candidate], facts: Facts, state: State, draws: Draws, now: float, options: Options
) -> Choice:
    kind, key = _key(facts.affinity, options.hash_key)
    if key is None:
        choice = _least_inflight.choose(candidates, facts, state, draws, now, options)
        note = f"no {' or '.join(options.hash_key)} to hash: least_inflight"
        return choice._replace(note=f"{note}, {choice.note}" if choice.note else note)
    key |= 1  # so that no two names have the same product
    loads = [each.load for each in candidates]
    weights = [each.weight for each in candidates]
    least = min(weights)
    # The middle of one of 2**52 steps, so that h is neither 0 nor 1.
    scores = [(((key * each.identity & _MASK) >> 12) + 0.5) * _STEP for each in candidates]
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
