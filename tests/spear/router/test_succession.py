"""From one generation to the next: what differs, what stays the same object, and what policies remember."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from spear.config import Config, Credential, Price, RouterLimits, Timeouts
from spear.ir import Failure
from spear.router import Desk, build_generation, facts_of, invoke, stream, succeed
from spear.secrets import Secret
from tests.spear.router.world import (
    Script,
    ScriptedKind,
    StillRef,
    answer,
    broken,
    chat,
    instance,
    world,
)

KIND = ScriptedKind()
WHEEL = {"default_policy": "weighted_round_robin"}


def build(*instances, **config):
    return build_generation(Config(backends=instances, **config), find_kind=lambda _: KIND)


def key(value):
    return Credential(name="k", source="env:K", value=None if value is None else Secret(value))


def names(instances):
    return [each.name for each in instances]


def test_added_removed_unchanged():
    old = build(instance("a"), instance("b"))
    found = succeed(old, build(instance("b"), instance("c")))
    assert (names(found.added), found.removed, names(found.unchanged)) == (["c"], ("a",), ["b"])
    assert (found.changed, found.adjusted) == ((), ())
    assert names(found.leaving) == ["a"]
    assert names(found.starting) == ["c"]
    new = found.generation
    assert (old.number, new.number) == (1, 2)
    assert names(new.instances) == ["b", "c"]
    assert new.by_name["b"] is old.by_name["b"]
    assert names(old.instances) == ["a", "b"]  # as it was


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"model": "m"}),
        ({"model": "m"}, {"model": "n"}),
        ({}, {"model_class": "m"}),
        ({}, {"base_url": Secret("http://localhost:1")}),
        ({"base_url": Secret("http://localhost:1")}, {"base_url": Secret("http://localhost:2")}),
        ({}, {"timeouts": Timeouts(idle=7)}),
        ({}, {"options": {"x": 1}}),
        ({}, {"features": ("supports_tools",)}),
        ({}, {"limits": {"max_chars": 5}}),
        ({}, {"limits": {"max_inflight": 5}}),
    ],
    ids=lambda value: next(iter(value), "none") if isinstance(value, dict) else None,
)
def test_what_its_actor_is_made_from_replaces_an_instance(before, after):
    old = build(instance("a", **before))
    found = succeed(old, build(instance("a", **after)))
    assert (names(found.changed), names(found.leaving), found.removed) == (["a"], ["a"], ())
    assert found.changed[0] is not found.leaving[0]
    assert found.generation.by_name["a"] is found.changed[0]


def test_what_is_the_same_again_changes_nothing():
    old = build(instance("a", timeouts=Timeouts(idle=7), base_url=Secret("http://localhost:1"), options={"x": [1]}))
    same = instance("a", timeouts=Timeouts(idle=7), base_url=Secret("http://localhost:1"), options={"x": [1]})
    found = succeed(old, build(same))
    assert names(found.unchanged) == ["a"]
    assert (found.leaving, found.starting) == ((), ())


def test_another_place_in_the_file_is_no_change():
    old = build(instance("a"))
    moved = instance("a").model_copy(update={"origin": {"file": "x.toml", "line": 40}})
    assert names(succeed(old, build(moved)).unchanged) == ["a"]


@pytest.mark.parametrize(
    ("before", "after", "what"),
    [("one", "one", "unchanged"), ("one", "two", "changed"), (None, "one", "changed"), ("one", None, "changed")],
)
def test_a_key_is_part_of_an_instance(before, after, what):
    old = build(instance("a", credentials=("k",)), credentials=(key(before),))
    found = succeed(old, build(instance("a", credentials=("k",)), credentials=(key(after),)))
    assert names(getattr(found, what)) == ["a"]
    assert names(found.starting) == (["a"] if what == "changed" and after else [])


def test_an_instance_without_a_key_still_has_none():
    old = build(instance("a", credentials=("k",)), credentials=(key(None),))
    found = succeed(old, build(instance("a", credentials=("k",)), credentials=(key(None),)))
    assert (names(found.unchanged), found.starting, found.leaving) == (["a"], (), ())


def test_limits_that_an_instance_has_from_the_router():
    old = build(instance("a"), instance("b", limits={"max_inflight": 3, "max_queue": 3}))
    found = succeed(old, build(*[each.config for each in old.instances], router=RouterLimits(max_inflight=5)))
    assert (names(found.changed), names(found.unchanged)) == (["a"], ["b"])


def test_raw_answers_are_every_adapters_business():
    old = build(instance("a"), instance("b"))
    assert names(succeed(old, build(instance("a"), instance("b"), debug_raw=True)).changed) == ["a", "b"]


@pytest.mark.parametrize("change", [{"weight": 7}, {"priority": 7}, {"price": Price(input=7)}])
def test_weight_priority_and_price_are_adjusted_at_the_switch(change):
    old = build(instance("a"))
    desk, a = Desk(old), old.by_name["a"]
    before = (a.weight, a.priority, a.price)
    found = succeed(old, build(instance("a", **change)))
    assert [(each.name, config.weight) for each, config in found.adjusted] == [("a", change.get("weight", 100))]
    assert (found.starting, found.leaving, found.unchanged) == ((), (), ())
    assert (a.weight, a.priority, a.price) == before  # nothing has happened yet
    desk.switch(found)
    assert desk.generation.by_name["a"] is a
    assert a.config.price == a.price
    assert (a.weight, a.priority, a.price) == (
        change.get("weight", 100),
        change.get("priority", 0),
        change.get("price"),
    )


CONFIGS = st.lists(
    st.dictionaries(
        st.sampled_from("abcd"),
        st.tuples(st.sampled_from([1, 2]), st.sampled_from(["m", "n"])),
        max_size=4,
    ),
    min_size=2,
    max_size=8,
)


@settings(max_examples=150, deadline=None)
@given(CONFIGS)
def test_laws_of_succession(steps):
    """An index never means two instances; one that stays is the same object; everybody is in exactly one list."""
    seen = {}
    generation = None
    for number, step in enumerate(steps, start=1):
        built = build(*[instance(name, weight=weight, model=model) for name, (weight, model) in step.items()])
        if generation is None:
            generation = built
        else:
            old, found = generation, succeed(generation, built)
            generation = found.generation
            lists = [
                names(found.added),
                names(found.changed),
                names(each for each, _ in found.adjusted),
                names(found.unchanged),
            ]
            assert sorted(name for each in lists for name in each) == sorted(step)
            assert {*names(old.instances)} - {*step} == {*found.removed}
            for each in old.instances:
                stays = generation.by_name.get(each.name) is each
                assert stays == (each not in found.leaving)
                assert stays == (each.name in step and each.config.model == step[each.name][1])
            Desk(old).switch(found)
        assert generation.number == number
        assert names(generation.instances) == list(step)
        for each in generation.instances:
            assert (each.weight, each.config.model) == step[each.name]
            assert seen.setdefault(each.index, each) is each
        assert len({each.index for each in generation.instances}) == len(step)
        assert all(index < generation.issued for index in seen)


# --- what policies remember -------------------------------------------------------------------------------


def running(generation):
    for each in generation.instances:
        each.ref = each.ref or StillRef()
    return generation


WHEEL = {"default_policy": "weighted_round_robin"}  # a policy whose memory shows in its choices


def test_the_wheel_goes_on_where_the_instances_stayed():
    config = [instance(name, weight=weight) for name, weight in (("a", 5), ("b", 1), ("c", 1))]
    plain, reloaded = (Desk(running(build(*config, **WHEEL)), rng=Random(1)) for _ in range(2))
    facts = facts_of(chat())
    order = []
    for _ in range(14):
        order.append(plain.decide(facts, 0.0).chosen.name)
        assert reloaded.decide(facts, 0.0).chosen.name == order[-1]
        reloaded.switch(succeed(reloaded.generation, build(*config, **WHEEL)))
    assert order[:7] == list("aabacaa")
    assert reloaded.generation.number == 15


def test_a_replaced_instance_is_not_remembered():
    desk = Desk(running(build(instance("a"), instance("b"), **WHEEL)), rng=Random(1))
    facts = facts_of(chat())
    first = desk.decide(facts, 0.0).chosen.name
    desk.switch(succeed(desk.generation, build(instance("a"), instance("b", model_class="x"), **WHEEL)))
    running(desk.generation)
    assert desk.decide(facts, 0.0).chosen.name == first  # a wheel of its own, from its start


# --- a request under way -----------------------------------------------------------------------------------


async def switch(it, *instances, **config):
    """What the runtime does, on a router alone."""
    kind = ScriptedKind(it.scripts)
    config = Config(backends=instances, **config)
    old = it.desk.generation
    built = build_generation(config, find_kind=lambda _: old.instances[0].kind if old.instances else kind)
    found = succeed(old, built)
    for each in found.starting:
        spec = found.generation.spec(each)
        if found.leaving:
            spec = replace(spec, name=f"{each.name} #{found.generation.number}")
        each.ref = await it.supervisor.start(spec)
    it.desk.switch(found)
    return found


async def test_a_further_attempt_is_the_new_generations(autojump_clock):
    """It began with nobody else to go to; by the time its attempt fails there is somebody."""
    failing = Script([3.0])

    async def fail(request, call):
        await trio.sleep(3)
        raise broken(Failure.SERVER)

    failing.invoke = fail
    scripts = {"a": failing, "b": Script([answer("from b")])}
    async with world(instance("a"), instance("b", weight=0), scripts=scripts) as it, trio.open_nursery() as nursery:
        found = []

        async def ask():
            found.append(await invoke(it.router, chat()))

        nursery.start_soon(ask)
        await trio.sleep(1)
        await switch(it, instance("a"), instance("b"))
        await trio.sleep(5)
        (response,) = found
        assert response.unwrap().text == "from b"
        assert response.backend.generation == 2
        assert [attempt.backend for attempt in response.backend.attempts] == ["a", "b"]


async def test_a_replaced_instance_may_be_tried_again(autojump_clock):
    """Same name, another instance: with a new key, say. The attempts left still count down."""
    script = Script()
    tries = []

    async def work(request, call):
        tries.append(request)
        await trio.sleep(2)
        if len(tries) < 3:
            raise broken(Failure.AUTH)
        return answer("at last")

    script.invoke = work
    async with world(instance("a"), scripts={"a": script}) as it, trio.open_nursery() as nursery:
        found = []

        async def ask():
            found.append(await invoke(it.router, chat()))

        nursery.start_soon(ask)
        await trio.sleep(1)
        await switch(it, instance("a", model="two"))
        await trio.sleep(2)
        await switch(it, instance("a", model="three"))
        await trio.sleep(5)
        assert found[0].unwrap().text == "at last"
        assert [each.model for each in tries] == ["", "two", "three"]
        assert found[0].backend.generation == 3

        tries.clear()
        nursery.start_soon(ask)  # without a reload: one attempt, as ever
        await trio.sleep(10)
        assert len(tries) == 1
        assert found[1].result.error is not None


async def test_a_stream_that_did_not_commit_moves_too(autojump_clock):
    failing = Script([[3.0, broken(Failure.SERVER)]])
    scripts = {"a": failing, "b": Script([answer("b")])}
    async with world(instance("a"), instance("b", weight=0), scripts=scripts) as it, trio.open_nursery() as nursery:
        found = []

        async def ask():
            async with stream(it.router, chat()) as events:
                found.extend([event.type async for event in events])

        nursery.start_soon(ask)
        await trio.sleep(1)
        await switch(it, instance("a"), instance("b"))
        await trio.sleep(5)
        assert found[-1] == "completed"
