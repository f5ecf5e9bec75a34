"""A modelled backend: what a provider does to a call, drawn from a seeded stream of its own, in virtual time.

In this order: an outage, a dead key, the rate limit, the queue, an error, the work. Whatever the model does not know (a
network, a tokenizer, one call that slows another down but by `concurrency`) does not happen.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from math import ceil
from random import Random
from typing import Final, NoReturn, Self

import trio

from spear.backends import Adapter, Answer, Call, Finished, Host, StreamItem
from spear.config import InstanceConfig, Price
from spear.ir import (
    BackendError,
    Capabilities,
    ChatChoice,
    ChatMessage,
    ChatResult,
    ContentDelta,
    ErrorCode,
    Failure,
    Feature,
    Operation,
    RequestEnvelope,
    Started,
    Transport,
    Usage,
    UsageEvent,
    make_error,
)

from ._clock import JumpClock
from ._scenario import Behaviour, Errors, RateLimit
from ._weather import Weather, weather

_TRIP_S: Final = 0.001
"""What a refused connection and a 429 take."""
_MESSAGE: Final = ChatMessage(role="assistant", content="simulated")
_RESULT: Final = ChatResult(choices=(ChatChoice(index=0, message=_MESSAGE, finish_reason="stop"),))
_DELTA: Final = ContentDelta(delta="word ")
_CODES: Final = {
    "server": (ErrorCode.BACKEND_ERROR, Failure.SERVER),
    "connect": (ErrorCode.BACKEND_UNAVAILABLE, Failure.CONNECT),
    "rate_limit": (ErrorCode.RATE_LIMITED, Failure.RATE_LIMIT),
    "auth": (ErrorCode.BACKEND_ERROR, Failure.AUTH),
    "request": (ErrorCode.INVALID_REQUEST, Failure.REQUEST),
    "refused": (ErrorCode.CONTENT_REFUSED, Failure.REFUSED),
    "queue_full": (ErrorCode.OVERLOADED, Failure.SERVER),
    "cut": (ErrorCode.STREAM_TRUNCATED, Failure.SERVER),
}


class Size:
    """Tokens of one request, and how many calls were made for it so far."""

    __slots__ = ("calls", "input", "output")

    def __init__(self, input: int, output: int) -> None:  # noqa: A002 -- tokens in, tokens out
        self.input = input
        self.output = output
        self.calls = 0


class Bucket:
    """A token bucket, in the provider's own words: it is not the router's."""

    __slots__ = ("_at", "_burst", "_left", "_rate")

    def __init__(self, limit: RateLimit, now: float) -> None:
        self._burst = self._left = float(limit.requests if limit.burst is None else limit.burst)
        self._rate = limit.requests / limit.per
        self._at = now

    def take(self, now: float, factor: float) -> float:
        """0 = taken; else the seconds until there will be one."""
        rate = self._rate * factor
        self._left = min(self._burst, self._left + (now - self._at) * rate)
        self._at = now
        if self._left >= 1:
            self._left -= 1
            return 0.0
        return (1 - self._left) / rate


class ModelledBackend:
    """One backend. `calls` = answered + failed + left + those under way; `tokens_in`, `tokens_out` and `cost` are what
    it charges for, calls that nobody waited for included."""

    def __init__(self, behaviour: Behaviour, name: str, price: Price, seed: int, clock: JumpClock) -> None:
        self.name = name
        self.behaviour = behaviour
        self.calls = self.answered = self.left = 0
        self.failed: dict[str, int] = {}
        self.tokens_in = 0
        self.tokens_out = 0.0
        self.cost = 0.0
        self.most_waiting = 0
        self._price = behaviour.price or price
        self._rng = Random(f"{seed}:backend:{name}")
        self._draw = behaviour.latency.draws()
        self.clock = clock
        self._start = clock.now
        self._weather: Weather = weather(behaviour, 0.0)
        self._buckets: dict[str, Bucket] = {}
        accounts = behaviour.rate_limit.accounts if behaviour.rate_limit else ()
        self._account = {key: f"account {number}" for number, keys in enumerate(accounts) for key in keys}
        self._places = None if behaviour.concurrency is None else trio.Semaphore(behaviour.concurrency)
        self._waiting = 0

    async def invoke(self, size: Size, call: Call) -> Answer:
        self.calls += 1
        size.calls += 1
        began = self.clock.now
        try:
            now = await self._admitted(call)
            await self._enter()
            waited = self.clock.now - began if self._places is not None else 0.0
            with _Work(self, size, self._work_s(now, size.output), now) as work:
                await work.wait(call.first_event - waited)
        except trio.Cancelled:
            self.left += 1
            raise
        self.answered += 1
        return Answer(_RESULT, Usage(input_tokens=size.input, output_tokens=size.output), model=self.name)

    @asynccontextmanager
    async def stream(self, size: Size, call: Call) -> AsyncGenerator[AsyncIterator[StreamItem], None]:
        self.calls += 1
        size.calls += 1
        failed = done = False
        try:  # noqa: PLW0717 -- likewise
            now = await self._admitted(call)
            await self._enter()
            first, pause, cut = self._drips(now, size.output)
            with _Work(self, size, first + pause * self.behaviour.stream_events, now) as work:
                await self.clock.sleep(first)
                async with aclosing(self._items(size, pause, cut, work)) as items:
                    yield items
                done = work.done
        except BackendError:
            failed = True
            raise
        finally:
            self.left += not (failed or done)

    async def _items(self, size: Size, pause: float, cut: int, work: _Work) -> AsyncGenerator[StreamItem, None]:
        yield Started(backend=self.name, model=self.name)
        for number in range(self.behaviour.stream_events):
            if number == cut:
                self.fail("cut")
            yield _DELTA
            if pause:
                await self.clock.sleep(pause)
        self.answered += 1
        work.done = True
        usage = Usage(input_tokens=size.input, output_tokens=size.output)
        yield UsageEvent(usage=usage)
        yield Finished(Answer(_RESULT, usage, model=self.name))

    # --- before the work

    async def _admitted(self, call: Call) -> Weather:
        now = self.clock.now - self._start
        if now >= self._weather.until:
            self._weather = weather(self.behaviour, now)
        here = self._weather
        if here.outage is not None:
            await self._out(here.outage, call)
        key = "" if call.key is None else call.key.id
        if key in here.dead_keys:
            await self.clock.sleep(_TRIP_S)
            self.fail("auth")
        if self.behaviour.rate_limit is not None:
            await self._limited(self.behaviour.rate_limit, key, now, here.rate_factor)
        errors = here.errors
        if errors is not None and self._rng.random() < errors.share:
            await self._err(errors)
        return here

    async def _out(self, outage: str, call: Call) -> NoReturn:
        match outage:
            case "refuse":
                await self.clock.sleep(_TRIP_S)
                self.fail("connect")
            case "unreachable":
                await self.clock.sleep(call.connect)
                self.time_out("unreachable", "connect", Failure.CONNECT)
            case _:
                await self.clock.sleep(call.first_event)
                self.time_out("hang", "first_event")

    async def _limited(self, limit: RateLimit, key: str, now: float, factor: float) -> None:
        name = self._account.get(key, key) if limit.by == "key" else ""
        bucket = self._buckets.get(name) or self._buckets.setdefault(name, Bucket(limit, now))
        wait = bucket.take(now, factor)
        if not wait:
            return
        await self.clock.sleep(_TRIP_S)
        match limit.retry_after:
            case "none":
                said = None
            case "exact":
                said = wait
            case float() as seconds:
                said = seconds
        self.fail("rate_limit", said)

    async def _err(self, errors: Errors) -> None:
        await self.clock.sleep(errors.after)
        self.fail(errors.kind)

    async def _enter(self) -> None:
        """Take a place; whoever has one gives it back by `leave`."""
        places = self._places
        if places is None:
            return
        try:
            places.acquire_nowait()
        except trio.WouldBlock:
            await self._queue(places)

    def leave(self) -> None:
        if self._places is not None:
            self._places.release()

    async def _queue(self, places: trio.Semaphore) -> None:
        most = self.behaviour.queue
        if most is not None and self._waiting >= most:
            await self.clock.sleep(_TRIP_S)
            self.fail("queue_full")
        self._waiting += 1
        self.most_waiting = max(self.most_waiting, self._waiting)
        try:
            await places.acquire()
        finally:
            self._waiting -= 1

    # --- the work

    def _work_s(self, now: Weather, tokens: int) -> float:
        return (self._draw(self._rng) + self.behaviour.per_token * tokens) * now.latency_factor

    def _drips(self, now: Weather, tokens: int) -> tuple[float, float, int]:
        """Seconds to the first piece, between two, and the piece before which the stream breaks (-1 = none)."""
        pieces = self.behaviour.stream_events
        first = self._draw(self._rng) * now.latency_factor
        pause = self.behaviour.per_token * tokens * now.latency_factor / pieces
        share = self.behaviour.cut_streams
        cut = pieces // 2 if share and self._rng.random() < share else -1
        return first, pause, cut

    def charge(self, size: Size, share: float, now: Weather) -> None:
        """For the whole input, and as much of the output as came to be."""
        output = size.output * share
        self.tokens_in += size.input
        self.tokens_out += output
        price = self._price
        self.cost += (price.input * size.input + price.output * output) * now.price_factor / 1e6

    def fail(self, kind: str, retry_after: float | None = None) -> NoReturn:
        code, failure = _CODES[kind]
        hint = None if retry_after is None else ceil(retry_after * 1000)
        message = f"{self.name}: simulated {kind}"
        self._count(kind)
        raise BackendError(make_error(code, message, retry_after_ms=hint), failure)

    def time_out(self, kind: str, clock: str, failure: Failure = Failure.SERVER) -> NoReturn:
        message = f"{self.name}: simulated timeout ({clock})"
        self._count(kind)
        raise BackendError(make_error(ErrorCode.TIMEOUT, message, clock=clock), failure)

    def _count(self, kind: str) -> None:
        self.failed[kind] = self.failed.get(kind, 0) + 1


class _Work:
    """Whatever ends the block, the place is free again, and the backend charges for what it has done by then."""

    __slots__ = ("_backend", "_began", "_now", "_seconds", "_size", "done")

    def __init__(self, backend: ModelledBackend, size: Size, seconds: float, now: Weather) -> None:
        self._backend = backend
        self._size = size
        self._seconds = seconds
        self._now = now
        self.done = False

    async def wait(self, at_most: float) -> None:
        if self._seconds > at_most:
            await self._backend.clock.sleep(max(0.0, at_most))
            self._backend.time_out("slow", "first_event")
        await self._backend.clock.sleep(self._seconds)
        self.done = True

    def __enter__(self) -> Self:
        self._began = self._backend.clock.now
        return self

    def __exit__(self, *_: object) -> None:
        spent = self._backend.clock.now - self._began
        share = 1.0 if self.done or self._seconds <= 0 else min(1.0, spent / self._seconds)
        self._backend.charge(self._size, share, self._now)
        self._backend.leave()


class _Adapter:
    def __init__(self, backend: ModelledBackend, sizes: Mapping[str, Size]) -> None:
        self._backend = backend
        self._sizes = sizes

    async def invoke(self, request: RequestEnvelope, call: Call) -> Answer:
        return await self._backend.invoke(self._sizes[request.request_id], call)

    def stream(self, request: RequestEnvelope, call: Call) -> AbstractAsyncContextManager[AsyncIterator[StreamItem]]:
        return self._backend.stream(self._sizes[request.request_id], call)


class ModelledKind:
    """Stands in for any kind: chat with every feature, streamed or not. `sizes` has those requests that are under
    way."""

    capabilities = Capabilities(
        ops=(Operation.CHAT_COMPLETIONS,), features=tuple(Feature), transports=(Transport.HTTP, Transport.IN_PROCESS)
    )

    def __init__(self, name: str, backends: Mapping[str, ModelledBackend], sizes: Mapping[str, Size]) -> None:
        self.name = name
        self._backends = backends
        self._sizes = sizes

    def check(self, instance: InstanceConfig) -> None:
        """Its real kind would look at the options; here they mean nothing."""

    def open(self, instance: InstanceConfig, host: Host) -> AbstractAsyncContextManager[Adapter]:
        return self._open(instance)

    @asynccontextmanager
    async def _open(self, instance: InstanceConfig) -> AsyncGenerator[Adapter, None]:
        yield _Adapter(self._backends[instance.name], self._sizes)
