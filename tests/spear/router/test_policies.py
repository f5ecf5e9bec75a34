"""The laws of each policy, on candidates that stand still."""

from __future__ import annotations

from collections import Counter
from math import gcd

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spear.config import Price
from spear.router import POLICIES, Memory
from spear.router._draws import Draws
from spear.router._facts import Affinity, Facts
from spear.router._latency import Estimate
from spear.router.policies import WITHIN_LEVEL, Change
from tests.spear.router.still import FACTS, Still, choose, named, run

weights = st.lists(st.integers(1, 50), min_size=1, max_size=8)
candidates = st.lists(
    st.builds(
        Still,
        st.text("abcdef", min_size=1, max_size=6),
        st.integers(1, 1000),
        st.integers(-2, 2),
        st.integers(0, 20),
        st.none() | st.builds(Estimate, st.floats(0, 50), st.floats(0, 50), st.floats(0, 99), st.floats(0, 99)),
        st.none() | st.builds(Price, input=st.floats(0, 9), output=st.floats(0, 9)),
    ),
    min_size=1,
    max_size=12,
    unique_by=lambda each: each.name,
)
facts = st.builds(
    lambda affinity, features: FACTS._replace(affinity=Affinity(*affinity), features=features),
    st.tuples(*[st.none() | st.integers(0, 2**64 - 1)] * 3),
    st.sampled_from([(), ("supports_stream",)]),
)
options = st.fixed_dictionaries(
    {
        "within_level": st.sampled_from(WITHIN_LEVEL),
        "spill": st.sampled_from(["strict", "proportional"]),
        "standing": st.dictionaries(st.integers(-2, 2), st.integers(0, 5000)),
        "tau": st.floats(0.1, 1000),
        "load_bound": st.floats(1.001, 100),
    }
)
law = given(candidates=candidates, seed=st.integers(0, 2**64 - 1), facts=facts, options=options, now=st.floats(0, 500))


@pytest.mark.parametrize("policy", POLICIES)
@law
@settings(deadline=None)
def test_every_choice_is_one_of_the_candidates_and_repeatable(
    policy: str, candidates: list[Still], seed: int, facts: Facts, options: dict[str, object], now: float
) -> None:
    first, again = (choose(policy, candidates, seed=seed, facts=facts, now=now, **options) for _ in range(2))
    assert first == again
    assert 0 <= first.position < len(candidates)
    assert len(first.scores) == len(candidates)
    assert first.scores[first.position] is not None
    assert first.state is None or POLICIES[policy].remembers, "what it remembers would be lost"


@pytest.mark.parametrize("policy", POLICIES)
@law
@settings(deadline=None)
def test_the_chosen_one_has_the_best_score(
    policy: str, candidates: list[Still], seed: int, facts: Facts, options: dict[str, object], now: float
) -> None:
    if "weighted_random" in (policy, options["within_level"]):
        return  # its scores are the weights, and chance decides
    choice = choose(policy, candidates, seed=seed, facts=facts, now=now, **options)
    scores = [score for score in choice.scores if score is not None]
    best = min(scores) if choice.best == "lowest" else max(scores)
    assert choice.scores[choice.position] == best


@pytest.mark.parametrize("policy", POLICIES)
@law
@settings(deadline=None)
def test_a_state_is_never_changed_in_place(
    policy: str, candidates: list[Still], seed: int, facts: Facts, options: dict[str, object], now: float
) -> None:
    state = choose(policy, candidates, seed=seed, facts=facts, now=now, **options).state
    before = repr(state)
    choose(policy, candidates, state, seed, facts=facts, now=now, **options)
    settle = POLICIES[policy].settle
    if settle is not None:
        settle(state, 0)
    assert repr(state) == before
    hash(state)


# --- weighted_round_robin and round_robin -------------------------------------------------------------------


def test_smooth_order() -> None:
    assert "".join(run("weighted_round_robin", named(5, 1, 1), 14)) == "aabacaa" * 2


