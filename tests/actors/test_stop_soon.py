"""Stopping a child without waiting for it: the supervisor does what is left to do."""

from __future__ import annotations

import math

import pytest
import trio

from actors import ActorStopped, Backoff, Exit, Spec, open_supervisor
from tests.actors._kit import Boom, Lively, kit, settle, spec

Do, Log = kit.Do, kit.Log


async def test_it_closes_at_once_and_finishes_what_is_there(autojump_clock):
    log = Log()
    async with open_supervisor() as sup:
        ref = await sup.start(spec(log=log, drain=0.0))
        for number in range(3):
            ref.tell_nowait(Do(number, sleep=10))
        await settle()
        start = trio.current_time()
        sup.stop_soon(ref, drain=100)
        assert ref.status == "stopping"
        with pytest.raises(ActorStopped):
            ref.tell_nowait(Do(9))
        assert await ref.wait_exit() == Exit("root/a", "stopped", None)
        assert trio.current_time() - start == 30
        assert log.of("end") == [0, 1, 2]
        assert sup.snapshot().children == ()
        sup.stop_soon(ref)  # gone already is fine


@pytest.mark.parametrize(("drain", "ended"), [(None, [0]), (0, []), (25, [0, 1]), (math.nextafter(30, 31), [0, 1, 2])])
async def test_its_drain_holds_instead_of_the_specs(autojump_clock, drain, ended):
    log = Log()
    async with open_supervisor() as sup:
        ref = await sup.start(spec(log=log, drain=15))
        for number in range(3):
            ref.tell_nowait(Do(number, sleep=10))
        await settle()
        sup.stop_soon(ref, drain=drain)
        await ref.wait_exit()
        assert log.of("end") == ended


async def test_the_end_of_the_block_waits_by_the_spec(autojump_clock):
    log = Log()
    start = trio.current_time()
    async with open_supervisor() as sup:
        ref = await sup.start(spec(log=log, drain=5))
        ref.tell_nowait(Do(1, sleep=1000))
        await settle()
        sup.stop_soon(ref, drain=2000)
    assert trio.current_time() - start == 5
    assert log.of("cancelled") == [1]
    assert (await ref.wait_exit()).reason == "stopped"


async def test_a_cancelled_block_does_not_drain(autojump_clock):
    log = Log()
    start = trio.current_time()
    with trio.move_on_after(3):
        async with open_supervisor() as sup:
            ref = await sup.start(spec(log=log, drain=50))
            ref.tell_nowait(Do(1, sleep=1000))
            sup.stop_soon(ref, drain=2000)
            await trio.sleep_forever()
    assert trio.current_time() - start == 3
    assert log.of("cancelled") == [1]


async def test_one_that_backs_off_does_not_come_back(autojump_clock):
    notes = []
    async with open_supervisor() as sup:
        slow = Backoff(first=10, limit=10, jitter=0)
        ref = await sup.start(Spec(name="a", factory=lambda: Lively("a", notes), backoff=slow))
        ref.tell_nowait(Boom())
        await settle()
        assert ref.status == "backing_off"
        sup.stop_soon(ref, drain=100)
        assert ref.status == "exited"
        await sup.start(Spec(name="a", factory=lambda: Lively("a", notes)))  # the name is free
        await trio.sleep(100)
        assert [what for what, _, _ in notes].count("enter") == 2


async def test_it_may_be_called_from_inside():
    """Nobody waits, so that nobody waits for itself."""
    log = Log()
    async with open_supervisor() as sup:

        class Own(kit.Scripted):
            async def handle(self, msg, ctx):
                sup.stop_soon(ref, drain=10)
                return "stopping"

        ref = await sup.start(Spec(name="own", factory=lambda: Own(log)))
        assert await ref.ask(Do(1)) == "stopping"
        assert (await ref.wait_exit()).reason == "stopped"


async def test_what_is_wrong():
    async with open_supervisor(name="one") as one, open_supervisor(name="two") as two:
        ref = await one.start(spec())
        with pytest.raises(ValueError, match="one/a is no child of two"):
            two.stop_soon(ref)
        for drain in (-1, math.inf, math.nan):
            with pytest.raises(ValueError, match="finite number of seconds, 0 or more"):
                one.stop_soon(ref, drain=drain)
        assert ref.status == "running"
