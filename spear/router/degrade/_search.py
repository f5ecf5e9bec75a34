"""The fewest steps after which somebody can take a request."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import combinations
from typing import Final

from spear.ir import Degradation, RequestEnvelope

from ._steps import STEPS, Step

_ONLY_BY_NAME: Final = frozenset({"partial"})
"""Never meant by allowing all: a caller that does not look would take a hole for an answer."""


def narrowed(request: RequestEnvelope, host: Collection[str]) -> RequestEnvelope:
    """`request` allowing only what the host does, too: adapters go by that."""
    wish = request.degradation
    if wish.mode != "allow":
        return request
    steps = tuple(name for name in host if name in wish.steps or (not wish.steps and name not in _ONLY_BY_NAME))
    changed = Degradation(mode="allow", steps=steps) if steps else Degradation()
    return request.model_copy(update={"degradation": changed})


def lessened(
    request: RequestEnvelope, host: Collection[str], admits: Callable[[RequestEnvelope], bool]
) -> tuple[RequestEnvelope, tuple[str, ...]] | None:
    """What is asked for less of, and the names of the steps: the first of the smallest sets that `admits`. None where
    there is none. At most two steps exist for an operation."""
    wish = request.degradation
    allowed = [
        step
        for step in STEPS.get(request.operation, ())
        if step.name in host and (not wish.steps or step.name in wish.steps)
    ]
    if wish.mode != "allow":
        return None
    for count in range(1, len(allowed) + 1):
        for steps in combinations(allowed, count):
            changed = _taken(request, steps)
            if changed is not None and admits(changed):
                return changed, tuple(step.name for step in steps)
    return None


def _taken(request: RequestEnvelope, steps: Sequence[Step]) -> RequestEnvelope | None:
    """None where one of them has nothing to take away."""
    for step in steps:
        payload = step.rewrite(request)
        if payload is None:
            return None
        needs = request.requirements
        features = tuple(name for name in needs.required_features if name not in step.features)
        requirements = needs.model_copy(update={"required_features": features})
        request = request.model_copy(update={"payload": payload, "requirements": requirements})
    return request
