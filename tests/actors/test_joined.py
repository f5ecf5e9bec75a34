"""Joined asks: whoever gives up sees its cancellation only after the turn has ended, cleanup included."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import trio

from actors import Actor, Context, MailboxFull, Ref, Request, Sink, Spec, StreamRequest, open_supervisor


@dataclass(frozen=True)
class Work(Request[str]):
    cleanup: float = 3.0
    outcome: str = "cancelled"


@dataclass(frozen=True)
class Items(StreamRequest[int]):
    cleanup: float = 3.0


class Refused(Exception):
    pass


class Worker(Actor[Work | Items]):
    """Works until it is cancelled, then cleans up."""

    rejects = (Refused,)

    def __init__(self) -> None:
        self.running = 0

    @asynccontextmanager
    async def working(self, cleanup: float) -> AsyncIterator[None]:
        self.running += 1
        try:
            yield
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(cleanup)
            self.running -= 1

    async def handle(self, msg: Work | Items, ctx: Context[Work | Items]) -> str:
        assert isinstance(msg, Work)
        try:
            async with self.working(msg.cleanup):
                await trio.sleep_forever()
        except trio.Cancelled:
            if msg.outcome == "answered":
                return "answered"
            if msg.outcome == "rejected":
                raise Refused from None
            raise
        raise AssertionError

    async def handle_stream(self, msg: Work | Items, out: Sink[int], ctx: Context[Work | Items]) -> None:
        async with self.working(msg.cleanup):
            number = 0
            while True:
                await out.send(number)
                number += 1


@asynccontextmanager
async def worker(concurrency: int = 1) -> AsyncIterator[tuple[Ref[Work | Items], Worker]]:
    actor = Worker()
    async with open_supervisor() as supervisor:
        yield await supervisor.start(Spec(name="w", factory=lambda: actor, mailbox=1, concurrency=concurrency)), actor


@pytest.mark.parametrize("joined", [True, False])
async def test_a_joined_asker_waits_for_the_cleanup(autojump_clock: object, joined: bool) -> None:
    async with worker() as (ref, actor):
        begun = trio.current_time()
        with trio.move_on_after(1) as scope:
            await ref.ask_nowait(Work(), joined=joined)
        assert scope.cancelled_caught
        assert trio.current_time() - begun == pytest.approx(4 if joined else 1)
        assert actor.running == (0 if joined else 1)


async def test_a_turn_that_answers_in_spite_of_it_gives_its_answer(autojump_clock: object) -> None:
    async with worker() as (ref, _):
        with trio.move_on_after(1) as scope:
            assert await ref.ask_nowait(Work(outcome="answered"), joined=True) == "answered"
        assert not scope.cancelled_caught


async def test_a_turn_that_fails_on_its_way_out_is_a_cancellation_all_the_same(autojump_clock: object) -> None:
    async with worker() as (ref, _):
        with trio.move_on_after(1) as scope:
            await ref.ask_nowait(Work(outcome="rejected"), joined=True)
        assert scope.cancelled_caught
        assert ref._cell.rejected == 1


async def test_one_that_still_waits_in_the_mailbox_leaves_at_once(autojump_clock: object) -> None:
    async with worker() as (ref, actor), trio.open_nursery() as nursery:
        nursery.start_soon(ref.ask_nowait, Work())
        await trio.testing.wait_all_tasks_blocked()
        begun = trio.current_time()
        with trio.move_on_after(1):
            await ref.ask_nowait(Work(), joined=True)
        assert trio.current_time() - begun == pytest.approx(1)
        assert actor.running == 1
        nursery.cancel_scope.cancel()
    assert ref._cell.skipped == 1


async def test_a_full_mailbox_is_full_for_a_joined_one(autojump_clock: object) -> None:
    async with worker() as (ref, _), trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(ref.ask_nowait, Work())
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(MailboxFull):
            await ref.ask_nowait(Work(), joined=True)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("joined", [True, False])
@pytest.mark.parametrize("how", ["left", "cancelled"])
async def test_a_joined_stream_ends_with_its_turn(autojump_clock: object, joined: bool, how: str) -> None:
    async with worker() as (ref, actor):
        begun = trio.current_time()
        with trio.CancelScope() as scope:
            async with ref.stream_nowait(Items(), joined=joined) as items:
                assert [await anext(items), await anext(items)] == [0, 1]
                if how == "cancelled":
                    scope.cancel()
                    await trio.lowlevel.checkpoint()
        assert trio.current_time() - begun == pytest.approx(3 if joined else 0)
        assert actor.running == (0 if joined else 1)


async def test_however_long_the_cleanup_takes(autojump_clock: object) -> None:
    async with worker() as (ref, _), trio.open_nursery() as nursery:
        left = []

        async def ask() -> None:
            with trio.move_on_after(1) as scope:
                await ref.ask_nowait(Work(cleanup=1000), joined=True)
            left.append(scope.cancelled_caught)

        nursery.start_soon(ask)
        await trio.sleep(2)
        assert left == []
        await trio.sleep(1000)
        assert left == [True]
