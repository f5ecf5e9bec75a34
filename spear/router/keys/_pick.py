"""Which of several keys: by session where there is one, else in turn. Pure but for the wheel, which is given."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from math import log
from typing import Final, Protocol

from spear.router._draws import Draws

_STEP: Final = 2.0**-53


class Weighted(Protocol):
    @property
    def weight(self) -> int: ...
    @property
    def identity(self) -> int: ...


def by_session(keys: Sequence[Weighted], session: int) -> int:
    """Weighted rendezvous, as for consistent_hash: a key that goes away moves only its own sessions, and they come back
    with it. So a provider's cache of the session's prompt stays warm."""
    # The middle of one of 2**53 steps, so that no logarithm is of 0 or 1.
    scores = [-each.weight / log(((Draws(session ^ each.identity).bits() >> 11) + 0.5) * _STEP) for each in keys]
    return scores.index(max(scores))


def in_turn(keys: Sequence[Weighted], wheel: MutableMapping[Weighted, int]) -> int:
    """Smooth weighted round robin. Keys that are not among `keys` now keep their place on the wheel."""
    best, most, total = 0, 0, 0
    for position, each in enumerate(keys):
        total += each.weight
        wheel[each] = current = wheel.get(each, 0) + each.weight
        if position == 0 or current > most:
            best, most = position, current
    wheel[keys[best]] -= total
    return best
