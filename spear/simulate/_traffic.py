"""When requests arrive, and what each is: drawn from one seed, the same for all that are compared."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import merge
from itertools import islice
from math import sqrt
from random import Random
from typing import NamedTuple

from ._scenario import Burst, Ramp, Traffic


class Arrival(NamedTuple):
    """`at` in seconds from the start."""

    at: float
    stream: bool
    input_tokens: int
    output_tokens: int
    session: int | None


def arrivals(traffic: Traffic, seed: int, *, requests: int | None, duration: float | None) -> Iterator[Arrival]:
    """In order of time; at most so many, and none after `duration`."""
    rng = Random(f"{seed}:requests")
    input_tokens, output_tokens = traffic.input_tokens.draws(), traffic.output_tokens.draws()
    for at in islice(times(traffic, Random(f"{seed}:arrivals")), requests):
        if duration is not None and at > duration:
            return
        yield Arrival(
            at,
            rng.random() < traffic.stream,
            max(1, round(input_tokens(rng))),
            max(0, round(output_tokens(rng))),
            rng.randrange(traffic.sessions) if traffic.sessions else None,
        )


def times(traffic: Traffic, rng: Random) -> Iterator[float]:
    """Without an end."""
    return merge(_steady(traffic, rng), *(_herd(each) for each in traffic.bursts))


def expected(traffic: Traffic, until: float) -> float:
    """How many arrivals there are until then, in the mean."""
    rate, at, count = traffic.rate, 0.0, 0.0
    for ramp in sorted(traffic.ramps, key=lambda ramp: ramp.at):
        if ramp.at + ramp.over >= until:
            here = rate_at(until, ramp, rate)
            flat = max(0.0, min(until, ramp.at) - at)
            return count + flat * rate + (until - at - flat) * (rate + here) / 2 + _in_bursts(traffic, until)
        at, more = _until(at, ramp, rate)
        rate, count = ramp.rate, count + more
    return count + (until - at) * rate + _in_bursts(traffic, until)


def _in_bursts(traffic: Traffic, until: float) -> int:
    return sum(burst.requests for burst in traffic.bursts if burst.at <= until)


def _steady(traffic: Traffic, rng: Random) -> Iterator[float]:
    """A Poisson process whose rate changes is one of rate 1 in stretched time; constant arrivals likewise."""
    rate, at = traffic.rate, 0.0
    ramps = sorted(traffic.ramps, key=lambda ramp: ramp.at)
    poisson = traffic.arrivals == "poisson"
    work = 0.0  # of the rate's integral, left to go until the next arrival
    while True:
        work += rng.expovariate(1.0) if poisson else 1.0
        while ramps and (more := _until(at, ramps[0], rate))[1] <= work:
            at, done = more
            work -= done
            rate = ramps.pop(0).rate
        step = _step(at, work, rate, ramps[0] if ramps else None)
        at, work = at + step, 0.0
        yield at


def _until(at: float, ramp: Ramp, rate: float) -> tuple[float, float]:
    """When `ramp` has ended, and how many arrivals are expected from `at` until then."""
    end = max(at, ramp.at + ramp.over)
    flat = max(0.0, ramp.at - at)
    slope = end - at - flat
    now = rate_at(at + flat, ramp, rate)
    return end, flat * rate + slope * (now + ramp.rate) / 2


def rate_at(at: float, ramp: Ramp, rate: float) -> float:
    """On the way from `rate` to that of the ramp."""
    if at <= ramp.at:
        return rate
    if at >= ramp.at + ramp.over:
        return ramp.rate
    return rate + (ramp.rate - rate) * (at - ramp.at) / ramp.over


def _step(at: float, work: float, rate: float, ramp: Ramp | None) -> float:
    """How long until `work` arrivals are expected; the ramp does not end before."""
    if ramp is None or ramp.over == 0 or at + work / rate <= ramp.at:
        return work / rate
    flat = max(0.0, ramp.at - at)
    work -= flat * rate
    now = rate_at(at + flat, ramp, rate)
    growth = (ramp.rate - rate) / ramp.over
    if growth == 0:
        return flat + work / now
    # now·t + growth·t²/2 = work
    return flat + (sqrt(max(0.0, now * now + 2 * growth * work)) - now) / growth


def _herd(burst: Burst) -> Iterator[float]:
    return (burst.at + burst.over * number / burst.requests for number in range(burst.requests))
