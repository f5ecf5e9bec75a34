"""Limits that several processes share: their law, with a simulated store in virtual time; what is read from Redis."""

from __future__ import annotations

import math
from itertools import count

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spear.config import RedisConfig
from spear.router.limits import Quota
from spear.router.shared._ledger import Ledger
from spear.router.shared._link import Link
from spear.router.shared._meter import SharedMeter
from spear.router.shared._script import BadAnswer, key_of, mark_key, nodes_key, question, read_answer
from spear.secrets import Secret
from tests.spear.router.shared_store import SimulatedStore

MARKS = map(str, count())
CONFIG = RedisConfig(url=Secret("redis://localhost"))
MINUTE = Quota("backend:a", "requests", 20, 60.0)


class Process:
    """One process with one meter, whose rounds the test makes. Its clock is off from the store's by `ahead`."""

    def __init__(self, store: SimulatedStore, quota: Quota = MINUTE, name: str = "p", ahead: float = 0.0) -> None:
        self.store, self.quota, self.name, self.ahead = store, quota, name, ahead
        self.link = Link(CONFIG)
        meter = self.link.meter(quota)
        assert isinstance(meter, SharedMeter)
        self.meter = meter

    @property
    def now(self) -> float:
        return self.store.now + self.ahead

    def round(self, *, leaving: bool = False, takes: float = 0.0, lose: bool = False) -> None:
        """`lose`: the answer never comes, although it was asked."""
        sent = self.now
        asked = self.meter.farewell(sent) if leaving else self.meter.ask(sent)
        keys = [nodes_key("x"), mark_key("x"), key_of("x", self.quota)]
        told = question(
            [(self.quota, asked)], node=self.name, mark=next(MARKS), born=self.link.born, lease_s=2.0, leaving=leaving
        )
        found = read_answer(self.store.run(keys, told), 1)
        self.store.now += takes
        if lose:
            self.link.lost(self.now)
            return
        if self.link.reborn(found.mark, self.now):
            self.round()
            return
        self.link.heard(found.nodes, self.now, hold=found.hold)
        self.meter.answered(asked, found.answers[0], sent, self.now)

    def use(self, amount: float = 1.0) -> bool:
        if not self.meter.admits(amount, self.now):
            return False
        self.meter.reserve(amount, self.now)
        return True


def most_in_any_window(used: list[tuple[float, float]], period: float) -> float:
    return max((sum(n for at, n in used if start <= at < start + period) for start, _ in used), default=0.0)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["burst", "drain", "drain", "round", "rounds", "settle", "wait", "wait", "lose", "leave"]),
        st.integers(0, 2),
        st.sampled_from([0.0, 0.4, 1.9, 2.1, 25.0, 35.0, 56.0, 58.0, 59.5, 60.5, 62.0, 64.0]) | st.floats(0, 3),
    ),
    max_size=30,
)


@settings(max_examples=300, deadline=None)
@given(STEPS, st.sampled_from([3, 10, 20]), st.booleans())
def test_never_more_than_the_limit_while_leases_hold(
    steps: list[tuple[str, int, float]], limit: int, tokens: bool
) -> None:
    """Whatever three processes do in whatever order, answers that get lost included: in no window more than the limit.
    Each one has been answered once before it begins, and one whose Redis is lost uses nothing until it is back."""
    quota = Quota("a", "tokens" if tokens else "requests", float(limit), 60.0)
    store = SimulatedStore()
    processes = [Process(store, quota, f"p{n}", ahead) for n, ahead in enumerate((0.0, 500.0, -90.25))]
    for each in processes:
        each.round()
    used: list[list[float]] = []  # when, how much
    out: list[tuple[Process, float, float, list[float]]] = []
    for what, which, number in steps:
        process = processes[which]
        match what:
            case "burst":
                amount = 0.1 + number % 3 if tokens else 1.0
                while process.link.leasing and process.use(amount):
                    used.append([store.now, amount])
                    out.append((process, amount, process.now, used[-1]))
            case "drain":
                amount, misses = 0.1 + number % 3 if tokens else 1.0, 0
                while process.link.leasing and misses < 2:
                    if process.use(amount):
                        used.append([store.now, amount])
                        out.append((process, amount, process.now, used[-1]))
                    else:
                        misses += 1
                        process.round()
            case "rounds":
                for each in processes:
                    each.round()
            case "round":
                process.round(takes=min(number, 3) / 10)
            case "settle" if out:
                process, amount, since, entry = out.pop(which % len(out))
                came_to = min(amount, number % 1)
                process.meter.settle(amount, came_to, since, process.now)
                entry[1] = came_to
            case "wait":
                store.now += number
            case "lose":
                process.round(lose=True)
            case "leave":
                process.round(leaving=True)
                process.link.leasing = False
    assert most_in_any_window([(at, n) for at, n in used], 60.0) <= limit * (1 + 1e-6)


