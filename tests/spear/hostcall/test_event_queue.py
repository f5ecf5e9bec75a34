"""The queue of a streaming response: order, bounds, waiting, and what the guest has the host hold."""

from __future__ import annotations

import json

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from spear.hostcall._errno import Refused
from spear.hostcall._event_queue import EventQueue
from spear.hostcall._holdings import Holdings
from tests.spear.hostcall.probe import RELAXED


class Touches:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


def queue_of(*, held: int = 1 << 20, **bounds: int) -> tuple[EventQueue, Holdings, Touches]:
    holdings, touches = Holdings(held), Touches()
    return EventQueue(holdings, touches, **bounds), holdings, touches


def take(queue: EventQueue) -> dict:
    data = queue.peek()
    assert data is not None
    assert queue.peek() is data
    queue.pop()
    return json.loads(data)


async def test_events_come_out_in_order_with_their_numbers():
    queue, holdings, touches = queue_of()
    await queue.put({"type": "a"})
    await queue.put({"type": "b", "x": "ü"})
    assert touches.count == 1  # only the first made it readable
    assert queue.peek() == b'{"seq":1,"type":"a"}'
    assert take(queue) == {"seq": 1, "type": "a"}
    assert take(queue) == {"seq": 2, "type": "b", "x": "ü"}
    assert queue.peek() is None
    assert holdings.bytes == 0
    assert not queue.drained
    await queue.put({"type": "z"}, last=True)
    assert queue.ended
    assert not queue.drained
    take(queue)
    assert queue.drained


@pytest.mark.parametrize(
    "bounds", [{"max_events": 2}, {"max_bytes": 2 * len(b'{"seq":1,"type":"a"}')}], ids=["count", "bytes"]
)
async def test_a_full_queue_makes_the_producer_wait(bounds):
    queue, _, _ = queue_of(**bounds)
    done: list[int] = []

    async def produce() -> None:
        for number in range(5):
            await queue.put({"type": "a"})
            done.append(number)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(produce)
        await trio.testing.wait_all_tasks_blocked()
        assert done == [0, 1]
        for seq in range(1, 6):
            assert take(queue)["seq"] == seq
            await trio.testing.wait_all_tasks_blocked()
            assert done == list(range(min(seq + 2, 5)))


async def test_one_event_larger_than_the_queue_goes_into_an_empty_one():
    queue, _, _ = queue_of(max_bytes=20)
    await queue.put({"type": "a", "x": "y" * 1000})
    with trio.move_on_after(0.01) as scope:
        await queue.put({"type": "b"})
    assert scope.cancelled_caught
    assert take(queue)["type"] == "a"
    await queue.put({"type": "c"})
    assert take(queue) == {"seq": 2, "type": "c"}  # the one that gave up has no number


async def test_what_the_guest_may_hold_counts():
    queue, holdings, _ = queue_of(held=400)
    holdings.take(100)
    await queue.put({"type": "a"})
    with trio.move_on_after(0.01) as scope:
        await queue.put({"type": "b", "x": "y" * 100})  # waits: there is something that the guest can read
    assert scope.cancelled_caught
    take(queue)
    with pytest.raises(Refused):
        await queue.put({"type": "c", "x": "y" * 400})
    assert holdings.bytes == 100
    queue.end({"type": "error"})
    assert take(queue) == {"seq": 2, "type": "error"}
    assert holdings.bytes == 100


async def test_an_end_does_not_wait_and_is_the_only_one():
    queue, holdings, _ = queue_of(max_events=1)
    await queue.put({"type": "a"})
    queue.end({"type": "error"})
    queue.end({"type": "error"})
    assert [take(queue)["type"], take(queue)["type"]] == ["a", "error"]
    assert queue.drained
    assert holdings.bytes == 0


async def test_closing_gives_back_and_frees_the_producer():
    queue, holdings, _ = queue_of(max_events=1)
    await queue.put({"type": "a"})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(queue.put, {"type": "b"})
        await trio.testing.wait_all_tasks_blocked()
        queue.close()
    assert queue.peek() is None
    assert holdings.bytes == 0
    queue.end({"type": "error"})
    assert queue.peek() is None


@settings(RELAXED, max_examples=30)
@given(sizes=st.lists(st.integers(0, 600), max_size=30), bound=st.integers(1, 5), room=st.integers(150, 800))
async def test_nothing_is_lost_whatever_the_sizes(sizes: list[int], bound: int, room: int):
    queue, holdings, _ = queue_of(max_events=bound, max_bytes=room)

    async def produce() -> None:
        for size in sizes:
            await queue.put({"x": "y" * size})
        queue.end({"x": ""})

    found = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(produce)
        while not queue.drained:
            await trio.lowlevel.checkpoint()
            assert len(queue) <= bound + 1
            if queue.peek() is not None:
                found.append(take(queue))
    assert [len(event["x"]) for event in found] == [*sizes, 0]
    assert [event["seq"] for event in found] == list(range(1, len(sizes) + 2))
    assert holdings.bytes == 0
