"""What a scenario says: frozen models, seconds and numbers. Times of day are virtual, from the start of the run."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from spear.config import Config, Price, Seconds, Section

from ._distribution import Distribution, Share, constant

At = Annotated[float, Field(ge=0)]
Rate = Annotated[float, Field(ge=1e-6, le=1e6)]
Factor = Annotated[float, Field(ge=1e-6, le=1e6)]
MOST_REQUESTS: Final = 100_000_000
"""Of one run."""
ErrorKind = Literal["server", "connect", "rate_limit", "auth", "request", "refused"]


class Ramp(Section):
    """From `at` on the rate moves to `rate`, in a straight line, within `over`; then it stays there."""

    at: At
    rate: Rate
    over: At = 0.0


class Burst(Section):
    """`requests` more, spread evenly over `over` from `at` on: a herd."""

    at: At
    requests: Annotated[int, Field(ge=1, le=1_000_000)]
    over: At = 0.0


class Traffic(Section):
    """Open loop: requests come when they come, whether or not those before them were answered."""

    arrivals: Literal["poisson", "constant"] = "poisson"
    rate: Rate
    """Requests per second."""
    ramps: Annotated[tuple[Ramp, ...], Field(max_length=1000)] = ()
    bursts: Annotated[tuple[Burst, ...], Field(max_length=1000)] = ()
    model: str = ""
    stream: Share = 0.0
    """The share of requests that are streamed."""
    input_tokens: Distribution = constant(200)
    output_tokens: Distribution = constant(200)
    sessions: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    """Requests belong to so many sessions, at random; 0 = to none."""
    timeout: Seconds | None = None
    """Of a request; none = the configuration's default."""
    patience: Seconds | None = None
    """How long a caller waits before it leaves."""


class Errors(Section):
    share: Share
    kind: ErrorKind = "server"
    after: At = 0.02
    """How long a failing call takes."""


class RateLimit(Section):
    """A token bucket at the backend, which answers 429 when it is empty."""

    requests: Annotated[int, Field(ge=1, le=1_000_000_000)]
    per: Seconds = 60.0
    burst: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    """None = all of `requests` at once."""
    by: Literal["all", "key"] = "all"
    """Whether all callers share one bucket or each key has its own."""
    retry_after: Literal["exact", "none"] | At = "exact"
    """What the 429 says: when there is room again, nothing, or so many seconds."""
    accounts: tuple[tuple[str, ...], ...] = ()
    """With `by = "key"`: credentials, by name, that share one bucket, whatever the configuration believes."""


class Event(Section):
    """From `at` until `until` (none = to the end) this holds instead."""

    at: At
    until: At | None = None
    outage: Literal["refuse", "unreachable", "hang"] | None = None
    """Connections are refused; or lead nowhere (the connect clock ends it); or calls are never answered."""
    latency_factor: Factor = 1.0
    errors: Errors | None = None
    rate_factor: Factor = 1.0
    """On the rate limit."""
    price_factor: Annotated[float, Field(ge=0, le=1e6)] = 1.0
    dead_keys: tuple[str, ...] = ()
    """Credentials, by name, that are answered 401."""


class Behaviour(Section):
    """How one backend behaves, by the name it has in the configuration."""

    name: str
    copies: Annotated[int, Field(ge=1, le=1000)] = 1
    """More than 1: the configuration has so many of it, NAME-1, NAME-2, …"""
    latency: Distribution
    """To the first content of a stream; to the answer without `per_token`."""
    per_token: At = 0.0
    """Seconds for each token of output: what makes streams drip."""
    stream_events: Annotated[int, Field(ge=1, le=10_000)] = 4
    """In how many pieces a stream comes."""
    cut_streams: Share = 0.0
    """Streams that break off half-way."""
    concurrency: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Calls that are worked on at once, the others wait there; none = all."""
    queue: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """Of those that wait; more are answered 503. None = no bound but the callers'."""
    errors: Errors | None = None
    rate_limit: RateLimit | None = None
    price: Price | None = None
    """What is really charged, per million tokens; none = what the configuration says."""
    events: tuple[Event, ...] = ()


class Reload(Section):
    at: At
    config: Config


class Variant(Section):
    """One of those that are compared: a whole configuration, and those that replace it on the way."""

    name: str
    config: Config
    reloads: tuple[Reload, ...] = ()


class Scenario(Section):
    """`requests` ends the traffic or `duration`, whichever is there; one of them is. What is under way then goes on
    to its end."""

    name: str
    title: str
    about: str = ""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1
    requests: Annotated[int, Field(ge=1, le=MOST_REQUESTS)] | None = None
    duration: Seconds | None = None
    traffic: Traffic
    behaviours: tuple[Behaviour, ...]
    variants: tuple[Variant, ...]
    left_out: tuple[str, ...] = ()
    """Settings of the configuration that reach outside and are not simulated."""

    def variant(self, name: str) -> Variant:
        return next(each for each in self.variants if each.name == name)
