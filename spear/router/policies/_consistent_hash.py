"""consistent_hash: requests of one key go to one instance, while it has no more than its share.

Weighted rendezvous: each candidate scores -weight / ln(h), h in (0, 1) made of the key and the candidate's name; the
highest wins. So an instance that goes away moves only its own keys, by weight to the others, and one that comes takes
only its share; the order of the scores is also the order in which a key falls back. Whoever has more than `load_bound`
times its share of what is running is passed over, so that one hot key cannot bury an instance.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, log
from typing import Final

from spear.router._draws import Draws, mix
from spear.router._facts import Affinity, Facts

from . import _least_inflight
from ._policy import Candidate, Choice, Options, State

_UNIT: Final = 2.0**-53


def choose(
    candidates: Sequence[Candidate], facts: Facts, state: State, draws: Draws, now: float, options: Options
) -> Choice:
    kind, key = _key(facts.affinity, options.hash_key)
    if key is None:
        choice = _least_inflight.choose(candidates, facts, state, draws, now, options)
        note = f"no {' or '.join(options.hash_key)} to hash: least_inflight"
        return choice._replace(note=f"{note}, {choice.note}" if choice.note else note)
    scores = [-each.weight / log(((mix(key ^ each.identity) >> 11) + 0.5) * _UNIT) for each in candidates]
    loads = [each.load for each in candidates]
    # Of all that runs, this request included. Rounded up, so that there is always one below its bound.
    share = options.load_bound * (sum(loads) + 1) / sum(each.weight for each in candidates)
    kept: list[float | None] = [
        score if load < ceil(share * each.weight) else None
        for score, load, each in zip(scores, loads, candidates, strict=True)
    ]
    best = max(score for score in kept if score is not None)
    over = kept.count(None)
    note = f"by {kind}; {over} above {options.load_bound:g} x their share" if over else f"by {kind}"
    return Choice(kept.index(best), kept, note=note)


def _key(affinity: Affinity, kinds: Sequence[str]) -> tuple[str, int | None]:
    """The first of `kinds` that this request has."""
    for kind in kinds:
        key = getattr(affinity, kind)
        if key is not None:
            return kind, key
    return "", None
