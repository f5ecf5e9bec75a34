"""Rule: no trio in this file. Given what happened, say what to do; never do it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["Child", "Plan", "Restart", "Strategy", "plan", "recent"]

Restart = Literal["permanent", "transient", "temporary"]
Strategy = Literal["one_for_one", "one_for_all", "rest_for_one"]


@dataclass(frozen=True, slots=True)
class Child:
    name: str
    restart: Restart


@dataclass(frozen=True, slots=True)
class Plan:
    stop: tuple[str, ...]  # in this order, one at a time
    start: tuple[str, ...]  # then these, in this order
    delay: float  # after waiting this long
    give_up: bool = False  # instead: stop everyone and raise RestartLimitExceeded


def recent(history: Sequence[float], now: float, period: float) -> int:
    """How many of these times lie inside the window of `period` seconds that ends now."""
    return sum(1 for when in history if now - when < period)


def plan(
    strategy: Strategy,
    children: Sequence[Child],
    failed: str,
    *,
    history: Sequence[float],
    now: float,
    intensity: int,
    period: float,
    delay: float,
) -> Plan:
    """What to do now that `failed` has gone.

    `children` stand in start order; `history` holds the times of earlier restarts. A restart is counted when
    it is decided (before its delay), and a group that restarts together counts once.
    """
    if recent(history, now, period) >= intensity:
        return Plan(stop=tuple(c.name for c in reversed(children)), start=(), delay=0.0, give_up=True)
    position = next(i for i, child in enumerate(children) if child.name == failed)
    if strategy == "one_for_one":
        affected = children[position : position + 1]
    elif strategy == "one_for_all":
        affected = children
    else:
        affected = children[position:]
    return Plan(
        stop=tuple(c.name for c in reversed(affected)),
        start=tuple(c.name for c in affected if c.restart != "temporary"),
        delay=delay,
    )