@given(weights=weights, periods=st.integers(1, 2))
@settings(max_examples=50, deadline=None)
def test_over_a_period_shares_are_exactly_the_weights(weights: list[int], periods: int) -> None:
    unit = gcd(*weights)
    rounds = sum(weights) // unit * periods
    counts = Counter(run("weighted_round_robin", named(*weights), rounds))
    assert [counts[each.name] for each in named(*weights)] == [weight // unit * periods for weight in weights]


@given(count=st.integers(2, 8), rounds=st.integers(1, 40))
@settings(deadline=None)
def test_round_robin_takes_turns_whatever_the_weights(count: int, rounds: int) -> None:
    picked = run("round_robin", named(*range(1, count + 1)), rounds)
    assert picked == ["abcdefgh"[i % count] for i in range(rounds)]


@given(weights=weights)
@settings(deadline=None)
def test_nobody_falls_more_than_a_period_behind(weights: list[int]) -> None:
    """Smooth: at any moment everybody is within the number of candidates of the exact share."""
    picked = run("weighted_round_robin", named(*weights), 60)
    counts: Counter[str] = Counter()
    for done, name in enumerate(picked, 1):
        counts[name] += 1
        for each in named(*weights):
            assert abs(counts[each.name] - done * each.weight / sum(weights)) <= len(weights)


def test_a_failure_lowers_the_share_and_it_creeps_back() -> None:
    policy = POLICIES["weighted_round_robin"]
    assert policy.settle is not None
    pair = named(64, 64)
    state = choose("weighted_round_robin", pair).state
    for _ in range(6):
        state = policy.settle(state, 0)
    counts: list[Counter[str]] = []
    for _ in range(3):
        picked = []
        for _ in range(40):
            choice = choose("weighted_round_robin", pair, state)
            state = choice.state
            picked.append(pair[choice.position].name)
        counts.append(Counter(picked))
    assert counts[0]["a"] < 20
    assert counts[2]["a"] == 20, "recovered"


@given(weights=weights, failures=st.lists(st.integers(0, 7), max_size=200))
@settings(deadline=None)
def test_effective_weights_stay_within_bounds(weights: list[int], failures: list[int]) -> None:
    policy = POLICIES["weighted_round_robin"]
    assert policy.settle is not None
    state = choose("weighted_round_robin", named(*weights)).state
    for position in failures:
        state = policy.settle(state, position % len(weights))
        assert all(0 <= e <= w for e, w in zip(state.effective, weights, strict=True))
        state = choose("weighted_round_robin", named(*weights), state).state
    for _ in range(20):
        state = choose("weighted_round_robin", named(*weights), state).state
    assert state.effective is None


@given(before=weights, after=weights)
@settings(deadline=None)
def test_a_state_of_other_weights_is_not_used(before: list[int], after: list[int]) -> None:
    state = choose("weighted_round_robin", named(*before)).state
    assert choose("weighted_round_robin", named(*after), state).position in range(len(after))


# --- weighted_random ----------------------------------------------------------------------------------------


@given(weights=st.lists(st.integers(1, 10), min_size=2, max_size=5))
@settings(max_examples=10, deadline=None)
def test_random_shares_follow_the_weights(weights: list[int]) -> None:
    rounds = 4000
    counts = Counter(run("weighted_random", named(*weights), rounds))
    for each in named(*weights):
        share = each.weight / sum(weights)
        # five standard deviations
        assert abs(counts[each.name] - rounds * share) < 5 * (rounds * share * (1 - share)) ** 0.5 + 1


# --- least_inflight -------------------------------------------------------------------------------------------


@given(candidates=st.lists(st.builds(Still, st.just("x"), st.integers(1, 9), st.just(0), st.integers(0, 9)),
                           min_size=1, max_size=4), seed=st.integers(0, 2**64 - 1))  # fmt: skip
@settings(deadline=None)
def test_up_to_four_all_are_compared(candidates: list[Still], seed: int) -> None:
    choice = choose("least_inflight", candidates, seed=seed)
    loads = [(each.load + 1) / each.weight for each in candidates]
    assert loads[choice.position] == min(loads)


@pytest.mark.parametrize("count", [2, 3, 4, 5, 10])
def test_nobody_is_pinned_under_ties(count: int) -> None:
    """Elsewhere equals go to the lowest index."""
    counts = Counter(run("least_inflight", named(*[3] * count), 2000))
    assert len(counts) == count
    assert max(counts.values()) < 2000 / count * 1.5


@given(seed=st.integers(0, 2**64 - 1), count=st.integers(5, 30))
@settings(deadline=None)
def test_of_many_two_different_ones_are_looked_at(seed: int, count: int) -> None:
    choice = choose("least_inflight", named(*[1] * min(count, 26)), seed=seed)
    assert sum(score is not None for score in choice.scores) == 2
    assert "power of two choices" in choice.note


@given(seed=st.integers(0, 2**64 - 1))
@settings(deadline=None)
def test_the_busiest_of_many_is_never_taken(seed: int) -> None:
    many = named(*[1] * 8)
    many[5].load = 9
    assert choose("least_inflight", many, seed=seed).position != 5


def test_least_inflight_spreads_a_burst_by_weight() -> None:
    trio = named(1, 2, 4)
    for seed in range(70):
        trio[choose("least_inflight", trio, seed=seed).position].load += 1
    assert [each.load for each in trio] == [10, 20, 40]


# --- priority -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("within", WITHIN_LEVEL)
@given(candidates=candidates, seed=st.integers(0, 2**64 - 1))
@settings(deadline=None)
def test_only_the_lowest_level_is_used(within: str, candidates: list[Still], seed: int) -> None:
    choice = choose("priority", candidates, seed=seed, within_level=within)
    assert candidates[choice.position].priority == min(each.priority for each in candidates)
    assert within in choice.note


def test_inside_a_level_the_other_policy_orders() -> None:
    levels = [Still("z", 9, priority=1), Still("a", 5), Still("b", 1), Still("c", 1)]
    assert "".join(run("priority", levels, 7)) == "aabacaa"


def test_a_state_of_another_policy_within_is_not_used() -> None:
    pair = named(5, 1)
    state = choose("priority", pair).state
    fresh = choose("priority", pair, within_level="round_robin")
    assert choose("priority", pair, state, within_level="round_robin") == fresh


def test_a_failure_inside_a_level_is_settled_there() -> None:
    policy = POLICIES["priority"]
    assert policy.settle is not None
    levels = [Still("z", 9, priority=1), Still("a", 64), Still("b", 64)]
    state = choose("priority", levels).state
    for _ in range(6):
        state = policy.settle(state, 1)
    (level,) = state
    assert level.state.effective[0] == 1
    assert policy.settle(state, 0) == state, "not of this level"


# --- memory ---------------------------------------------------------------------------------------------------


def test_memory_forgets_the_least_recently_used() -> None:
    memory = Memory(most=2)
    one, two, three = (("p", (i,)) for i in range(3))
    memory.apply(Change(one, 1))
    memory.apply(Change(two, 2))
    memory.apply(Change(one, 11))
    memory.apply(Change(three, 3))
    assert [memory.get(key) for key in (one, two, three)] == [11, None, 3]
    assert len(memory) == 2


# --- draws ----------------------------------------------------------------------------------------------------


def test_draws_are_splitmix64() -> None:
    """The published first outputs for seed 1234567."""
    draws = Draws(1234567)
    assert [draws.bits() for _ in range(3)] == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(seed=st.integers(), bound=st.integers(1, 2**40))
@settings(deadline=None)
def test_draws_stay_in_range(seed: int, bound: int) -> None:
    draws = Draws(seed)
    assert 0 <= draws.random() < 1
    assert 0 <= draws.below(bound) < bound
