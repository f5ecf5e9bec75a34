"""The order of resuming, without any guest: what spinners and newcomers may do in one pass of the loop."""

from __future__ import annotations

from itertools import pairwise

import trio

from spear.hostcall._slices import PATIENCE, Slices


async def test_newcomers_go_one_per_pass_after_a_used_up_slice():
    slices = Slices()
    went: list[int] = []
    crowded: list[bool] = []
    passes = 0

    async def clock() -> None:
        nonlocal passes
        while True:
            await trio.lowlevel.checkpoint()
            passes += 1

    async def newcomer() -> None:
        if slices.spent:
            await slices.stand_back()
        went.append(passes)
        crowded.append(slices.spent)
        slices.use_up()  # each of them then spins through a whole slice

    async with trio.open_nursery() as nursery:
        slices.use_up()
        nursery.start_soon(clock)
        async with trio.open_nursery() as newcomers:
            for _ in range(10):
                newcomers.start_soon(newcomer)
        nursery.cancel_scope.cancel()
    # One per pass; the counter and the newcomers come in any order within a pass, hence the one or two off.
    assert not any(crowded)
    assert went[-1] - went[0] >= 7
    assert max(later - earlier for earlier, later in pairwise(went)) <= PATIENCE + 2


async def test_a_newcomer_does_not_starve_behind_spinners():
    slices = Slices()
    resumed = 0

    async def spinner() -> None:
        nonlocal resumed
        while True:
            async with slices.token:
                resumed += 1
                slices.use_up()

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(spinner)
            await trio.lowlevel.checkpoint()
            before = resumed
            for _ in range(20):
                await slices.stand_back()
            assert resumed - before <= 20 * (PATIENCE + 2)
            nursery.cancel_scope.cancel()


async def test_spinners_share_the_token_in_turn():
    slices = Slices()
    order: list[int] = []

    async def spinner(number: int) -> None:
        for _ in range(5):
            slices.use_up()
            async with slices.token:
                order.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(spinner, number)
    first = order[:4]
    assert sorted(first) == [0, 1, 2, 3]
    assert order == first * 5


async def test_without_spinners_nobody_waits():
    slices = Slices()
    assert not slices.spent
    slices.use_up()
    assert slices.spent
    with trio.fail_after(5):
        while slices.spent:
            await trio.lowlevel.checkpoint()
    slices.use_up()  # and can be made again
    assert slices.spent
