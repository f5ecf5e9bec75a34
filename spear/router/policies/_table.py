"""Which policies there are, by the name that configurations and requests use."""

from __future__ import annotations

from typing import Final

from . import (
    _cheapest,
    _consistent_hash,
    _ewma_latency,
    _least_inflight,
    _peak_ewma,
    _weighted_random,
    _weighted_round_robin,
)
from ._policy import Policy
from ._priority import over

_FLAT: Final[dict[str, Policy]] = {
    "weighted_random": Policy(_weighted_random.choose),
    "round_robin": Policy(_weighted_round_robin.choose_evenly, _weighted_round_robin.settle, remembers=True),
    "weighted_round_robin": Policy(_weighted_round_robin.choose, _weighted_round_robin.settle, remembers=True),
    "least_inflight": Policy(_least_inflight.choose),
    "ewma_latency": Policy(_ewma_latency.choose),
    "peak_ewma": Policy(_peak_ewma.choose),
    "consistent_hash": Policy(_consistent_hash.choose),
    "cheapest": Policy(_cheapest.choose),
}

POLICIES: Final[dict[str, Policy]] = {**_FLAT, "priority": over(_FLAT)}
WITHIN_LEVEL: Final = tuple(_FLAT)
"""What may order the instances of one priority level."""
