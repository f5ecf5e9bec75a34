"""From one generation to the next: who stays, who starts, who leaves. Pure: nothing is started, stopped or changed.

An instance whose actor would be made from the same things stays the very same object: its actor, its connections, its
load, its counters and what policies remember of it go on. Weight, priority, price, rates and probe are read by the
router alone, so that they are adjusted without its actor noticing. Any other change replaces it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from spear.config import InstanceConfig, Origin
from spear.ir import Capabilities

from ._instance import Instance
from ._registry import Generation
from .limits import RATES

_NO_RATES: Final = dict.fromkeys(RATES)


@dataclass(frozen=True, slots=True)
class Succession:
    """`changed` has the new instances; those they replace are `leaving`, as are the removed. `adjusted` has what
    becomes of the configuration of instances that stay."""

    generation: Generation
    added: tuple[Instance, ...]
    changed: tuple[Instance, ...]
    adjusted: tuple[tuple[Instance, InstanceConfig], ...]
    unchanged: tuple[Instance, ...]
    leaving: tuple[Instance, ...]

    @property
    def starting(self) -> tuple[Instance, ...]:
        """Those that need an actor before the generation may hold."""
        return tuple(each for each in (*self.added, *self.changed) if each.reason is None)

    @property
    def removed(self) -> tuple[str, ...]:
        return tuple(each.name for each in self.leaving if each.name not in self.generation.by_name)


def succeed(old: Generation, built: Generation) -> Succession:
    """What it takes to go from `old` to `built`, which nobody uses yet."""
    same_host = old.config.debug_raw == built.config.debug_raw
    instances: list[Instance] = []
    added: list[Instance] = []
    changed: list[Instance] = []
    adjusted: list[tuple[Instance, InstanceConfig]] = []
    unchanged: list[Instance] = []
    issued = old.issued
    for new in built.instances:
        known = old.by_name.get(new.name)
        if known is not None and same_host and _same_actor(known, new):
            instances.append(known)
            if _routers_own(known.config) == _routers_own(new.config):
                unchanged.append(known)
            else:
                adjusted.append((known, new.config))
            continue
        new.index, issued = issued, issued + 1
        instances.append(new)
        (added if known is None else changed).append(new)
    stay = {id(each) for each in instances}
    return Succession(
        replace(built, number=old.number + 1, instances=tuple(instances), issued=issued),
        added=tuple(added),
        changed=tuple(changed),
        adjusted=tuple(adjusted),
        unchanged=tuple(unchanged),
        leaving=tuple(each for each in old.instances if id(each) not in stay),
    )


def _same_actor(old: Instance, new: Instance) -> bool:
    return (
        old.kind is new.kind
        and old.reason == new.reason
        and old.keys == new.keys
        and _without_rates(old.capabilities) == _without_rates(new.capabilities)
        and (old.max_inflight, old.max_queue) == (new.max_inflight, new.max_queue)
        and _actors_own(old.config) == _actors_own(new.config)
    )


def _routers_own(config: InstanceConfig) -> tuple[object, ...]:
    return config.weight, config.priority, config.price, config.limits, config.probe


def _actors_own(config: InstanceConfig) -> InstanceConfig:
    limits = config.limits.model_copy(update=_NO_RATES)
    update = {"weight": 0, "priority": 0, "price": None, "limits": limits, "probe": None, "origin": Origin()}
    return config.model_copy(update=update)


def _without_rates(capabilities: Capabilities) -> Capabilities:
    return capabilities.model_copy(update={"limits": capabilities.limits.model_copy(update=_NO_RATES)})
