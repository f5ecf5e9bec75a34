"""The configured backends, as people are shown them."""

from __future__ import annotations

from typing import Any, Final

import trio

from .config import DISCOVERED
from .router import Generation, Instance

_NOTHING: Final[dict[str, Any]] = {
    "hosting": "",
    "answers_to": [],
    "weight": 0,
    "priority": 0,
    "ops": [],
    "features": [],
    "transports": [],
    "inflight": 0,
    "queued": 0,
}


def backends_shown(generation: Generation) -> list[dict[str, Any]]:
    """A row for each instance, and for each that is left out; no addresses, of keys their names."""
    now = trio.current_time()
    discovered = frozenset(generation.config.discovered)
    rows = [
        {
            "name": each.name,
            "kind": each.kind_name,
            "hosting": each.config.hosting.value,
            "answers_to": list(each.config.answers_to),
            "weight": each.weight,
            "priority": each.priority,
            "ops": [op.value for op in each.capabilities.ops],
            "features": sorted(each.features),
            "transports": [transport.value for transport in each.capabilities.transports],
            "inflight": each.inflight,
            "queued": each.queued,
            "state": _state(each),
            "detail": "",
            "discovered": each.name in discovered,
            "keys": [] if each.pool is None else each.pool.observe(now),
        }
        for each in generation.instances
    ]
    skipped = [
        {
            "name": each.name,
            "kind": each.kind,
            **_NOTHING,
            "state": each.reason,
            "detail": each.detail,
            "discovered": each.origin.key == DISCOVERED,
            "keys": [],
        }
        for each in generation.skipped
    ]
    return rows + skipped


def _state(instance: Instance) -> str:
    """For people: why it gets nothing or little, else how its actor is."""
    if instance.reason or instance.weight == 0:
        return instance.reason or "drained"
    now = trio.current_time()
    health = instance.keys_reason(now) or instance.health.state(now)
    return instance.status if health == "ok" or instance.status != "running" else health
