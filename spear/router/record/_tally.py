"""What a replay comes to, counted: who was chosen then and now, who was rejected why, and what that might have meant.

Latency and cost are estimates of the recorded moments: the mean that was known of the chosen instance, and its price
for the estimated tokens. They are summed only over decisions where both sides have one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Final

from spear.ir import Json
from spear.router._facts import Facts
from spear.router._registry import Generation
from spear.router._routes import find_route
from spear.router.policies import expected_costs

from ._replay import Skipped, Verdict

NOBODY: Final = "(nobody)"
OTHERS: Final = "(others)"
_NAMES: Final = 10_000
_SHOWN: Final = 20


@dataclass(slots=True)
class Sum:
    """Over the decisions where both sides have a number."""

    decisions: int = 0
    then: float = 0.0
    now: float = 0.0

    def add(self, then: float | None, now: float | None) -> None:
        if then is not None and now is not None:
            self.decisions += 1
            self.then += then
            self.now += now

    def as_json(self, *, mean: bool) -> dict[str, Json] | None:
        if not self.decisions or not (isfinite(self.then) and isfinite(self.now)):
            return None
        by = self.decisions if mean else 1
        return {"then": self.then / by, "now": self.now / by, "decisions": self.decisions}


@dataclass(slots=True)
class Tally:
    decisions: int = 0
    skipped: int = 0
    different: int = 0
    """Decisions whose plan is not the same to the last bit."""
    elsewhere: int = 0
    """Those that chose somebody else, or nobody instead of somebody, or the other way round."""
    then: Counter[str] = field(default_factory=Counter)
    now: Counter[str] = field(default_factory=Counter)
    rejected_then: Counter[str] = field(default_factory=Counter)
    rejected_now: Counter[str] = field(default_factory=Counter)
    unknown: set[str] = field(default_factory=set)
    """Instances of another configuration that the records do not know: they counted as idle and well."""
    latency_s: Sum = field(default_factory=Sum)
    cost: Sum = field(default_factory=Sum)
    differences: list[Verdict] = field(default_factory=list)
    """The first of them."""

    def skip(self, skipped: Skipped) -> None:
        self.skipped += 1

    def add(self, verdict: Verdict) -> None:
        self.decisions += 1
        then, now = _chosen(verdict.then), _chosen(verdict.now)
        _count(self.then, then)
        _count(self.now, now)
        for counts, plan in ((self.rejected_then, verdict.then), (self.rejected_now, verdict.now)):
            for why in _reasons(plan):
                _count(counts, why)
        if verdict.differs:
            self.different += 1
            if len(self.differences) < _SHOWN:
                self.differences.append(verdict)
        self.elsewhere += then != now
        if verdict.after is not verdict.before:
            self.unknown.update(verdict.after.by_name.keys() - verdict.before.by_name.keys())
            self._estimate(verdict, then, now)

    def _estimate(self, verdict: Verdict, then: str, now: str) -> None:
        before, after, facts = verdict.before, verdict.after, verdict.facts
        self.latency_s.add(_latency(before, then, facts), _latency(after, now, facts))
        self.cost.add(_cost(before, then, facts), _cost(after, now, facts))

    def as_json(self) -> dict[str, Json]:
        backends = sorted({*self.then, *self.now})
        reasons = sorted({*self.rejected_then, *self.rejected_now})
        return {
            "decisions": self.decisions,
            "not_replayable": self.skipped,
            "different": self.different,
            "chosen_differently": self.elsewhere,
            "chosen": {name: {"then": self.then[name], "now": self.now[name]} for name in backends},
            "rejected": {why: {"then": self.rejected_then[why], "now": self.rejected_now[why]} for why in reasons},
            "estimated_latency_s": self.latency_s.as_json(mean=True),
            "estimated_cost": self.cost.as_json(mean=False),
            "assumed_idle": list[Json](sorted(self.unknown)),
            "differences": [
                {
                    "place": str(each.place),
                    "request_id": each.record.request_id,
                    "fields": list[Json](each.differs),
                    "then": dict(each.then),
                    "now": dict(each.now),
                }
                for each in self.differences
            ],
        }


def _count(counts: Counter[str], name: str) -> None:
    """A file says what the names are: they must not be without number."""
    counts[name if name in counts or len(counts) < _NAMES else OTHERS] += 1


def _chosen(plan: Mapping[str, Json]) -> str:
    chosen = plan.get("chosen")
    return chosen if isinstance(chosen, str) else NOBODY


def _reasons(plan: Mapping[str, Json]) -> list[str]:
    rejected = plan.get("rejected")
    return [str(why) for why in rejected.values()] if isinstance(rejected, dict) else []


def _latency(generation: Generation, name: str, facts: Facts) -> float | None:
    """The mean that was known of such calls."""
    instance = generation.by_name.get(name)
    if instance is None:
        return None
    known = instance.estimate(facts.timing, find_route(generation.routes, facts).options.tau)
    return None if known is None else known.mean


def _cost(generation: Generation, name: str, facts: Facts) -> float | None:
    instance = generation.by_name.get(name)
    return None if instance is None else expected_costs([instance], facts)[0]
