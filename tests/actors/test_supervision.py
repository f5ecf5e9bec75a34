"""Starting, restarting, stopping: what a supervisor does, row by row of the semantics table."""

# ruff: noqa: PT012, PT017, PLW0717, E501, RUF075
from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio

import actors
from actors import (
    Actor,
    ActorCrashed,
    ActorStopped,
    Backoff,
    Exit,
    NameTaken,
    RestartLimitExceeded,
    SelfStop,
    Spec,
    StartFailed,
    SupervisorClosed,
    open_supervisor,
)
from actors.testing import RecordingInstrument, assert_quiet, deterministic
from tests.actors._kit import Boom, Lively, kit, settle, spec

Do, Items, Note, Log = kit.Do, kit.Items, kit.Note, kit.Log
NOW = Backoff(first=0, limit=0)


def lively(name: str, notes: list[Any], restart: str = "permanent", *, options: Any = None, **script: Any) -> Any:
    options = {"backoff": NOW} | (options or {})
    return Spec(name=name, factory=lambda: Lively(name, notes, **script), restart=restart, **options)


def names(notes: list[Any], what: str) -> list[str]:
    return [name for w, name, _ in notes if w == what]


# --- start ----------------------------------------------------------------------------------------------


async def test_start_returns_once_the_lifespan_is_entered(autojump_clock):
    notes: list[Any] = []
    async with open_supervisor() as sup:
        await sup.start(lively("a", notes, enter=3))
        assert notes == [("enter", "a", trio.current_time())]


async def test_a_failed_first_start_is_the_callers_and_keeps_nothing():
    async with open_supervisor() as sup:
        with pytest.raises(StartFailed, match="Boom: start of a") as caught:
            await sup.start(lively("a", [], fail_start=0))
        assert isinstance(caught.value.__cause__, Boom)
        with pytest.raises(StartFailed):
            await sup.start(Spec(name="a", factory=lambda: 1 / 0))
        assert sup.snapshot().children == ()
        await sup.start(lively("a", []))


async def test_a_cancelled_start_ends_the_child(autojump_clock):
    notes: list[Any] = []
    async with open_supervisor() as sup:
        with trio.move_on_after(1) as scope:
            await sup.start(lively("a", notes, enter=10))
        assert scope.cancelled_caught
        assert sup.snapshot().children == ()
        assert notes == []


async def test_names_are_unique_among_the_living():
    async with open_supervisor() as sup:
        ref = await sup.start(spec("a"))
        with pytest.raises(NameTaken):
            await sup.start(spec("a"))
        await sup.stop(ref)
        assert await (await sup.start(spec("a"))).ask(Do(1)) == 1


async def test_nothing_starts_once_the_block_is_over():
    async with open_supervisor() as sup:
        pass
    with pytest.raises(SupervisorClosed):
        await sup.start(spec())


