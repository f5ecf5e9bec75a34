"""Streams whose producer or consumer has several items at once: no wait where none is needed, and none is skipped."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from actors import Spec, open_supervisor
from tests.actors._kit import kit, settle

Do, Items, Log = kit.Do, kit.Items, kit.Log


class AtOnce(kit.Scripted):
    """Sends without waiting as long as there is room."""

    async def handle_stream(self, msg: Any, out: Any, ctx: Any) -> None:
        for number in range(msg.count):
            with trio.testing.assert_no_checkpoints():
                taken = out.send_nowait(number)
            self.log.add("taken" if taken else "full", msg.number)
            if not taken:
                await out.send(number)


def at_once(log: Any) -> Spec[Any]:
    return Spec(name="at-once", factory=lambda: AtOnce(log), mailbox=4)


@pytest.mark.parametrize("buffer", [0, 1, 3, 50])
async def test_all_items_in_order_however_they_are_sent_and_taken(buffer):
    log = Log()
    async with open_supervisor() as sup:
        ref = await sup.start(at_once(log))
        got = []
        async with ref.stream(Items(count=20), buffer=buffer) as items:
            while True:
                try:
                    with trio.testing.assert_no_checkpoints():
                        got.append(items.next_nowait())
                except trio.WouldBlock:
                    item = await anext(items, None)
                    if item is None:
                        break
                    got.append(item)
        assert got == list(range(20))
        assert len(log.of("taken")) >= min(buffer, 20)


async def test_no_more_than_the_buffer_is_taken_without_a_consumer():
    log = Log()
    async with open_supervisor() as sup:
        ref = await sup.start(at_once(log))
        async with ref.stream(Items(count=20), buffer=3):
            await settle()
            assert len(log.of("taken")) == 3
            assert len(log.of("full")) == 1


async def test_a_consumer_that_has_left_takes_nothing_and_the_turn_is_cancelled():
    log = Log()
    async with open_supervisor() as sup:
        ref = await sup.start(at_once(log))
        async with ref.stream(Items(1, count=1_000_000), buffer=2) as items:
            await anext(items)
        assert await ref.ask(Do(2)) == 2
        assert len(log.of("full")) < 10
        with pytest.raises(trio.WouldBlock):
            items.next_nowait()


async def test_nothing_can_be_taken_before_the_block_nor_at_the_end():
    async with open_supervisor() as sup:
        ref = await sup.start(at_once(Log()))
        stream = ref.stream(Items(count=1), buffer=4)
        with pytest.raises(trio.WouldBlock):
            stream.next_nowait()
        async with stream as items:
            await settle()
            assert items.next_nowait() == 0
            with pytest.raises(trio.WouldBlock):
                items.next_nowait()
            with pytest.raises(StopAsyncIteration):
                await anext(items)
