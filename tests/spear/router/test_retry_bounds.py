"""Backoff, Retry-After, throttle and budget: the arithmetic of asking again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spear.config import RetryConfig
from spear.ir import ErrorCode, Failure, make_error
from spear.router import facts_of
from spear.router._again import Again
from spear.router._failures import Fault
from spear.router._retry import Budget, Throttle, backoff, jitter, not_before
from tests.spear.router.world import chat

DEFAULT = RetryConfig()


def test_the_backoff_doubles_up_to_five_seconds() -> None:
    assert [backoff(count, 1.0, DEFAULT) for count in range(1, 7)] == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]
    assert backoff(10_000, 1.2, DEFAULT) == pytest.approx(6.0)


@given(st.floats(0, 1, exclude_max=True))
def test_the_jitter_is_a_fifth_either_way(draw: float) -> None:
    assert 0.8 <= jitter(draw) <= 1.2


def test_a_retry_after_is_obeyed_exactly_or_not_at_all() -> None:
    assert not_before(100.0, 1e9, 2500, 0.7, DEFAULT) == pytest.approx(102.5)
    assert not_before(100.0, 1e9, 60_000, 0.7, DEFAULT) == pytest.approx(160.0)
    assert not_before(100.0, 1e9, 60_001, 0.7, DEFAULT) is None
    assert not_before(100.0, 102.5, 2500, 0.7, DEFAULT) is None, "that is the deadline"
    assert not_before(100.0, 1e9, None, 0.7, DEFAULT) == pytest.approx(100.7)


@given(st.lists(st.booleans(), max_size=300))
def test_the_throttle_stays_within_its_tokens_and_stops_below_half(outcomes: list[bool]) -> None:
    throttle, tokens = Throttle(DEFAULT), 10.0
    for ok in outcomes:
        (throttle.succeeded if ok else throttle.failed)()
        tokens = min(10.0, tokens + 0.1) if ok else max(0.0, tokens - 1)
        assert throttle.tokens == pytest.approx(tokens)
        assert throttle.allows == (throttle.tokens >= 5)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 200)), max_size=200))
def test_the_budget_is_never_exceeded(events: list[tuple[bool, int]]) -> None:
    budget, out = Budget(), []
    for take, active in events:
        if take and budget.allows(active, DEFAULT):
            out.append(object())
            budget.take(out[-1])
            assert len(budget) <= max(3, 0.2 * active)
        elif not take and out:
            budget.give_back(out.pop())
        assert len(budget) == len(out)


FACTS = facts_of(chat())


def fault(failure: Failure, retry_after_ms: int | None = None) -> Fault:
    return Fault(make_error(ErrorCode.BACKEND_ERROR, "broken", retry_after_ms=retry_after_ms), failure)


@pytest.mark.parametrize(
    ("failure", "again"),
    [
        (Failure.SERVER, True), (Failure.RATE_LIMIT, True), (Failure.CONNECT, False), (Failure.AUTH, False),
        (Failure.REQUEST, False), (Failure.CONTEXT_WINDOW, False), (Failure.REFUSED, False),
        (Failure.OVERLOAD, False), (Failure.INTERNAL, False),
    ],
)  # fmt: skip
def test_which_failure_is_worth_a_repetition(failure: Failure, again: bool) -> None:
    state = Again(DEFAULT)
    state.sent("a")
    state.failed("a", FACTS, fault(failure), 0.0, 100.0, 1.0)
    assert [each.name for each in state.waiting()] == (["a"] if again else [])
    assert state.spent == (set() if again else {"a"})


def test_at_most_two_sends_to_one_instance_and_the_earliest_first() -> None:
    state = Again(DEFAULT)
    for name, after in (("a", 9000), ("b", 3000), ("c", None)):
        state.sent(name)
        state.failed(name, FACTS, fault(Failure.RATE_LIMIT, after), 0.0, 100.0, 1.0)
    assert [(each.name, each.due) for each in state.waiting()] == [("c", 2.0), ("b", 3.0), ("a", 9.0)]
    state.sent("c")
    state.failed("c", FACTS, fault(Failure.SERVER), 3.0, 100.0, 1.0)
    assert [each.name for each in state.waiting()] == ["b", "a"]
    assert state.spent == {"c"}
