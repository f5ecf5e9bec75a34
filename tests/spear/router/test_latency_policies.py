"""The laws of the policies that go by latency."""

from __future__ import annotations

from collections import Counter, deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spear.router._draws import Draws
from spear.router._latency import Estimate, Latency, Timing
from tests.spear.router.still import FACTS, Still, choose, named, run, took

BOTH = ("ewma_latency", "peak_ewma")
both = pytest.mark.parametrize("policy", BOTH)
seeds = st.integers(0, 2**64 - 1)
times = st.floats(0.001, 60)


@both
@given(first=times, second=times, seed=seeds)
@settings(deadline=None)
def test_the_faster_of_two_idle_ones_wins(policy: str, first: float, second: float, seed: int) -> None:
    pair = [Still("a", known=took(first)), Still("b", known=took(second))]
    chosen = pair[choose(policy, pair, seed=seed).position]
    assert chosen.known.mean == min(first, second)


@both
@given(seconds=times, weight=st.integers(2, 100), seed=seeds)
@settings(deadline=None)
def test_the_weight_divides(policy: str, seconds: float, weight: int, seed: int) -> None:
    """Twice the weight makes up for up to twice the time."""
    light = Still("light", known=took(seconds))
    for slower, wins in ((0.9, "heavy"), (1.1, "light")):
        heavy = Still("heavy", weight, known=took(seconds * weight * slower))
        pair = [light, heavy]
        assert pair[choose(policy, pair, seed=seed).position].name == wins


@given(seconds=times, loads=st.tuples(st.integers(0, 50), st.integers(0, 50)), seed=seeds)
@settings(deadline=None)
def test_peak_ewma_takes_what_is_in_hand_into_account(seconds: float, loads: tuple[int, int], seed: int) -> None:
    pair = [Still(name, load=load, known=took(seconds)) for name, load in zip("ab", loads, strict=True)]
    assert loads[choose("peak_ewma", pair, seed=seed).position] == min(loads)


def test_ewma_latency_goes_by_the_mean_and_peak_ewma_by_the_peak() -> None:
    spiky, steady = Still("spiky", known=Estimate(0.1, 3.0, 0, -999)), Still("steady", known=took(0.2))
    assert set(run("ewma_latency", [spiky, steady], 50)) == {"spiky"}
    assert set(run("peak_ewma", [spiky, steady], 50)) == {"steady"}


@both
@pytest.mark.parametrize("known", [None, took(0.2)])
@pytest.mark.parametrize("count", [2, 3, 10])
def test_nobody_is_pinned_under_ties_of_latency(policy: str, known: Estimate | None, count: int) -> None:
    candidates = named(*[3] * count)
    for each in candidates:
        each.known = known
    counts = Counter(run(policy, candidates, 3000))
    assert len(counts) == count
    assert max(counts.values()) < 3000 / count * 1.5


@given(weights=st.tuples(st.integers(1, 5), st.integers(1, 5)))
@settings(max_examples=20, deadline=None)
def test_a_burst_among_equals_spreads_by_weight(weights: tuple[int, int]) -> None:
    pair = named(*weights)
    for each in pair:
        each.known = took(0.2)
    for seed in range(sum(weights) * 10):
        pair[choose("peak_ewma", pair, seed=seed).position].load += 1
    assert [each.load for each in pair] == [weight * 10 for weight in weights]


@both
@given(seed=seeds)
@settings(deadline=None)
def test_of_a_hundred_two_are_looked_at(policy: str, seed: int) -> None:
    many = [Still(str(i), known=took(0.1 + i)) for i in range(100)]
    choice = choose(policy, many, seed=seed)
    assert sum(score is not None for score in choice.scores) == 2
    assert choice.position != 99, "the slowest of all never wins"
    assert choice.note == "power of two choices among 100"


# --- what is not known, or not any more ---


@both
@given(seconds=times, seed=seeds)
@settings(deadline=None)
def test_one_of_whom_nothing_is_known_is_asked_once_and_then_waited_for(policy: str, seconds: float, seed: int) -> None:
    pair = [Still("new"), Still("old", known=took(seconds))]
    assert pair[choose(policy, pair, seed=seed).position].name == "new"
    pair[0].load = 1
    assert pair[choose(policy, pair, seed=seed).position].name == "old"


@both
def test_an_estimate_fades_towards_the_better_one_and_never_below_it(policy: str) -> None:
    def score_of_failed(age: float) -> float:
        pair = [Still("failed", known=took(5.0)), Still("good", known=took(0.2, at=age))]
        choice = choose(policy, pair, now=age)
        assert pair[choice.position].name == "good"
        return choice.scores[0]

    scores = [score_of_failed(age) for age in (0, 10, 30, 60, 89)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] == pytest.approx(5.0)
    assert 0.2 < scores[-1] < 0.5


