"""What a verdict does to a decision beside dropping candidates: other weights, or no decision at all. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from spear.config import Price
from spear.ir import CanonicalError, ErrorCode, make_error

from ._facts import Facts
from ._instance import Instance
from ._latency import Estimate, Timing
from ._verdict import Verdict
from .policies import Candidate

_RETRY_MS: Final = 1000
"""When to ask again where a filter that has to be asked did not answer."""


class Reweighted:
    """A live view of an instance that a policy takes to have another weight."""

    __slots__ = ("identity", "instance", "name", "price", "priority", "weight")

    def __init__(self, instance: Instance, weight: int) -> None:
        self.instance = instance
        self.name = instance.name
        self.identity = instance.identity
        self.priority = instance.priority
        self.price: Price | None = instance.price
        self.weight = weight

    @property
    def load(self) -> int:
        return self.instance.load

    def estimate(self, timing: Timing, tau: float) -> Estimate | None:
        return self.instance.estimate(timing, tau)


def reweighted(candidates: Sequence[Instance], weights: Mapping[str, int]) -> Sequence[Candidate]:
    return [Reweighted(each, weights[each.name]) if each.name in weights else each for each in candidates]


def refuse_filtered(verdict: Verdict, facts: Facts) -> CanonicalError | None:
    """The error of a request that its filter rejected, or that must not go on without one."""
    if verdict.rejected is not None:
        message = f"refused by the filter {verdict.filter}: {verdict.rejected}"
        return make_error(ErrorCode.CONTENT_REFUSED, message, operation=facts.operation)
    if verdict.closed:
        message = f"the filter {verdict.filter} has to be asked, and failed ({verdict.failed})"
        return make_error(ErrorCode.BACKEND_UNAVAILABLE, message, operation=facts.operation, retry_after_ms=_RETRY_MS)
    return None
