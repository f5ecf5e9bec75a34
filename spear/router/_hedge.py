"""When a second attempt is sent beside a first one that takes long, and what bounds that. State and arithmetic only.

The delay is a percentile of what the instance itself has lately taken, so that about that part of its requests is
late; the purse of the route makes it a bound. It starts empty, each request puts `max_extra_load` of a token in, a
hedge takes one, and at most `SAVED` are kept. So at any time, hedges ≤ max_extra_load × requests since the start, and
in any stretch of time at most `SAVED` more than that part of the requests in it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from spear.config import NEVER_HEDGED, Config, Hedge, RouteMatch
from spear.ir import ChatRequest, RequestEnvelope

from ._latency import Latency

SAVED: Final = 10
FLOOR_S: Final = 0.05
"""Of a delay that was measured; what is written holds as it is written."""
_TOKEN: Final = 1_000_000  # whole numbers: what is added up twenty times must be exactly what is taken


class Late(NamedTuple):
    """An attempt is hedged `after` so many seconds, with at most `most` attempts at a time."""

    after: float
    most: int


class Purse:
    """What hedges of one route are paid from."""

    __slots__ = ("_most", "_share", "_tokens")

    def __init__(self, max_extra_load: float) -> None:
        self._tokens = 0
        self.tune(max_extra_load)

    def tune(self, max_extra_load: float) -> None:
        """What is in it stays."""
        self._share = int(max_extra_load * _TOKEN)

    @property
    def tokens(self) -> float:
        return self._tokens / _TOKEN

    def put_in(self) -> None:
        """One more request was sent."""
        self._tokens = min(self._tokens + self._share, SAVED * _TOKEN)

    def take_back(self) -> None:
        """That request was not sent after all."""
        self._tokens = max(0, self._tokens - self._share)

    def pay(self) -> bool:
        """For one hedge; False where there is not enough."""
        if self._tokens < _TOKEN:
            return False
        self._tokens -= _TOKEN
        return True

    def refund(self) -> None:
        """That hedge was not sent after all."""
        self._tokens = min(self._tokens + _TOKEN, SAVED * _TOKEN)


class Purses:
    """Of all routes that hedge, by what they match: a reload changes what is put in, not what is there."""

    __slots__ = ("_by_match",)

    def __init__(self) -> None:
        self._by_match: dict[RouteMatch, Purse] = {}

    def of(self, match: RouteMatch, hedge: Hedge) -> Purse:
        found = self._by_match.get(match)
        if found is None:
            found = self._by_match[match] = Purse(hedge.max_extra_load)
        return found

    def switch(self, hedges: Iterable[tuple[RouteMatch, Hedge]]) -> None:
        """Other routes hold from here on."""
        known, self._by_match = self._by_match, {}
        for match, hedge in hedges:
            purse = self._by_match[match] = known.get(match) or Purse(hedge.max_extra_load)
            purse.tune(hedge.max_extra_load)


def may_be_hedged(request: RequestEnvelope) -> bool:
    """Not what costs too much or holds a session, and not what the backend is asked to keep: that would be twice."""
    if request.operation in NEVER_HEDGED:
        return False
    payload = request.payload
    return not (isinstance(payload, ChatRequest) and payload.extra.get("store") is True)


def delay_of(hedge: Hedge, latency: Latency | None) -> float | None:
    """Seconds after which an attempt is hedged; None where too little is known."""
    delay = hedge.delay
    if isinstance(delay, float):
        return delay
    if latency is None:
        return None
    measured = latency.percentile(fraction_of(hedge))
    return None if measured is None else max(FLOOR_S, measured)


def fraction_of(hedge: Hedge) -> float:
    """The percentile that is late, as a fraction."""
    return float(hedge.delay[1:]) / 100 if isinstance(hedge.delay, str) else 1 - hedge.max_extra_load


def quota_mates(config: Config, names: Iterable[str]) -> frozenset[str]:
    """The instances `names`, and those that share a quota group with one of them by their credentials. One without a
    group has a quota of its own."""
    groups = {each.name: each.quota_group for each in config.credentials if each.quota_group}
    mates = frozenset(names)
    if not groups:
        return mates
    by_instance = {each.name: {groups[key] for key in each.credentials if key in groups} for each in config.backends}
    taken = frozenset(group for name in mates for group in by_instance.get(name, ()))
    return mates | {name for name, own in by_instance.items() if own & taken}
