"""What can be asked for: operations, and the features and models of each. No names of backends, no addresses."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from .ir import Operation
from .normalize import OPERATION_OF_FAMILY
from .router import Instance


def capabilities_of(
    instances: Iterable[Instance], *, ops: Collection[str] | None = None, backends: Collection[str] | None = None
) -> dict[str, Any]:
    """Over all usable instances. `ops` and `backends` narrow it to what somebody may use; None is everything."""
    features: dict[str, set[str]] = {}
    models: dict[str, set[str]] = {}
    for each in instances:
        if each.reason is not None or each.weight == 0 or (backends is not None and each.name not in backends):
            continue
        for op in each.capabilities.ops:
            if ops is None or op.value in ops:
                features.setdefault(op.value, set()).update(each.features)
                models.setdefault(op.value, set()).update(each.config.answers_to[:1])
    return {
        "features": {op: sorted(found) for op, found in sorted(features.items())},
        "models": {op: sorted(found) for op, found in sorted(models.items())},
        "operations": sorted(features),
    }


def usable_operations(families: Collection[str], allowed: Collection[Operation] | None) -> frozenset[str]:
    """What a guest has calls for and its task allows."""
    there = {Operation.CHAT_COMPLETIONS, *(op for family, op in OPERATION_OF_FAMILY.items() if family in families)}
    return frozenset(op.value for op in there if allowed is None or op in allowed)
