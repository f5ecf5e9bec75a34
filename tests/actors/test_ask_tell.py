"""Messages: what each sender gets, row by row of the semantics table."""

# ruff: noqa: PT012
from __future__ import annotations

import math
import random
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

import actors
from actors import ActorCrashed, ActorStopped, MailboxFull, SelfAsk, Spec, UnknownMessage, open_supervisor
from actors.testing import RecordingInstrument, assert_quiet
from tests.actors._kit import Boom, Refused, kit, settle, spec

Do, Items, Note, Log = kit.Do, kit.Items, kit.Note, kit.Log


def node(sup: actors.Supervisor, name: str = "a") -> actors.Node:
    return next(n for n in sup.snapshot().walk() if n.path.endswith("/" + name))


async def test_the_return_value_answers_an_ask():
    async with open_supervisor() as sup:
        ref = await sup.start(spec())
        assert await ref.ask(Do(7)) == 7
        assert await ref.ask_nowait(Do(8)) == 8
        await ref.tell(Note(1))
        ref.tell_nowait(Note(2))
        assert await ref.ask(Do(9)) == 9
        n = node(sup)
        assert (n.accepted, n.handled, n.running, n.state) == (5, 5, 0, {"seen": 5})
        assert_quiet(sup)


async def test_a_rejection_is_an_answer_and_the_actor_goes_on():
    seen = RecordingInstrument()
    async with open_supervisor(instruments=(seen,)) as sup:
        ref = await sup.start(spec())
        with pytest.raises(Refused) as caught:
            await ref.ask(Do(3, "reject"))
        assert caught.value.args == (3,)
        ref.tell_nowait(Do(4, "reject"))  # a tell: counted, and given to the instruments
        await settle()
        n = node(sup)
        assert (n.rejected, n.restarts, n.status) == (2, 0, "running")
        assert [type(e.detail[1]) for e in seen.of("turn_finished")] == [Refused, Refused]


async def test_a_crash_reaches_the_asker_with_its_cause(autojump_clock):
    async with open_supervisor() as sup:
        ref = await sup.start(spec())
        await ref.ask(Do(1))
        with pytest.raises(ActorCrashed) as caught:
            await ref.ask(Do(2, "crash"))
        assert isinstance(caught.value.__cause__, Boom)
        assert await ref.ask(Do(3)) == 3  # waits for the restart
        n = node(sup)
        assert (n.crashed, n.restarts, n.state, n.last_error) == (1, 1, {"seen": 1}, "Boom: 2")


async def test_asks_queued_during_a_restart_are_served_in_order_and_the_crashed_one_is_not_retried(autojump_clock):
    log = Log()
    async with open_supervisor(rng=None) as sup, trio.open_nursery() as nursery:
        ref = await sup.start(spec(log=log, backoff=actors.Backoff(first=10, jitter=0)))
        ref.tell_nowait(Do(1, "crash"))
        await settle()
        assert ref.status == "backing_off"
        for number in range(2, 6):
            nursery.start_soon(ref.ask, Do(number))
            await settle()
        assert ref.queued == 4
        with trio.move_on_after(1) as gave_up:  # each can give up by its own deadline
            await ref.ask(Do(99))
        assert gave_up.cancelled_caught
        await trio.sleep(10)
        assert log.of("start") == [1, 2, 3, 4, 5]
        assert node(sup).skipped == 1


