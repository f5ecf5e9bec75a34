"""Candidates that stand still, and choosing among them without a router."""

from __future__ import annotations

from dataclasses import dataclass

from spear.config import Price
from spear.router import POLICIES, Facts, facts_of
from spear.router._draws import Draws
from spear.router._facts import hash_name
from spear.router._latency import Estimate, Timing
from spear.router.policies import Choice, Options
from tests.spear.router.world import chat

FACTS = facts_of(chat())


@dataclass
class Still:
    name: str
    weight: int = 1
    priority: int = 0
    load: int = 0
    known: Estimate | None = None
    price: Price | None = None

    @property
    def identity(self) -> float:
        return hash_name(self.name) / 2.0**64

    def estimate(self, timing: Timing, tau: float) -> Estimate | None:
        return self.known


def took(seconds: float, at: float = 0.0, since: float = -1000.0) -> Estimate:
    """An old acquaintance that takes `seconds`, last heard of at `at`."""
    return Estimate(seconds, seconds, at, since)


def named(*weights: int) -> list[Still]:
    return [Still("abcdefghijklmnopqrstuvwxyz"[i], weight) for i, weight in enumerate(weights)]


def choose(
    policy: str,
    candidates: list[Still],
    state: object = None,
    seed: int = 0,
    *,
    facts: Facts = FACTS,
    now: float = 0.0,
    **options: object,
) -> Choice:
    return POLICIES[policy].choose(candidates, facts, state, Draws(seed), now, Options(**options))


def run(policy: str, candidates: list[Still], rounds: int, **fields: object) -> list[str]:
    state, picked = None, []
    for seed in range(rounds):
        choice = choose(policy, candidates, state, seed, **fields)
        state = choice.state
        picked.append(candidates[choice.position].name)
    return picked