@both
def test_after_three_taus_one_call_finds_out_anew(policy: str) -> None:
    pair = [Still("failed", known=took(5.0)), Still("good", known=took(0.2, at=91))]
    assert choose(policy, pair, now=91).position == 0
    assert choose(policy, pair, now=91, tau=60.0).position == 1, "tau is the route's"
    pair[0].load = 1
    assert choose(policy, pair, now=91).position == 1


@both
def test_a_new_one_grows_into_its_share(policy: str) -> None:
    """As fast as the other, but known for a moment only."""

    def score_of_new(age: float) -> float:
        pair = [Still("new", known=took(0.2, at=age, since=0.0)), Still("old", known=took(0.2, at=age))]
        return choose(policy, pair, now=age).scores[0]

    assert [round(score_of_new(age), 3) for age in (0, 3, 15, 30, 300)] == [2.0, 2.0, 0.4, 0.2, 0.2]


# --- over time: servers that are modelled, time that is counted ---


class Modelled(Still):
    """A server that takes `takes` seconds; a failing one fails at once."""

    def __init__(self, name: str, takes: float) -> None:
        super().__init__(name)
        self.takes, self.fails = takes, False
        self.latency = Latency()
        self.served: list[float] = []

    def estimate(self, timing: Timing, tau: float) -> Estimate | None:
        return self.latency.estimate(tau)


def simulate(policy: str, servers: list[Modelled], start: float, end: float, every: float = 0.01) -> Counter[str]:
    """A request each `every` seconds; how many each server got."""
    running: deque[tuple[float, Modelled, float]] = deque()
    counts: Counter[str] = Counter()
    draws = Draws(int(start * 1000) + 1)
    for tick in range(int((end - start) / every)):
        now = start + tick * every
        for item in sorted((item for item in running if item[0] <= now), key=lambda item: item[0]):
            running.remove(item)
            done, server, began = item
            server.load -= 1
            if server.fails:
                server.latency.failed(done - began, done)
            else:
                server.latency.answered(done - began, done)
        server = servers[choose(policy, servers, seed=draws.bits(), now=now).position]
        server.load += 1
        server.served.append(now)
        counts[server.name] += 1
        running.append((now + (0.001 if server.fails else server.takes), server, now))
    for _, server, _ in running:
        server.load -= 1
    return counts


@both
def test_a_server_that_fails_fast_attracts_nothing(policy: str) -> None:
    """Elsewhere the fastest to fail looks the fastest, and the least busy."""
    servers = [Modelled(name, 0.1) for name in "abc"]
    servers[0].fails = True
    counts = simulate(policy, servers, 0, 60)
    assert counts["a"] < 0.05 * sum(counts.values())


def test_a_recovered_server_is_not_flooded_and_comes_back() -> None:
    servers = [Modelled(name, 0.1) for name in "abcd"]
    simulate("peak_ewma", servers, 0, 40)
    servers[0].fails = True
    down = simulate("peak_ewma", servers, 40, 80)
    assert down["a"] < 0.05 * sum(down.values())
    servers[0].fails = False
    shares = []
    for start in range(80, 320, 30):
        counts = simulate("peak_ewma", servers, start, start + 30)
        shares.append(counts["a"] / sum(counts.values()))
    assert max(shares) < 0.35, "a fair share is a quarter"
    assert shares[0] < 0.15
    assert shares[-1] > 0.15


def test_a_new_server_is_not_flooded() -> None:
    servers = [Modelled(name, 0.1) for name in "abc"]
    simulate("peak_ewma", servers, 0, 60)
    servers.append(Modelled("new", 0.1))
    first = simulate("peak_ewma", servers, 60, 61)
    assert 1 <= first["new"] <= 0.15 * sum(first.values())
    later = [simulate("peak_ewma", servers, start, start + 10)["new"] / 1000 for start in range(61, 141, 10)]
    assert max(later) < 0.35
    assert later[-1] > 0.15


@both
def test_a_server_that_slows_down_loses_its_share(policy: str) -> None:
    servers = [Modelled(name, 0.1) for name in "abcd"]
    simulate(policy, servers, 0, 60)
    servers[2].takes = 2.0
    counts = simulate(policy, servers, 60, 120)
    assert counts["c"] < 0.1 * sum(counts.values())


def test_a_server_that_hangs_holds_up_one_call_at_a_time() -> None:
    servers = [Modelled("b", 0.1), Modelled("c", 0.1)]
    simulate("peak_ewma", servers, 0, 10)
    servers.append(Modelled("hangs", 10_000.0))
    assert simulate("peak_ewma", servers, 10, 60)["hangs"] == 1


def test_the_simulated_requests_are_streamed_or_not_like_the_facts() -> None:
    assert FACTS.timing == (FACTS.operation, False)
    assert FACTS._replace(features=("supports_stream",)).timing == (FACTS.operation, True)
