"""The breaker's laws: nothing shortens it, at most one probe, what is stale or neutral decides nothing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spear.config import HealthConfig
from spear.router.health import Breaker, Trial, Window

DEFAULT = HealthConfig()
EVEN = 1.0
JITTERS = st.floats(0.8, 1.2)


def fail(breaker: Breaker, now: float, times: int = 1) -> None:
    for _ in range(times):
        breaker.failed(breaker.begin(now, EVEN), now, EVEN)


def succeed(breaker: Breaker, now: float, times: int = 1) -> None:
    for _ in range(times):
        breaker.succeeded(breaker.begin(now, EVEN), now)


def opened(now: float = 100.0) -> Breaker:
    breaker = Breaker(DEFAULT)
    fail(breaker, now, 5)
    assert breaker.state(now) == "open"
    return breaker


# --- closed -> open ------------------------------------------------------------------------------------------------


def test_five_failures_in_a_row_open_it_and_four_do_not() -> None:
    breaker = Breaker(HealthConfig(min_requests=1000))
    fail(breaker, 0.0, 4)
    succeed(breaker, 0.0)
    fail(breaker, 0.0, 4)
    assert breaker.admits(0.0)
    fail(breaker, 0.0)
    assert breaker.state(0.0) == "open"
    assert not breaker.admits(4.99)
    assert breaker.admits(5.0)


def test_less_than_four_fifths_of_at_least_five_open_it() -> None:
    breaker = Breaker(DEFAULT)
    succeed(breaker, 0.0, 3)
    fail(breaker, 0.0)
    assert breaker.admits(0.0), "4 are too few to judge"
    succeed(breaker, 0.0)
    assert breaker.admits(0.0), "4 of 5 are four fifths"
    fail(breaker, 0.0)
    assert not breaker.admits(0.0), "4 of 6 are less"


def test_failures_that_are_long_ago_do_not_count() -> None:
    breaker = Breaker(HealthConfig(failures=1000))
    fail(breaker, 0.0, 4)
    succeed(breaker, 31.0, 4)
    fail(breaker, 31.0)
    assert breaker.admits(31.0), "4 of 5 within the window"


# --- open -> half-open -> closed -----------------------------------------------------------------------------------


def test_half_open_lets_one_through_and_two_successes_close() -> None:
    breaker = opened(100.0)
    assert breaker.state(105.0) == "half_open"
    probe = breaker.begin(105.0, EVEN)
    assert probe.probe
    assert not breaker.admits(105.0)
    assert 105.0 < breaker.recovers_at(105.0) <= 106.0
    breaker.succeeded(probe, 105.5)
    assert breaker.state(105.5) == "half_open"
    succeed(breaker, 105.5)
    assert breaker.state(105.5) == "closed"


def test_a_failed_probe_opens_it_for_twice_as_long_up_to_the_longest() -> None:
    breaker, now, lengths = opened(0.0), 0.0, []
    for _ in range(9):
        now = breaker.until
        fail(breaker, now)
        lengths.append(breaker.until - now)
    assert lengths == [10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0, 300.0, 300.0]


def test_a_probe_that_never_answers_has_failed_at_its_deadline() -> None:
    breaker = opened(0.0)
    probe = breaker.begin(5.0, EVEN)
    assert not breaker.admits(34.9)
    assert not breaker.admits(35.0), "overdue: open again"
    assert breaker.state(35.0) == "open"
    assert breaker.recovers_at(35.0) == pytest.approx(45.0)
    assert breaker.admits(45.0)
    breaker.neutral(probe, 36.0)
    assert (breaker.until, breaker.times, breaker.opened) == (45.0, 2, 2)
    breaker.succeeded(probe, 46.0)
    assert breaker.state(46.0) == "half_open", "an answer after that decides nothing"
    succeed(breaker, 46.0, 2)
    assert breaker.closed


def test_a_neutral_probe_gives_its_place_back() -> None:
    breaker = opened(0.0)
    breaker.neutral(breaker.begin(5.0, EVEN), 6.0)
    assert breaker.begin(6.0, EVEN).probe


def test_a_probe_is_proved_by_its_first_content_and_may_still_fail() -> None:
    breaker = opened(0.0)
    probe = breaker.begin(5.0, EVEN)
    breaker.proved(probe, 5.1)
    assert breaker.admits(5.1)
    breaker.failed(probe, 6.0, EVEN)
    assert breaker.state(6.0) == "open"


def test_a_flapping_backend_is_asked_less_and_less_often() -> None:
    breaker, now, lengths = Breaker(DEFAULT), 0.0, []
    for _ in range(7):
        fail(breaker, now, 5)
        lengths.append(breaker.until - now)
        now = breaker.until
        succeed(breaker, now, 2)
        now += 1.0
    assert lengths == [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0]
    now += 301.0
    fail(breaker, now, 5)
    assert breaker.until - now == pytest.approx(5.0), "after a long good time it begins anew"


def test_what_was_sent_before_decides_nothing_but_may_prolong() -> None:
    breaker = Breaker(DEFAULT)
    stale = [breaker.begin(0.0, EVEN) for _ in range(60)]
    fail(breaker, 0.0, 5)
    until = breaker.until
    for trial in stale[:20]:
        breaker.succeeded(trial, 1.0)
    assert (breaker.state(1.0), breaker.until, breaker.times) == ("open", until, 1)
    for trial in stale[20:40]:
        breaker.failed(trial, 2.0, EVEN)
    assert (breaker.until, breaker.times) == (7.0, 1), "prolonged, not escalated"
    succeed(breaker, 7.0, 2)
    for trial in stale[40:]:
        breaker.failed(trial, 8.0, EVEN)
    assert breaker.closed


def test_a_clock_that_jumps_ahead_ends_the_wait_and_forgets_the_window() -> None:
    breaker = opened(0.0)
    probe = breaker.begin(5.0, EVEN)
    jump = 1e7
    assert breaker.state(jump) == "half_open"
    breaker.succeeded(probe, jump)
    succeed(breaker, jump, 2)
    fail(breaker, jump, 4)
    assert breaker.state(2 * jump) == "closed"


# --- laws ----------------------------------------------------------------------------------------------------------

EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["begin", "force", "succeeded", "failed", "neutral", "proved", "ask"]),
        st.one_of(st.just(0.0), st.floats(0.0, 20.0), st.floats(0.0, 1e6)),  # how much later, jumps included
        st.integers(0, 10),  # which of the open requests
        JITTERS,
    ),
    max_size=120,
)


@given(EVENTS)
@settings(max_examples=300, deadline=None)
def test_whatever_happens(events: list[tuple[str, float, int, float]]) -> None:
    breaker = Breaker(DEFAULT)
    now, until = 0.0, 0.0
    out: list[tuple[Trial, float]] = []
    for event, later, which, jitter in events:
        now += later
        admits = breaker.admits(now)
        if not admits:
            assert breaker.recovers_at(now) > now
            assert breaker.recovers_at(now) <= now + 360.0, "never longer than the longest, with its jitter"
        match event:
            case "begin" | "force":
                if admits or event == "force":
                    half_open = breaker.state(now) == "half_open"
                    trial = breaker.begin(now, jitter)
                    assert trial.probe == (admits and half_open)
                    out.append((trial, now))
            case "ask":
                assert breaker.admits(now) == admits
            case _ if out:
                trial, _ = out[which % len(out)]
                if event != "proved":
                    out.remove(out[which % len(out)])
                match event:
                    case "succeeded":
                        breaker.succeeded(trial, now)
                    case "failed":
                        breaker.failed(trial, now, jitter)
                    case "proved":
                        breaker.proved(trial, now)
                    case _:
                        breaker.neutral(trial, now)
        assert breaker.until >= until, "an open breaker is never shortened"
        until = breaker.until
        probes = [t for t, sent in out if t.probe and not t.proved and t.epoch == breaker._epoch and now < sent + 30.0]
        assert len(probes) <= 1, "at most one probe"


@given(st.lists(st.tuples(st.floats(0.0, 100.0), st.booleans()), max_size=200))
def test_neutral_ends_and_successes_never_open_it(events: list[tuple[float, bool]]) -> None:
    breaker, now = Breaker(DEFAULT), 0.0
    for later, neutral in events:
        now += later
        trial = breaker.begin(now, EVEN)
        if neutral:
            breaker.neutral(trial, now)
        else:
            breaker.succeeded(trial, now)
        assert breaker.closed


@given(JITTERS)
def test_how_long_it_is_open(jitter: float) -> None:
    breaker = Breaker(DEFAULT)
    for _ in range(5):
        breaker.failed(breaker.begin(0.0, jitter), 0.0, jitter)
    assert breaker.until == pytest.approx(5.0 * jitter)


@given(st.lists(st.tuples(st.floats(0.0, 40.0), st.booleans()), max_size=300))
def test_the_window_counts_what_is_recent_and_stays_small(events: list[tuple[float, bool]]) -> None:
    window, now = Window(30.0), 0.0
    seen: list[tuple[float, bool]] = []
    for later, ok in events:
        now += later
        window.add(ok, now)
        seen.append((now, ok))
        surely = [ok for at, ok in seen if at > now - 27.0]
        perhaps = [ok for at, ok in seen if at > now - 30.0]
        assert surely.count(True) <= window.ok <= perhaps.count(True)
        assert surely.count(False) <= window.failed <= perhaps.count(False)
        assert len(window._buckets) <= 10
