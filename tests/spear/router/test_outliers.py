"""Outlier ejection: who stands out, at most half of a group at a time, and nothing shortens an ejection."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spear.config import HealthConfig
from spear.ir import Operation
from spear.router.health import EJECTED, Ejection, Group, Health, Tally, outliers

DEFAULT = HealthConfig()
CHAT = Operation.CHAT_COMPLETIONS
EVEN = 1.0


def test_a_share_of_failures_stands_out_with_two_hosts_and_ten_requests() -> None:
    good, bad = Tally(100, 0), Tally(15, 85)
    assert outliers([good, bad], DEFAULT) == [1]
    assert outliers([good, Tally(16, 84)], DEFAULT) == []
    assert outliers([bad], DEFAULT) == [], "nobody to compare with"
    assert outliers([good, Tally(0, 9)], DEFAULT) == [], "too few requests"


def test_a_deviation_stands_out_among_more_than_five() -> None:
    five, six = [Tally(100, 0)] * 4, [Tally(100, 0)] * 5
    assert outliers([*six, Tally(60, 40)], DEFAULT) == [5]
    assert outliers([*five, Tally(60, 40)], DEFAULT) == []


def test_one_failure_among_thousands_does_not_stand_out() -> None:
    assert outliers([Tally(1000, 0)] * 9 + [Tally(999, 1)], DEFAULT) == []


def test_where_all_are_equally_bad_nobody_deviates() -> None:
    assert outliers([Tally(50, 50)] * 8, DEFAULT) == []


def test_each_ejection_in_a_row_is_longer_and_a_long_good_time_forgets() -> None:
    ejection, now, lengths = Ejection(DEFAULT), 1000.0, []
    for _ in range(12):
        ejection.eject(now, EVEN)
        lengths.append(ejection.until - now)
        now = ejection.until + 1
    assert lengths == [30.0 * times for times in range(1, 11)] + [300.0, 300.0]
    now = ejection.until + 301
    ejection.eject(now, EVEN)
    assert ejection.until - now == pytest.approx(30.0)


def test_the_longest_ejection_is_not_shortened_by_a_smaller_jitter() -> None:
    ejection = Ejection(DEFAULT)
    for _ in range(12):
        ejection.eject(0.0, 1.2)
    ejection.eject(0.0, 0.8)
    assert ejection.until == pytest.approx(360.0)


@given(st.lists(st.tuples(st.floats(0.0, 1e4), st.floats(0.8, 1.2)), max_size=50))
def test_an_ejection_is_never_shortened(events: list[tuple[float, float]]) -> None:
    ejection, now = Ejection(DEFAULT), 0.0
    for later, jitter in events:
        now += later
        before = ejection.until
        ejection.eject(now, jitter)
        assert before <= ejection.until <= max(before, now + 360.0)
        assert ejection.holds(now)


def group_of(count: int, config: HealthConfig = DEFAULT) -> list[Health]:
    members = [Health(config) for _ in range(count)]
    group = Group(members, config)
    for member in members:
        member.group = group
    return members


def ask(health: Health, ok: bool, now: float, jitter: float = EVEN) -> None:
    trial = health.begin(CHAT, now, jitter)
    health.settle(trial, "succeeded" if ok else "failed", now, jitter)


@given(
    st.integers(1, 9),
    st.lists(st.tuples(st.integers(0, 8), st.booleans(), st.floats(0.0, 3.0), st.floats(0.8, 1.2)), max_size=300),
)
@settings(max_examples=100, deadline=None)
def test_at_most_half_of_a_group_is_out(count: int, events: list[tuple[int, bool, float, float]]) -> None:
    members, now = group_of(count, HealthConfig(eject_min_requests=2)), 1.0
    for which, ok, later, jitter in events:
        now += later
        ask(members[which % count], ok, now, jitter)
        out = sum(member.reason(CHAT, now) == EJECTED for member in members)
        assert out <= count // 2


def test_one_that_fails_is_ejected_and_the_last_half_stays() -> None:
    members = group_of(4, HealthConfig(failures=1000, min_requests=1000))
    for step in range(30):
        for position, member in enumerate(members):
            ask(member, position == 0, 1.0 + step * 0.2)
    now = 7.0
    assert [member.reason(CHAT, now) for member in members].count(EJECTED) == 2
    assert members[0].reason(CHAT, now) is None


def test_after_its_ejection_it_is_not_held_against_it_and_it_starts_slowly() -> None:
    good, bad = group_of(2, HealthConfig(failures=1000, min_requests=1000, eject_s=5))
    for _ in range(20):
        ask(good, True, 5.0)
        ask(bad, False, 5.0)
    ask(bad, False, 6.5)  # a group is judged at most once a second
    assert bad.reason(CHAT, 6.5) == EJECTED
    assert bad.state(6.5) == EJECTED
    back = bad.ejection.until
    assert bad.reason(CHAT, back) is None
    assert bad.ramp(CHAT, back) == pytest.approx(0.1)
    assert bad.ramp(CHAT, back + 15) == pytest.approx(0.5)
    assert bad.ramp(CHAT, back + 30) == pytest.approx(1.0)
    ask(bad, False, back)
    assert bad.reason(CHAT, back) is None, "though twenty failures are within the window"
    ask(bad, True, back + 31)
    assert bad.quiet


def test_a_breaker_is_for_one_operation() -> None:
    health = Health(DEFAULT)
    for _ in range(5):
        ask(health, False, 0.0)
    assert health.reason(CHAT, 1.0) == "breaker_open"
    assert health.reason(Operation.EMBEDDINGS, 1.0) is None


def test_health_can_be_turned_off() -> None:
    health = Health(HealthConfig(enabled=False))
    for _ in range(50):
        ask(health, False, 0.0)
    assert health.reason(CHAT, 0.0) is None
    assert health.quiet


def test_one_that_is_ejected_can_be_looked_at_where_nobody_starts_slowly() -> None:
    health = Health(HealthConfig(slow_start_s=0))
    health.settle(health.begin(Operation.CHAT_COMPLETIONS, 0.0, 1.0), "succeeded", 0.0, 1.0)
    health.eject(1.0, 1.0)
    assert health.observe(2.0)["state"] == EJECTED
