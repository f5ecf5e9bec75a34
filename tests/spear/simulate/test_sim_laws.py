"""Laws that any simulation has to keep, whatever the router does."""

from __future__ import annotations

from itertools import islice, pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spear.simulate import run_variant
from spear.simulate._distribution import Distribution
from spear.simulate._histogram import Histogram
from spear.simulate._model import Bucket
from spear.simulate._scenario import Burst, Ramp, RateLimit, Traffic
from spear.simulate._tally import MOST_SLOTS, Tally
from spear.simulate._traffic import times
from tests.spear.simulate.small import conserved, read, run, text

# --- queues


def one_server(**more: str) -> dict[str, str]:
    """Backend a alone gets everything: b is drained."""
    drained = (
        "[[simulate.compare]]\nname = 'v'\nspear = { backends = [{ name = 'b', weight = 0 }], "
        "router = { max_inflight = 10000 }, health = { enabled = false } }\n"
    )
    return {"more": drained, **more}


def test_one_server_queues_as_mm1_does() -> None:
    """Half of the time busy, with exponential work: the mean time there is 1/(μ-λ) = 1/(10-5) s."""
    mean = "latency = { kind = 'exponential', mean = '100ms' }"
    written = text(8_000, 5, **one_server(a="concurrency = 1")).replace(
        'latency = { kind = "lognormal", median = "200ms", sigma = 0.4 }', mean, 1
    )
    result = run_variant(read(written), "v")
    conserved(result)
    assert result["ok"] == 8_000
    assert result["latency"]["mean"] == pytest.approx(0.2, rel=0.1)


def test_with_room_for_all_nobody_waits() -> None:
    result = run(1_500, 50, spear="[[spear.routes]]\npolicy = 'weighted_random'")
    conserved(result)
    assert result["latency"]["p50"] == pytest.approx(0.2, rel=0.07)
    assert result["calls"] == result["reached"] == result["ok"] == 1_500
    assert result["extra_load"] == 0
    assert result["cost"] == pytest.approx(1_500 * (200 * 1 + 200 * 2) / 1e6)
    assert result["told_cost"] == pytest.approx(result["cost"])


@pytest.mark.parametrize("policy", ["weighted_random", "weighted_round_robin"])
def test_shares_follow_weights(policy: str) -> None:
    weights = (
        f"[[simulate.compare]]\nname = 'v'\npolicy = '{policy}'\n"
        "spear = { backends = [{ name = 'a', weight = 30 }] }"
    )
    result = run(2_000, 50, more=weights)
    assert result["backends"]["a"]["share"] == pytest.approx(30 / 130, abs=0.04)


@pytest.mark.parametrize("stream", ["0", "1", "0.5"])
def test_nothing_gets_lost(stream: str) -> None:
    result = run(
        900,
        60,
        traffic=f"stream = {stream}\npatience = '1s'",
        a="concurrency = 4\nqueue = 10\nerrors = 0.2\nper_token = '1ms'\ncut_streams = 0.2",
        b="rate_limit = { requests = 100, per = '10s' }\nerrors = { share = 0.1, kind = 'connect' }\n"
        "events = [{ at = '5s', until = '9s', outage = 'refuse' }, { at = '10s', dead_keys = [''] }]",
        spear="router = { max_inflight = 16, max_queue = 4 }\nhealth = { enabled = false }",
    )
    conserved(result)
    assert result["left"]
    assert result["errors"]
    failed = {kind for backend in result["backends"].values() for kind in backend["failed"]}
    assert {"server", "connect", "rate_limit", "auth"} <= failed


def test_an_answer_that_nobody_waits_for_is_charged_as_far_as_it_came() -> None:
    slow = "patience = '1s'\noutput_tokens = 1000\ninput_tokens = 1000"
    result = run(
        50, 5, traffic=slow, a="per_token = '2ms'", b="per_token = '2ms'", spear="retries = { per_instance = 1 }"
    )  # fmt: skip
    assert result["left"] == 50
    # about half of the output, and all of the input
    assert result["cost"] == pytest.approx(50 * (1000 + 2 * 500) / 1e6, rel=0.1)
    assert result["told_cost"] == 0


