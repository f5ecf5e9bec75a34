"""Reading options, and refusing what a kind does not do."""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeAlias

from spear.config import InstanceConfig
from spear.ir import ErrorCode, RequestEnvelope, RoutingError, make_error

Option: TypeAlias = str


def only_known(instance: InstanceConfig, *known: Option) -> None:
    """Raise ValueError for an option that the kind does not have."""
    for name in sorted(set(instance.options) - set(known)):
        has = f"{instance.kind} has {', '.join(known)}" if known else f"{instance.kind} has none"
        raise ValueError(f"options.{name}: unknown; {has}")


def integer(instance: InstanceConfig, name: Option, default: int, low: int, high: int) -> int:
    value = instance.options.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"options.{name}: must be a whole number from {low} to {high}")
    return value


def limit(instance: InstanceConfig, name: str, default: int, most: int) -> int:
    """The instance's own limit, else the kind's; never more than `most`."""
    value: int | None = getattr(instance.limits, name)
    if value is not None and value > most:
        raise ValueError(f"limits.{name}: is {value}; {instance.kind} takes at most {most}")
    return default if value is None else value


def one_of(instance: InstanceConfig, name: Option, default: str, known: Collection[str]) -> str:
    value = instance.options.get(name, default)
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"options.{name}: must be one of {', '.join(sorted(known))}")
    return value


def not_done_here(request: RequestEnvelope, what: str) -> RoutingError:
    """`what` this kind does not do; another backend may."""
    return RoutingError(make_error(ErrorCode.MISSING_CAPABILITIES, what, operation=request.operation))


def may(request: RequestEnvelope, step: str) -> bool:
    """Whether the request allows this degradation."""
    degradation = request.degradation
    return degradation.mode == "allow" and (not degradation.steps or step in degradation.steps)
