"""The helpers of `actors.testing`, and instruments and snapshots as an observer meets them."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

import actors
from actors import Actor, Instrument, Spec, open_supervisor
from actors.testing import RecordingInstrument, assert_quiet, deterministic, fake_ref
from tests.actors._kit import Boom, kit, settle, spec

Do, Items, Note, Log = kit.Do, kit.Items, kit.Note, kit.Log


async def test_a_fake_ref_answers_in_place_of_an_actor():
    told: list[Any] = []

    def handler(msg: Any) -> object:
        match msg:
            case Do(number):
                if number < 0:
                    raise Boom
                return number * 2
            case Items(count=count):
                return range(count)
            case _:
                told.append(msg)
                return None

    ref = fake_ref(handler, path="root/fake")
    assert (ref.path, ref.status) == ("root/fake", "running")
    assert (await ref.ask(Do(2)), await ref.ask_nowait(Do(3))) == (4, 6)
    with pytest.raises(Boom):
        await ref.ask(Do(-1))
    await ref.tell(Note(1))
    ref.tell_nowait(Note(2))
    assert told == [Note(1), Note(2)]
    for open_stream in (ref.stream, ref.stream_nowait):
        async with open_stream(Items(count=3)) as items:
            assert [i async for i in items] == [0, 1, 2]


async def test_a_fake_ref_with_an_async_handler():
    async def handler(msg: Any) -> object:
        await trio.lowlevel.checkpoint()
        return msg.number

    ref = fake_ref(handler)
    assert await ref.ask(Do(5)) == 5
    with pytest.raises(TypeError, match="not async"):
        ref.tell_nowait(Note())

    async def items(msg: Any) -> Any:
        await trio.lowlevel.checkpoint()
        yield 1
        yield 2

    async with fake_ref(items).stream(Items()) as got:
        assert await anext(got) == 1


async def test_assert_quiet_names_what_is_not(autojump_clock):
    async with open_supervisor() as sup:
        ref = await sup.start(spec(mailbox=1))
        assert_quiet(sup)
        for _ in range(2):
            ref.tell_nowait(Do(1, sleep=5))
            await settle()
        with pytest.raises(AssertionError, match="root/a: running, 1 running, 1 queued, 0 senders waiting"):
            assert_quiet(sup)
        await trio.sleep(20)
        assert_quiet(sup)
        ref.tell_nowait(Do(1, "crash"))
        await settle()
        with pytest.raises(AssertionError, match="backing_off"):
            assert_quiet(sup)
    assert_quiet(sup)


async def test_a_recording_instrument_sees_the_life_of_an_actor(autojump_clock):
    seen = RecordingInstrument()
    with deterministic(1):
        async with open_supervisor(instruments=(seen,)) as sup:
            ref = await sup.start(spec(backoff=actors.Backoff(first=2, jitter=0)))
            await ref.ask(Do(1))
            ref.tell_nowait(Do(2, "crash"))
            await trio.sleep(5)
    assert [e.hook for e in seen.events] == [
        "started", "turn_started", "turn_finished", "turn_started", "turn_finished", "restarting", "started", "exited",
    ]  # fmt: skip
    assert [e.detail for e in seen.of("started")] == [0, 1]
    assert seen.of("restarting", "root/a")[0].detail[1] == 2
    assert seen.of("restarting", "root/b") == []


async def test_a_broken_instrument_is_dropped_and_logged_without_its_text(caplog):
    class Broken(Instrument):
        calls = 0

        def turn_started(self, path: str, msg: object) -> None:
            self.calls += 1
            raise RuntimeError("secret message text")

    broken, seen = Broken(), RecordingInstrument()
    async with open_supervisor(instruments=(broken, seen)) as sup:
        ref = await sup.start(spec())
        for number in range(3):
            assert await ref.ask(Do(number)) == number
    assert broken.calls == 1
    assert len(seen.of("turn_finished")) == 3
    assert [r.levelno for r in caplog.records] == [logging.ERROR]
    assert "Broken" in caplog.text
    assert "secret" not in caplog.text


async def test_a_snapshot_shows_nested_trees_and_survives_a_broken_observe():
    class Parent(Actor[Any]):
        @asynccontextmanager
        async def lifespan(self, ctx: Any) -> Any:
            async with open_supervisor(name="pool") as pool:
                for name in ("x", "y"):
                    await pool.start(spec(name))
                yield

        def observe(self) -> dict[str, object]:
            raise Boom("secret")

        async def handle(self, msg: Any, ctx: Any) -> object: ...

    async with open_supervisor() as sup:
        await sup.start(Spec(name="parent", factory=Parent))
        root = sup.snapshot()
        assert [(n.path, n.kind) for n in root.walk()] == [
            ("root", "supervisor"), ("root/parent", "actor"), ("root/parent/pool", "supervisor"),
            ("root/parent/pool/x", "actor"), ("root/parent/pool/y", "actor"),
        ]  # fmt: skip
        assert root.children[0].state == {"observe() failed": "Boom"}


async def test_last_error_is_one_short_line(autojump_clock):
    class Verbose(Actor[Any]):
        async def handle(self, msg: Any, ctx: Any) -> object:
            raise Boom("x" * 500 + "\nsecond line")

    async with open_supervisor() as sup:
        ref = await sup.start(Spec(name="a", factory=Verbose))
        await ref.tell(1)
        await settle()
        error = sup.snapshot().children[0].last_error
        assert error is not None
        assert (error[:7], len(error), "\n" in error) == ("Boom: x", 200, False)
