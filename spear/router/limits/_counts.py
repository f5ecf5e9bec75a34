"""What limits have done: plain numbers for a snapshot, and the same as counters of the runtime.

Counted are decisions that were made for a request, those for a repetition or a second attempt included; what is only
explained or replayed is not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

from spear.telemetry import Counters

_ABOUT: Final = {
    "limited_total": "Decisions in which a backend had no room by a rate, by the backend and the limit.",
    "budget_rejections_total": "Decisions in which a budget left out at least one backend, by the budget.",
    "degraded_total": "Requests that a budget sent to its cheaper class, by the budget.",
    "budget_warnings_total": "Crossings of a budget's soft limit, by the budget.",
}


class LimitCounts:
    """Labels come from the configuration."""

    __slots__ = ("_counters", "degraded", "limited", "rejected", "warned")

    def __init__(self) -> None:
        self._counters: Counters | None = None
        self.limited: Counter[tuple[str, str]] = Counter()
        self.rejected: Counter[str] = Counter()
        self.degraded: Counter[str] = Counter()
        self.warned: Counter[str] = Counter()

    def attach(self, counters: Counters) -> None:
        """From here on count there, too."""
        self._counters = counters

    def limit(self, backend: str, limit: str) -> None:
        self.limited[backend, limit] += 1
        self._add("limited_total", backend=backend, limit=limit)

    def reject(self, budget: str) -> None:
        self.rejected[budget] += 1
        self._add("budget_rejections_total", budget=budget)

    def degrade(self, budget: str) -> None:
        self.degraded[budget] += 1
        self._add("degraded_total", budget=budget)

    def warn(self, budget: str) -> None:
        self.warned[budget] += 1
        self._add("budget_warnings_total", budget=budget)

    def observe(self) -> Mapping[str, object]:
        limited: dict[str, dict[str, int]] = {}
        for (backend, limit), count in self.limited.items():
            limited.setdefault(backend, {})[limit] = count
        return {
            "limited": limited,
            "budget_rejections": dict(self.rejected),
            "degraded": dict(self.degraded),
            "budget_warnings": dict(self.warned),
        }

    def _add(self, name: str, **labels: str) -> None:
        if self._counters is not None:
            self._counters.counter(name, _ABOUT[name], **labels).add()
