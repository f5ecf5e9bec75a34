"""How long one instance takes for one kind of call. Pure: whoever measures says how long and when.

Two averages in which the past fades as exp(-Δt/τ): the mean, and the peak, which a higher sample replaces at once. And
the latest times of answers as they were, for percentiles: in constant space, however many there have been.

What may be called fast is an answer, never a failure: that counts for 5 s at least. A call that was given up says only
that it would have taken longer, so that it is used where it is above what is known.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable
from math import ceil, exp
from typing import Final, NamedTuple

from spear.ir import Operation

DEFAULT_TAU_S: Final = 30.0
FAILURE_S: Final = 5.0
FORGOTTEN_TAUS: Final = 3.0
"""An estimate without a sample for so many τ says nothing any more."""
_KEPT: Final = 256
_FEWEST: Final = 20

Timing = tuple[Operation, bool]
"""What is measured together: an operation, streamed (to the first content) or not (to the answer's end)."""


class Estimate(NamedTuple):
    """Seconds, as of `at`, by an average that began at `since`."""

    mean: float
    peak: float
    at: float
    since: float

    def forgotten(self, tau: float, now: float) -> bool:
        return now - self.at > FORGOTTEN_TAUS * tau


class Latency:
    """An average for each of `taus`. Times in seconds; `now` never goes back."""

    __slots__ = ("_estimates", "_recent", "_sorted", "_taus")

    def __init__(self, taus: Iterable[float] = (DEFAULT_TAU_S,)) -> None:
        self._taus = tuple(taus)
        self._estimates: dict[float, Estimate] = {}
        self._recent: deque[float] = deque(maxlen=_KEPT)  # what is one too many falls out
        self._sorted: list[float] | None = None  # the same by size, from when somebody has asked for a percentile

    def tune(self, taus: Iterable[float]) -> None:
        """Other averages from here on; one that stays goes on."""
        self._taus = tuple(taus)
        self._estimates = {tau: self._estimates[tau] for tau in self._taus if tau in self._estimates}

    @property
    def samples(self) -> int:
        """How many answers the percentiles know, at most 256."""
        return len(self._recent)

    def answered(self, seconds: float, now: float) -> None:
        for tau in self._taus:
            self._estimates[tau] = _blend(self._estimates.get(tau), seconds, tau, now)
        self._keep(seconds)

    def _keep(self, seconds: float) -> None:
        if self._sorted is not None:
            if len(self._recent) == _KEPT:
                del self._sorted[bisect_left(self._sorted, self._recent[0])]
            insort(self._sorted, seconds)
        self._recent.append(seconds)

    def failed(self, elapsed: float, now: float) -> None:
        seconds = max(elapsed, FAILURE_S)
        for tau in self._taus:
            self._estimates[tau] = _blend(self._estimates.get(tau), seconds, tau, now)

    def given_up(self, elapsed: float, now: float) -> None:
        """It was superseded, or its caller left, before there was an answer."""
        for tau in self._taus:
            known = self._estimates.get(tau)
            if known is None or known.forgotten(tau, now):
                self._estimates[tau] = _blend(None, elapsed, tau, now)
            elif elapsed > known.mean:
                blended = _blend(known, elapsed, tau, now)
                self._estimates[tau] = blended._replace(peak=max(known.peak, elapsed))

    def outlasted(self, seconds: float, fraction: float) -> None:
        """It was superseded when it had taken longer than `fraction` of the latest answers: it is counted as one that
        took that long. Were it not, the percentiles would sink, since the slow ones among those that are hedged are
        never answered, and more and more would seem late."""
        known = self.percentile(fraction)
        if known is not None and seconds >= known:
            self._keep(seconds)

    def estimate(self, tau: float) -> Estimate | None:
        return self._estimates.get(tau)

    def percentile(self, fraction: float) -> float | None:
        """The least time that at least `fraction` of the latest answers did not exceed; None below 20 answers."""
        count = len(self._recent)
        if count < _FEWEST:
            return None
        if self._sorted is None:
            self._sorted = sorted(self._recent)
        return self._sorted[min(count, max(1, ceil(fraction * count))) - 1]


def _blend(known: Estimate | None, seconds: float, tau: float, now: float) -> Estimate:
    if known is None or known.forgotten(tau, now):
        return Estimate(seconds, seconds, now, now)
    past = exp(min(0.0, known.at - now) / tau)
    peak = seconds if seconds >= known.peak else seconds + (known.peak - seconds) * past
    return Estimate(seconds + (known.mean - seconds) * past, peak, max(known.at, now), known.since)
