"""Streams: backpressure both ways, early leaving, failures behind items."""

# ruff: noqa: PT012, PERF401
from __future__ import annotations

from typing import Any

import pytest
import trio

from actors import ActorCrashed, ActorStopped, open_supervisor
from tests.actors._kit import Boom, Refused, kit, settle, spec

Do, Items, Note, Log = kit.Do, kit.Items, kit.Note, kit.Log


async def test_all_items_in_order():
    async with open_supervisor() as sup:
        ref = await sup.start(spec())
        for open_stream in (ref.stream, ref.stream_nowait):
            async with open_stream(Items(count=20), buffer=3) as items:
                assert [item async for item in items] == list(range(20))


@pytest.mark.parametrize("buffer", [0, 1, 8])
async def test_the_producer_waits_while_the_consumer_is_behind(buffer):
    log = Log()
    async with open_supervisor() as sup:
        ref = await sup.start(spec(log=log))
        async with ref.stream(Items(count=100), buffer=buffer) as items:
            await settle()
            assert len(log.of("sending")) == buffer + 1  # the last one is held by the waiting producer
            await anext(items)
            await settle()
            assert len(log.of("sending")) == buffer + 2


async def test_leaving_early_cancels_the_producer_and_the_actor_goes_on():
    log = Log()
    async with open_supervisor() as sup:
        ref = await sup.start(spec(log=log))
        async with ref.stream(Items(1, count=100)) as items:
            async for item in items:
                if item == 5:
                    break
        assert await ref.ask(Do(2)) == 2
        assert log.of("cancelled") == [1]
        with pytest.raises(RuntimeError, match="over"):
            await anext(items)


async def test_a_cancelled_consumer_cancels_the_producer(autojump_clock):
    log = Log()
    async with open_supervisor() as sup:
        ref = await sup.start(spec(log=log))
        with trio.move_on_after(3):
            async with ref.stream(Items(1, count=100, sleep=1)) as items:
                async for _ in items:
                    pass
        await settle()
        assert log.of("cancelled") == [1]
        assert sup.snapshot().children[0].cancelled == 1


async def test_a_stream_left_while_queued_never_starts(autojump_clock):
    log = Log()
    async with open_supervisor() as sup, trio.open_nursery() as nursery:
        ref = await sup.start(spec(log=log))
        nursery.start_soon(ref.ask, Do(1, sleep=5))
        await settle()
        with trio.move_on_after(1):
            async with ref.stream(Items(2)) as items:
                await anext(items)
        await trio.sleep(10)
        assert log.of("start") == [1]
        assert sup.snapshot().children[0].skipped == 1


@pytest.mark.parametrize(("kind", "error"), [("crash", ActorCrashed), ("reject", Refused)])
async def test_items_come_before_the_failure(kind, error, autojump_clock):
    async with open_supervisor() as sup:
        ref = await sup.start(spec())
        got = []
        async with ref.stream(Items(count=3, kind=kind), buffer=8) as items:
            await settle()
            with pytest.raises(error) as caught:
                async for item in items:
                    got.append(item)
            with pytest.raises(StopAsyncIteration):
                await anext(items)
        assert got == [0, 1, 2]
        if kind == "crash":
            assert isinstance(caught.value.__cause__, Boom)


async def test_a_stop_ends_a_stream_with_actor_stopped_behind_what_was_sent(autojump_clock):
    async with open_supervisor() as sup:
        ref = await sup.start(spec())
        async with ref.stream(Items(count=100, sleep=1), buffer=8) as items:
            await trio.sleep(3.5)
            await sup.stop(ref)
            got = []
            with pytest.raises(ActorStopped):
                async for item in items:
                    got.append(item)
            assert got == [0, 1, 2]


async def test_a_shielded_producer_is_not_stuck_when_its_consumer_has_left(autojump_clock):
    class Stubborn(kit.Scripted):
        async def handle_stream(self, msg: Any, out: Any, ctx: Any) -> None:
            with trio.CancelScope(shield=True):
                for number in range(10):
                    await out.send(number)
            self.log.add("end", msg.number)

    log = Log()
    async with open_supervisor() as sup:
        ref = await sup.start(spec())
        ref = await sup.start(kit_spec(Stubborn, log))
        async with ref.stream(Items(1)) as items:
            await anext(items)
        with trio.fail_after(5):
            assert await ref.ask(Do(2)) == 2
        assert log.of("end") == [1, 2]


def kit_spec(cls: Any, log: Any) -> Any:
    from actors import Spec

    return Spec(name="stubborn", factory=lambda: cls(log))


async def test_one_consumer_one_block():
    async with open_supervisor() as sup:
        ref = await sup.start(spec())
        stream = ref.stream(Items(count=1, sleep=0.01))
        with pytest.raises(RuntimeError, match="inside the block"):
            await anext(aiter(stream))
        async with stream as items:
            with pytest.raises(RuntimeError, match="once"):
                await stream.__aenter__()
            async with trio.open_nursery() as nursery:

                async def second() -> None:
                    with pytest.raises(trio.BusyResourceError):
                        await anext(items)

                nursery.start_soon(second)
                assert await anext(items) == 0


async def test_several_tasks_of_a_turn_may_send():
    class Fan(kit.Scripted):
        async def handle_stream(self, msg: Any, out: Any, ctx: Any) -> None:
            async with trio.open_nursery() as nursery:
                for number in range(10):
                    nursery.start_soon(out.send, number)

    async with open_supervisor() as sup:
        ref = await sup.start(kit_spec(Fan, Log()))
        async with ref.stream(Items(1)) as items:
            assert sorted([item async for item in items]) == list(range(10))
        async with ref.stream(Items(1)) as items:
            await anext(items)
        assert await ref.ask(Do(1)) == 1