async def test_a_full_mailbox_waits_or_says_so(autojump_clock):
    log = Log()
    async with open_supervisor() as sup, trio.open_nursery() as nursery:
        ref = await sup.start(spec(log=log, mailbox=2))
        nursery.start_soon(ref.ask, Do(1, sleep=10))
        await settle()
        ref.tell_nowait(Note(2))
        ref.tell_nowait(Note(3))
        with pytest.raises(MailboxFull):
            ref.tell_nowait(Note(4))
        with pytest.raises(MailboxFull):
            await ref.ask_nowait(Do(4))
        with pytest.raises(MailboxFull):
            async with ref.stream_nowait(Items(4)):
                pass
        with trio.move_on_after(1):
            await ref.tell(Note(5))  # given up before acceptance: never delivered
        with trio.move_on_after(1):
            await ref.ask(Do(6))
        with trio.move_on_after(1):
            async with ref.stream(Items(7)):
                pass
        assert node(sup).senders_waiting == 0
        nursery.start_soon(ref.tell, Note(8))
        await settle()
        nursery.start_soon(ref.ask, Do(9))
        await settle()
        n = node(sup)
        assert (n.mailbox_used, n.mailbox_capacity, n.senders_waiting, n.accepted, n.running) == (2, 2, 2, 3, 1)
        assert n.busy_with == "Do"
        await trio.sleep(20)
        assert log.of("start") == [1, 2, 3, 8, 9]


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("mailbox", [0, 2])
async def test_full_means_all_turns_busy_and_all_places_taken(concurrency, mailbox, autojump_clock):
    async with open_supervisor() as sup, trio.open_nursery() as nursery:
        ref = await sup.start(spec(mailbox=mailbox, concurrency=concurrency))
        taken = []

        async def ask() -> None:
            try:
                await ref.ask_nowait(Do(sleep=1))
                taken.append(True)
            except MailboxFull:
                taken.append(False)

        await settle()
        for _ in range(10):  # all within one pass of the loop
            nursery.start_soon(ask)
        await trio.sleep(10)
        assert sum(taken) == concurrency + mailbox


async def test_an_asker_that_gives_up_in_the_queue_is_skipped(autojump_clock):
    log = Log()
    async with open_supervisor() as sup, trio.open_nursery() as nursery:
        ref = await sup.start(spec(log=log))
        nursery.start_soon(ref.ask, Do(1, sleep=5))
        await settle()
        with trio.move_on_after(1):
            await ref.ask(Do(2))
        await trio.sleep(10)
        assert log.of("start") == [1]
        assert node(sup).skipped == 1


async def test_an_asker_that_gives_up_cancels_its_turn_and_only_that(autojump_clock):
    log = Log()
    async with open_supervisor() as sup:
        ref = await sup.start(spec(log=log))
        for number in range(3):
            with trio.move_on_after(1):
                await ref.ask(Do(number, sleep=60))
            assert await ref.ask(Do(10 + number, sleep=2)) == 10 + number
        n = node(sup)
        assert (n.cancelled, n.handled, n.restarts) == (3, 3, 0)
        assert log.of("cancelled") == [0, 1, 2]


async def test_the_asker_does_not_wait_for_the_cleanup(autojump_clock):
    async with open_supervisor() as sup:
        ref = await sup.start(spec())
        start = trio.current_time()
        with trio.move_on_after(1):
            await ref.ask(Do(1, "stubborn", sleep=30))
        assert trio.current_time() - start == pytest.approx(1)
        assert await ref.ask(Do(2)) == 2
        assert trio.current_time() - start == pytest.approx(30)


async def test_an_ask_in_a_cancelled_scope_is_never_handled(autojump_clock):
    log = Log()
    async with open_supervisor() as sup:
        ref = await sup.start(spec(log=log))
        with trio.CancelScope() as scope:
            scope.cancel()
            await ref.ask(Do(1))
        with trio.CancelScope() as scope:
            scope.cancel()
            await ref.tell(Note(2))
        with trio.CancelScope() as scope:
            scope.cancel()
            async with ref.stream(Items(3)):
                pass
        await settle()
        assert log.events == []


async def test_deadlines_travel_down_a_chain_of_asks(autojump_clock):
    deadlines: list[float] = []
    log = Log()

    class Front(actors.Actor[Do]):
        def __init__(self, behind: Any) -> None:
            self.behind = behind

        async def handle(self, msg: Any, ctx: Any) -> object:
            deadlines.append(ctx.deadline)
            return await self.behind.ask(msg)

    async with open_supervisor() as sup:
        behind = await sup.start(spec("behind", log))
        front = await sup.start(Spec(name="front", factory=lambda: Front(behind)))
        assert await front.ask(Do(1)) == 1
        with trio.move_on_after(3):
            await front.ask(Do(2, sleep=100))
        await settle()
        assert deadlines == [math.inf, trio.current_time()]
        assert log.of("cancelled") == [2]


