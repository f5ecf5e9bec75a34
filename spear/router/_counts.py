"""What the router counts. Plain integers that only grow; those of an instance stand at the instance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from spear.ir import ErrorCode

from ._instance import Instance
from ._verdict import Verdict


class Counts:
    __slots__ = (
        "ailing", "another_key", "attempts", "cancelled", "connect_retries", "continued", "errors", "fallbacks",
        "filter_failures", "filter_rejections", "filtered", "hedges", "hedges_denied", "hedges_won", "ok", "panics",
        "refused", "requests", "retries", "retries_denied", "superseded", "waited",
    )  # fmt: skip

    def __init__(self) -> None:
        self.requests = self.ok = self.cancelled = 0
        self.attempts = self.fallbacks = self.connect_retries = self.refused = 0
        self.another_key = 0
        self.retries = self.retries_denied = self.waited = self.panics = 0
        self.hedges = self.hedges_won = self.hedges_denied = self.superseded = 0
        self.continued = 0
        self.filtered = self.filter_failures = self.filter_rejections = 0
        self.ailing: set[str] = set()
        self.errors: Counter[str] = Counter()

    def failed(self, code: ErrorCode) -> None:
        self.errors[code.value] += 1

    def heard(self, verdict: Verdict) -> bool:
        """Whether its filter has failed now and had not the last time."""
        news = bool(verdict.failed) and verdict.filter not in self.ailing
        if verdict.failed:
            self.ailing.add(verdict.filter)
        else:
            self.ailing.discard(verdict.filter)
        self.filtered += 1
        self.filter_failures += bool(verdict.failed)
        self.filter_rejections += verdict.rejected is not None
        return news

    @property
    def active(self) -> int:
        """Requests under way."""
        return self.requests - self.ok - self.cancelled - self.errors.total()

    def observe(self, instances: Iterable[Instance], now: float) -> Mapping[str, object]:
        """`requests` = ok + errors + cancelled + those still under way. `refused`: full mailboxes that were met.
        `another_key`: sends to the same instance at once, with another of its keys; `retries`: after a wait; `waited`:
        requests that waited for a recovery.
        `hedges`: second attempts beside a late one; `hedges_denied`: for want of tokens or budget; `superseded`:
        attempts that were ended because another one had won. `continued`: attempts for the rest of a stream
        that broke off. `filtered`: external filters that were asked, with those that failed and those that rejected."""
        return {
            "requests": self.requests,
            "ok": self.ok,
            "cancelled": self.cancelled,
            "errors": dict(self.errors),
            "attempts": self.attempts,
            "fallbacks": self.fallbacks,
            "connect_retries": self.connect_retries,
            "another_key": self.another_key,
            "retries": self.retries,
            "retries_denied": self.retries_denied,
            "continued": self.continued,
            "hedges": self.hedges,
            "hedges_won": self.hedges_won,
            "hedges_denied": self.hedges_denied,
            "superseded": self.superseded,
            "refused": self.refused,
            "waited": self.waited,
            "panics": self.panics,
            "filtered": self.filtered,
            "filter_failures": self.filter_failures,
            "filter_rejections": self.filter_rejections,
            "instances": {each.name: _observe(each, now) for each in instances},
        }


def _observe(instance: Instance, now: float) -> Mapping[str, object]:
    limits = {} if instance.bounds is None else {"left": instance.bounds.remaining(now)}
    return {
        **limits,
        "status": instance.reason or instance.status,
        "inflight": instance.inflight,
        "queued": instance.queued,
        "sent": instance.sent,
        "failed": instance.failed,
        "refused": instance.refused,
        "retry_tokens": round(instance.throttle.tokens, 1),
        "health": instance.health.observe(now),
    }
