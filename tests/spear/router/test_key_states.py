"""Keys by themselves: which is picked, when one cools, when one is dead, and what outlives a reload. Pure."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from spear.backends import Key
from spear.config import Config, Credential, KeysConfig
from spear.ir import ErrorCode, make_error
from spear.router.keys import KEYS_COOLING, KEYS_DEAD, KeyState, Pool, Ring, Trail
from spear.router.keys._pick import by_session, in_turn
from spear.router.keys._state import QuotaGroup
from spear.secrets import Secret

DEFAULT = KeysConfig()
WEIGHTS = st.lists(st.integers(1, 9), min_size=1, max_size=6)
SESSIONS = st.integers(0, 2**64 - 1)


def state(name: str, weight: int = 1, group: QuotaGroup | None = None) -> KeyState:
    return KeyState(Key(name, Secret(f"value of {name}")), group=group, weight=weight)


def states(weights: list[int]) -> list[KeyState]:
    return [state(f"k{number}", weight) for number, weight in enumerate(weights)]


# --- which one ------------------------------------------------------------------------------------------------------


@given(WEIGHTS, SESSIONS, st.data())
def test_a_key_that_goes_away_moves_only_its_own_sessions(
    weights: list[int], session: int, data: st.DataObject
) -> None:
    keys = states(weights)
    picked = keys[by_session(keys, session)]
    gone = data.draw(st.sampled_from(keys))
    left = [each for each in keys if each is not gone]
    if gone is not picked and left:
        assert left[by_session(left, session)] is picked


def test_sessions_are_shared_by_weight() -> None:
    keys = states([1, 3])
    found = Counter(by_session(keys, session * 0x9E3779B97F4A7C15 % 2**64) for session in range(8000))
    assert found[1] / 8000 == pytest.approx(0.75, abs=0.03)


@given(WEIGHTS)
def test_turns_are_exact_over_one_round(weights: list[int]) -> None:
    keys, wheel = states(weights), {}
    found = Counter(in_turn(keys, wheel) for _ in range(sum(weights)))
    assert [found[position] for position in range(len(weights))] == weights


def test_turns_are_smooth() -> None:
    keys, wheel = states([5, 1, 1]), {}
    assert "".join("abc"[in_turn(keys, wheel)] for _ in range(7)) == "aabacaa"


@given(WEIGHTS.filter(lambda weights: len(weights) > 1), st.lists(st.integers(0, 5), max_size=40))
def test_a_key_that_was_away_does_not_come_back_in_a_burst(weights: list[int], away: list[int]) -> None:
    """Whoever sits out gathers nothing: its place on the wheel is bounded by the sum of the weights."""
    keys, wheel = states(weights), {}
    for gone in away:
        left = [each for position, each in enumerate(keys) if position != gone]
        in_turn(left, wheel)
        assert all(abs(value) <= 2 * sum(weights) for value in wheel.values())


# --- cooling --------------------------------------------------------------------------------------------------------

WAITS = st.none() | st.floats(0, 200)


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 50), WAITS), max_size=30))
def test_cooling_is_never_shortened(limits: list[tuple[float, float, float | None]]) -> None:
    group, now = QuotaGroup(), 0.0
    for later, took, wait in limits:
        now += later
        before = group.until
        group.cool(now - took, now, wait, DEFAULT)
        assert group.until >= before
        assert group.until >= now + (1.0 if wait is None else wait) or group.until == before
        assert group.until <= max(before, now + (60.0 if wait is None else wait))


def test_a_retry_after_is_exact_and_without_one_it_doubles_to_the_cap() -> None:
    group = QuotaGroup()
    group.cool(0.0, 10.0, 7.25, DEFAULT)
    assert group.until == pytest.approx(17.25, abs=0)
    group = QuotaGroup()
    waits, now = [], 0.0
    for _ in range(9):
        group.cool(now, now, None, DEFAULT)
        waits.append(group.until - now)
        now = group.until
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    group.answered(now)
    group.cool(now, now, None, DEFAULT)
    assert group.until - now == 1


def test_the_refusals_of_one_burst_count_once() -> None:
    group = QuotaGroup()
    for number in range(50):
        group.cool(0.0, 1.0 + number / 1000, None, DEFAULT)
    assert group.times == 1
    assert group.until == pytest.approx(1.049 + 1.0)


def test_an_answer_to_what_was_out_before_says_nothing() -> None:
    group = QuotaGroup()
    group.cool(0.0, 1.0, None, DEFAULT)
    group.answered(0.5)
    assert group.times == 1
    assert group.until == pytest.approx(2.0)


def test_far_too_many_refusals_are_no_overflow() -> None:
    group, now = QuotaGroup(), 0.0
    for _ in range(5000):
        group.cool(now, now, None, DEFAULT)
        now = group.until
    assert math.isfinite(group.until)


# --- a pool ---------------------------------------------------------------------------------------------------------


def test_why_nobody_is_left() -> None:
    a, b = state("a"), state("b")
    pool = Pool([a, b])
    assert pool.reason(0.0) is None
    a.kill(None, 0.0, "no", DEFAULT)
    assert pool.reason(0.0) is None
    b.group.cool(0.0, 0.0, 5, DEFAULT)
    assert (pool.reason(1.0), pool.ready_at(1.0)) == (KEYS_COOLING, 5.0)
    assert pool.reason(5.0) is None
    b.kill(None, 5.0, "no", DEFAULT)
    assert (pool.reason(6.0), pool.ready_at(6.0)) == (KEYS_DEAD, math.inf)


def test_a_quota_group_cools_as_a_whole() -> None:
    group = QuotaGroup()
    a, b, c = state("a", group=group), state("b", group=group), state("c")
    a.group.cool(0.0, 0.0, 5, DEFAULT)
    assert [each.admits(1.0) for each in (a, b, c)] == [False, False, True]
    pool = Pool([a, b, c])
    assert not pool.ready_beside([c], 1.0)
    assert pool.ready_beside([a], 1.0)
    assert not Pool([a, b]).ready_beside([a], 6.0), "of the same group"


def test_another_key_is_preferred_but_not_at_any_price() -> None:
    a, b = state("a"), state("b")
    pool = Pool([a, b])
    assert {pool.take(object(), 7, 0.0, [a]) for _ in range(5)} == {b}
    b.group.cool(0.0, 0.0, 5, DEFAULT)
    assert pool.take(object(), 7, 1.0, [a]) is a


def test_one_trial_at_a_time() -> None:
    a = state("a")
    pool = Pool([a])
    a.kill(None, 0.0, "no", DEFAULT)
    assert pool.reason(599.0) == KEYS_DEAD
    assert pool.reason(600.0) is None
    first = object()
    assert pool.take(first, None, 600.0) is a
    assert pool.reason(601.0) == KEYS_DEAD
    a.release(first)
    assert pool.reason(602.0) is None, "the trial said nothing"
    second = object()
    pool.take(second, None, 602.0)
    assert not a.answered(object(), 0.0), "that was out since before"
    assert pool.reason(602.0) == KEYS_DEAD
    a.kill(second, 603.0, "still no", DEFAULT)
    assert (pool.reason(1202.0), pool.reason(1203.0)) == (KEYS_DEAD, None)
    third = object()
    pool.take(third, None, 1203.0)
    assert a.answered(third, 1203.0)
    assert (a.dead, pool.reason(1203.0)) == (None, None)


def test_what_is_sent_beside_requests_tries_nothing_out() -> None:
    a, b = state("a"), state("b")
    pool = Pool([a, b])
    a.kill(None, 0.0, "no", DEFAULT)
    assert pool.spare(601.0) == b.key
    b.group.cool(0.0, 601.0, 5, DEFAULT)
    assert pool.spare(602.0) is None
    assert a.trial is None


def test_a_dead_key_that_is_due_waits_for_its_quota() -> None:
    a = state("a")
    a.kill(None, 0.0, "no", DEFAULT)
    a.group.cool(0.0, 600.0, 30, DEFAULT)
    pool = Pool([a])
    assert (pool.reason(610.0), pool.ready_at(610.0)) == (KEYS_COOLING, 630.0)


def test_an_instance_is_open_again_only_after_a_refused_key() -> None:
    a, b = state("a"), state("b")

    @dataclass
    class Tried:
        pool: Pool | None

    tried = {"x": Tried(Pool([a, b])), "y": Tried(None)}
    trail = Trail()
    trail.failed("x", a, refused=True)
    assert trail.closed(tried, 0.0) == {"y"}
    trail.failed("x", b, refused=False)
    assert trail.closed(tried, 0.0) == {"x", "y"}


# --- the keys of all, across reloads --------------------------------------------------------------------------------


@dataclass(eq=False)
class Instance:
    name: str
    keys: tuple[Key, ...]
    pool: Pool | None = None
    keys_troubled: bool = False


def configuration(keys: dict[str, tuple[str, str | None]], **settings: object) -> Config:
    credentials = [
        Credential(name=name, source=f"env:{name}", value=Secret(value), quota_group=group)
        for name, (value, group) in keys.items()
    ]
    return Config(credentials=tuple(credentials), keys=KeysConfig(**settings))


def holding(ring: Ring, config: Config, *wanted: tuple[str, ...]) -> list[Instance]:
    values = {each.name: each.value for each in config.credentials}
    made = [Instance(f"i{n}", tuple(Key(k, values[k]) for k in names)) for n, names in enumerate(wanted)]
    ring.hold(config, made)
    return made


REFUSED = make_error(ErrorCode.BACKEND_ERROR, "upstream status: 401")


def test_what_is_known_of_a_key_is_shared_by_all_that_use_it() -> None:
    ring = Ring()
    config = configuration({"a": ("1", None), "b": ("2", "org"), "c": ("3", "org")})
    x, y, z, bare = holding(ring, config, ("a", "b"), ("a",), ("c",), ())
    assert bare.pool is None
    a, b = x.pool.keys
    assert y.pool.keys == (a,)
    ring.failed(a, object(), "kill", REFUSED, 0.0, 0.0)
    assert (x.keys_troubled, y.keys_troubled, z.keys_troubled) == (True, True, False)
    assert (x.pool.reason(0.0), y.pool.reason(0.0)) == (None, KEYS_DEAD)
    ring.failed(b, object(), "cool", make_error(ErrorCode.RATE_LIMITED, "", retry_after_ms=2500), 0.0, 0.0)
    assert (z.pool.reason(0.0), z.pool.ready_at(0.0)) == (KEYS_COOLING, 2.5)
    assert (ring.killed, ring.cooled, ring.revived) == (1, 1, 0)
    ring.answered(z.pool.keys[0], object(), 3.0, 3.0, z)
    assert not z.keys_troubled


def test_a_new_value_is_a_new_key_and_the_same_value_is_not() -> None:
    ring = Ring()
    (x,) = holding(ring, configuration({"a": ("1", None), "b": ("2", None)}), ("a", "b"))
    a, b = x.pool.keys
    for key in (a, b):
        ring.failed(key, object(), "kill", REFUSED, 0.0, 0.0)
    (new,) = holding(ring, configuration({"a": ("1", None), "b": ("new", None)}), ("a", "b"))
    assert new.pool.keys[0] is a
    assert new.pool.keys[1] is not b
    assert new.pool.reason(0.0) is None
    assert new.keys_troubled
    ring.failed(b, object(), "kill", REFUSED, 0.0, 1.0)
    assert new.pool.keys[1].dead is None, "what is out with the former value tells nobody"


def test_weight_and_quota_group_are_taken_over_without_a_new_key() -> None:
    ring = Ring()
    config = configuration({"a": ("1", None), "b": ("2", None)})
    (x,) = made = holding(ring, config, ("a", "b"))
    pool, (a, b) = x.pool, x.pool.keys
    both = configuration({"a": ("1", "org"), "b": ("2", "org")})
    heavy = both.model_copy(update={"credentials": tuple(c.model_copy(update={"weight": 7}) for c in both.credentials)})
    ring.hold(heavy, made)
    assert x.pool is pool
    assert (a.weight, a.group is b.group) == (7, True)
    a.group.cool(0.0, 0.0, 5, DEFAULT)
    ring.hold(heavy, made)
    assert not b.admits(1.0), "the group stays"
    ring.hold(config, made)
    assert b.admits(1.0)


def test_turned_off_nothing_follows_from_anything() -> None:
    ring = Ring()
    config = configuration({"a": ("1", None)})
    (x,) = made = holding(ring, config, ("a",))
    (a,) = x.pool.keys
    ring.failed(a, object(), "kill", REFUSED, 0.0, 0.0)
    ring.hold(config.model_copy(update={"keys": KeysConfig(enabled=False)}), made)
    assert (x.pool.reason(0.0), x.keys_troubled) == (None, False)
    ring.failed(a, object(), "kill", REFUSED, 0.0, 0.0)
    assert (x.pool.reason(0.0), x.keys_troubled) == (None, False)


def test_nothing_shows_a_value() -> None:
    ring = Ring()
    (x,) = holding(ring, configuration({"a": ("canary", None)}), ("a",))
    ring.failed(x.pool.keys[0], object(), "kill", REFUSED, 0.0, 0.0)
    assert "canary" not in f"{ring.observe(0.0)} {x.pool.keys[0]!r} {x.pool.observe(0.0)}"
    assert ring.observe(0.0)["states"]["a"] == {
        "id": "a", "state": "dead", "for_s": 600.0, "reason": "upstream status: 401"
    }  # fmt: skip


class Life(RuleBasedStateMachine):
    """Any order of attempts, refusals, answers, waits and reloads, against a model of two keys of one quota group."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.ring = Ring()
        self.values = {"a": 0, "b": 0}
        self.dead: dict[str, float] = {}
        self.until = -math.inf
        self.trials: dict[str, object] = {}
        self.out: list[tuple[object, KeyState, float]] = []
        self.reload()

    def current(self, key: KeyState) -> bool:
        return self.ring._states[key.key.id] is key

    @rule()
    def reload(self) -> None:
        config = configuration({name: (str(value), "org") for name, value in self.values.items()})
        (self.instance,) = holding(self.ring, config, ("a", "b"))
        self.pool = self.instance.pool

    @rule(name=st.sampled_from("ab"))
    def a_new_value(self, name: str) -> None:
        self.values[name] += 1
        self.dead.pop(name, None)
        self.trials.pop(name, None)
        self.reload()

    @rule(seconds=st.floats(0, 700))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.pool.reason(self.now) is None)
    @rule(session=st.none() | SESSIONS)
    def send(self, session: int | None) -> None:
        attempt = object()
        key = self.pool.take(attempt, session, self.now)
        name = key.key.id
        assert self.now >= self.until
        if name in self.dead:
            assert self.now >= self.dead[name]
            assert name not in self.trials
            self.trials[name] = attempt
        self.out.append((attempt, key, self.now))

    @precondition(lambda self: self.out)
    @rule(data=st.data(), how=st.sampled_from(["answered", "keep", "cool", "kill"]), wait=WAITS)
    def ends(self, data: st.DataObject, how: str, wait: float | None) -> None:
        attempt, key, sent = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        name, before = key.key.id, self.ring._groups["org"].until
        if how == "answered":
            self.ring.answered(key, attempt, sent, self.now, self.instance)
        else:
            after = None if wait is None else round(wait * 1000)
            error = make_error(ErrorCode.RATE_LIMITED, "x", retry_after_ms=after)
            self.ring.failed(key, attempt, how, error, sent, self.now)
            key.release(attempt)
        trial = self.trials.get(name) is attempt
        if trial:
            del self.trials[name]
        if self.current(key):
            if how == "kill":
                self.dead[name] = max(self.dead.get(name, -math.inf), self.now + 600)
            elif how == "answered" and trial:
                self.dead.pop(name, None)
        self.until = self.ring._groups["org"].until
        assert self.until >= before
        if how != "cool":
            assert self.until == before
        elif wait is not None:
            assert self.until == max(before, self.now + after / 1000)

    @invariant()
    def the_pool_says_what_is(self) -> None:
        dead = {each.key.id for each in self.pool.keys if each.dead is not None}
        assert dead == set(self.dead)
        usable = [n for n in "ab" if n not in dead or (n not in self.trials and self.now >= self.dead[n])]
        expected = KEYS_DEAD if not usable else KEYS_COOLING if self.now < self.until else None
        assert self.pool.reason(self.now) == expected
        if expected is not None:
            assert self.instance.keys_troubled
        if expected == KEYS_COOLING:
            assert self.pool.ready_at(self.now) == self.until


Life.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestLife = Life.TestCase
