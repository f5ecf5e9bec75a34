"""Every reservation is settled exactly once, whatever becomes of its attempt: reserved = settled + given back, for each
meter and each request."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from random import Random

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from spear.config import Budget, Price
from spear.ir import ErrorCode, Failure, Limits, RequestEnvelope, Usage, make_error
from spear.router import Desk
from spear.router._course import Course
from spear.router._failures import Fault, truncated
from spear.router._leg import Leg
from spear.router.limits import Quota, local_meter
from tests.spear.router.world import answer, chat, instance, still_generation

PRICE = Price(input=2.0, output=8.0)


class Tally:
    """A meter that writes down what is done with it; it admits what a real one would."""

    def __init__(self, quota: Quota) -> None:
        self.quota = quota
        self.inner = local_meter(quota)
        self.open: Counter[tuple[float, float]] = Counter()
        self.reserved = self.used = self.back = 0.0

    def admits(self, amount: float, now: float) -> bool:
        return self.inner.admits(amount, now)

    def ready_at(self, amount: float, now: float) -> float:
        return self.inner.ready_at(amount, now)

    def remaining(self, now: float) -> float:
        return self.inner.remaining(now)

    def reserve(self, amount: float, now: float) -> None:
        self.open[amount, now] += 1
        self.reserved += amount
        self.inner.reserve(amount, now)

    def settle(self, reserved: float, used: float, since: float, now: float) -> None:
        assert self.open[reserved, since] > 0, "settled what was not reserved, or twice"
        self.open[reserved, since] -= 1
        self.used += used
        self.back += reserved - used
        self.inner.settle(reserved, used, since, now)


@dataclass
class Tallies:
    made: dict[Quota, Tally] = field(default_factory=dict)

    def __call__(self, quota: Quota) -> Tally:
        assert quota not in self.made, "a second meter for one quota"
        self.made[quota] = Tally(quota)
        return self.made[quota]

    def of(self, quantity: str) -> list[Tally]:
        return [each for each in self.made.values() if each.quota.quantity == quantity]


def limited_desk(tallies: Tallies) -> Desk:
    # Wide enough that nothing is refused: here only the settling is looked at.
    limits = Limits(rpm=10_000, tpm=50_000_000, output_tpm=50_000_000, max_inflight=1000)
    generation = still_generation(
        *(instance(name, limits=limits, price=PRICE) for name in ("a", "b", "c")),
        default_policy="round_robin",
        budgets=(
            Budget(name="money", window=3600.0, cost=1e9),
            Budget(name="tasks", window=60.0, per="task", tokens=50_000_000, requests=10_000),
            Budget(name="each", window=60.0, per="backend", tokens=50_000_000),
        ),
    )
    return Desk(generation, rng=Random(7), meters=tallies)


def fault(failure: Failure, *, gone: bool = False, code: ErrorCode = ErrorCode.BACKEND_ERROR) -> Fault:
    return Fault(make_error(code, "it broke"), failure, actor_gone=gone)


RESERVED_IN, RESERVED_OUT = 25, 100
"""Of `request()`: 100 characters, max_tokens = 100."""


def request(task: str) -> RequestEnvelope:
    made = chat("x" * 100, task_id=task)
    generation = made.payload.generation.model_copy(update={"max_tokens": RESERVED_OUT})
    return made.model_copy(update={"payload": made.payload.model_copy(update={"generation": generation})})


def end(course: Course, leg: Leg, how: str, chars: int) -> tuple[float, float, float]:
    """End `leg`; what it ought to have cost: requests, input, output."""
    if how.startswith("stream"):
        leg.streamed, leg.chars = True, chars
    passed = -(-chars // 4)
    match how:
        case "ok":
            course.answered(leg, answer("x" * 8, input_tokens=30, output_tokens=7))
            return 1, 30, 7
        case "ok, nothing said":
            course.answered(leg, answer("x" * 8))
            return 1, RESERVED_IN, 2
        case "connect":
            course.failed(leg, fault(Failure.CONNECT))
            return 0, 0, 0
        case "crash":
            course.failed(leg, fault(Failure.CONNECT, gone=True))
            return 1, RESERVED_IN, RESERVED_OUT
        case "timeout" | "server":
            course.failed(leg, fault(Failure.SERVER))
            return 1, RESERVED_IN, RESERVED_OUT
        case "429" | "401" | "400":
            failure = {"429": Failure.RATE_LIMIT, "401": Failure.AUTH, "400": Failure.REQUEST}[how]
            course.failed(leg, fault(failure))
            return 1, 0, 0
        case "refused":
            course.refused(leg)
            return 0, 0, 0
        case "left":
            course.left(leg)
            return 1, RESERVED_IN, RESERVED_OUT
        case "stream left":
            course.left(leg)
            return 1, RESERVED_IN, passed
        case "stream superseded":
            course.superseded(leg)
            return 1, RESERVED_IN, passed
        case "stream truncated":
            course.committed(leg)
            course.failed(leg, truncated(leg.instance.name))
            return 1, RESERVED_IN, passed
        case "stream truncated, usage said":
            course.committed(leg)
            leg.usage = Usage(input_tokens=31, output_tokens=90)
            course.failed(leg, truncated(leg.instance.name))
            return 1, 31, 90
        case "stream failed before its commit":
            course.failed(leg, fault(Failure.SERVER))
            return 1, RESERVED_IN, RESERVED_OUT
        case _:
            raise AssertionError(how)


ENDS = (
    "ok", "ok, nothing said", "connect", "crash", "server", "429", "401", "400", "refused", "left", "stream left",
    "stream superseded", "stream truncated", "stream truncated, usage said", "stream failed before its commit",
)  # fmt: skip


def check_open(tallies: Tallies, legs: list[Leg]) -> None:
    """What is out is what the open attempts hold, on each meter of each quantity."""
    for quantity in ("requests", "tokens", "cost", "output_tokens"):
        shares = Counter(leg.instance.name for leg in legs)
        for each in tallies.of(quantity):
            out = sum(each.open.values())
            subject = each.quota.subject
            if subject.startswith(("backend:", "budget:each:")):
                assert out == shares[subject.rpartition(":")[2]]
            elif subject.startswith("budget:tasks:"):
                assert out == sum(leg.plan.facts.task_id == subject.rpartition(":")[2] for leg in legs)
            else:
                assert out == len(legs)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_reserved_is_settled_and_given_back_whatever_happens(data: st.DataObject) -> None:
    async def scenario() -> None:
        tallies = Tallies()
        desk = limited_desk(tallies)
        courses: list[Course] = []
        legs: list[tuple[Course, Leg]] = []
        want = [0.0, 0.0, 0.0]
        for _ in range(data.draw(st.integers(1, 25))):
            await trio.sleep(data.draw(st.sampled_from([0.0, 0.5, 20.0, 70.0])))
            step = data.draw(st.sampled_from(["ask", "again", "end", "end", "bug"]))
            if step == "ask" or not courses:
                task = data.draw(st.sampled_from(["t", "u"]))
                courses.append(Course(desk, request(task), trio.current_time(), float("inf")))
                step = "again"
            course = data.draw(st.sampled_from(courses))
            if step == "again":  # the first attempt, a further one, or a second beside the first, as in a hedge
                leg = course.next()
                if isinstance(leg, Leg):
                    legs.append((course, leg))
            elif step == "end" and legs:
                course, leg = legs.pop(data.draw(st.integers(0, len(legs) - 1)))
                cost = end(course, leg, data.draw(st.sampled_from(ENDS)), data.draw(st.integers(0, 400)))
                want = [a + b for a, b in zip(want, cost, strict=True)]
            elif step == "bug":
                course.abandoned()
                open_ones = [each for each in legs if each[0] is course]
                legs = [each for each in legs if each[0] is not course]
                courses.remove(course)
                for count, each in zip((1, RESERVED_IN, RESERVED_OUT), range(3), strict=True):
                    want[each] += count * len(open_ones)
            check_open(tallies, [leg for _, leg in legs])
        for course, leg in legs:
            course.left(leg)
            want = [a + b for a, b in zip(want, (1, RESERVED_IN, RESERVED_OUT), strict=True)]
        requests, tokens_in, tokens_out = want
        check_open(tallies, [])
        for each in tallies.made.values():
            assert each.reserved == pytest.approx(each.used + each.back)
        for prefix in ("backend:", "budget:tasks:"):
            for quantity, total in (("requests", requests), ("tokens", tokens_in + tokens_out)):
                found = sum(each.used for each in tallies.of(quantity) if each.quota.subject.startswith(prefix))
                assert found == pytest.approx(total)
        (money,) = tallies.of("cost")
        assert money.used == pytest.approx((tokens_in * PRICE.input + tokens_out * PRICE.output) / 1e6)

    trio.run(scenario, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.mark.parametrize("how", ENDS)
def test_each_end_of_an_attempt(how: str) -> None:
    async def scenario() -> None:
        await trio.lowlevel.checkpoint()
        tallies = Tallies()
        desk = limited_desk(tallies)
        course = Course(desk, request("t"), trio.current_time(), float("inf"))
        leg = course.next()
        assert isinstance(leg, Leg)
        (held,) = [each for each in tallies.of("tokens") if each.quota.subject == f"backend:{leg.instance.name}"]
        assert held.reserved == RESERVED_IN + RESERVED_OUT
        requests, tokens_in, tokens_out = end(course, leg, how, 50)
        assert held.used == tokens_in + tokens_out
        assert (
            sum(each.used for each in tallies.of("requests") if each.quota.subject.startswith("backend:")) == requests
        )

    trio.run(scenario, clock=trio.testing.MockClock())


async def test_an_answer_of_unknown_length_is_expected_as_long_as_the_others(mock_clock) -> None:
    await trio.lowlevel.checkpoint()
    desk = limited_desk(Tallies())
    bounds = desk.generation.by_name["a"].bounds
    facts = desk.facts(chat("x" * 100))
    assert bounds.amounts(facts).output_tokens == 256
    for size in range(19):
        bounds.outputs(facts.operation).learn(size)
    assert bounds.amounts(facts).output_tokens == 256
    bounds.outputs(facts.operation).learn(19)
    assert bounds.amounts(facts).output_tokens == 18
    for _ in range(1000):
        bounds.outputs(facts.operation).learn(500)
    assert bounds.amounts(facts).output_tokens == 500
    assert bounds.amounts(facts).cost == pytest.approx((25 * 2 + 500 * 8) / 1e6)


async def test_only_answers_teach(mock_clock) -> None:
    await trio.lowlevel.checkpoint()
    desk = limited_desk(Tallies())
    for _ in range(60):
        course = Course(desk, request("t"), trio.current_time(), float("inf"))
        leg = course.next()
        end(course, leg, "stream left", 4)
    assert all(each.bounds.amounts(desk.facts(chat())).output_tokens == 256 for each in desk.generation.instances)
