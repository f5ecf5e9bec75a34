"""The laws of meters, against histories that are computed anew from all that was ever taken."""

from __future__ import annotations

from math import inf
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spear.router.limits import Gcra, Quota, Window

LIMIT, PERIOD = 100.0, 60.0
RATE = LIMIT / PERIOD
gaps = st.one_of(st.just(0.0), st.floats(0.001, 90.0), st.sampled_from([1.0, 30.0, 60.0, 61.0]))
amounts = st.one_of(st.sampled_from([1.0, 50.0, 100.0]), st.integers(0, 100).map(float), st.floats(0.0, 100.0))
CLOSE = 1e-6


def gcra() -> Gcra:
    return Gcra(Quota("backend:x", "tokens", LIMIT, PERIOD))


def window() -> Window:
    return Window(Quota("budget:x", "tokens", LIMIT, PERIOD, "window"))


def worst_rate(taken: list[tuple[float, float]]) -> float:
    """How far the worst interval is above burst and rate; negative = never."""
    worst = -LIMIT
    for i, (start, _) in enumerate(taken):
        total = 0.0
        for end, amount in taken[i:]:
            total += amount
            worst = max(worst, total - LIMIT - RATE * (end - start))
    return worst


def worst_window(taken: list[tuple[float, float]]) -> float:
    return max(
        (sum(amount for at, amount in taken if start <= at < start + PERIOD) - LIMIT for start, _ in taken),
        default=-LIMIT,
    )


@pytest.mark.parametrize(("make", "worst"), [(gcra, worst_rate), (window, worst_window)])
@given(data=st.data())
def test_never_more_than_the_limit_in_any_interval_by_what_was_used(make, worst, data) -> None:
    """Reservations that are settled late, for less or for nothing, in any order."""
    meter, now = make(), 1000.0
    outstanding: list[int] = []
    taken: list[list[float]] = []  # of [at, what counts]
    for _ in range(data.draw(st.integers(1, 40))):
        now += data.draw(gaps)
        if outstanding and data.draw(st.booleans()):
            which = outstanding.pop(data.draw(st.integers(0, len(outstanding) - 1)))
            at, reserved = taken[which]
            used = reserved * data.draw(st.sampled_from([0.0, 0.25, 0.5, 1.0]))
            meter.settle(reserved, used, at, now)
            taken[which][1] = used
            continue
        amount = data.draw(amounts)
        if data.draw(st.booleans()):
            amount = meter.remaining(now)  # all there is: nothing hides an excess
        if meter.admits(amount, now):
            meter.reserve(amount, now)
            outstanding.append(len(taken))
            taken.append([now, amount])
    # What is outstanding counts as it is reserved.
    assert worst([(at, amount) for at, amount in taken]) <= CLOSE


@given(data=st.data())
def test_a_refund_is_worth_what_never_taking_it_would_have_been(data) -> None:
    """The debt after all refunds is that of a meter which only ever saw what was used (few enough to be exact)."""
    meter, now = gcra(), 0.0
    history: list[list[float]] = []
    for _ in range(data.draw(st.integers(1, 12))):
        now += data.draw(gaps)
        amount = data.draw(amounts)
        meter.reserve(amount, now)
        history.append([now, amount])
    for entry in data.draw(st.permutations(history)):
        now += data.draw(gaps)
        used = entry[1] * data.draw(st.sampled_from([0.0, 0.5, 1.0]))
        meter.settle(entry[1], used, entry[0], now)
        entry[1] = used
    reference = gcra()
    for at, amount in history:
        reference.reserve(amount, at)
    assert meter.remaining(now) == pytest.approx(reference.remaining(now), abs=CLOSE)


def test_two_thousand_histories_of_reserving_and_settling_in_any_order() -> None:
    for seed in range(2000):
        rng, meter, reference, now = Random(seed), gcra(), gcra(), 0.0
        history: list[list[float]] = []
        outstanding: list[int] = []
        for _ in range(rng.randint(2, 25)):
            now += rng.choice([0, 0, 0.5, 1, 5, 30, 61, rng.random() * 20])
            if outstanding and rng.random() < 0.5:
                which = outstanding.pop(rng.randrange(len(outstanding)))
                at, reserved = history[which]
                history[which][1] = reserved * rng.choice([0, 0, 0.5, 1])
                meter.settle(reserved, history[which][1], at, now)
            else:
                outstanding.append(len(history))
                history.append([now, rng.choice([0, 1, 10, 100, rng.random() * 60])])
                meter.reserve(history[-1][1], now)
        for at, amount in history:
            reference.reserve(amount, at)
        assert meter.remaining(now) == pytest.approx(reference.remaining(now), abs=CLOSE), seed


