"""How long an instance takes: what is remembered of it, and for how long."""

from __future__ import annotations

from math import exp

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spear.router._latency import FAILURE_S, Estimate, Latency

TAU = 30.0
seconds = st.floats(0.001, 100)
gaps = st.floats(0, 60)


def estimate(latency: Latency, tau: float = TAU) -> Estimate:
    found = latency.estimate(tau)
    assert found is not None
    return found


def test_nothing_is_known_at_first() -> None:
    latency = Latency()
    assert latency.estimate(TAU) is None
    assert latency.percentile(0.95) is None


def test_the_past_fades_with_tau() -> None:
    latency = Latency()
    latency.answered(1.0, 0.0)
    latency.answered(2.0, TAU)
    assert estimate(latency).mean == pytest.approx(2.0 - exp(-1))


def test_a_higher_sample_replaces_the_peak_at_once_and_a_lower_one_slowly() -> None:
    latency = Latency()
    latency.answered(1.0, 0.0)
    latency.answered(9.0, 0.001)
    assert estimate(latency).peak == pytest.approx(9.0)
    assert estimate(latency).mean < 1.01
    latency.answered(1.0, 0.002)
    assert estimate(latency).peak == pytest.approx(9.0, rel=0.001)
    latency.answered(1.0, 0.002 + TAU)
    assert estimate(latency).peak == pytest.approx(1.0 + 8 * exp(-1), rel=0.001)


@given(samples=st.lists(st.tuples(seconds, gaps), min_size=1, max_size=50))
@settings(deadline=None)
def test_the_mean_lies_among_the_samples_and_the_peak_not_below_it(samples: list[tuple[float, float]]) -> None:
    latency, now = Latency(), 0.0
    for sample, gap in samples:
        now += gap
        latency.answered(sample, now)
    taken = [sample for sample, _ in samples]
    found = estimate(latency)
    assert min(taken) * 0.999 <= found.mean <= max(taken) * 1.001
    assert found.mean * 0.999 <= found.peak <= max(taken) * 1.001
    assert found.at == now


def test_each_tau_has_its_own_average() -> None:
    latency = Latency((1.0, 100.0))
    latency.answered(1.0, 0.0)
    latency.answered(5.0, 2.0)
    assert estimate(latency, 1.0).mean > 4.4
    assert estimate(latency, 100.0).mean < 1.1
    assert latency.estimate(7.0) is None


def test_what_has_been_silent_for_three_taus_starts_again() -> None:
    latency = Latency()
    latency.answered(50.0, 0.0)
    latency.answered(1.0, 3 * TAU + 1)
    assert estimate(latency) == Estimate(1.0, 1.0, 3 * TAU + 1, 3 * TAU + 1)


@given(elapsed=st.floats(0, 100))
@settings(deadline=None)
def test_a_failure_is_never_fast(elapsed: float) -> None:
    latency = Latency()
    latency.answered(0.1, 0.0)
    latency.failed(elapsed, 1.0)
    assert estimate(latency).peak == max(elapsed, FAILURE_S)
    assert estimate(latency).mean > 0.1


def test_failures_are_no_answers_for_the_percentiles() -> None:
    latency = Latency()
    for _ in range(100):
        latency.failed(0.0, 0.0)
        latency.given_up(1.0, 0.0)
    assert latency.samples == 0


# --- what was given up says only that it would have taken longer ---


@given(known=seconds, elapsed=seconds)
@settings(deadline=None)
def test_given_up_counts_only_above_what_is_known(known: float, elapsed: float) -> None:
    latency = Latency()
    latency.answered(known, 0.0)
    before = estimate(latency)
    latency.given_up(elapsed, 10.0)
    after = estimate(latency)
    if elapsed > known:
        assert after.mean == pytest.approx(elapsed + (known - elapsed) * exp(-10 / TAU))
        assert after.peak == elapsed
    else:
        assert after == before


def test_given_up_does_not_lower_a_peak() -> None:
    latency = Latency()
    latency.answered(1.0, 0.0)
    latency.answered(9.0, 0.001)
    latency.given_up(2.0, 20.0)
    assert estimate(latency).peak == pytest.approx(9.0)
    assert estimate(latency).mean > 1.1


def test_given_up_by_one_of_whom_nothing_is_known() -> None:
    latency = Latency()
    latency.given_up(2.0, 20.0)
    assert estimate(latency).mean == pytest.approx(2.0)


# --- percentiles ---


def test_percentiles_need_twenty_answers() -> None:
    latency = Latency()
    for number in range(19):
        latency.answered(number, 0.0)
    assert latency.percentile(0.5) is None
    latency.answered(19, 0.0)
    assert latency.percentile(0.95) == 18


@given(samples=st.lists(seconds, min_size=20, max_size=600), fraction=st.floats(0.01, 1))
@settings(deadline=None)
def test_a_percentile_is_that_of_the_latest_answers(samples: list[float], fraction: float) -> None:
    latency, asked = Latency(), Latency()
    for sample in samples:
        latency.answered(sample, 0.0)
        asked.answered(sample, 0.0)
        asked.percentile(fraction)
    latest = samples[-256:]
    found = latency.percentile(fraction)
    assert found == asked.percentile(fraction), "whoever asks all the time hears the same"
    assert found in latest
    assert latency.samples == len(latest)
    assert sum(sample <= found for sample in latest) >= fraction * len(latest) - 1e-9
    assert sum(sample < found for sample in latest) < fraction * len(latest)
