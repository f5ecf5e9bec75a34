"""A decision, explained: plain values that outlive the live instances, as JSON and as the rows of a table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from spear.ir import CanonicalError, Json

from ._decide import Plan
from ._instance import Instance
from ._latency import Estimate
from ._routes import find_route

if TYPE_CHECKING:
    from ._registry import Generation


@dataclass(frozen=True, slots=True)
class Considered:
    """One instance as the decision saw it. `rejected` is the reason, None for a candidate; `rank` counts from 1.
    `latency_ms` is what such calls have lately taken in the mean, None where nothing is known. `health` is `ok`,
    `slow_start`, `breaker_open`, `breaker_half_open` or `ejected`: the worst over all operations. `weight` is the one
    that counted: an external filter may have changed it."""

    backend: str
    kind: str
    model: str
    weight: int
    priority: int
    inflight: int
    queued: int
    rejected: str | None
    score: float | None
    rank: int | None
    latency_ms: float | None
    health: str


@dataclass(frozen=True, slots=True)
class Explanation:
    request_id: str
    operation: str
    model: str
    policy: str
    generation: int
    seed: int
    chosen: str | None
    note: str
    candidates: tuple[Considered, ...]
    error: CanonicalError | None = None

    def as_json(self) -> dict[str, Json]:
        fields: dict[str, Json] = {
            name: getattr(self, name)
            for name in ("request_id", "operation", "model", "policy", "generation", "seed", "chosen", "note")
        }
        candidates: list[Json] = [asdict(each) for each in self.candidates]
        error = None if self.error is None else self.error.model_dump(mode="json", exclude_defaults=True)
        return {**fields, "candidates": candidates, "error": error}

    def rows(self) -> Iterator[tuple[str, ...]]:
        """Texts under the titles of `COLUMNS`, in order of preference, the rejected ones last."""
        for each in sorted(self.candidates, key=lambda c: (c.rank is None, c.rank or 0)):
            score = "" if each.score is None else f"{each.score:g}"
            state = "chosen" if each.rank == 1 else each.rejected or "candidate"
            if each.health not in ("ok", each.rejected):
                state = f"{state}, {each.health}"
            latency = "" if each.latency_ms is None else f"{each.latency_ms:g}"
            load = f"{each.inflight}+{each.queued}" if each.queued else str(each.inflight)
            numbers = (str(each.weight), str(each.priority), load)
            yield (each.backend, each.kind, each.model, state, score, latency, *numbers)


COLUMNS: Final = ("backend", "kind", "model", "state", "score", "ms", "weight", "priority", "load")
"""`ms`: `latency_ms`. `load`: requests running there, and `+` those that wait."""


def explain(generation: Generation, plan: Plan, request_id: str, now: float = 0.0) -> Explanation:
    """Copies what the plan refers to, as it is now."""
    facts = plan.facts
    route = find_route(generation.routes, facts)
    tau, verdict = route.options.tau, facts.verdict
    note = plan.note
    if route.filter is not None and verdict is None:
        note = f"{note}; filter {route.filter} not consulted" if note else f"filter {route.filter} not consulted"
    weights = {} if verdict is None else verdict.weights
    ranks = {name: rank for rank, name in enumerate(plan.order, 1)}
    scores: dict[str, float | None] = {}
    if plan.choice is not None:
        scores = {each.name: score for each, score in zip(plan.candidates, plan.choice.scores, strict=True)}
    return Explanation(
        request_id=request_id,
        operation=facts.operation.value,
        model=facts.model,
        policy=plan.policy,
        generation=plan.generation,
        seed=plan.seed,
        chosen=None if plan.chosen is None else plan.chosen.name,
        note=note,
        candidates=tuple(
            _consider(
                each,
                _why_not(each, plan, ranks),
                scores.get(each.name),
                ranks.get(each.name),
                each.estimate(facts.timing, tau),
                each.health.state(now),
                weights.get(each.name, each.weight),
            )
            for each in generation.instances
        ),
        error=plan.error,
    )


def _why_not(instance: Instance, plan: Plan, ranks: dict[str, int]) -> str | None:
    if instance.name in ranks:
        return None
    reason = plan.rejected.get(instance.name)
    if reason is not None:
        return reason
    return "not_considered" if plan.error is not None else "not_preferred"


def _consider(
    instance: Instance,
    rejected: str | None,
    score: float | None,
    rank: int | None,
    estimate: Estimate | None,
    health: str,
    weight: int,
) -> Considered:
    return Considered(
        backend=instance.name,
        kind=instance.kind_name,
        model=instance.own_model,
        weight=weight,
        priority=instance.priority,
        inflight=instance.inflight,
        queued=instance.queued,
        rejected=rejected,
        score=score,
        rank=rank,
        latency_ms=None if estimate is None else round(estimate.mean * 1000, 3),
        health=health,
    )