def test_all_of_it_can_be_used_by_one_although_others_wait() -> None:
    store = SimulatedStore()
    busy, idle = Process(store, name="busy"), Process(store, name="idle")
    done = 0
    for _ in range(200):
        busy.round()
        idle.round()
        done += busy.use()
        store.now += 0.02
    assert 18 <= done <= 20


def test_what_was_not_used_goes_back_at_the_end_and_after_a_lease() -> None:
    store = SimulatedStore()
    first, second = Process(store, name="a"), Process(store, name="b")
    first.round()
    first.meter.reserve(5, first.now)
    first.round()
    assert first.meter.remaining(first.now) == 15
    first.round(leaving=True)
    second.round()
    assert second.meter.remaining(second.now) == 15
    done = 0
    for _ in range(40):
        second.round()
        done += second.use()
    assert done == 15


def test_what_a_request_did_not_need_is_there_again() -> None:
    store = SimulatedStore()
    quota = Quota("a", "tokens", 100.0, 60.0)
    process = Process(store, quota)
    process.round()
    process.meter.admits(90.0, process.now)
    process.round()
    assert process.use(90.0)
    since = process.now
    process.round()
    assert not process.use(50.0)
    store.now += 5
    process.round()
    process.meter.settle(90.0, 10.0, since, process.now)
    process.round()
    process.meter.admits(80.0, process.now)
    process.round()
    assert process.use(80.0)


def test_without_redis_a_process_has_its_share_of_what_was_left() -> None:
    store = SimulatedStore()
    first, second = Process(store, name="a"), Process(store, name="b")
    for _ in range(3):
        first.round()
        second.round()
    done = 0
    for _ in range(8):
        done += first.use()
        first.round()
        second.round()
    assert done == 8
    for each in (first, second):
        each.link.lost(each.now)
    store.now += 3  # no lease is left
    more = [sum(each.use() for _ in range(30)) for each in (first, second)]
    assert done + sum(more) <= 20
    assert min(more) > 0
    store.now += 61
    assert [sum(each.use() for _ in range(30)) for each in (first, second)] == [10, 10]


def test_before_it_was_ever_reached_it_reckons_with_the_configured_number() -> None:
    link = Link(CONFIG.model_copy(update={"nodes": 4}))
    meter = link.meter(MINUTE)
    assert [meter.admits(5, 0.0), meter.admits(6, 0.0)] == [True, False]
    for _ in range(5):
        meter.reserve(1, 0.0)
    assert not meter.admits(1, 59.0)
    assert meter.remaining(59.0) == 0
    assert 60 <= meter.ready_at(1, 1.0) <= 62
    assert meter.admits(1, 62.0)


def test_a_lost_redis_is_told_again_and_leases_nothing_meanwhile() -> None:
    store = SimulatedStore()
    first, second = Process(store, name="a"), Process(store, name="b")
    done = 0
    for _ in range(30):
        for each in (first, second):
            each.round()
            done += each.use()
    for each in (first, second):
        each.round()
    assert done == 20
    store.clear()
    store.now += 1
    first.round()
    assert not first.link.leasing
    assert not first.use()
    store.now += 0.5
    second.round()
    for _ in range(10):
        store.now += 0.5
        for each in (first, second):
            each.round()
            assert not each.use()
    assert first.link.leasing
    assert second.link.leasing
    assert first.link.reconciled == 1
    assert sum(store.data[key_of("x", MINUTE)].values()) >= 20
    store.now += 70
    for each in (first, second):
        each.round()
    assert first.use()