def test_a_backend_that_hangs_is_left_by_the_first_event_clock() -> None:
    hang = "events = [{ at = '0s', outage = 'hang' }]"
    result = run(20, 5, a=hang, b=hang, traffic="timeout = '10s'")
    assert result["errors"] == {"timeout": 20}
    assert result["latency"]["max"] is None


def test_slow_answers_meet_the_first_event_clock() -> None:
    """A modelled backend keeps the clocks that an adapter has to keep."""
    clocks = ", ".join(f"{{ name = '{name}', timeouts = {{ first_event = '1s' }} }}" for name in "ab")
    result = run(
        200, 20, a="per_token = '10ms'", b="per_token = '10ms'",
        more=f"[[simulate.compare]]\nname = 'v'\nspear = {{ backends = [{clocks}], "
        "router = { max_attempts = 1 }, health = { enabled = false } }",
    )  # fmt: skip
    conserved(result)
    assert result["errors"] == {"timeout": 200}
    assert {kind for backend in result["backends"].values() for kind in backend["failed"]} == {"slow"}


def test_a_reload_takes_effect_at_its_time() -> None:
    change = (
        "[[simulate.compare]]\nname = 'v'\npolicy = 'weighted_random'\n"
        "reloads = [{ at = '10s', spear = { backends = [{ name = 'a', weight = 0 }] } }]"
    )
    result = run(2_000, 100, more=change)
    after = [row for row in result["over_time"] if row[0] >= 10]
    before = [row for row in result["over_time"] if row[0] + 1 <= 10]
    assert after
    assert all("a" not in row[8] for row in after)
    assert sum(row[8].get("a", 0) for row in before) > 300


def test_keys_of_one_account_share_what_the_backend_counts() -> None:
    keys = "".join(f"[[spear.credentials]]\nname = '{key}'\nenv = '{key.upper()}'\n" for key in "xyz")
    accounts = {"": 30, ", accounts = [['x', 'y']]": 20, ", accounts = [['z', 'x', 'y']]": 10}
    for said, most in accounts.items():
        result = run(
            200, 20, spear=keys, b="events = [{ at = '0s', outage = 'refuse' }]",
            a=f"rate_limit = {{ requests = 10, per = '1000s', by = 'key'{said} }}",
            more="[[simulate.compare]]\nname = 'v'\n"
            "spear = { backends = [{ name = 'a', credentials = ['x', 'y', 'z'] }] }",
        )  # fmt: skip
        assert result["backends"]["a"]["answers"] == most


# --- traffic


def first(traffic: Traffic, count: int) -> list[float]:
    return list(islice(times(traffic, Random(3)), count))


def test_constant_arrivals() -> None:
    assert first(Traffic(arrivals="constant", rate=4), 4) == pytest.approx([0.25, 0.5, 0.75, 1.0])


def test_poisson_arrivals() -> None:
    found = first(Traffic(rate=50), 20_000)
    gaps = [after - before for before, after in pairwise(found)]
    mean = sum(gaps) / len(gaps)
    assert mean == pytest.approx(1 / 50, rel=0.03)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    assert variance == pytest.approx(mean**2, rel=0.1)


@given(
    start=st.floats(0.5, 100), to=st.floats(0.5, 100), at=st.floats(0, 50), over=st.floats(0, 50),
    then=st.floats(0.5, 100), later=st.floats(0, 20),
)  # fmt: skip
def test_ramps_bring_as_many_as_their_integral_says(
    start: float, to: float, at: float, over: float, then: float, later: float
) -> None:
    ramps = (Ramp(at=at, rate=to, over=over), Ramp(at=at + over + later, rate=then))
    end = at + over + later + 10
    expected = at * start + over * (start + to) / 2 + later * to + 10 * then
    found = []
    for each in times(Traffic(arrivals="constant", rate=start, ramps=ramps), Random(1)):
        if each > end:
            break
        found.append(each)
    assert found == sorted(found)
    assert len(found) == pytest.approx(expected, abs=1.01)


