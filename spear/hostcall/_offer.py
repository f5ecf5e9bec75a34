"""What a host offers to a guest: what `spear_capabilities` tells of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class Offer:
    """Operations, and the features and models of each, in the order in which the guest shall read them. `limits` are
    those that the host alone knows."""

    operations: Sequence[str] = ()
    features: Mapping[str, Sequence[str]] = field(default_factory=dict)
    models: Mapping[str, Sequence[str]] = field(default_factory=dict)
    limits: Mapping[str, int] = field(default_factory=dict)


Offering = Callable[[], Offer]
"""Asked each time, because it changes with a reload. Must not wait."""
NOTHING: Final[Offering] = Offer