async def test_an_asker_may_say_the_deadline_that_it_knows():
    class Tells(actors.Actor[Do]):
        async def handle(self, msg: Any, ctx: Any) -> object:
            return ctx.deadline

    async with open_supervisor() as sup:
        ref = await sup.start(Spec(name="tells", factory=Tells))
        with trio.CancelScope(deadline=trio.current_time() + 50) as scope:
            assert await ref.ask_nowait(Do(1)) == scope.deadline
            assert await ref.ask_nowait(Do(1), deadline=7) == 7


async def test_a_self_ask_fails_at_once():
    class Selfish(actors.Actor[Do]):
        async def handle(self, msg: Any, ctx: Any) -> object:
            if msg.number:
                return "inner"
            return await ctx.ref.ask(Do(1))

    async with open_supervisor() as sup:
        one = await sup.start(Spec(name="one", factory=Selfish, restart="temporary"))
        with pytest.raises(ActorCrashed) as caught:
            await one.ask(Do(0))
        assert isinstance(caught.value.__cause__, SelfAsk)
        two = await sup.start(Spec(name="two", factory=Selfish, concurrency=2))
        assert await two.ask(Do(0)) == "inner"


async def test_unknown_messages_fail_in_the_sender():
    async with open_supervisor() as sup:
        ref = await sup.start(spec())
        with pytest.raises(UnknownMessage, match=r"tell: root/a does not take str; it takes .*Do, .*Note"):
            await ref.tell("hello")
        with pytest.raises(UnknownMessage):
            ref.tell_nowait(Items())  # needs stream()
        with pytest.raises(UnknownMessage, match="ask: root/a does not take"):
            await ref.ask(Note())
        with pytest.raises(UnknownMessage):
            async with ref.stream(Do()):
                pass
        assert node(sup).accepted == 0


async def test_after_the_stop_every_send_raises_actor_stopped():
    async with open_supervisor() as sup:
        ref = await sup.start(spec())
        await sup.stop(ref)
        with pytest.raises(ActorStopped, match="root/a was ended"):
            await ref.ask(Do())
        with pytest.raises(ActorStopped):
            await ref.ask_nowait(Do())
        with pytest.raises(ActorStopped):
            await ref.tell(Note())
        with pytest.raises(ActorStopped):
            ref.tell_nowait(Note())
        with pytest.raises(ActorStopped):
            async with ref.stream(Items()):
                pass
        assert ref.status == "exited"


async def test_finish_ends_a_permanent_actor_after_its_turn(autojump_clock):
    class Last(actors.Actor[Do]):
        async def handle(self, msg: Any, ctx: Any) -> object:
            ctx.finish()
            await trio.sleep(1)
            return "bye"

    results: list[Any] = []
    async with open_supervisor() as sup, trio.open_nursery() as nursery:
        ref = await sup.start(Spec(name="a", factory=Last))

        async def second() -> None:
            with pytest.raises(ActorStopped):
                await ref.ask(Do(2))
            results.append("stopped")

        nursery.start_soon(second)
        results.append(await ref.ask(Do(1)) if not ref.running else None)
        ended = await ref.wait_exit()
        assert ended == actors.Exit("root/a", "finished", None)
        assert sup.snapshot().children == ()
    assert "stopped" in results


async def test_base_exceptions_pass_through_the_supervisor():
    class Quit(BaseException):
        pass

    class Quitter(actors.Actor[Do]):
        async def handle(self, msg: Any, ctx: Any) -> object:
            raise Quit

    for concurrency in (1, 3):
        with pytest.raises(Quit):
            async with open_supervisor() as sup:
                ref = await sup.start(Spec(name="a", factory=Quitter, concurrency=concurrency))
                await ref.ask(Do())
        assert ref.status == "exited"
        assert_quiet(sup)


