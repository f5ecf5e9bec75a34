"""Virtual time, and who sleeps in it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from spear.simulate._clock import START, JumpClock


def run(what: Callable[[JumpClock], Awaitable[None]]) -> None:
    clock = JumpClock()

    async def main() -> None:
        await what(clock)

    trio.run(main, clock=clock)


def test_alarms_and_trios_deadlines_come_in_order_of_time() -> None:
    woken: list[tuple[str, float]] = []

    async def sleep(name: str, how: Callable[[float], Awaitable[None]], seconds: float) -> None:
        await how(seconds)
        woken.append((name, trio.current_time() - START))

    async def main(clock: JumpClock) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sleep, "c", clock.sleep, 3)
            nursery.start_soon(sleep, "b", trio.sleep, 2)
            nursery.start_soon(sleep, "d", trio.sleep, 4)
            nursery.start_soon(sleep, "a", clock.sleep, 1)

    run(main)
    assert woken == [("a", 1), ("b", 2), ("c", 3), ("d", 4)]


def test_an_alarm_that_was_cancelled_wakes_nobody_and_takes_no_room() -> None:
    async def main(clock: JumpClock) -> None:
        for _ in range(1_000):
            with trio.move_on_after(1):
                await clock.sleep(1e6)
        assert trio.current_time() == START + 1_000
        assert len(clock._alarms) < 200
        await clock.sleep(2e6)
        assert trio.current_time() == pytest.approx(START + 1_000 + 2e6)
        assert not clock._alarms

    run(main)


def test_a_time_that_is_past_is_now() -> None:
    async def main(clock: JumpClock) -> None:
        await clock.sleep_until(START - 5)
        await clock.sleep(0)
        assert trio.current_time() == START

    run(main)
