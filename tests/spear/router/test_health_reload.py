"""A reload and what the router knows of its instances: standing, groups, throttles, averages, and who waits."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from spear.config import Config, HealthConfig, RetryConfig, Route, RouteMatch
from spear.ir import Failure
from spear.router import Desk, Instance, build_generation, invoke, succeed
from spear.router._again import Again
from spear.router._facts import facts_of
from spear.router._failures import Fault
from spear.router.health import Health
from tests.spear.router.world import CHAT, Script, ScriptedKind, World, answer, broken, chat, instance, world

KIND = ScriptedKind()
TWO = HealthConfig(failures=2, open_s=10, slow_start_s=0)


def build(*names: str, **config: object):
    return build_generation(
        Config(backends=tuple(instance(name) for name in names), **config), find_kind=lambda _: KIND
    )


def switch(desk: Desk, *names: str, **config: object) -> None:
    desk.switch(succeed(desk.generation, build(*names, **config)))


def fail(health: Health, times: int, now: float = 0.0) -> None:
    for _ in range(times):
        health.settle(health.begin(CHAT, now, 1.0), "failed", now, 1.0)


def members(each: Instance) -> tuple[Health, ...]:
    assert each.health.group is not None
    return tuple(each.health.group._members)


# --- health -------------------------------------------------------------------------------------------------------


def test_groups_are_those_of_the_generation_that_holds() -> None:
    desk = Desk(build("a", "b"))
    a, b = desk.generation.instances
    assert members(a) == members(b) == (a.health, b.health)
    before = a.health.group
    found = succeed(desk.generation, build("a", "c"))
    assert a.health.group is before  # it may yet fail
    desk.switch(found)
    c = desk.generation.by_name["c"]
    assert members(a) == members(c) == (a.health, c.health)
    assert b.health.group is None  # whatever becomes of it ejects nobody


def test_settings_hold_for_instances_that_stay() -> None:
    desk = Desk(build("a"))
    health = desk.generation.by_name["a"].health
    fail(health, 1)
    switch(desk, "a", health=TWO)
    assert desk.generation.by_name["a"].health is health
    fail(health, 1)
    assert health.reason(CHAT, 0.0) == "breaker_open"
    assert health.recovers_at(CHAT, 0.0) == pytest.approx(10.0)


def test_who_is_left_out_stays_so() -> None:
    desk = Desk(build("a", health=TWO))
    health = desk.generation.by_name["a"].health
    fail(health, 2)
    health.eject(0.0, 1.0)
    until = health.ejection.until
    switch(desk, "a", health=HealthConfig(failures=9, open_s=1, eject_s=1))
    assert health.recovers_at(CHAT, 0.0) == until > 10.0
    assert health.state(0.0) == "ejected"
    assert health.state(until - 0.1) == "ejected"


def test_a_window_of_another_length_begins_anew() -> None:
    desk = Desk(build("a"))
    health = desk.generation.by_name["a"].health
    fail(health, 3)
    switch(desk, "a", health=HealthConfig(window_s=30))
    assert health.tally(0.0).failed == 3
    switch(desk, "a", health=HealthConfig(window_s=7))
    assert health.tally(0.0).failed == 0


def test_turned_off_and_on() -> None:
    desk = Desk(build("a", health=TWO))
    health = desk.generation.by_name["a"].health
    late = health.begin(CHAT, 0.0, 1.0)
    fail(health, 2)
    health.eject(0.0, 1.0)
    switch(desk, "a", health=HealthConfig(enabled=False))
    assert (health.quiet, health.reason(CHAT, 0.0), health.state(0.0)) == (True, None, "ok")
    for _ in range(20):
        health.settle(late, "failed", 0.0, 1.0)
    assert health.begin(CHAT, 0.0, 1.0) is None
    assert (health.quiet, health.tally(0.0).total) == (True, 0)
    switch(desk, "a", health=TWO)
    fail(health, 2)
    assert health.reason(CHAT, 0.0) == "breaker_open"


# --- repetitions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tokens", "left"), [(10, 7.5), (100, 75.0), (40, 30.0)])
def test_a_throttle_is_as_full_as_it_was(tokens: int, left: float) -> None:
    desk = Desk(build("a", retries=RetryConfig(throttle_tokens=20)))
    throttle = desk.generation.by_name["a"].throttle
    for _ in range(5):
        throttle.failed()
    switch(desk, "a", retries=RetryConfig(throttle_tokens=tokens))
    assert throttle.tokens == left
    for _ in range(1000):
        throttle.succeeded()
    assert throttle.tokens == tokens


def test_those_that_were_replaced_may_be_asked_as_if_for_the_first_time() -> None:
    again, facts, fault = Again(RetryConfig(per_instance=2)), facts_of(chat()), Fault(broken().error, Failure.SERVER)
    for name in ("a", "b"):
        again.sent(name)
        again.failed(name, facts, fault, 0.0, 60.0, 1.0)
    again.sent("c")
    again.refused("c")
    assert {each.name for each in again.waiting()} == {"a", "b"}
    again.move(RetryConfig(per_instance=1), {"a", "c"})
    assert [each.name for each in again.waiting()] == ["b"]
    assert again.spent == set()
    again.sent("a")
    again.failed("a", facts, fault, 0.0, 60.0, 1.0)
    assert again.spent == {"a"}  # by the new settings


# --- averages -------------------------------------------------------------------------------------------------------


def test_another_tau_is_averaged_by_from_the_reload_on() -> None:
    desk = Desk(build("a"))
    (a,) = desk.generation.instances
    timing = (CHAT, False)
    a.latency(timing).answered(1.0, 0.0)
    routes = (Route(match=RouteMatch(), policy="peak_ewma", tau=5),)
    switch(desk, "a", routes=routes)
    assert a.estimate(timing, 5) is None
    kept = a.estimate(timing, 30)
    assert kept is not None
    assert kept.mean == pytest.approx(1.0)
    a.latency(timing).answered(2.0, 1.0)
    found = a.estimate(timing, 5)
    assert found is not None
    assert found.mean == pytest.approx(2.0)
    switch(desk, "a")
    assert a.estimate(timing, 5) is None
    assert a.estimate(timing, 30) is not None


# --- who waits ------------------------------------------------------------------------------------------------------


async def start(w: World, *names: str, **config: object) -> None:
    kind = w.desk.generation.instances[0].kind
    built = build_generation(Config(backends=tuple(instance(n) for n in names), **config), find_kind=lambda _: kind)
    found = succeed(w.desk.generation, built)
    for each in found.starting:
        each.ref = await w.supervisor.start(found.generation.spec(each))
    w.desk.switch(found)


async def test_those_that_wait_for_a_recovery_see_the_new_generation(autojump_clock: object) -> None:
    health = HealthConfig(failures=2, open_s=20, max_wait_s=25)
    scripts = {"a": Script([broken()]), "b": Script([answer("from b")])}
    once = RetryConfig(per_instance=1)
    async with (
        world(instance("a"), instance("b", weight=0), scripts=scripts, health=health, retries=once) as w,
        trio.open_nursery() as nursery,
    ):
        for _ in range(2):
            await invoke(w.router, chat())
        began, ended = trio.current_time(), []

        async def ask() -> None:
            response = await invoke(w.router, chat(timeout_ms=60_000))
            ended.append((response.unwrap().text, round(trio.current_time() - began), response.backend.generation))

        nursery.start_soon(ask)
        await trio.sleep(3)
        assert (w.desk.pausing, ended) == (1, [])
        await start(w, "a", "b", health=health, retries=once)
        await trio.sleep(1)
        assert ended == [("from b", 3, 2)]
        assert w.desk.pausing == 0


async def test_a_replaced_instance_has_repetitions_of_its_own(autojump_clock: object) -> None:
    """What its predecessor was sent does not count for it, but does for the request."""
    retries = RetryConfig(per_instance=2, backoff_s=2)
    scripts = {"a": Script([broken(), broken(), answer("at last")])}
    async with (
        world(instance("a"), scripts=scripts, retries=retries) as w,
        trio.open_nursery() as nursery,
    ):
        ended = []

        async def ask() -> None:
            ended.append(await invoke(w.router, chat(timeout_ms=60_000)))

        nursery.start_soon(ask)
        await trio.sleep(0.1)
        assert w.desk.pausing == 1
        old = w.desk.generation
        new = Config(backends=(instance("a", model="two"),), retries=retries)
        found = succeed(old, build_generation(new, find_kind=lambda _: old.instances[0].kind))
        (a,) = found.starting
        a.ref = await w.supervisor.start(replace(found.generation.spec(a), name="a #2"))
        w.desk.switch(found)
        await trio.sleep(20)
        assert ended[0].unwrap().text == "at last"
        assert [each.payload.model for each in scripts["a"].requests] == ["", "two", "two"]
        assert [each.reason for each in ended[0].backend.attempts] == ["chosen", "fallback", "retry"]
