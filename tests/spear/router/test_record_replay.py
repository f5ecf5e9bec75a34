"""What was recorded is decided again, bit for bit; and what another policy or configuration would have done."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spear.config import Config, Credential, FilterConfig, Price, RedisConfig, Route, TaskConfig
from spear.config._model import Mirror
from spear.ir import Limits, Meta, Operation
from spear.router import POLICIES
from spear.router._verdict import Verdict as Verdict_
from spear.router.policies import Options
from spear.router.record import Replay, Skipped, Trail, Unreadable, Verdict, still
from spear.router.record._state import InstanceState, take
from spear.secrets import Secret
from tests.spear.router.record_world import decided, desk_of, log_of, results, tally_of, verdicts
from tests.spear.router.test_decide import embeddings
from tests.spear.router.world import CHAT, StillRef, chat, instance, occupy, still_generation

# --- bit for bit ------------------------------------------------------------------------------------------------

NAMES = ("a", "b", "c", "d", "e", "f")
EVENTS = st.one_of(
    st.tuples(st.just("load"), st.sampled_from(NAMES), st.integers(0, 6)),
    st.tuples(st.just("took"), st.sampled_from(NAMES), st.floats(0, 50)),
    st.tuples(st.just("failed"), st.sampled_from(NAMES), st.integers(1, 6)),
    st.tuples(st.just("well"), st.sampled_from(NAMES), st.integers(1, 3)),
    st.tuples(st.just("ejected"), st.sampled_from(NAMES), st.just(0)),
    st.tuples(st.just("status"), st.sampled_from(NAMES), st.sampled_from(["running", "backing_off", "exited"])),
    st.tuples(st.just("wait"), st.just(""), st.floats(0, 400)),
)
REQUESTS = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["", "m", "n", "nobody"]),
        "task_id": st.sampled_from([None, "t", "unknown"]),
        "meta": st.sampled_from([Meta(), Meta(session_id="s")]),
        "routing": st.fixed_dictionaries({"backend": st.sampled_from([None, None, None, "a", "gone"])}),
        "requirements": st.fixed_dictionaries(
            {
                "required_features": st.sampled_from([(), ("supports_stream",), ("x",)]),
                "preferred_backends": st.sampled_from([(), ("b", "c")]),
            }
        ),
    }
)
STEPS = st.lists(
    st.tuples(st.lists(EVENTS, max_size=4), REQUESTS, st.frozensets(st.sampled_from(NAMES), max_size=2), st.booleans()),
    min_size=1,
    max_size=8,
)
ROUTES = st.builds(
    Route,
    policy=st.sampled_from(sorted(POLICIES)),
    within_level=st.sampled_from([None, "least_inflight", "peak_ewma", "round_robin"]),
    spill=st.sampled_from([None, "strict", "proportional"]),
    tau=st.sampled_from([None, 3.0]),
    hash_key=st.sampled_from([None, ("session",), ("prompt", "task")]),
)


def happen(generation, event, now):
    what, name, value = event
    if what == "wait":
        return now + value
    found = generation.by_name[name]
    match what:
        case "load":
            occupy(found, value)
        case "took":
            found.latency((CHAT, False)).answered(value, now)
        case "failed":
            for _ in range(value):
                found.health.settle(found.health.begin(CHAT, now, 1.0), "failed", now, 1.1)
        case "well":
            for _ in range(value):
                found.health.settle(found.health.begin(CHAT, now, 1.0), "succeeded", now, 1.0)
        case "ejected":
            found.health.eject(now, 0.9)
        case _ if found.ref is not None:
            found.ref.status = value
    return now


@settings(deadline=None, max_examples=150)
@given(steps=STEPS, route=ROUTES, seed=st.integers(0, 2**64 - 1), weights=st.lists(st.integers(0, 9), min_size=6))
def test_every_decision_replays_bit_for_bit(steps, route, seed, weights):
    backends = [
        instance("a", model="m", weight=weights[0], price=Price(input=1.5)),
        instance("b", model="m", weight=weights[1], limits=Limits(max_inflight=2, max_queue=1)),
        instance("c", model="n", weight=weights[2], priority=1, price=Price(input=0.1, output=0.7)),
        instance("d", weight=weights[3], priority=1, ops=(Operation.EMBEDDINGS,)),
        instance("e", weight=weights[4], credentials=("k",)),
        instance("f", model_class="m", weight=weights[5], priority=2, limits=Limits(max_chars=1)),
    ]
    generation = still_generation(
        *backends,
        routes=(route,),
        tasks=(TaskConfig(id="t", allow_backends=("a", "c"), config={"a": "b"}),),
        credentials=(Credential(name="k", source="env:K"),),
    )
    desk, now, plans = desk_of(generation, seed), 1000.0, []
    for events, fields, exclude, panic in steps:
        for event in events:
            now = happen(generation, event, now)
        plans.append(decided(desk, chat(**fields), now, exclude, panic=panic))
    found = verdicts(log_of(desk))
    assert [each.differs for each in found] == [()] * len(steps)
    assert [each.now["chosen"] for each in found] == [plan.chosen and plan.chosen.name for plan in plans]
    assert [tuple(each.now["order"]) for each in found] == [plan.order for plan in plans]


def three(**config):
    weights = {"a": 5, "b": 1, "c": 1}
    return still_generation(*(instance(name, weight=weight) for name, weight in weights.items()), **config)


def test_what_policies_remember_is_recorded():
    desk = desk_of(three(default_policy="weighted_round_robin"))
    order = [decided(desk, chat(), 0.0).chosen.name for _ in range(14)]
    assert "".join(order) == "aabacaa" * 2
    found = verdicts(log_of(desk))
    assert [each.now["chosen"] for each in found] == order
    assert [verdicts(log_of(desk))[index].record.inputs.memory is None for index in (0, 1)] == [True, False]


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_every_policy(policy):
    desk = desk_of(three(default_policy=policy))
    for number in range(30):
        occupy(desk.generation.instances[0], number % 5)
        decided(desk, chat(f"prompt {number}"), float(number))
    assert all(not each.differs for each in verdicts(log_of(desk)))


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        (lambda record: record["inputs"].update(seed=record["inputs"]["seed"] ^ 1), {"chosen", "order"}),
        (lambda record: record["plan"]["scores"].__setitem__(0, 5.000000000000001), {"scores"}),
        (lambda record: record["plan"].update(note="x"), {"note"}),
        (lambda record: record["plan"]["rejected"].update(a="full"), {"rejected"}),
        (lambda record: record["plan"].pop("recovery"), {"recovery"}),
        (lambda record: record["inputs"].update(instances={"a": {"load": 128}}), {"rejected", "order"}),
    ],
)
def test_a_difference_is_seen(change, fields):
    """Each of what is compared can differ: a comparison that could not fail would prove nothing."""
    desk = desk_of(three(default_policy="weighted_random"), seed=4)
    decided(desk, chat(), 0.0)
    header, line = log_of(desk).splitlines()
    record = json.loads(line)
    for _ in range(40):  # another seed may well choose the same
        change(record)
        (verdict,) = verdicts(header + b"\n" + json.dumps(record).encode())
        if fields & set(verdict.differs):
            return
        record["inputs"]["seed"] = record["inputs"]["seed"] * 3 % 2**64
    raise AssertionError("no difference")


def test_one_instance_that_stands_still_is_what_it_was():
    generation = three()
    live = generation.instances[0]
    occupy(live, 3)
    live.latency((CHAT, False)).answered(0.25, 7.0)
    live.health.eject(8.0, 1.0)
    state = take(live, desk_of(generation).peek(_facts(), 9.0, frozenset()).facts, 9.0)
    copy = still(generation).instances[0]
    copy.stand(InstanceState.model_validate_json(json.dumps(state)))
    assert (copy.load, copy.status) == (live.load, live.status)
    assert copy.estimate((CHAT, False), Options().tau) == live.estimate((CHAT, False), Options().tau)
    for ask in ("reason", "ramp", "recovers_at"):
        assert getattr(copy.health, ask)(CHAT, 9.0) == getattr(live.health, ask)(CHAT, 9.0)


def _facts():
    from spear.router import facts_of

    return facts_of(chat())


def test_a_reload_brings_its_own_generation():
    from spear.router import succeed
    from tests.spear.router.world import generation_of

    desk = desk_of(three(default_policy="weighted_round_robin"))
    decided(desk, chat(), 0.0)
    built = generation_of(*(instance(name, weight=weight) for name, weight in (("a", 1), ("c", 1), ("z", 7))))
    succession = succeed(desk.generation, built)
    for each in succession.starting:
        each.ref = StillRef()
    desk.switch(succession)
    desk.decisions.below = 2**64
    for _ in range(3):
        decided(desk, chat(), 1.0)
    found = verdicts(log_of(desk))
    assert [each.record.generation for each in found] == [1, 2, 2, 2]
    assert [each.differs for each in found] == [()] * 4
    assert [record["kind"][0] for record in desk.decisions.records()] == ["g", "d", "g", "d", "d", "d"]


# --- another policy, another configuration ------------------------------------------------------------------------


def test_another_policy():
    desk = desk_of(three(default_policy="weighted_random"))
    for _ in range(700):
        decided(desk, chat(), 0.0)
    tally = tally_of(verdicts(log_of(desk), Replay(policy="weighted_round_robin")))
    assert tally.now == {"a": 500, "b": 100, "c": 100}
    assert 400 < tally.then["a"] < 600
    assert tally.elsewhere == sum(1 for each in verdicts(log_of(desk), Replay(policy="weighted_round_robin"))
                                  if each.then["chosen"] != each.now["chosen"]) > 50  # fmt: skip


def test_another_policy_also_replaces_what_the_request_asked_for():
    generation = three(default_policy="weighted_random")
    routes = (Route(policy="weighted_random", allow_policies=("least_inflight",)),)
    desk = desk_of(three(routes=routes))
    decided(desk, chat(policy={"name": "least_inflight"}), 0.0)
    (verdict,) = verdicts(log_of(desk), Replay(policy="round_robin"))
    assert (verdict.then["policy"], verdict.now["policy"], verdict.now["error"]) == (
        "least_inflight", "round_robin", None,
    )  # fmt: skip
    assert generation is not None


def test_another_configuration():
    desk = desk_of(three(default_policy="weighted_random"))
    occupy(desk.generation.instances[1], 128)
    for _ in range(100):
        decided(desk, chat(), 0.0)
    other = still_generation(instance("b"), instance("new"), instance("old", weight=0), default_policy="round_robin")
    tally = tally_of(verdicts(log_of(desk), Replay(config=other)))
    assert tally.now == {"new": 100}  # b is full in the records, too
    assert tally.rejected_then == {"full": 100}
    assert tally.rejected_now == {"full": 100, "drained": 100}
    assert tally.unknown == {"new", "old"}


def test_estimates_of_latency_and_cost():
    prices = {"fast": Price(input=10), "slow": Price(input=1)}
    generation = still_generation(*(instance(name, price=price) for name, price in prices.items()),
                                  default_policy="cheapest")  # fmt: skip
    for name, seconds in (("fast", 0.1), ("slow", 2.0)):
        generation.by_name[name].latency((CHAT, False)).answered(seconds, 0.0)
    desk = desk_of(generation)
    for _ in range(10):
        decided(desk, chat("x" * 4000), 50.0)
    tally = tally_of(verdicts(log_of(desk), Replay(policy="peak_ewma")))
    assert (tally.then, tally.now) == ({"slow": 10}, {"fast": 10})
    assert tally.as_json()["estimated_latency_s"] == {"then": 2.0, "now": pytest.approx(0.1), "decisions": 10}
    assert tally.as_json()["estimated_cost"] == {
        "then": pytest.approx(0.01), "now": pytest.approx(0.1), "decisions": 10,
    }  # fmt: skip


def test_no_estimate_where_one_side_knows_nothing():
    desk = desk_of(three(default_policy="weighted_random"))
    decided(desk, chat(), 0.0)
    tally = tally_of(verdicts(log_of(desk), Replay(policy="peak_ewma")))
    assert (tally.as_json()["estimated_latency_s"], tally.as_json()["estimated_cost"]) == (None, None)


# --- what cannot be replayed ----------------------------------------------------------------------------------------


def test_a_decision_without_its_generation():
    desk = desk_of(three())
    decided(desk, chat(), 0.0)
    _, line = log_of(desk).splitlines()
    (result,) = results(line, Replay())
    assert isinstance(result, Unreadable)
    assert "generation 1" in result.reason


def test_a_decision_that_was_not_looked_at():
    desk = desk_of(three())
    decided(desk, chat(), 0.0)
    header, line = log_of(desk).splitlines()
    record = {**json.loads(line), "inputs": None}
    (result,) = results(header + b"\n" + json.dumps(record).encode(), Replay())
    assert isinstance(result, Skipped)


def test_embeddings_are_replayed_too():
    desk = desk_of(three())
    decided(desk, embeddings("a", "b"), 0.0)
    (verdict,) = verdicts(log_of(desk))
    assert isinstance(verdict, Verdict)
    assert verdict.differs == ()


# --- what a record holds ----------------------------------------------------------------------------------------------


def test_neither_keys_nor_addresses_nor_options_nor_content():
    backend = instance(
        "a", base_url=Secret("https://canary.example"), credentials=("k",), options={"headers": {"x": "canary"}}
    )
    credential = Credential(name="k", source="file:/canary", value=Secret("canary"))
    generation = still_generation(
        backend, credentials=(credential,), tasks=(TaskConfig(id="t", config={"x": "canary"}),)
    )
    desk = desk_of(generation)
    decided(desk, chat("canary", task_id="t"), 0.0)
    log = log_of(desk)
    assert b"canary" not in log
    assert b'"a"' in log
    (verdict,) = verdicts(log)
    assert (verdict.now["chosen"], verdict.differs) == ("a", ())


def test_a_missing_key_is_missing_in_the_replay_too():
    backends = instance("a", credentials=("k",)), instance("b")
    desk = desk_of(still_generation(*backends, credentials=(Credential(name="k", source="env:K"),)))
    decided(desk, chat(), 0.0)
    (verdict,) = verdicts(log_of(desk))
    assert (verdict.now["rejected"], verdict.differs) == ({"a": "missing_credential"}, ())


def test_every_field_of_the_configuration_was_thought_of():
    """A new section of the configuration is in the record unless it is left out by name."""
    generation = three()
    record = json.loads(desk_header(generation))
    left_out = {"decisions", "guests", "log", "redis", "warnings", "origin"}
    whole = json.loads(Config().model_dump_json(exclude=left_out))
    assert set(record["config"]) <= set(whole)


def test_where_limits_are_shared_is_not_recorded():
    redis = RedisConfig(url=Secret("redis://:canary@host"), source="env:CANARY", prefix="canary")
    assert "redis" not in json.loads(desk_header(still_generation(instance("a"), redis=redis)))["config"]
    assert b"canary" not in desk_header(still_generation(instance("a"), redis=redis)).lower()


def desk_header(generation):
    desk = desk_of(generation)
    decided(desk, chat(), 0.0)
    return log_of(desk).splitlines()[0]


def test_shares_are_those_of_all_requests():
    """Sampling by seed does not prefer anybody."""
    desk = desk_of(three(default_policy="weighted_random"), seed=9)
    desk.decisions.below = int(0.1 * 2**64)
    sampled, all_of_them = Counter(), Counter()
    for _ in range(20_000):
        plan = desk.decide(_facts(), 0.0)
        all_of_them[plan.chosen.name] += 1
        if plan.step is not None:
            sampled[plan.chosen.name] += 1
    assert 1800 < sampled.total() < 2200
    assert sampled["a"] / sampled.total() == pytest.approx(5 / 7, abs=0.04)
    assert all_of_them["a"] / 20_000 == pytest.approx(5 / 7, abs=0.02)


def test_what_an_external_filter_said_is_replayed():
    """It stands in the facts; neither the filter nor its address is in the record of the generation."""
    desk = desk_of(three(default_policy="weighted_random"))
    for number in range(30):
        verdict = Verdict_("f", dropped=frozenset({"b"}), weights={"c": 1 + number, "a": 2}, clamped=1)
        plan = desk.decide(_facts()._replace(verdict=verdict), 0.0, sampled=True)
        trail = Trail(sampled=True)
        trail.decided(plan.step)
        desk.decisions.close(trail, "r", "ok", None, 0.0, 0)
    found = verdicts(log_of(desk))
    assert all(not each.differs for each in found)
    assert {each.now["rejected"]["b"] for each in found} == {"filtered"}
    assert {each.now["chosen"] for each in found} == {"a", "c"}
    assert {each.facts.verdict.dropped for each in found} == {frozenset({"b"})}


def test_a_configuration_with_filters_and_mirrors_is_restored():
    one = FilterConfig(name="f", kind="http", url=Secret("https://canary.example"), credential="k")
    routes = (Route(filter="f", mirror=Mirror(to="b", percent=5)),)
    desk = desk_of(three(filters=(one,), routes=routes, credentials=(Credential(name="k", source="env:K"),)))
    decided(desk, chat(), 0.0)
    assert b"canary" not in log_of(desk)
    (verdict,) = verdicts(log_of(desk))
    assert verdict.differs == ()
