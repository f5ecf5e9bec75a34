"""What the router counts. Plain integers that only grow; those of an instance stand at the instance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from spear.ir import ErrorCode

from ._instance import Instance


class Counts:
    __slots__ = (
        "attempts", "cancelled", "connect_retries", "errors", "fallbacks", "hedges", "hedges_denied", "hedges_won",
        "ok", "panics", "refused", "requests", "retries", "retries_denied", "superseded", "waited",
    )  # fmt: skip

    def __init__(self) -> None:
        self.requests = self.ok = self.cancelled = 0
        self.attempts = self.fallbacks = self.connect_retries = self.refused = 0
        self.retries = self.retries_denied = self.waited = self.panics = 0
        self.hedges = self.hedges_won = self.hedges_denied = self.superseded = 0
        self.errors: Counter[str] = Counter()

    def failed(self, code: ErrorCode) -> None:
        self.errors[code.value] += 1

    @property
    def active(self) -> int:
        """Requests under way."""
        return self.requests - self.ok - self.cancelled - self.errors.total()

    def observe(self, instances: Iterable[Instance], now: float) -> Mapping[str, object]:
        """`requests` = ok + errors + cancelled + those still under way. `refused`: full mailboxes that were met.
        `retries`: sends to the same instance again; `waited`: requests that waited for a recovery.
        `hedges`: second attempts beside a late one; `hedges_denied`: for want of tokens or budget; `superseded`:
        attempts that were ended because another one had won."""
        return {
            "requests": self.requests,
            "ok": self.ok,
            "cancelled": self.cancelled,
            "errors": dict(self.errors),
            "attempts": self.attempts,
            "fallbacks": self.fallbacks,
            "connect_retries": self.connect_retries,
            "retries": self.retries,
            "retries_denied": self.retries_denied,
            "hedges": self.hedges,
            "hedges_won": self.hedges_won,
            "hedges_denied": self.hedges_denied,
            "superseded": self.superseded,
            "refused": self.refused,
            "waited": self.waited,
            "panics": self.panics,
            "instances": {each.name: _observe(each, now) for each in instances},
        }


def _observe(instance: Instance, now: float) -> Mapping[str, object]:
    return {
        "status": instance.reason or instance.status,
        "inflight": instance.inflight,
        "queued": instance.queued,
        "sent": instance.sent,
        "failed": instance.failed,
        "refused": instance.refused,
        "retry_tokens": round(instance.throttle.tokens, 1),
        "health": instance.health.observe(now),
    }
