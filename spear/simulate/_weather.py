"""What holds at a modelled backend at a time: its events laid over its plain behaviour."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import NamedTuple

from ._scenario import Behaviour, Errors, Event


class Weather(NamedTuple):
    """Until `until`, in seconds from the start."""

    until: float
    outage: str | None
    latency_factor: float
    errors: Errors | None
    rate_factor: float
    price_factor: float
    dead_keys: frozenset[str]


def weather(behaviour: Behaviour, at: float) -> Weather:
    """Factors of events that overlap are multiplied; of the rest, the later event in the list holds."""
    now = [event for event in behaviour.events if event.at <= at < _end(event)]
    latency = rate = price = 1.0
    for event in now:
        latency *= event.latency_factor
        rate *= event.rate_factor
        price *= event.price_factor
    return Weather(
        _next_change(behaviour.events, at),
        next((event.outage for event in reversed(now) if event.outage), None),
        latency,
        next((event.errors for event in reversed(now) if event.errors), behaviour.errors),
        rate,
        price,
        frozenset(key for event in now for key in event.dead_keys),
    )


def _end(event: Event) -> float:
    return inf if event.until is None else event.until


def _next_change(events: Sequence[Event], at: float) -> float:
    return min((moment for event in events for moment in (event.at, _end(event)) if moment > at), default=inf)
