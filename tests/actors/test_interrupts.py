"""A KeyboardInterrupt that lands in a turn comes out of the block, whatever stands in its way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import trio
import trio.testing

from actors import Actor, ActorStopped, Context, Request, Spec, open_supervisor


@dataclass(frozen=True)
class Work(Request[None]):
    pass


class Interrupted(Actor[Work]):
    """Its turn is hit; then its lifespan has something to await, which the stop cancels."""

    def __init__(self, cleanup, grouped):
        self.cleanup = cleanup
        self.grouped = grouped

    @asynccontextmanager
    async def lifespan(self, ctx: Context[Work]) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await self.cleanup()

    async def handle(self, msg: Work, ctx: Context[Work]) -> None:
        await trio.lowlevel.checkpoint()
        if not self.grouped:
            raise KeyboardInterrupt
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise KeyboardInterrupt


async def quick():
    await trio.lowlevel.checkpoint()


async def slow():
    await trio.sleep(1)


async def failing():  # noqa: RUF029 - as a cleanup it is awaited
    raise OSError("the cleanup fails, too")


def leaves(error):
    if isinstance(error, BaseExceptionGroup):
        return {leaf for inner in error.exceptions for leaf in leaves(inner)}
    return {type(error)}


class Outer(Actor[Work]):
    """Owns the actor that is hit, and a supervisor in its lifespan, as the backends of a program would be."""

    def __init__(self, spec, refs):
        self.spec = spec
        self.refs = refs

    @asynccontextmanager
    async def lifespan(self, ctx: Context[Work]) -> AsyncIterator[None]:
        async with open_supervisor(name="inner", stop="together") as sup:
            self.refs.append(await sup.start(self.spec))
            yield


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("concurrency", [1, 8])
@pytest.mark.parametrize("cleanup", [quick, slow, failing])
def test_it_comes_out(cleanup, concurrency, grouped, nested):
    async def main():
        refs = []
        spec = Spec(name="hit", factory=lambda: Interrupted(cleanup, grouped), concurrency=concurrency, grace=2)
        async with open_supervisor() as sup:
            if nested:
                await sup.start(Spec(name="outer", factory=lambda: Outer(spec, refs)))
            else:
                refs.append(await sup.start(spec))
            try:
                await refs[0].ask(Work())
            except ActorStopped:
                await trio.sleep(5)
            raise AssertionError("the block went on")

    with pytest.raises(BaseException) as caught:  # noqa: PT011 - a group or not: what counts is what is in it
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert KeyboardInterrupt in leaves(caught.value)
    assert AssertionError not in leaves(caught.value)