def test_more_than_the_limit_itself_is_never_admitted() -> None:
    process = Process(SimulatedStore())
    process.round()
    assert not process.meter.admits(20.1, process.now)
    assert process.meter.ready_at(20.1, process.now) == math.inf


def test_when_to_ask_again() -> None:
    store = SimulatedStore()
    process = Process(store)
    for _ in range(40):
        process.round()
        process.use()
    process.round()
    assert 55 <= process.meter.ready_at(1, process.now) - process.now <= 66
    store.now += 66
    process.round()
    assert process.meter.ready_at(1, process.now) == process.now


@given(st.lists(st.tuples(st.floats(0, 30), st.floats(0, 10)), max_size=40), st.floats(0, 50))
def test_the_ledger(taken: list[tuple[float, float]], limit: float) -> None:
    ledger, now, entries = Ledger(60.0), 0.0, []
    for later, amount in taken:
        now += later
        ledger.take(amount, now)
        entries.append((now, amount))
    used = ledger.used(now)
    assert used >= sum(n for at, n in entries if at > now - 60) - 1e-6
    assert used <= sum(n for at, n in entries if at > now - 62) + 1e-6
    ready = ledger.ready_at(1.0, limit, now)
    if ready == math.inf:
        assert limit < 1
    else:
        assert ledger.used(ready + 1e-6) + 1.0 <= limit + 1e-6


# --- what is read ---------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
NEARLY = st.fixed_dictionaries(
    {"mark": st.text(max_size=4) | JSON, "hold": st.booleans() | JSON, "nodes": st.integers(0, 5) | JSON,
     "answers": st.lists(st.lists(st.sampled_from(["1", "0.5", "nan", "inf", "-1", "x"]) | JSON, max_size=6)) | JSON}
)  # fmt: skip


@given(st.binary(max_size=60) | JSON.map(repr) | NEARLY.map(lambda each: orjson.dumps(each, default=str)) | JSON)
@settings(max_examples=400)
def test_any_answer_is_read_or_refused(data: object) -> None:
    try:
        found = read_answer(data, 1)
    except BadAnswer:
        return
    assert found.nodes >= 1
    for each in found.answers:
        assert all(math.isfinite(value) and value >= 0 for value in each[1:])


@given(st.text(max_size=30), st.text(max_size=30))
def test_keys_tell_limits_apart_and_show_no_text(one: str, other: str) -> None:
    keys = {key_of("spear:", MINUTE._replace(subject=each)) for each in (one, other)}
    assert len(keys) == len({one, other})
    assert key_of("p:", MINUTE) == key_of("p:", MINUTE._replace(limit=20.0))
    assert all(key.startswith("spear:{limits}:") and key.isascii() for key in keys)


@pytest.mark.parametrize(
    "data", [None, "", "[]", '{"answers":[]}', '{"answers":[["1"]],"mark":"m","hold":0,"nodes":1}']
)
def test_what_is_no_answer(data: object) -> None:
    with pytest.raises(BadAnswer):
        read_answer(data, 1)


def test_a_lease_ends() -> None:
    process = Process(SimulatedStore())
    process.round()
    assert process.meter.admits(1, process.now)
    process.store.now += 2.0
    assert not process.meter.admits(1, process.now)
    process.round()
    process.round()
    assert process.meter.admits(1, process.now)


def test_what_goes_back_goes_where_it_was_taken() -> None:
    process = Process(SimulatedStore(), Quota("a", "tokens", 100.0, 60.0))
    process.round()
    process.meter.admits(90.0, process.now)
    process.round()
    first, since = math.floor(process.store.now), process.now
    assert process.use(90.0)
    process.store.now += 30
    process.round()
    process.meter.settle(90.0, 0.0, since, process.now)
    held = process.store.data[key_of("x", process.quota)]
    before = held[first]
    process.round()
    assert held[first] == pytest.approx(before - 90.0)
