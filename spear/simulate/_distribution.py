"""Distributions by name, as a scenario writes them, and drawing from them."""

from __future__ import annotations

from collections.abc import Callable
from math import log
from random import Random
from typing import Annotated, Final, Literal

from pydantic import Field

from spear.config import Section

LONGEST: Final = 86_400.0
"""No draw is above it: a heavy tail must not stop a simulation's clock for good."""

Positive = Annotated[float, Field(gt=0, le=1e12)]
Share = Annotated[float, Field(ge=0, le=1)]
Draw = Callable[[Random], float]

NEEDS: Final[dict[str, tuple[str, ...]]] = {
    "constant": ("value",),
    "uniform": ("low", "high"),
    "exponential": ("mean",),
    "lognormal": ("median", "sigma"),
    "pareto": ("minimum", "alpha"),
}
MEASURES: Final = ("value", "low", "high", "mean", "median", "minimum")
"""The keys that are in the unit of what is drawn: seconds, or a number."""


class Distribution(Section):
    """`tail_share` of all draws is multiplied with `tail_factor`: a mixture with a slow tail."""

    kind: Literal["constant", "uniform", "exponential", "lognormal", "pareto"]
    value: Annotated[float, Field(ge=0, le=1e12)] | None = None
    low: Annotated[float, Field(ge=0, le=1e12)] | None = None
    high: Positive | None = None
    mean: Positive | None = None
    median: Positive | None = None
    sigma: Annotated[float, Field(ge=0, le=5)] | None = None
    minimum: Positive | None = None
    alpha: Annotated[float, Field(ge=0.1, le=100)] | None = None
    """Below a tenth the largest draws would be beyond any number."""
    tail_share: Share = 0.0
    tail_factor: Positive = 1.0

    def draws(self) -> Draw:
        plain = self._plain()
        if not self.tail_share:
            return lambda rng: min(LONGEST, plain(rng))
        share, factor = self.tail_share, self.tail_factor

        def mixed(rng: Random) -> float:
            slow = rng.random() < share
            return min(LONGEST, plain(rng) * (factor if slow else 1.0))

        return mixed

    def _plain(self) -> Draw:
        match self.kind:
            case "constant":
                value = self.value or 0.0
                return lambda rng: value
            case "uniform":
                low, high = self.low or 0.0, self.high or 0.0
                return lambda rng: low + (high - low) * rng.random()
            case "exponential":
                rate = 1 / (self.mean or 1.0)
                return lambda rng: rng.expovariate(rate)
            case "lognormal":
                mu, sigma = log(self.median or 1.0), self.sigma or 0.0
                return lambda rng: rng.lognormvariate(mu, sigma)
            case "pareto":
                minimum, alpha = self.minimum or 1.0, self.alpha or 1.0
                return lambda rng: minimum * rng.paretovariate(alpha)


def constant(value: float) -> Distribution:
    return Distribution(kind="constant", value=value)