def test_a_burst_comes_on_top_and_in_order() -> None:
    found = first(Traffic(arrivals="constant", rate=10, bursts=(Burst(at=1, requests=100, over=0.5),)), 120)
    assert found == sorted(found)
    assert sum(1 <= each < 1.5 for each in found) >= 100


# --- counting


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300), st.floats(0, 1))
def test_a_quantile_is_within_a_bucket_of_the_true_one(values: list[float], fraction: float) -> None:
    histogram = Histogram()
    for each in values:
        histogram.add(each)
    rank = max(1, -(-fraction * len(values) // 1))
    true = sorted(values)[min(len(values), int(rank)) - 1]
    assert histogram.quantile(fraction) == pytest.approx(true, rel=0.008, abs=1e-300)
    assert (histogram.least, histogram.most, histogram.count) == (min(values), max(values), len(values))


@given(st.lists(st.floats(0, 1e3)), st.lists(st.floats(0, 1e3)))
def test_merging_is_adding_all(left: list[float], right: list[float]) -> None:
    a, b, whole = Histogram(), Histogram(), Histogram()
    for each in left:
        a.add(each)
        whole.add(each)
    for each in right:
        b.add(each)
        whole.add(each)
    a.merge(b)
    assert list(a.cumulative()) == list(whole.cumulative())
    assert (a.count, a.least, a.most) == (whole.count, whole.least, whole.most)
    assert a.total == pytest.approx(whole.total)


def test_a_long_run_takes_no_more_room() -> None:
    tally = Tally()
    for number in range(10_000):
        tally.arrived(float(number))
        tally.answered(float(number), 0.3, "a", None)
    assert len(tally.slots) <= MOST_SLOTS
    assert sum(slot.arrivals for slot in tally.slots) == 10_000
    assert tally.width * len(tally.slots) >= 10_000


@given(
    requests=st.integers(1, 50), per=st.floats(0.1, 100), burst=st.integers(1, 60),
    gaps=st.lists(st.floats(0, 10), min_size=1, max_size=100),
)  # fmt: skip
def test_a_bucket_lets_no_more_through_than_it_says(requests: int, per: float, burst: int, gaps: list[float]) -> None:
    bucket, now, taken = Bucket(RateLimit(requests=requests, per=per, burst=burst), 0.0), 0.0, []
    for gap in gaps:
        now += gap
        wait = bucket.take(now, 1.0)
        if wait == 0:
            taken.append(now)
        else:
            assert bucket.take(now + wait * (1 + 1e-9) + 1e-9, 1.0) == 0
            now += wait * (1 + 1e-9) + 1e-9
            taken.append(now)
    for at, begin in enumerate(taken):
        for more, end in enumerate(taken[at:], 1):
            assert more <= burst + requests / per * (end - begin) + 1e-6


@pytest.mark.parametrize(
    ("distribution", "mean"),
    [
        (Distribution(kind="constant", value=2.0), 2.0),
        (Distribution(kind="uniform", low=1.0, high=3.0), 2.0),
        (Distribution(kind="exponential", mean=2.0), 2.0),
        (Distribution(kind="lognormal", median=2.0, sigma=0.5), 2.0 * 2.718281828 ** (0.5**2 / 2)),
        (Distribution(kind="pareto", minimum=1.0, alpha=3.0), 1.5),
        (Distribution(kind="constant", value=1.0, tail_share=0.1, tail_factor=11.0), 2.0),
    ],
)
def test_distributions_have_the_mean_they_should(distribution: Distribution, mean: float) -> None:
    rng, draw = Random(1), distribution.draws()
    assert sum(draw(rng) for _ in range(50_000)) / 50_000 == pytest.approx(mean, rel=0.03)