@given(st.lists(st.tuples(gaps, amounts), min_size=70, max_size=120), st.integers(0, 60))
def test_many_reservations_keep_a_bounded_memory_and_give_back_no_more(steps, which) -> None:
    meter, reference, now = gcra(), gcra(), 0.0
    history = []
    for gap, amount in steps:
        now += gap / 1000
        meter.reserve(amount, now)
        history.append((now, amount))
    at, amount = history[which]
    meter.settle(amount, 0.0, at, now)
    for position, (when, much) in enumerate(history):
        reference.reserve(0.0 if position == which else much, when)
    assert len(meter._lows) <= 64
    assert meter._debt >= reference._debt - CLOSE


@pytest.mark.parametrize("make", [gcra, window])
@given(steps=st.lists(st.tuples(gaps, amounts), max_size=20), amount=st.floats(0.0, 100.0), late=st.floats(0.01, 200.0))
def test_ready_at_is_exact(make, steps, amount, late) -> None:
    meter, now = make(), 12.5
    for gap, taken in steps:
        now += gap
        meter.reserve(taken, now)
    ready = meter.ready_at(amount, now)
    assert (ready == now) == meter.admits(amount, now)
    assert meter.admits(amount, ready)
    if ready > now:
        before = now + (ready - now) * 0.999 - 1e-4
        assert before < now or not meter.admits(amount, before)
    assert meter.ready_at(amount, ready + late) == ready + late


@pytest.mark.parametrize("make", [gcra, window])
def test_more_than_the_limit_is_never_ready(make) -> None:
    assert make().ready_at(LIMIT + 1, 0.0) == inf
    assert not make().admits(LIMIT + 1, 0.0)
    assert make().ready_at(LIMIT, 1.0) == pytest.approx(1.0)


@pytest.mark.parametrize("make", [gcra, window])
def test_an_excess_is_taken(make) -> None:
    meter = make()
    meter.reserve(10, 5.0)
    meter.settle(10, 60, 5.0, 5.0)
    assert meter.remaining(5.0) == pytest.approx(40)
    assert not meter.admits(41, 5.0)


@pytest.mark.parametrize("make", [gcra, window])
@pytest.mark.parametrize("jump", [PERIOD * 1.1, 86_400.0, 1e9])
def test_a_clock_that_jumps_ahead_makes_new_not_more(make, jump: float) -> None:
    meter = make()
    meter.reserve(LIMIT, 5.0)
    assert not meter.admits(1, 5.0)
    assert meter.remaining(5.0 + jump) == LIMIT
    meter.settle(LIMIT, 0.0, 5.0, 5.0 + jump)  # long gone: nothing to give back
    assert meter.remaining(5.0 + jump) == LIMIT


@pytest.mark.parametrize("make", [gcra, window])
def test_a_clock_that_stands_still_or_goes_back_gives_nothing(make) -> None:
    meter = make()
    meter.reserve(LIMIT, 100.0)
    for now in (100.0, 99.0, 50.0):
        assert not meter.admits(1, now)
    meter.reserve(1, 99.0)
    assert meter.remaining(100.0) == 0
    assert not meter.admits(1, 100.0 + 0.5 / RATE)


def test_a_window_slides() -> None:
    meter = window()
    meter.reserve(50, 0.5)
    meter.reserve(50, 40.5)
    assert meter.ready_at(50, 41.0) == pytest.approx(61)
    assert meter.ready_at(51, 41.0) == pytest.approx(101)
    assert meter.remaining(61.0) == 50


def test_a_rate_refills_as_time_passes() -> None:
    meter = gcra()
    meter.reserve(100, 0.0)
    assert meter.ready_at(10, 0.0) == pytest.approx(6.0)
    assert meter.remaining(30.0) == pytest.approx(50)
