"""The twelve invariants as functions of a package, so that mutants of the library can be judged by the same ones.

Each `check_*` takes the package and a number of examples and raises if an invariant is broken. Scenarios are drawn by
hypothesis and run under Trio's mock clock; because Trio shuffles its tasks, invariants are asserted, not orders.
"""

# ruff: noqa: PT017
from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from random import Random
from types import ModuleType
from typing import Any

import trio
import trio.testing
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.actors._kit import Boom, Refused, build

LONG = 10_000  # virtual seconds after which a scenario counts as stuck


def examples(count: int, *, shrink: bool) -> Any:
    phases = (Phase.generate, Phase.shrink) if shrink else (Phase.generate,)
    return settings(
        max_examples=count, deadline=None, database=None, derandomize=True, phases=phases,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip


def run(main: Callable[[], Any]) -> Any:
    async def limited() -> Any:
        with trio.fail_after(LONG):
            result = await main()
        left = trio.lowlevel.current_statistics().tasks_living
        assert left == baseline[0], f"{left - baseline[0]} tasks were left behind"
        return result

    async def first() -> Any:
        baseline.append(trio.lowlevel.current_statistics().tasks_living)
        return await limited()

    baseline: list[int] = []
    return trio.run(first, clock=trio.testing.MockClock(autojump_threshold=0))


# --- 1 to 5 and 10: one actor, many senders ----------------------------------------------------------------


@dataclass(frozen=True)
class Op:
    at: float
    how: str
    kind: str
    sleep: float | None
    patience: float


@dataclass(frozen=True)
class Scenario:
    ops: tuple[Op, ...]
    capacity: int
    concurrency: int
    drain: float
    buffer: int
    stop_at: float
    stop_how: str


ops = st.builds(
    Op,
    at=st.sampled_from([0.0, 0.0, 0.0, 0.5, 1.0, 3.0]),
    how=st.sampled_from(["ask", "ask", "ask", "ask_nowait", "tell", "tell_nowait", "stream", "stream_nowait"]),
    kind=st.sampled_from(["ok", "ok", "ok", "reject", "crash", "stubborn", "stubborn"]),
    sleep=st.sampled_from([None, 0.0, 0.3, 1.0]),
    patience=st.sampled_from([math.inf, math.inf, 0.0, 0.3, 0.7]),
)
scenarios = st.builds(
    Scenario,
    ops=st.lists(ops, min_size=5, max_size=16).map(tuple),
    capacity=st.sampled_from([0, 1, 4, 64]),
    concurrency=st.sampled_from([1, 1, 2, 5]),
    drain=st.sampled_from([0.0, 1.5]),
    buffer=st.sampled_from([0, 1, 3]),
    stop_at=st.sampled_from([0.5, 1.25, 2.0, 9.0, 9.0]),
    stop_how=st.sampled_from(["end", "stop", "cancel", "error", "finish"]),
)


@dataclass
class Trial:
    """What the senders saw of one scenario."""

    outcomes: dict[int, str] = field(default_factory=dict)
    ended: dict[int, int] = field(default_factory=dict)  # id -> the log's number when its sender went on
    gave_up_at: dict[int, float] = field(default_factory=dict)
    received: dict[int, list[int]] = field(default_factory=dict)
    crashes: set[int] = field(default_factory=set)  # incarnations
    nodes: list[Any] = field(default_factory=list)
    stop_began: float = math.inf


class Senders:
    def __init__(self, pkg: ModuleType, scenario: Scenario) -> None:
        self.pkg, self.scenario = pkg, scenario
        self.kit = build(pkg)
        self.log = self.kit.Log()
        self.trial = Trial()
        self.ref: Any = None

    async def main(self) -> None:
        scenario, pkg = self.scenario, self.pkg
        spec = pkg.Spec(
            name="a", factory=lambda: self.kit.Scripted(self.log), mailbox=scenario.capacity, drain=scenario.drain,
            concurrency=scenario.concurrency, grace=1, backoff=pkg.Backoff(first=0.2, limit=0.2, jitter=0),
        )  # fmt: skip
        async with trio.open_nursery() as nursery:
            opened = trio.Event()
            nursery.start_soon(self.supervise, spec, opened)
            await opened.wait()
            for number, op in enumerate(scenario.ops):
                nursery.start_soon(self.send, number, op)
        self.trial.nodes.append(self.ref._cell.snapshot())

    async def supervise(self, spec: Any, opened: trio.Event) -> None:
        how = self.scenario.stop_how
        with trio.CancelScope() as scope, suppress(Boom):
            async with self.pkg.open_supervisor(intensity=1000) as sup:
                self.ref = await sup.start(spec)
                opened.set()
                with trio.move_on_after(self.scenario.stop_at):
                    while True:
                        self.look(sup)
                        await trio.sleep(0.1)
                self.trial.stop_began = trio.current_time()
                if how == "stop":
                    await sup.stop(self.ref)
                elif how == "finish":
                    self.ref._cell.finish()
                    await self.ref.wait_exit()
                elif how == "cancel":
                    scope.cancel()
                elif how == "error":
                    raise Boom("body")
                await trio.lowlevel.checkpoint()

    def look(self, sup: Any) -> None:
        children = sup.snapshot().children
        assert [n.path for n in children] == ["root/a"]
        self.trial.nodes.extend(children)

    async def send(self, number: int, op: Op) -> None:
        await trio.sleep(op.at)
        outcome = "cancelled"
        with trio.move_on_after(op.patience):
            outcome = await self.attempt(number, op)
        if outcome == "cancelled":
            self.trial.gave_up_at[number] = trio.current_time()
        assert number not in self.trial.outcomes
        self.trial.outcomes[number] = outcome
        self.trial.ended[number] = self.log.tick()

    async def attempt(self, number: int, op: Op) -> str:
        pkg, ref, kit = self.pkg, self.ref, self.kit
        msg = kit.Do(number, op.kind, op.sleep)
        try:  # noqa: PLW0717 -- every way of sending, one list of outcomes
            if op.how == "ask":
                assert await ref.ask(msg) == number
            elif op.how == "ask_nowait":
                assert await ref.ask_nowait(msg) == number
            elif op.how == "tell":
                await ref.tell(msg)
            elif op.how == "tell_nowait":
                ref.tell_nowait(msg)
            else:
                await self.consume(number, op)
        except Refused as exc:
            assert exc.args == (number,)
            return "rejected"
        except pkg.ActorCrashed as exc:
            assert exc.__cause__.args == (number,), "somebody else's crash"
            return "crashed"
        except pkg.ActorStopped:
            return "stopped"
        except pkg.MailboxFull:
            return "full"
        return "told" if op.how.startswith("tell") else "reply"

    async def consume(self, number: int, op: Op) -> None:
        open_stream = self.ref.stream if op.how == "stream" else self.ref.stream_nowait
        kind = "ok" if op.kind == "stubborn" else op.kind
        got = self.trial.received.setdefault(number, [])
        buffer = self.scenario.buffer
        async with open_stream(self.kit.Items(number, 5, kind, op.sleep), buffer=buffer) as items:
            async for item in items:
                got.append(item)
                if op.sleep is None:
                    await trio.sleep(0.1)  # a slow consumer
                sent = self.log.of("sending").count(number)
                assert sent - len(got) <= buffer + 1, f"{sent - len(got)} items unread, buffer {buffer}"


def judge(s: Senders) -> None:
    scenario, trial, log = s.scenario, s.trial, s.log
    starts, ends, cancels = log.of("start"), log.of("end"), log.of("cancelled")
    # 1: one outcome each
    assert sorted(trial.outcomes) == list(range(len(scenario.ops)))
    # 2: at most once, at most so many at a time
    assert len(starts) == len(set(starts)), "handled twice"
    assert log.most_running <= scenario.concurrency
    for number, outcome in trial.outcomes.items():
        if outcome == "reply":
            assert number in ends
        if outcome == "full":
            assert number not in starts
    # 3: a handler is cancelled only if its own asker gave up, its actor is being stopped, or its incarnation crashed
    crashed_in = {incarnation for _, w, _, (incarnation, _) in ended_turns(s) if w == "crashed"}
    for _, what, number, detail in log.events:
        if what == "cancelled":
            incarnation, when = detail
            assert (
                trial.outcomes[number] == "cancelled"
                or when >= trial.stop_began
                or (scenario.concurrency > 1 and incarnation in crashed_in)
            ), f"the turn of {number} saw a cancellation that was not meant for it"
    judge_given_up(s)
    judge_crashes(s)
    # 5: a prefix of what was sent
    for number, got in trial.received.items():
        assert got == list(range(len(got)))
        assert len(got) <= log.of("sending").count(number)
    judge_counters(trial, starts, ends, cancels)


def judge_given_up(s: Senders) -> None:
    """4, and the way back: given up in the queue = never started; given up in the turn = cancelled at once."""
    started = {n: order for order, what, n, _ in s.log.events if what == "start"}
    over = {n: d for _, what, n, d in s.log.events if what in ("cancelled", "end")}
    for number, when in s.trial.gave_up_at.items():
        op = s.scenario.ops[number]
        if number in started:
            assert started[number] < s.trial.ended[number], "started after its asker had gone"
            if op.how == "ask" and op.kind == "ok" and op.sleep:
                assert number in over
                assert over[number] == (over[number][0], when), "the turn went on after its asker had gone"


def ended_turns(s: Senders) -> list[tuple[int, str, int, tuple[int, float]]]:
    return [e for e in s.log.events if e[1] in ("end", "crashed", "cancelled")]


def judge_crashes(s: Senders) -> None:
    """A crash ends the incarnation: no turn of it goes on, except where a handler shields itself."""
    crashed = {incarnation: when for _, what, _, (incarnation, when) in reversed(ended_turns(s)) if what == "crashed"}
    for _, what, number, (incarnation, when) in ended_turns(s):
        if what == "end" and s.scenario.ops[number].kind != "stubborn":
            assert when <= crashed.get(incarnation, math.inf), "a turn went on in a crashed incarnation"


def judge_counters(trial: Trial, starts: list[int], ends: list[int], cancels: list[int]) -> None:
    """4 and 10, against what the handlers themselves counted."""
    names = ("accepted", "handled", "skipped", "rejected", "crashed", "cancelled", "discarded")
    before = dict.fromkeys(names, 0)
    for n in trial.nodes:
        settled = n.handled + n.skipped + n.rejected + n.crashed + n.cancelled + n.discarded
        assert n.accepted == settled + n.mailbox_used + n.running, f"messages appear or vanish: {n}"
        assert n.mailbox_used <= n.mailbox_capacity, f"{n.mailbox_used} queued of {n.mailbox_capacity}"
        now = {name: getattr(n, name) for name in names}
        assert all(now[name] >= before[name] for name in names), "a counter went back"
        before = now
    last = trial.nodes[-1]
    assert (last.status, last.mailbox_used, last.running, last.senders_waiting) == ("exited", 0, 0, 0)
    assert last.handled == len(ends)
    assert last.cancelled == len(cancels)
    assert last.handled + last.cancelled + last.rejected + last.crashed == len(starts)
    assert last.accepted == sum(o != "full" for o in trial.outcomes.values()) - trial_never_accepted(trial, last)


def trial_never_accepted(trial: Trial, last: Any) -> int:
    """Senders that gave up or were stopped before they were accepted: bounded, not known one by one."""
    unsure = sum(o in ("cancelled", "stopped") for o in trial.outcomes.values())
    missing = sum(o != "full" for o in trial.outcomes.values()) - last.accepted
    assert 0 <= missing <= unsure
    return int(missing)


def check_messages(pkg: ModuleType, count: int, *, shrink: bool = False) -> None:
    @examples(count, shrink=shrink)
    @given(scenarios)
    def check(scenario: Scenario) -> None:
        senders = Senders(pkg, scenario)
        run(senders.main)
        judge(senders)

    check()


def check_order(pkg: ModuleType, count: int, *, shrink: bool = False) -> None:
    """2: what one sender sends to one actor is handled in that order, through full mailboxes and restarts."""
    kinds = st.sampled_from(["ok", "ok", "ok", "reject", "crash"])
    sends = st.lists(st.tuples(st.sampled_from(["tell", "ask", "try"]), kinds), min_size=3, max_size=20)

    @examples(count, shrink=shrink)
    @given(st.lists(sends, min_size=1, max_size=3), st.sampled_from([0, 1, 4]))
    def check(senders: list[list[tuple[str, str]]], capacity: int) -> None:
        kit = build(pkg)
        log = kit.Log()

        async def sender(ref: Any, which: int, plan: list[tuple[str, str]]) -> None:
            for i, (how, kind) in enumerate(plan):
                msg = kit.Do(which * 100 + i, kind, 0.1 if i % 3 == 0 else None)
                with suppress(Refused, pkg.ActorCrashed, pkg.MailboxFull):
                    if how == "tell":
                        await ref.tell(msg)
                    elif how == "ask":
                        await ref.ask(msg)
                    else:
                        ref.tell_nowait(msg)

        async def main() -> None:
            async with pkg.open_supervisor(intensity=1000) as sup:
                spec = pkg.Spec(
                    name="a", factory=lambda: kit.Scripted(log), mailbox=capacity, drain=100,
                    backoff=pkg.Backoff(first=0.1, limit=0.1),
                )  # fmt: skip
                ref = await sup.start(spec)
                async with trio.open_nursery() as nursery:
                    for which, plan in enumerate(senders):
                        nursery.start_soon(sender, ref, which, plan)

        run(main)
        for which in range(len(senders)):
            mine = [n for n in log.of("start") if n // 100 == which]
            assert mine == sorted(mine)

    check()


# --- 6, 7 and 10: trees ------------------------------------------------------------------------------------


def _lively(pkg: ModuleType, name: str, notes: list[Any], leave: float) -> Any:
    class Lively(pkg.Actor):
        @asynccontextmanager
        async def lifespan(self, ctx: Any) -> Any:
            notes.append(("enter", name))
            try:
                yield
            finally:
                notes.append(("leaving", name))
                with trio.CancelScope(shield=True):
                    await trio.sleep(leave)
                notes.append(("left", name))

        async def handle(self, msg: Any, ctx: Any) -> object:
            raise Boom(name)

    return pkg.Spec(name=name, factory=Lively, grace=50, backoff=pkg.Backoff(first=0.1, jitter=0))


def check_stop_order(pkg: ModuleType, count: int, *, shrink: bool = False) -> None:
    """6: reverse of start order, one at a time, nothing left; and 10: the snapshot's tree is what lives."""
    leaves = st.lists(st.sampled_from([0.0, 0.5, 2.0]), min_size=1, max_size=5)

    @examples(count, shrink=shrink)
    @given(leaves, st.integers(0, 4), leaves, st.sampled_from(["end", "error", "cancel"]))
    def check(outer: list[float], nested_in: int, inner: list[float], way: str) -> None:
        notes: list[Any] = []
        parent = nested_in % len(outer)

        class Parent(pkg.Actor):
            @asynccontextmanager
            async def lifespan(self, ctx: Any) -> Any:
                notes.append(("enter", "parent"))
                async with pkg.open_supervisor(name="inner") as sup:
                    for i, leave in enumerate(inner):
                        await sup.start(_lively(pkg, f"i{i}", notes, leave))
                    yield

            async def handle(self, msg: Any, ctx: Any) -> object: ...

        async def main() -> None:
            with trio.CancelScope() as scope, suppress(Boom):
                async with pkg.open_supervisor() as sup:
                    for i, leave in enumerate(outer):
                        await sup.start(_lively(pkg, f"o{i}", notes, leave))
                        if i == parent:
                            await sup.start(pkg.Spec(name="parent", factory=Parent))
                    actors_seen = {n.path.rpartition("/")[2] for n in sup.snapshot().walk() if n.kind == "actor"}
                    assert actors_seen == {n for w, n in notes if w == "enter"}
                    if way == "error":
                        raise Boom
                    if way == "cancel":
                        scope.cancel()
                        await trio.lowlevel.checkpoint()

        run(main)
        entered = [n for w, n in notes if w == "enter" and n != "parent"]
        expected = [(w, n) for n in reversed(entered) for w in ("leaving", "left")]
        assert [note for note in notes if note[0] != "enter"] == expected

    check()


def check_intensity(pkg: ModuleType, count: int, *, shrink: bool = False) -> None:
    """7: at most `intensity` restarts in any window of `period`; one more, and the supervisor gives up."""
    gaps = st.lists(st.tuples(st.sampled_from([0.0, 0.3, 1.0, 2.5, 7.0]), st.integers(0, 2)), min_size=1, max_size=15)
    strategies = st.sampled_from(["one_for_one", "one_for_all", "rest_for_one"])

    @examples(count, shrink=shrink)
    @given(gaps, st.integers(0, 4), st.sampled_from([1.0, 5.0]), strategies)
    def check(crashes: list[tuple[float, int]], intensity: int, period: float, strategy: str) -> None:
        restarts: list[float] = []
        ended: list[str] = []

        class Watching(pkg.Instrument):
            def restarting(self, path: str, error: Exception, delay: float) -> None:
                restarts.append(trio.current_time())

        async def main() -> None:
            try:
                async with pkg.open_supervisor(
                    intensity=intensity, period=period, strategy=strategy, instruments=(Watching(),)
                ) as sup:
                    refs = [await sup.start(_lively(pkg, n, [], 0)) for n in "abc"]
                    for gap, which in crashes:
                        await trio.sleep(gap)
                        await refs[which].tell("crash")
                    await trio.sleep(1000)  # the longest delays, one after another
            except pkg.RestartLimitExceeded as exc:
                ended.append("gave up")
                assert len(exc.failures) == intensity + 1
                window = [t for t in restarts if trio.current_time() - t < period]
                assert len(window) == intensity, "gave up too early, or too late"

        run(main)
        for i, when in enumerate(restarts):
            inside = sum(1 for t in restarts[i:] if t - when < period)
            assert inside <= intensity, f"{inside} restarts within {period} s"
        assert ended or len(restarts) == len(crashes)

    check()


def check_chaos(pkg: ModuleType, count: int, *, shrink: bool = False) -> None:
    """1, 6 and 10 for whole groups: whatever is started, stopped, crashed, finished and asked at whatever moment, every
    actor has exactly one final exit, nobody waits for ever and nothing is left behind."""
    step = st.tuples(
        st.sampled_from([0.0, 0.0, 0.05, 0.3, 1.0]),
        st.sampled_from(["start", "start", "stop", "crash", "crash", "finish", "ask", "slow"]),
        st.integers(0, 5),
    )
    kinds = st.sampled_from(["permanent", "transient", "temporary"])

    @examples(count, shrink=shrink)
    @given(
        st.lists(step, min_size=3, max_size=14),
        st.lists(kinds, min_size=6, max_size=6),
        st.sampled_from(["one_for_one", "one_for_all", "rest_for_one"]),
        st.sampled_from(["reverse", "together"]),
        st.sampled_from([1, 4, 1000]),
        st.sampled_from(["end", "error", "cancel"]),
    )
    def check(steps: list[Any], restarts: list[str], strategy: str, stop: str, intensity: int, way: str) -> None:
        chaos = Chaos(pkg, restarts)
        run(lambda: chaos.main(steps, strategy, stop, intensity, way))
        exits = chaos.exits
        assert len(exits) == len(chaos.refs) + chaos.failed_starts
        assert all(ref.status == "exited" for ref in chaos.refs)
        assert chaos.waited == len(chaos.refs)

    check()


class Chaos:
    def __init__(self, pkg: ModuleType, restarts: list[str]) -> None:
        self.pkg, self.restarts = pkg, restarts
        self.kit = build(pkg)
        self.refs: list[Any] = []
        self.exits: list[str] = []
        self.waited = 0
        self.failed_starts = 0

    def spec(self, which: int) -> Any:
        kit = self.kit

        class Slow(kit.Scripted):
            @asynccontextmanager
            async def lifespan(self, ctx: Any) -> Any:
                await trio.sleep(0.1 * (which % 3))
                if ctx.incarnation == 1 and which == 4:
                    raise Boom("start")
                try:
                    yield
                finally:
                    await trio.sleep(0.1 * (which % 2))

        return self.pkg.Spec(
            name=f"c{which}", factory=Slow if which % 2 else kit.Scripted, restart=self.restarts[which], grace=1,
            concurrency=1 + which % 2, drain=0.2 * (which % 3), backoff=self.pkg.Backoff(first=0.1, limit=0.4),
        )  # fmt: skip

    async def main(self, steps: list[Any], strategy: str, stop: str, intensity: int, way: str) -> None:
        chaos = self

        class Counting(self.pkg.Instrument):
            def exited(self, exit: Any) -> None:  # noqa: A002
                chaos.exits.append(exit.path)

        async with trio.open_nursery() as outside:
            with trio.CancelScope() as scope, suppress(Boom, self.pkg.RestartLimitExceeded):
                async with self.pkg.open_supervisor(
                    strategy=strategy, stop=stop, intensity=intensity, instruments=(Counting(),)
                ) as sup:
                    for pause, what, which in steps:
                        await trio.sleep(pause)
                        outside.start_soon(self.step, sup, what, which, outside)
                        names = [n.path for n in sup.snapshot().children]
                        assert len(names) == len(set(names))
                    await trio.sleep(0.35)
                    if way == "error":
                        raise Boom
                    if way == "cancel":
                        scope.cancel()
                        await trio.lowlevel.checkpoint()

    async def step(self, sup: Any, what: str, which: int, outside: trio.Nursery) -> None:
        pkg, kit = self.pkg, self.kit
        if what == "start":
            try:
                ref = await sup.start(self.spec(which))
            except (pkg.NameTaken, pkg.SupervisorClosed):
                return
            except pkg.StartFailed:
                self.failed_starts += 1
                return
            self.refs.append(ref)
            await ref.wait_exit()
            self.waited += 1
        elif self.refs:
            ref = self.refs[which % len(self.refs)]
            if what == "stop":
                await sup.stop(ref)
            elif what == "finish":
                ref._cell.finish()
            else:
                msg = kit.Do(which, "crash" if what == "crash" else "ok", 5.0 if what == "slow" else None)
                with suppress(pkg.ActorError):
                    await ref.ask(msg)


# --- 8 and 9: the pure parts -------------------------------------------------------------------------------


def check_backoff(pkg: ModuleType, count: int, *, shrink: bool = False) -> None:
    """8: grows to the limit, inside the jitter band. (That quiet time resets it is in test_supervision.)"""
    seconds = st.floats(0, 100)

    @examples(count, shrink=shrink)
    @given(seconds, st.floats(1, 10), seconds, st.floats(0, 1), st.integers(0, 2**32))
    def check(first: float, factor: float, limit: float, jitter: float, seed: int) -> None:
        backoff = pkg.Backoff(first=first, factor=factor, limit=limit, jitter=jitter)
        plain = pkg.Backoff(first=first, factor=factor, limit=limit, jitter=0)
        rng = Random(seed)
        before = 0.0
        for failures in [*range(1, 30), 10_000]:
            middle = plain.delay(failures, rng)
            assert before <= middle <= limit
            assert failures > 1 or middle == min(first, limit)
            spread = middle * jitter + 1e-9
            assert middle - spread <= backoff.delay(failures, rng) <= middle + spread
            before = middle
        if first and factor > 1.01:
            assert before == limit

    check()


def check_plan(pkg: ModuleType, count: int, *, shrink: bool = False) -> None:
    """9: who is stopped and who is started."""
    from importlib import import_module

    pure = import_module(pkg.__name__ + "._plan")
    kinds = st.lists(st.sampled_from(["permanent", "transient", "temporary"]), min_size=1, max_size=6)
    times = st.lists(st.floats(0, 100), max_size=6).map(sorted)

    @examples(count, shrink=shrink)
    @given(kinds, st.integers(0, 5), times, st.integers(0, 4), st.sampled_from([1.0, 5.0, 50.0]))
    def check(restarts: list[str], at: int, history: list[float], intensity: int, period: float) -> None:
        children = [pure.Child(f"c{i}", kind) for i, kind in enumerate(restarts)]
        failed = children[at % len(children)]
        affected = {
            "one_for_one": [failed],
            "one_for_all": children,
            "rest_for_one": children[children.index(failed) :],
        }
        for strategy, those in affected.items():
            plan = pure.plan(
                strategy, children, failed.name, history=history, now=100.0, intensity=intensity, period=period, delay=2
            )  # fmt: skip
            assert plan.give_up == (sum(1 for t in history if 100.0 - t < period) >= intensity)
            if plan.give_up:
                assert (plan.stop, plan.start) == (tuple(c.name for c in reversed(children)), ())
            else:
                assert plan.stop == tuple(c.name for c in reversed(those))
                assert plan.start == tuple(c.name for c in those if c.restart != "temporary")
                assert plan.delay == 2

    check()


# --- 10, 11 and 12 -------------------------------------------------------------------------------------------


def check_checkpoints(pkg: ModuleType, count: int = 1, *, shrink: bool = False) -> None:
    """11, and the other half of 10: who always checkpoints and who never does."""
    kit = build(pkg)

    class Sends(kit.Scripted):
        async def handle_stream(self, msg: Any, out: Any, ctx: Any) -> None:
            for number in range(3):
                with trio.testing.assert_checkpoints():
                    await out.send(number)

    async def main() -> None:
        async with pkg.open_supervisor() as sup:
            with trio.testing.assert_checkpoints():
                ref = await sup.start(pkg.Spec(name="a", factory=Sends, mailbox=4))
            for _ in range(2):
                with trio.testing.assert_checkpoints():
                    await ref.tell(kit.Note())
                with trio.testing.assert_checkpoints():
                    await ref.ask(kit.Do())
                with trio.testing.assert_checkpoints():
                    await ref.ask_nowait(kit.Do())
                for open_stream in (ref.stream, ref.stream_nowait):
                    stream = open_stream(kit.Items(), buffer=8)
                    with trio.testing.assert_checkpoints():
                        items = await stream.__aenter__()
                    async for _item in items:
                        pass
                    await stream.__aexit__(None, None, None)
            with trio.testing.assert_no_checkpoints():
                ref.tell_nowait(kit.Note())
                sup.snapshot()
                sup.watch(ref, to=ref, make=lambda e: e)
            with trio.testing.assert_checkpoints():
                await sup.stop(ref)
            with trio.testing.assert_checkpoints():
                await sup.stop(ref)
            with trio.testing.assert_checkpoints():
                await ref.wait_exit()

    run(main)


def check_instruments(pkg: ModuleType, count: int, *, shrink: bool = False) -> None:
    """12: the same program with a failing instrument has the same outcomes."""
    kinds = st.lists(st.sampled_from(["ok", "reject", "crash"]), min_size=1, max_size=8)
    hooks = ["turn_started", "turn_finished", "started", "restarting", "exited", "hung"]

    @examples(count, shrink=shrink)
    @given(kinds, st.sampled_from(hooks), st.integers(0, 3))
    def check(sends: list[str], hook: str, after: int) -> None:
        kit = build(pkg)

        def failing() -> Any:
            calls: list[Any] = []

            def call(self: Any, *args: object) -> None:
                calls.append(args)
                if len(calls) > after:
                    raise RuntimeError("an instrument is broken")

            return type("Failing", (pkg.Instrument,), {hook: call})()

        async def main(instruments: tuple[Any, ...]) -> list[str]:
            outcomes = []
            async with pkg.open_supervisor(intensity=100, instruments=instruments) as sup:
                ref = await sup.start(pkg.Spec(name="a", factory=kit.Scripted, grace=1))
                for kind in sends:
                    try:
                        outcomes.append(str(await ref.ask(kit.Do(1, kind, 0.1))))
                    except (Refused, pkg.ActorError) as exc:
                        outcomes.append(type(exc).__name__)
                ref.tell_nowait(kit.Do(1, "stubborn", 3))
                await trio.testing.wait_all_tasks_blocked()
            outcomes.append((await ref.wait_exit()).reason)
            return outcomes

        assert run(lambda: main((failing(),))) == run(lambda: main(()))

    check()