async def test_wrong_options_say_what_would_be_right():
    for options in ({"name": "a/b"}, {"strategy": "all"}, {"stop": "never"}, {"intensity": -1}, {"period": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            async with open_supervisor(**options):
                pass


# --- restart --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("restart", "comes_back"), [("permanent", True), ("transient", True), ("temporary", False)])
async def test_who_comes_back_after_a_crash(restart, comes_back, autojump_clock):
    async with open_supervisor() as sup:
        ref = await sup.start(spec(restart=restart))
        with pytest.raises(ActorCrashed):
            await ref.ask(Do(1, "crash"))
        if comes_back:
            assert await ref.ask(Do(2)) == 2
        else:
            ended = await ref.wait_exit()
            assert (ended.path, ended.reason, repr(ended.error)) == ("root/a", "crashed", "Boom(1)")
            assert sup.snapshot().children == ()


async def test_what_is_queued_when_a_temporary_child_crashes_is_answered(autojump_clock):
    async with open_supervisor() as sup, trio.open_nursery() as nursery:
        ref = await sup.start(spec(restart="temporary"))

        async def queued() -> None:
            with pytest.raises(ActorStopped):
                await ref.ask(Do(2))

        nursery.start_soon(queued)
        ref.tell_nowait(Do(1, "crash", sleep=1))


class EndsItself(Actor[Any]):
    @asynccontextmanager
    async def lifespan(self, ctx: Any) -> Any:
        with trio.move_on_after(1):
            yield

    async def handle(self, msg: Any, ctx: Any) -> object: ...


async def test_a_lifespan_that_ends_by_itself(autojump_clock):
    async with open_supervisor(intensity=2, period=60) as sup:
        for restart in ("transient", "temporary"):
            ref = await sup.start(Spec(name="a", factory=EndsItself, restart=restart))
            assert (await ref.wait_exit()).reason == "finished"
    with pytest.raises(RestartLimitExceeded, match="LifespanEnded"):
        async with open_supervisor(intensity=2, period=60) as sup:
            await sup.start(Spec(name="a", factory=EndsItself, backoff=NOW))
            await trio.sleep_forever()


async def test_a_background_task_of_a_lifespan_crashes_its_actor(autojump_clock):
    class Background(Actor[Any]):
        @asynccontextmanager
        async def lifespan(self, ctx: Any) -> Any:
            async with trio.open_nursery() as nursery:
                if ctx.incarnation == 0:
                    nursery.start_soon(self.fail)
                yield
                nursery.cancel_scope.cancel()

        async def fail(self) -> None:
            await trio.sleep(1)
            raise Boom("background")

        async def handle(self, msg: Any, ctx: Any) -> object:
            return ctx.incarnation

    seen = RecordingInstrument()
    async with open_supervisor(instruments=(seen,)) as sup:
        await sup.start(Spec(name="a", factory=Background))
        await trio.sleep(5)
        assert [repr(e.detail[0]) for e in seen.of("restarting")] == ["Boom('background')"]


@pytest.mark.parametrize(
    ("strategy", "stopped", "started"),
    [("one_for_one", [], ["b"]), ("one_for_all", ["d", "c", "a"], ["a", "b", "c"]), ("rest_for_one", ["d", "c"], ["b", "c"])],
)  # fmt: skip
async def test_strategies(strategy, stopped, started, autojump_clock):
    notes: list[Any] = []
    async with open_supervisor(strategy=strategy) as sup:
        refs = [await sup.start(lively(n, notes, "temporary" if n == "d" else "permanent", leave=1)) for n in "abcd"]
        notes.clear()
        await refs[1].tell(Boom())
        await trio.sleep(20)
        assert [n for n in names(notes, "left") if n != "b"] == stopped
        assert names(notes, "enter") == started
        # one after another: nobody leaves before the one before it has left
        order = [(w, n) for w, n, _ in notes if w in ("leaving", "left")]
        assert order == [(w, n) for n in ["b", *stopped] for w in ("leaving", "left")]
        assert [r.status for r in refs[:3]] == ["running"] * 3
        assert refs[3].status == ("running" if strategy == "one_for_one" else "exited")


async def test_group_restart_keeps_the_queues_of_the_siblings(autojump_clock):
    log = Log()
    async with open_supervisor(strategy="one_for_all") as sup:
        a = await sup.start(spec("a", log, backoff=NOW))
        b = await sup.start(spec("b", log, backoff=Backoff(first=5, jitter=0)))
        a.tell_nowait(Do(1, sleep=60))
        a.tell_nowait(Do(2))
        await settle()
        b.tell_nowait(Do(3, "crash"))
        await trio.sleep(1)
        assert (a.status, b.status, a.queued) == ("backing_off", "backing_off", 1)
        await trio.sleep(10)
        assert log.of("cancelled") == [1]
        assert log.of("end") == [2]


async def test_a_failing_restart_counts_as_another_failure(autojump_clock):
    seen = RecordingInstrument()
    with pytest.raises(RestartLimitExceeded) as caught:
        async with open_supervisor(intensity=3, instruments=(seen,)) as sup:
            ref = await sup.start(lively("a", [], fail_start=1, options={"backoff": Backoff(first=0.5, jitter=0)}))
            await ref.tell(Boom("first"))
            await trio.sleep_forever()
    assert [str(e) for e in caught.value.failures] == ["first", "start of a", "start of a", "start of a"]
    assert [e.detail[1] for e in seen.of("restarting")] == [0.5, 1, 2]
    assert ref.status == "exited"


async def test_group_restart_when_a_member_does_not_come_back(autojump_clock):
    with pytest.raises(RestartLimitExceeded):
        async with open_supervisor(strategy="one_for_all", intensity=3) as sup:
            await sup.start(lively("a", []))
            b = await sup.start(lively("b", [], fail_start=1))
            await b.tell(Boom())
            await trio.sleep_forever()
    assert_quiet(sup)


async def test_quiet_time_resets_the_backoff(autojump_clock):
    seen = RecordingInstrument()
    backoff = Backoff(first=1, factor=2, jitter=0, reset_after=60)
    async with open_supervisor(instruments=(seen,), intensity=100) as sup:
        ref = await sup.start(spec(backoff=backoff))
        for quiet in (0, 0, 61, 0):
            await trio.sleep(10)
            await trio.sleep(quiet)
            ref.tell_nowait(Do(1, "crash"))
            await trio.sleep(10)
    assert [e.detail[1] for e in seen.of("restarting")] == [1, 2, 1, 2]


async def test_a_stop_during_the_backoff_ends_it_at_once(autojump_clock):
    start = trio.current_time()
    async with open_supervisor() as sup:
        for name in "ab":
            ref = await sup.start(spec(name, backoff=Backoff(first=30, jitter=0)))
            ref.tell_nowait(Do(1, "crash"))
            await settle()
            assert ref.status == "backing_off"
            if name == "a":
                assert (await sup.stop(ref)).reason == "stopped"
    assert trio.current_time() == start


async def test_jitter_is_deterministic_on_demand(autojump_clock):
    delays = []
    for _ in range(2):
        seen = RecordingInstrument()
        with deterministic(7):
            async with open_supervisor(instruments=(seen,)) as sup:
                ref = await sup.start(spec())
                ref.tell_nowait(Do(1, "crash"))
                await settle()
        delays.append(seen.of("restarting")[0].detail[1])
    assert delays[0] == delays[1]
    assert abs(delays[0] - 0.1) > 1e-6


async def test_a_sibling_that_fails_while_it_is_stopped_counts_too(autojump_clock):
    class BadExit(Actor[Any]):
        @asynccontextmanager
        async def lifespan(self, ctx: Any) -> Any:
            yield
            if ctx.incarnation == 0:
                raise Boom("exit")

        async def handle(self, msg: Any, ctx: Any) -> object: ...

    seen = RecordingInstrument()
    async with open_supervisor(strategy="one_for_all", intensity=2, instruments=(seen,)) as sup:
        a = await sup.start(spec("a", backoff=NOW))
        b = await sup.start(Spec(name="b", factory=BadExit))
        a.tell_nowait(Do(1, "crash"))
        await trio.sleep(5)
        assert (a.status, b.status) == ("running", "running")
        assert [e.detail for e in seen.of("started")] == [0, 0, 1, 1]  # each came back once
        assert [e.path for e in seen.of("restarting")] == ["root/a", "root/b"]


async def test_a_crash_in_a_lifespan_with_a_nursery_is_one_failure(autojump_clock):
    class WithNursery(Actor[Any]):
        @asynccontextmanager
        async def lifespan(self, ctx: Any) -> Any:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                yield
                nursery.cancel_scope.cancel()

        async def handle(self, msg: Any, ctx: Any) -> object:
            raise Boom("turn")

    seen = RecordingInstrument()
    async with open_supervisor(instruments=(seen,)) as sup:
        ref = await sup.start(Spec(name="a", factory=WithNursery))
        await ref.tell(1)
        await trio.sleep(1)
        assert sup.snapshot().children[0].restarts == 1
        assert [repr(e.detail[0]) for e in seen.of("restarting")] == ["Boom('turn')"]


async def test_giving_up_while_the_body_fails_loses_neither(autojump_clock):
    with pytest.RaisesGroup(RestartLimitExceeded, OSError):
        async with open_supervisor(intensity=0) as sup:
            ref = await sup.start(spec())
            ref.tell_nowait(Do(1, "crash"))
            try:
                await trio.sleep_forever()
            finally:
                raise OSError("body")


async def test_a_base_exception_at_the_start_passes_through():
    class Quit(BaseException):
        pass

    def factory() -> Any:
        raise Quit

    with pytest.raises(Quit):
        async with open_supervisor() as sup:
            await sup.start(Spec(name="a", factory=factory))
    assert_quiet(sup)


async def test_a_child_stopped_before_it_ran_a_step(autojump_clock):
    notes: list[Any] = []
    async with trio.open_nursery() as nursery:
        async with open_supervisor() as sup:

            async def start() -> None:
                with pytest.raises(StartFailed, match="stopped before"):
                    await sup.start(lively("a", notes, enter=5))

            nursery.start_soon(start)
            await settle()
        assert notes == []


# --- escalation and nesting -------------------------------------------------------------------------------


def nest(notes: list[Any], *, orderly_drain: float = 0, **options: Any) -> type[Actor[Any]]:
    class Parent(Actor[Any]):
        @asynccontextmanager
        async def lifespan(self, ctx: Any) -> Any:
            async with open_supervisor(name="inner", **options) as sup:
                self.refs = [await sup.start(lively(n, notes, leave=1, options={"drain": orderly_drain})) for n in "xy"]
                yield

        async def handle(self, msg: Any, ctx: Any) -> object:
            return self.refs[msg]

    return Parent


async def test_escalation_restarts_the_actor_that_holds_the_block(autojump_clock):
    notes: list[Any] = []
    async with open_supervisor() as sup:
        parent: Any = await sup.start(Spec(name="parent", factory=nest(notes, intensity=1), backoff=NOW))
        old = parent._cell.actor.refs[0]
        for _ in range(2):
            await old.tell(Boom())
        await trio.sleep(10)
        assert old.status == "exited"
        assert parent._cell.incarnation == 1
        assert parent._cell.actor.refs[0].status == "running"
        paths = [n.path for n in sup.snapshot().walk()]
        assert paths == ["root", "root/parent", "root/parent/inner", "root/parent/inner/x", "root/parent/inner/y"]
        assert "RestartLimitExceeded" in str(sup.snapshot().children[0].last_error)


async def test_nested_trees_end_in_order_and_grace_includes_what_is_below(autojump_clock):
    notes: list[Any] = []
    seen = RecordingInstrument()
    start = trio.current_time()
    async with open_supervisor(instruments=(seen,)) as sup:
        await sup.start(lively("first", notes))
        # its own grace is far too short for two children that need a second each
        await sup.start(Spec(name="parent", factory=nest(notes), grace=0.5))
    assert names(notes, "left") == ["y", "x", "first"]
    assert trio.current_time() - start == 2
    assert seen.of("hung") == []
    assert {e.path for e in seen.of("exited")} == {
        "root/first", "root/parent", "root/parent/inner/x", "root/parent/inner/y",
    }  # fmt: skip


async def test_nested_children_drain_in_an_orderly_stop(autojump_clock):
    log = Log()

    class Parent(Actor[Any]):
        @asynccontextmanager
        async def lifespan(self, ctx: Any) -> Any:
            async with open_supervisor(name="inner") as sup:
                ref = await sup.start(spec("x", log, drain=10))
                for number in range(5):
                    ref.tell_nowait(Do(number, sleep=1))
                yield

        async def handle(self, msg: Any, ctx: Any) -> object: ...

    async with open_supervisor() as sup:
        await sup.start(Spec(name="parent", factory=Parent))
    assert log.of("end") == [0, 1, 2, 3, 4]


# --- stop -----------------------------------------------------------------------------------------------


async def test_stop_drains_then_cancels_then_answers_the_rest(autojump_clock):
    log = Log()
    stopped = []
    async with open_supervisor() as sup, trio.open_nursery() as nursery:
        ref = await sup.start(spec(log=log, drain=2.5))

        async def ask(number: int) -> None:
            try:
                await ref.ask(Do(number, sleep=1))
            except ActorStopped:
                stopped.append(number)

        for number in range(5):
            nursery.start_soon(ask, number)
            await settle()
        assert await sup.stop(ref) == Exit("root/a", "stopped", None)
        await settle()
        assert log.of("end") == [0, 1]
        assert log.of("cancelled") == [2]
        assert sorted(stopped) == [2, 3, 4]
        final = ref._cell.snapshot()
        assert (final.handled, final.cancelled, final.discarded, final.mailbox_used) == (2, 1, 2, 0)


async def test_stop_returns_as_soon_as_the_queue_is_drained(autojump_clock):
    async with open_supervisor() as sup:
        ref = await sup.start(spec(drain=100))
        ref.tell_nowait(Do(1, sleep=1))
        start = trio.current_time()
        await sup.stop(ref)
        assert trio.current_time() - start == 1
        assert (await sup.stop(ref)).reason == "stopped"  # again is fine


async def test_a_cancelled_stop_cancels_the_child(autojump_clock):
    async with open_supervisor() as sup:
        ref = await sup.start(spec(drain=100))
        ref.tell_nowait(Do(1, sleep=50))
        with trio.move_on_after(1):
            await sup.stop(ref)
        assert (await ref.wait_exit()).reason == "stopped"
        assert trio.current_time() < 10


async def test_stop_from_inside_raises_instead_of_waiting(autojump_clock):
    caught = []

    class Inner(Actor[Any]):
        def __init__(self, sup: Any) -> None:
            self.sup = sup

        async def handle(self, msg: Any, ctx: Any) -> object:
            try:
                await self.sup.stop(msg)
            except SelfStop as exc:
                caught.append(str(exc))
            return None

    async with open_supervisor() as sup:
        ref = await sup.start(Spec(name="a", factory=partial(Inner, sup)))
        await ref.tell(ref)

        class Outer(Actor[Any]):
            @asynccontextmanager
            async def lifespan(self, ctx: Any) -> Any:
                async with open_supervisor(name="inner") as inner:
                    deep = await inner.start(Spec(name="deep", factory=partial(Inner, sup)))
                    await deep.tell(ctx.ref)  # a grandchild stops its grandparent
                    yield

            async def handle(self, msg: Any, ctx: Any) -> object: ...

        await sup.start(Spec(name="b", factory=Outer))
        await trio.sleep(1)
    assert len(caught) == 2


async def test_stop_of_a_strangers_child_is_refused():
    async with open_supervisor() as one, open_supervisor() as two:
        ref = await one.start(spec())
        with pytest.raises(ValueError, match="no child"):
            await two.stop(ref)


@pytest.mark.parametrize("way", ["end", "error", "cancel"])
async def test_children_leave_in_reverse_however_the_block_is_left(way, autojump_clock):
    notes: list[Any] = []
    start = trio.current_time()
    with trio.CancelScope() as outer:
        try:
            async with open_supervisor() as sup:
                refs = [await sup.start(lively(n, notes, leave=1, shield=True)) for n in "abc"]
                if way == "error":
                    raise Boom("body")
                if way == "cancel":
                    outer.cancel()
                    await trio.sleep_forever()
        except Boom as exc:  # bare, not in a group
            assert (way, exc.args) == ("error", ("body",))
    assert outer.cancelled_caught == (way == "cancel")
    assert [(w, n, t - start) for w, n, t in notes if w != "enter"] == [
        ("leaving", "c", 0), ("left", "c", 1), ("leaving", "b", 1), ("left", "b", 2), ("leaving", "a", 2), ("left", "a", 3),
    ]  # fmt: skip
    assert {(await r.wait_exit()).reason for r in refs} == {"stopped" if way == "end" else "cancelled"}


async def test_cancellation_does_not_drain(autojump_clock):
    log = Log()
    with trio.CancelScope() as outer:
        async with open_supervisor() as sup:
            ref = await sup.start(spec(log=log, drain=100))
            for number in range(3):
                ref.tell_nowait(Do(number, sleep=1))
            await settle()
            outer.cancel()
    assert log.of("end") == []
    assert trio.current_time() < 1


async def test_a_cancellation_during_the_drain_ends_it(autojump_clock):
    start = trio.current_time()
    with trio.move_on_after(2):
        async with open_supervisor() as sup:
            ref = await sup.start(spec(drain=100))
            ref.tell_nowait(Do(1, sleep=50))
    assert trio.current_time() - start == 2


async def test_together_is_one_deadline_for_all(autojump_clock):
    notes: list[Any] = []
    start = trio.current_time()
    async with open_supervisor(stop="together") as sup:
        for n in "abcde":
            await sup.start(lively(n, notes, leave=1))
        ref = await sup.start(spec("slow", drain=3))
        ref.tell_nowait(Do(1, sleep=50))
    assert {t - start for w, _, t in notes if w == "left"} == {1}  # nothing to drain: they go at once
    assert trio.current_time() - start == 3


async def test_a_lifespan_exit_has_grace_and_is_then_cancelled(autojump_clock):
    notes: list[Any] = []
    seen = RecordingInstrument()
    async with open_supervisor(instruments=(seen,)) as sup:
        ref = await sup.start(lively("a", notes, leave=100, options={"grace": 2}))
    assert (notes[-1][0], trio.current_time() - notes[-1][2]) == ("leaving", 2)
    assert seen.of("hung") == []
    assert (await ref.wait_exit()).reason == "stopped"


async def test_stop_of_a_hung_child_reports_it_and_waits_until_it_has_gone(autojump_clock):
    seen = RecordingInstrument()
    start = trio.current_time()
    async with open_supervisor(instruments=(seen,)) as sup:
        other = await sup.start(spec("other"))
        ref = await sup.start(spec("stuck", grace=2))
        ref.tell_nowait(Do(1, "stubborn", sleep=60))
        await settle()

        async def look() -> None:
            await trio.sleep(10)
            assert (ref.status, await other.ask(Do(2))) == ("hung", 2)
            assert sup.snapshot().children[1].status == "hung"

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            ended = await sup.stop(ref)
    assert trio.current_time() - start == 60
    assert ended.reason == "stopped"
    assert [(e.path, e.detail) for e in seen.of("hung")] == [("root/stuck", 2)]


async def test_siblings_of_a_hung_child_stop_meanwhile(autojump_clock):
    notes: list[Any] = []
    start = trio.current_time()
    async with open_supervisor() as sup:
        await sup.start(lively("first", notes))
        ref = await sup.start(spec("stuck", grace=2))
        ref.tell_nowait(Do(1, "stubborn", sleep=60))
        await settle()
    assert notes[-1] == ("left", "first", start + 2)
    assert trio.current_time() - start == 60


@pytest.mark.parametrize("way", ["end", "cancel"])
async def test_without_grace_a_child_is_cancelled_outright(way, autojump_clock):
    notes: list[Any] = []
    seen = RecordingInstrument()
    start = trio.current_time()
    with trio.CancelScope() as scope:
        async with open_supervisor(instruments=(seen,)) as sup:
            await sup.start(lively("a", notes, leave=100, options={"grace": 0}))
            ref = await sup.start(spec("b", grace=0))
            ref.tell_nowait(Do(1, sleep=100))
            await settle()
            if way == "cancel":
                scope.cancel()
    assert trio.current_time() == start
    assert seen.of("hung") == []


async def test_a_lifespan_that_hangs_after_a_crash_is_reported_too(autojump_clock):
    notes: list[Any] = []
    seen = RecordingInstrument()
    async with open_supervisor(instruments=(seen,)) as sup:
        ref = await sup.start(lively("a", notes, leave=60, shield=True, options={"grace": 2}))
        start = trio.current_time()
        await ref.tell(Boom())
        await trio.sleep(10)
        assert ref.status == "hung"
        await trio.sleep(55)
        assert (ref.status, names(notes, "enter")) == ("running", ["a", "a"])
        assert [e.time - start for e in seen.of("hung")] == [4]  # grace in peace, and grace once cancelled


async def test_an_error_of_the_lifespans_exit_is_kept_and_the_stop_goes_on(autojump_clock):
    class Bad(Actor[Any]):
        @asynccontextmanager
        async def lifespan(self, ctx: Any) -> Any:
            yield
            raise Boom("exit")

        async def handle(self, msg: Any, ctx: Any) -> object:
            raise Boom("turn")

    seen = RecordingInstrument()
    async with open_supervisor(instruments=(seen,)) as sup:
        refs = [await sup.start(Spec(name=n, factory=Bad)) for n in "ab"]
    for ref in refs:
        ended = await ref.wait_exit()
        assert (ended.reason, repr(ended.error)) == ("stopped", "Boom('exit')")
    assert len(seen.of("exited")) == 2


async def test_an_error_of_the_exit_after_a_crash_is_one_more_failure(autojump_clock):
    class Worse(Actor[Any]):
        @asynccontextmanager
        async def lifespan(self, ctx: Any) -> Any:
            try:
                yield
            finally:
                raise OSError("exit")

        async def handle(self, msg: Any, ctx: Any) -> object:
            raise Boom("turn")

    with pytest.raises(RestartLimitExceeded) as caught:
        async with open_supervisor(intensity=1) as sup:
            ref = await sup.start(Spec(name="a", factory=Worse))
            ref.tell_nowait(1)
            await trio.sleep_forever()
    assert [repr(e) for e in caught.value.failures] == ["Boom('turn')", "OSError('exit')"]


async def test_a_tree_leaves_no_task_behind(autojump_clock):
    before = trio.lowlevel.current_statistics().tasks_living
    for way in ("end", "error"):
        with pytest.raises(Boom) if way == "error" else trio.CancelScope():
            async with open_supervisor() as sup:
                for n in "abc":
                    ref = await sup.start(spec(n, concurrency=4))
                    ref.tell_nowait(Do(1, sleep=5))
                    ref.tell_nowait(Do(2, "crash"))
                await sup.start(Spec(name="parent", factory=nest([])))
                await settle()
                if way == "error":
                    raise Boom
        assert trio.lowlevel.current_statistics().tasks_living == before
        assert_quiet(sup)


# --- wait_exit and watch ----------------------------------------------------------------------------------


class Watcher(Actor[Exit]):
    def __init__(self, got: list[Exit], pause: float = 0) -> None:
        self.got, self.pause = got, pause

    async def handle(self, msg: Exit, ctx: Any) -> object:
        await trio.sleep(self.pause)
        self.got.append(msg)
        return None


async def test_watchers_hear_the_final_exit_once_and_never_a_restart(autojump_clock):
    got: list[Exit] = []
    async with open_supervisor() as sup:
        watcher = await sup.start(Spec(name="w", factory=lambda: Watcher(got)))
        ref = await sup.start(spec("a", backoff=NOW))
        sup.watch(ref, to=watcher, make=lambda e: e)
        ref.tell_nowait(Do(1, "crash"))
        await trio.sleep(1)
        assert got == []
        ended = await sup.stop(ref)
        await settle()
        assert got == [ended]
        sup.watch(ref, to=watcher, make=lambda e: e)  # it has gone already: at once
        await settle()
        assert got == [ended, ended]


async def test_a_full_watcher_makes_the_notice_wait_and_nobody_else(autojump_clock):
    got: list[Exit] = []
    async with open_supervisor() as sup:
        watcher = await sup.start(Spec(name="w", factory=lambda: Watcher(got, 10), mailbox=1))
        refs = [await sup.start(spec(f"c{i}")) for i in range(5)]
        for ref in refs:
            sup.watch(ref, to=watcher, make=lambda e: e)
        start = trio.current_time()
        for ref in refs:
            await sup.stop(ref)
        assert trio.current_time() == start
        await trio.sleep(100)
        assert sorted(e.path for e in got) == [f"root/c{i}" for i in range(5)]
        # and a notice that still waits does not hold up the end of the block
        for i in range(5):
            ref = await sup.start(spec(f"d{i}"))
            sup.watch(ref, to=watcher, make=lambda e: e)
            await sup.stop(ref)
    assert trio.current_time() - start == 100


async def test_watchers_that_have_gone_do_not_pile_up():
    async with open_supervisor() as sup:
        watched = await sup.start(spec())
        for _ in range(20):
            watcher = await sup.start(Spec(name="w", factory=lambda: Watcher([])))
            sup.watch(watched, to=watcher, make=lambda e: e)
            await sup.stop(watcher)
        assert len(watched._cell.watchers) <= 2


async def test_wait_exit_from_many_tasks(autojump_clock):
    exits = []
    async with open_supervisor() as sup, trio.open_nursery() as nursery:
        ref = await sup.start(spec())

        async def wait() -> None:
            exits.append(await ref.wait_exit())

        for _ in range(3):
            nursery.start_soon(wait)
        await settle()
        await sup.stop(ref)
        await wait()
    assert exits == [Exit("root/a", "stopped", None)] * 4


async def test_a_thousand_temporary_children_come_and_go():
    before = trio.lowlevel.current_statistics().tasks_living
    async with open_supervisor(stop="together") as sup:
        async with trio.open_nursery() as nursery:
            for i in range(1000):
                nursery.start_soon(sup.start, spec(f"c{i}", restart="temporary"))
        assert len(sup.snapshot().children) == 1000
        ref = sup._children["c500"].ref
        assert await ref.ask(Do(1)) == 1
    assert trio.lowlevel.current_statistics().tasks_living == before


def test_the_library_imports_nothing_of_spear():
    import subprocess
    import sys

    code = "import sys, actors, actors.testing; print([m for m in sys.modules if m.split('.')[0] == 'spear'])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_exported_names_are_right():
    assert sorted(actors.__all__) == actors.__all__
    assert all(hasattr(actors, name) for name in actors.__all__)
