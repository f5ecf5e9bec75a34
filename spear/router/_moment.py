"""The steps of the filter that depend on the moment: tried already, no key, unwell, full, just recovered."""

from __future__ import annotations

from typing import Final

from ._case import Case, Instances, Reject, keep
from ._draws import Draws
from .health import BREAKER_OPEN

FULL: Final = "full"
SLOW_START: Final = "slow_start"
AT_ADMISSION: Final = frozenset({FULL, SLOW_START})
"""Reasons that stand among those of rates and budgets, or after them."""
_SLOW_START_SALT: Final = 0x736C6F77


def untried(left: Instances, case: Case, rejected: Reject) -> Instances:
    if not case.tried:
        return left
    return keep(left, rejected, lambda each: "already_tried" if each.name in case.tried else None)


def keys(left: Instances, case: Case, rejected: Reject) -> Instances:
    for each in left:
        if each.keys_troubled:
            return keep(left, rejected, lambda each: each.keys_reason(case.now))
    return left


def health(left: Instances, case: Case, rejected: Reject) -> Instances:
    kept, quiet = [], True
    for each in left:
        ref = each.ref
        if each.weight == 0:
            rejected[each.name] = "drained"
        elif ref is None or ref.status != "running":
            rejected[each.name] = f"actor:{each.status}"
        else:
            kept.append(each)
            quiet = quiet and each.health.quiet
    return kept if quiet else _well(kept, case, rejected)


def _well(left: Instances, case: Case, rejected: Reject) -> Instances:
    """Without those that an open breaker or an ejection leaves out."""
    operation, now = case.facts.operation, case.now
    reasons = [None if each.health.quiet else each.health.reason(operation, now) for each in left]
    if case.panic and None not in reasons:
        worst = all(reason == BREAKER_OPEN for reason in reasons)
        reasons = [None if worst or reason != BREAKER_OPEN else reason for reason in reasons]
    kept = []
    for each, reason in zip(left, reasons, strict=True):
        if reason is None:
            kept.append(each)
        else:
            rejected[each.name] = reason
    return kept


def admission(left: Instances, case: Case, rejected: Reject) -> Instances:
    kept = []
    for each in left:
        load = each.load if each.lingers else len(each.turns)
        if load >= each.room:
            rejected[each.name] = FULL
        elif (
            (bounds := each.bounds) is not None
            and not bounds.admits_as_before(case.facts)
            and (reason := each.limited(case.facts, case.now)) is not None
        ):
            rejected[each.name] = reason
        else:
            kept.append(each)
    return kept


def slow_start(left: Instances, case: Case, rejected: Reject) -> Instances:
    """An instance that has just recovered is a candidate only in a growing part of the decisions, whatever the policy:
    that scales its share as a growing weight would. It never takes out the last ones."""
    for each in left:
        if not each.health.quiet:
            break
    else:
        return left
    draws = Draws(case.seed ^ _SLOW_START_SALT)
    operation, now = case.facts.operation, case.now
    kept = [each for each in left if each.health.quiet or draws.random() < each.health.ramp(operation, now)]
    if not kept:
        return left
    if len(kept) < len(left):
        stay = {each.name for each in kept}
        rejected.update((each.name, SLOW_START) for each in left if each.name not in stay)
    return kept