async def test_a_crash_with_several_turns_in_flight_ends_them_all_but_not_the_queue(autojump_clock):
    log = Log()
    outcomes: dict[int, str] = {}
    async with open_supervisor() as sup, trio.open_nursery() as nursery:
        ref = await sup.start(spec(log=log, concurrency=3))

        async def ask(msg: Any) -> None:
            try:
                outcomes[msg.number] = str(await ref.ask(msg))
            except actors.ActorError as exc:
                outcomes[msg.number] = type(exc).__name__

        for msg in (Do(1, sleep=60), Do(2, "crash", sleep=5), Do(3, sleep=60), Do(4)):
            nursery.start_soon(ask, msg)
            await settle()
        await trio.sleep(10)
        assert outcomes == {1: "ActorStopped", 2: "ActorCrashed", 3: "ActorStopped", 4: "4"}
        n = node(sup)
        assert (n.crashed, n.cancelled, n.handled, n.restarts) == (1, 2, 1, 1)


async def test_loops_are_started_only_as_needed(autojump_clock):
    async with open_supervisor() as sup, trio.open_nursery() as nursery:
        before = trio.lowlevel.current_statistics().tasks_living
        ref = await sup.start(spec(concurrency=1024))
        assert trio.lowlevel.current_statistics().tasks_living == before + 1
        for _ in range(20):
            await ref.ask(Do())
        assert trio.lowlevel.current_statistics().tasks_living == before + 1
        for _ in range(5):
            nursery.start_soon(ref.ask, Do(sleep=1))
        await settle()
        assert ref.running == 5
        assert trio.lowlevel.current_statistics().tasks_living == before + 5 + 5  # loops and askers


async def test_a_child_starts_in_a_fresh_context():
    from contextvars import ContextVar

    secret: ContextVar[str] = ContextVar("secret", default="nothing")

    class Looker(actors.Actor[Do]):
        @asynccontextmanager
        async def lifespan(self, ctx: Any) -> Any:
            self.seen = secret.get()
            yield

        async def handle(self, msg: Any, ctx: Any) -> object:
            return self.seen, secret.get()

    async with open_supervisor() as sup:
        secret.set("the asker's")
        for concurrency in (1, 4):
            ref = await sup.start(Spec(name=f"c{concurrency}", factory=Looker, concurrency=concurrency))
            assert await ref.ask(Do()) == ("nothing", "nothing")


async def test_a_long_run_of_turns_without_checkpoints_lets_others_run():
    class Greedy(actors.Actor[Note]):
        async def handle(self, msg: Any, ctx: Any) -> object:
            if not done:
                ctx.ref.tell_nowait(msg)
            return None

    done: list[bool] = []
    async with open_supervisor() as sup:
        ref = await sup.start(Spec(name="a", factory=Greedy))
        ref.tell_nowait(Note())
        with trio.fail_after(5):
            for _ in range(10):
                await trio.lowlevel.checkpoint()
        done.append(True)


async def test_a_hand_over_is_protected_from_keyboard_interrupts(monkeypatch):
    protected: list[bool] = []
    offer = actors._mailbox.Mailbox.offer

    def spy(self: Any, item: object) -> bool:
        protected.append(trio.lowlevel.currently_ki_protected())
        return offer(self, item)

    monkeypatch.setattr(actors._mailbox.Mailbox, "offer", spy)
    async with open_supervisor() as sup:
        ref = await sup.start(spec())
        assert not trio.lowlevel.currently_ki_protected()
        await ref.ask(Do())
        await ref.ask_nowait(Do())
        await ref.tell(Note())
        ref.tell_nowait(Note())
        async with ref.stream(Items()):
            assert not trio.lowlevel.currently_ki_protected()
    assert protected == [True] * 5


