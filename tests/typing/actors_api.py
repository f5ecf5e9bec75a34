"""Not run: checked by mypy --strict. What the public types of `actors` infer, and what they refuse."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import assert_never, assert_type

from actors import (
    Actor,
    Context,
    Exit,
    Instrument,
    Node,
    Ref,
    Request,
    Sink,
    Spec,
    Stream,
    StreamRequest,
    Supervisor,
    open_supervisor,
)


@dataclass(frozen=True, slots=True)
class Reserve(Request[int]):
    tokens: int


@dataclass(frozen=True, slots=True)
class Refill:
    tokens: int


@dataclass(frozen=True, slots=True)
class Words(StreamRequest[str]):
    prompt: str


@dataclass(frozen=True, slots=True)
class Stranger:
    pass


class Quota(Actor[Reserve | Refill]):
    rejects = (ValueError,)

    def __init__(self, left: int) -> None:
        self.left = left

    async def handle(self, msg: Reserve | Refill, ctx: Context[Reserve | Refill]) -> object:
        assert_type(ctx.ref, Ref[Reserve | Refill])
        assert_type(ctx.deadline, float)
        match msg:
            case Reserve(tokens):
                self.left -= tokens
                return self.left
            case Refill(tokens):
                self.left += tokens
                return None
            case _:
                assert_never(msg)

    def observe(self) -> Mapping[str, object]:
        return {"left": self.left}


class Speaker(Actor[Words | Exit]):
    @asynccontextmanager
    async def lifespan(self, ctx: Context[Words | Exit]) -> AsyncIterator[None]:
        async with open_supervisor(
            name="parts", strategy="rest_for_one", stop="together", intensity=5, period=30
        ) as sup:
            part = await sup.start(Spec(name="quota", factory=partial(Quota, 10)))
            sup.watch(part, to=ctx.ref, make=lambda ended: ended)
            yield

    async def handle_stream(self, msg: Words | Exit, out: Sink[str], ctx: Context[Words | Exit]) -> None:
        await out.send("word")


class Quiet(Instrument):
    def exited(self, exit: Exit) -> None:  # noqa: A002
        return None


async def uses(sup: Supervisor) -> None:
    quota = await sup.start(Spec(name="quota", factory=lambda: Quota(1), restart="temporary", concurrency=4))
    assert_type(quota, Ref[Reserve | Refill])
    assert_type(await quota.ask(Reserve(1)), int)
    assert_type(await quota.ask_nowait(Reserve(1)), int)
    await quota.tell(Refill(1))
    quota.tell_nowait(Reserve(1))

    only_reserve: Ref[Reserve] = quota  # contravariant: a narrower face of the same actor
    await only_reserve.tell(Reserve(1))

    speaker = await sup.start(Spec(name="speaker", factory=Speaker))
    assert_type(speaker.stream(Words("a"), buffer=8), Stream[str])
    async with speaker.stream(Words("a")) as items:
        assert_type(items, Stream[str])
        async for item in items:
            assert_type(item, str)
    async with speaker.stream_nowait(Words("a")) as items:
        assert_type(await anext(items), str)

    assert_type(await quota.wait_exit(), Exit)
    assert_type(await sup.stop(quota), Exit)
    assert_type(sup.snapshot(), Node)
    assert_type((quota.running, quota.queued), tuple[int, int])


async def refused(sup: Supervisor, quota: Ref[Reserve | Refill], narrow: Ref[Reserve]) -> None:
    await quota.tell(Stranger())  # type: ignore[arg-type]
    quota.tell_nowait(Stranger())  # type: ignore[arg-type]
    await quota.ask(Refill(1))  # type: ignore[arg-type]
    quota.stream(Reserve(1))  # type: ignore[arg-type]
    wide: Ref[Reserve | Refill] = narrow  # type: ignore[assignment]
    await wide.tell(Refill(1))
    await sup.start(Spec(name="a", factory=Quota))  # type: ignore[arg-type]
    Spec(name="a", factory=lambda: Quota(1), restart="always")  # type: ignore[arg-type]
    open_supervisor(strategy="all")  # type: ignore[arg-type]
