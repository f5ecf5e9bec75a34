"""The laws of consistent_hash."""

from __future__ import annotations

from collections import Counter
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spear.router._draws import Draws
from spear.router._facts import Affinity, Facts
from tests.spear.router.still import FACTS, Still, choose

keys = st.integers(0, 2**64 - 1)
names = st.lists(st.text("abcdefgh", min_size=1, max_size=4), min_size=2, max_size=8, unique=True)


def keyed(key: int | None) -> Facts:
    return FACTS._replace(affinity=Affinity(session=key))


def owner(candidates: list[Still], key: int, **fields: object) -> str:
    return candidates[choose("consistent_hash", candidates, facts=keyed(key), **fields).position].name


def ten_thousand() -> list[int]:
    draws = Draws(7)
    return [draws.bits() for _ in range(10_000)]


@given(names=names, key=keys, order=st.randoms(), seeds=st.tuples(keys, keys))
@settings(deadline=None)
def test_a_key_stays_with_its_instance(names: list[str], key: int, order: object, seeds: tuple[int, int]) -> None:
    """Whatever the seed, the order of the candidates, and what is known of them."""
    candidates = [Still(name) for name in names]
    first = owner(candidates, key, seed=seeds[0])
    order.shuffle(candidates)
    assert owner(candidates, key, seed=seeds[1]) == first


@given(names=names, keys=st.lists(keys, min_size=1, max_size=50), weights=st.lists(st.integers(1, 9), min_size=8))
@settings(deadline=None)
def test_removing_one_moves_only_its_keys(names: list[str], keys: list[int], weights: list[int]) -> None:
    candidates = [Still(name, weight) for name, weight in zip(names, weights, strict=False)]
    gone = candidates[0].name
    left = [each for each in candidates if each.name != gone]
    for key in keys:
        before, after = owner(candidates, key), owner(left, key)
        assert after == before or before == gone


@given(names=names, key=keys)
@settings(deadline=None)
def test_its_order_is_the_order_of_fallback(names: list[str], key: int) -> None:
    candidates = [Still(name) for name in names]
    scores = choose("consistent_hash", candidates, facts=keyed(key)).scores
    expected = [each.name for _, each in sorted(zip(scores, candidates, strict=True), key=lambda pair: -pair[0])]
    tried = []
    while candidates:
        tried.append(owner(candidates, key))
        candidates = [each for each in candidates if each.name != tried[-1]]
    assert tried == expected


def test_shares_of_keys_follow_the_weights() -> None:
    candidates = [Still("a", 1), Still("b", 2), Still("c", 5)]
    counts = Counter(owner(candidates, key) for key in ten_thousand())
    for each in candidates:
        share = each.weight / 8
        # five standard deviations
        assert abs(counts[each.name] - 10_000 * share) < 5 * (10_000 * share * (1 - share)) ** 0.5


def test_the_keys_of_one_that_is_gone_go_to_the_others_by_weight() -> None:
    candidates = [Still("a", 4), Still("b", 1), Still("c", 3)]
    moved = [key for key in ten_thousand() if owner(candidates, key) == "a"]
    counts = Counter(owner(candidates[1:], key) for key in moved)
    assert counts["b"] / len(moved) == pytest.approx(0.25, abs=0.04)


def test_one_that_comes_takes_only_its_share() -> None:
    before = [Still("a"), Still("b"), Still("c")]
    moved = [key for key in ten_thousand() if owner(before, key) != owner([*before, Still("d")], key)]
    assert len(moved) / 10_000 == pytest.approx(0.25, abs=0.03)


def test_a_hot_key_does_not_bury_its_instance() -> None:
    candidates = [Still(name) for name in "abcd"]
    for seed in range(400):
        candidates[choose("consistent_hash", candidates, seed=seed, facts=keyed(1)).position].load += 1
    assert max(each.load for each in candidates) == ceil(1.25 * 400 / 4)
    assert min(each.load for each in candidates) > 0


@given(
    loads=st.lists(st.integers(0, 50), min_size=2, max_size=8),
    weights=st.lists(st.integers(1, 9), min_size=8),
    bound=st.floats(1.01, 5),
    key=keys,
)
@settings(deadline=None)
def test_nobody_gets_more_than_its_bound(loads: list[int], weights: list[int], bound: float, key: int) -> None:
    candidates = [Still("abcdefgh"[i], weights[i], load=load) for i, load in enumerate(loads)]
    choice = choose("consistent_hash", candidates, facts=keyed(key), load_bound=bound)
    taken = candidates[choice.position]
    whole = sum(each.weight for each in candidates)
    assert taken.load + 1 <= ceil(bound * (sum(loads) + 1) * taken.weight / whole + 1e-9)
    over = choice.scores.count(None)
    assert (f"{over} above" in choice.note) == (over > 0)


def test_which_keys_count_is_said_by_the_route() -> None:
    affinity = Affinity(session=None, task=2, prompt=3)
    facts = FACTS._replace(affinity=affinity)
    candidates = [Still(name) for name in "abcd"]
    by_task = choose("consistent_hash", candidates, facts=facts)
    by_prompt = choose("consistent_hash", candidates, facts=facts, hash_key=("prompt", "task"))
    assert (by_task.note, by_prompt.note) == ("by task", "by prompt")
    assert candidates[by_task.position].name == owner(candidates, 2)
    assert candidates[by_prompt.position].name == owner(candidates, 3)


@given(loads=st.lists(st.integers(0, 9), min_size=1, max_size=4), seed=keys)
@settings(deadline=None)
def test_without_a_key_it_is_least_inflight_and_says_so(loads: list[int], seed: int) -> None:
    candidates = [Still(str(i), load=load) for i, load in enumerate(loads)]
    choice = choose("consistent_hash", candidates, seed=seed, facts=FACTS._replace(affinity=Affinity()))
    assert loads[choice.position] == min(loads)
    assert choice.note == "no session or task or prompt to hash: least_inflight"