def test_accepted_types_are_read_from_the_class_header():
    class A(actors.Actor[Do | Note]): ...

    class B(A): ...

    class C(actors.Actor["Do | Items"]): ...  # a name this module can resolve

    class D(actors.Actor[Any]): ...

    assert A.accepts == B.accepts == (Do, Note)
    assert C.accepts == (Do, Items)
    assert D.accepts == (object,)


def test_accepted_types_of_unusual_headers():
    from typing import Annotated

    from typing_extensions import TypeAliasType

    class E(actors.Actor[Annotated[Do, "noted"] | None]): ...

    class F(actors.Actor["Nowhere | Do"]): ...

    class G(actors.Actor[TypeAliasType("Alias", Do | Note)]): ...  # what a `type` statement makes

    class H(actors.Actor[list[int]]): ...

    assert E.accepts == (Do, type(None))
    assert F.accepts == (object,)
    assert G.accepts == (Do, Note)
    assert H.accepts == (list,)


async def test_an_actor_that_accepts_everything_still_needs_a_request_to_be_asked():
    class Anything(actors.Actor[Any]): ...

    async with open_supervisor() as sup:
        ref = await sup.start(Spec(name="a", factory=Anything, restart="temporary"))
        assert repr(ref) == "<Ref root/a running>"
        assert repr(sup) == "<Supervisor root of 1>"
        with pytest.raises(UnknownMessage, match="it takes any Request"):
            await ref.ask("hello")
        with pytest.raises(ActorCrashed) as caught:
            await ref.ask(Do())
        assert str(caught.value.__cause__) == "Anything has no handle() for Do"


async def test_finish_answers_the_queue_and_skips_who_has_gone(autojump_clock):
    class Last(kit.Scripted):
        async def handle(self, msg: Any, ctx: Any) -> object:
            await super().handle(msg, ctx)
            ctx.finish()
            return ctx.path

    async with open_supervisor() as sup, trio.open_nursery() as nursery:
        ref = await sup.start(Spec(name="a", factory=Last))
        nursery.start_soon(ref.ask, Do(1, sleep=2))
        await settle()
        with trio.move_on_after(1):
            await ref.ask(Do(2))
        with pytest.raises(ActorStopped, match="by itself"):
            await ref.ask(Do(3))
        final = ref._cell.snapshot()
        assert (final.handled, final.skipped, final.discarded) == (1, 1, 1)


async def test_an_error_beside_a_cancellation_is_a_crash(autojump_clock):
    class Messy(actors.Actor[Do]):
        async def handle(self, msg: Any, ctx: Any) -> object:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.fail_late)
                nursery.start_soon(trio.sleep_forever)
            return None

        async def fail_late(self) -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise Boom("cleanup")

    seen = RecordingInstrument()
    async with open_supervisor(instruments=(seen,)) as sup:
        ref = await sup.start(Spec(name="a", factory=Messy))
        with trio.move_on_after(1):
            await ref.ask(Do())
        await trio.sleep(1)
        assert (ref.status, node(sup).restarts) == ("running", 1)
        assert "Boom('cleanup')" in repr(seen.of("restarting")[0].detail[0])


@pytest.mark.parametrize(
    "wrong",
    [{"name": ""}, {"name": "a/b"}, {"mailbox": -1}, {"concurrency": 0}, {"drain": -1}, {"grace": math.inf},
     {"restart": "always"}, {"mailbox": 1.5}],
)  # fmt: skip
def test_a_wrong_spec_says_what_would_be_right(wrong):
    with pytest.raises(ValueError, match=f"Spec.{next(iter(wrong))}"):
        Spec(**({"name": "a", "factory": kit.Scripted} | wrong))


@pytest.mark.parametrize("wrong", [{"first": -1}, {"limit": math.nan}, {"factor": 0.5}, {"jitter": 2}])
def test_a_wrong_backoff_says_what_would_be_right(wrong):
    with pytest.raises(ValueError, match=f"Backoff.{next(iter(wrong))}"):
        actors.Backoff(**wrong)
    with pytest.raises(ValueError, match="from 1"):
        actors.Backoff().delay(0, random.Random(1))
