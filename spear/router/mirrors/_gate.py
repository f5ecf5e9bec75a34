"""Whether a request may be mirrored to one instance now. Pure.

The same lasting steps as for every attempt, so that a mirror is no way around them; only the model binding is left out,
because comparing with another model is what a mirror is for. A weight of 0 does not matter: it keeps an instance from
being chosen, and a mirror is not chosen.
"""

from __future__ import annotations

from spear.router._case import Case
from spear.router._facts import Facts
from spear.router._filter import refusal_of
from spear.router._instance import Instance
from spear.router._registry import Generation
from spear.router._usage import others_cost
from spear.router.policies import OUTPUT_GUESS

_PER = 1_000_000


def dropped_for(generation: Generation, instance: Instance | None, facts: Facts, now: float) -> str | None:
    """One of the reasons in `DROPPED`, None where it may go."""
    if instance is None:
        return "not_allowed"
    task = None if facts.task_id is None else generation.tasks.get(facts.task_id)
    if refusal_of(instance, Case(facts, task, frozenset(), now)) is not None:
        return "not_allowed"
    if instance.status != "running" or instance.health.reason(facts.operation, now) is not None:
        return "unwell"
    if instance.pool is not None and instance.spare_key(now) is None:
        return "unwell"
    if instance.limited(facts._replace(mirrored=True), now) is not None:
        return "no_room"
    return None if has_room(instance) else "no_room"


def has_room(instance: Instance) -> bool:
    """Whether half of the instance's room is free with one more."""
    return 2 * (instance.load + 1) <= instance.room


def estimated_cost(instance: Instance, facts: Facts) -> float:
    price = instance.price
    if price is None:
        return 0.0
    output = facts.sizes.output_tokens or OUTPUT_GUESS
    return (facts.input_tokens * price.input + output * price.output) / _PER + others_cost(facts, price)
