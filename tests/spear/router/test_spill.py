"""The laws of priority with a proportional spill."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spear.config import Route
from spear.router import POLICIES, Memory, decide, facts_of
from spear.router.policies._priority import _shares
from tests.spear.router.still import Still, choose, run
from tests.spear.router.world import StillRef, chat, instance, still_generation


def shares(here: dict[int, int], standing: dict[int, int]) -> dict[int, float]:
    return dict(_shares([Still(str(number), weight, number) for number, weight in here.items()], standing))


@pytest.mark.parametrize(
    ("here", "standing", "expected"),
    [
        ({0: 100, 1: 100}, {0: 100, 1: 100}, {0: 1.0}),
        ({0: 72, 1: 100}, {0: 100, 1: 100}, {0: 1.0}),  # 72 % x 1.4 is more than all
        ({0: 50, 1: 100}, {0: 100, 1: 100}, {0: 0.7, 1: 0.3}),
        ({0: 25, 1: 25}, {0: 100, 1: 100}, {0: 0.5, 1: 0.5}),  # 35 % each, scaled up
        ({1: 100}, {0: 100, 1: 100}, {1: 1.0}),
        ({0: 10, 1: 10, 2: 100}, {0: 100, 1: 100, 2: 100}, {0: 0.14, 1: 0.14, 2: 0.72}),
        ({0: 100}, {}, {0: 1.0}),
    ],
)
def test_shares_of_the_levels(here: dict[int, int], standing: dict[int, int], expected: dict[int, float]) -> None:
    assert shares(here, standing) == pytest.approx(expected)


@given(
    here=st.dictionaries(st.integers(-3, 3), st.integers(1, 1000), min_size=1),
    standing=st.dictionaries(st.integers(-3, 3), st.integers(0, 3000)),
)
@settings(deadline=None)
def test_shares_add_up_and_a_level_that_is_whole_leaves_nothing(here: dict[int, int], standing: dict[int, int]) -> None:
    found = shares(here, standing)
    assert sum(found.values()) == pytest.approx(1)
    for number in found:
        better = [n for n in here if n < number]
        assert all(here[n] * 1.4 < standing.get(n, 0) for n in better)


def test_requests_follow_the_shares() -> None:
    candidates = [Still("a", 50, 0), Still("z", 100, 1)]
    counts = Counter(run("priority", candidates, 4000, spill="proportional", standing={0: 100, 1: 100}))
    assert abs(counts["a"] - 2800) < 5 * (4000 * 0.7 * 0.3) ** 0.5
    note = choose("priority", candidates, spill="proportional", standing={0: 100, 1: 100}).note
    assert note.startswith(("level 0 of 1 with 70%, ", "level 1 of 1 with 30%, "))


def test_each_level_keeps_its_own_turns() -> None:
    candidates = [Still("a", 5), Still("b", 1), Still("c", 1), Still("y", 1, 1), Still("z", 1, 1)]
    picked = run("priority", candidates, 400, spill="proportional", standing={0: 14, 1: 2})
    first = "".join(name for name in picked if name in "abc")
    second = "".join(name for name in picked if name in "yz")
    assert first.startswith("aabacaa" * 10)
    assert second.startswith("yz" * 20)


def test_a_failure_is_settled_in_its_own_level() -> None:
    policy = POLICIES["priority"]
    candidates = [Still("a", 64), Still("y", 64, 1), Still("z", 64, 1)]
    state = None
    for seed in range(20):
        state = choose("priority", candidates, state, seed, spill="proportional", standing={0: 128}).state
    assert len(state) == 2
    settled = policy.settle(state, 1)
    assert settled[0] == state[0]
    assert settled[1].state.effective == (32, 64)


def levels_chosen(down: int, *, exclude: frozenset[str] = frozenset(), **fields: object) -> Counter[int]:
    """Which level takes requests while `down` of the first level's four instances do not run."""
    backends = [instance(f"a{i}", priority=0) for i in range(4)] + [instance(f"b{i}", priority=1) for i in range(4)]
    generation = still_generation(*backends, routes=(Route(policy="priority", spill="proportional"),))
    for each in generation.instances[:down]:
        each.ref = StillRef("backing_off")
    memory, counts = Memory(), Counter()
    for seed in range(1000):
        facts = facts_of(chat(**fields))
        plan, change = decide(generation, generation.instances, facts, memory, seed, 0.0, exclude=exclude)
        memory.apply(change)
        counts[plan.chosen.priority] += 1
    return counts


def test_a_decision_knows_who_is_down() -> None:
    assert levels_chosen(0) == {0: 1000}
    assert levels_chosen(1) == {0: 1000}
    half = levels_chosen(2)
    assert abs(half[0] - 700) < 5 * (1000 * 0.7 * 0.3) ** 0.5
    assert levels_chosen(4) == {1: 1000}


def test_one_that_was_tried_is_not_down() -> None:
    assert levels_chosen(0, exclude=frozenset({"a0", "a1"})) == {0: 1000}


def test_what_a_request_does_not_prefer_is_not_down() -> None:
    assert levels_chosen(0, requirements={"preferred_backends": ("a0", "b0")}) == {0: 1000}
    assert levels_chosen(1, requirements={"preferred_backends": ("a0", "a1", "b0")})[0] < 900


def test_without_a_spill_in_the_route_it_is_strict() -> None:
    candidates = [Still("a", 1, 0), Still("z", 100, 1)]
    assert set(run("priority", candidates, 50, standing={0: 1000, 1: 1})) == {"a"}
