"""What the steps of the filter read beside the instances, and how they note why one is taken out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from spear.config import TaskConfig

from ._facts import Facts
from ._instance import Instance

Reject = dict[str, str]
Instances = Sequence[Instance]


class Case(NamedTuple):
    """What the steps read beside the instances."""

    facts: Facts
    task: TaskConfig | None
    tried: AbstractSet[str]
    now: float = 0.0
    seed: int = 0
    panic: bool = False
    """Nobody is well: those that are unwell are candidates, the least bad of them."""


def keep(left: Instances, rejected: Reject, reason_of: Callable[[Instance], str | None]) -> Instances:
    kept = []
    for instance in left:
        reason = reason_of(instance)
        if reason is None:
            kept.append(instance)
        else:
            rejected[instance.name] = reason
    return kept
