"""What mirroring may spend: in no window more than its bound."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from spear.router.mirrors._purse import Purse, Spent

GAPS = st.lists(st.floats(0, 40), max_size=60)


@given(GAPS, st.integers(1, 10))
def test_in_no_minute_more_requests_than_the_bound(gaps: list[float], bound: int) -> None:
    purse, now, taken = Purse(), 1000.0, []
    for gap in gaps:
        now += gap
        if purse.take(bound, None, 0.0, now):
            taken.append(now)
            purse.settle(0.0, None, now)
        assert sum(now - 60 < each <= now for each in taken) <= bound


@given(GAPS)
def test_after_a_minute_and_a_second_there_is_room_again(gaps: list[float]) -> None:
    purse, now = Purse(), 0.0
    for gap in gaps:
        now += gap
        purse.take(3, None, 0.0, now)
    assert purse.take(3, None, 0.0, now + 61)


COSTS = st.lists(st.tuples(st.floats(0, 900), st.floats(0, 2), st.none() | st.floats(0, 2), st.booleans()), max_size=40)


@given(COSTS)
def test_in_no_hour_more_than_the_bound_but_for_estimates_that_were_too_low(calls: list) -> None:
    purse, now, spent, running, beyond = Purse(), 0.0, [], [], 0.0
    for gap, estimate, cost, ends in calls:
        now += gap
        if purse.take(1000, 5.0, estimate, now):
            running.append((estimate, cost))
        if ends and running:
            reserved, came_to = running.pop(0)
            purse.settle(reserved, came_to, now)
            amount = reserved if came_to is None else came_to
            beyond += max(0.0, amount - reserved)
            spent.append((now, amount))
        hour = sum(amount for when, amount in spent if now - 3600 < when <= now)
        assert hour + sum(each for each, _ in running) <= 5 + beyond + 1e-6


def test_who_does_not_know_the_cost_keeps_the_reservation() -> None:
    purse = Purse()
    assert purse.take(10, 1.0, 0.6, 0.0)
    assert not purse.take(10, 1.0, 0.6, 0.0)
    purse.settle(0.6, None, 0.0)
    assert not purse.take(10, 1.0, 0.6, 3599.0)
    assert purse.take(10, 1.0, 0.6, 3700.0)
    purse.settle(0.6, 0.1, 3700.0)
    assert purse.take(10, 1.0, 0.6, 3700.0)


def test_the_memory_does_not_grow() -> None:
    spent = Spent(60.0)
    for number in range(100_000):
        spent.add(1, number * 0.01)
    assert len(spent._parts) <= 61
    assert spent.total <= 6200
