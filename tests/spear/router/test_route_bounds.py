"""`on_exhausted` and `max_attempts` of a route, which hold instead of the host's."""

from __future__ import annotations

import pytest
import trio

from spear.backends import Call
from spear.config import HealthConfig, InstanceConfig, RetryConfig, Route, RouteMatch, RouterLimits
from spear.ir import RequestEnvelope
from spear.router import build_generation, invoke, succeed
from tests.spear.router.test_router_invoke import outcomes
from tests.spear.router.world import Script, World, answer, broken, chat, generation_of, instance, world

ONCE = RetryConfig(per_instance=1)


def bound(name: str, model: str) -> InstanceConfig:
    return instance(name, model=model)


def route(model: str, **fields: object) -> Route:
    return Route(match=RouteMatch(model_class=model), **fields)


@pytest.mark.parametrize(("model", "sends"), [("once", 1), ("often", 4), ("other", 2)])
async def test_a_route_has_attempts_of_its_own(autojump_clock: object, model: str, sends: int) -> None:
    names = [f"{each}{n}" for each in ("once", "often", "other") for n in range(5)]
    instances = [bound(each, each[:-1]) for each in names]
    scripts = {each: Script([broken()]) for each in names}
    routes = (route("once", max_attempts=1), route("often", max_attempts=4))
    async with world(
        *instances, scripts=scripts, routes=routes, router=RouterLimits(max_attempts=2), retries=ONCE
    ) as w:
        response = await invoke(w.router, chat(model=model))
        assert len(response.result.error.attempts) == sends
        assert sum(len(each.requests) for each in scripts.values()) == sends


async def test_the_route_of_the_class_asked_for_bounds_its_fallbacks(autojump_clock: object) -> None:
    names = ("a1", "b1", "b2", "b3")
    scripts = {each: Script([broken()]) for each in names}
    routes = (route("a", max_attempts=2, fallback=("b",)), route("b", max_attempts=4))
    async with world(*(bound(each, each[0]) for each in names), scripts=scripts, routes=routes, retries=ONCE) as w:
        response = await invoke(w.router, chat(model="a"))
    assert [each.backend[0] for each in response.result.error.attempts] == ["a", "b"]


async def _unwell(w: World, model: str) -> None:
    with trio.fail_after(60):
        while w.desk.generation.by_name[model].health.state(trio.current_time()) != "breaker_open":
            await invoke(w.router, chat(model=model))


@pytest.mark.parametrize(
    ("host", "own", "does"),
    [
        ("wait", "fail", "fail"),
        ("wait", "panic", "panic"),
        ("fail", "wait", "wait"),
        ("panic", None, "panic"),
        ("fail", None, "fail"),
    ],
)
async def test_a_route_says_what_becomes_of_its_requests(
    autojump_clock: object, host: str, own: str | None, does: str
) -> None:
    script = Script([broken()])
    routes = (route("m", on_exhausted=own), route("n", on_exhausted="wait" if does == "fail" else "fail"))
    async with world(
        bound("m", "m"), bound("n", "n"), scripts={"m": script}, routes=routes, on_exhausted=host, retries=ONCE
    ) as w:
        await _unwell(w, "m")
        script.steps = [answer()]
        sent, begun = len(script.requests), trio.current_time()
        response = await invoke(w.router, chat(model="m", timeout_ms=20_000))
        took = trio.current_time() - begun
    if does == "fail":
        assert response.result.error is not None
        assert (len(script.requests), took) == (sent, 0)
    else:
        assert outcomes(response)[-1][1:] == ("panic" if does == "panic" else "chosen", "ok")
        assert len(script.requests) == sent + 1
        assert (took > 1) == (does == "wait")


async def test_a_fallback_class_does_not_change_it(autojump_clock: object) -> None:
    scripts = {"m": Script([broken()]), "n": Script([broken()])}
    routes = (route("m", on_exhausted="fail", fallback=("n",)), route("n", on_exhausted="wait"))
    async with world(bound("m", "m"), bound("n", "n"), scripts=scripts, routes=routes, retries=ONCE) as w:
        await _unwell(w, "n")
        await _unwell(w, "m")
        begun = trio.current_time()
        response = await invoke(w.router, chat(model="m", timeout_ms=20_000))
        assert response.result.error is not None
        assert trio.current_time() == begun


def test_a_generation_knows_whether_any_route_has_its_own() -> None:
    assert not generation_of(bound("m", "m"), routes=(route("m", on_exhausted="fail"),)).routed_attempts
    assert generation_of(bound("m", "m"), routes=(route("m", max_attempts=3),)).routed_attempts


async def test_what_is_left_of_them_stays_over_a_reload(autojump_clock: object) -> None:
    class Reloads(Script):
        """Fails, and has the configuration reloaded meanwhile."""

        def step(self, request: RequestEnvelope, call: Call) -> object:
            super().step(request, call)
            config = before.config.model_copy(update={"routes": (route("m", max_attempts=4),)})
            w.desk.switch(succeed(before, build_generation(config, find_kind=lambda _: before.instances[0].kind)))
            return broken()

    names = ("m1", "m2", "m3", "m4")
    scripts = {each: Reloads() for each in names}
    routes, healthy = (route("m", max_attempts=2),), HealthConfig(enabled=False)
    async with world(
        *(bound(each, "m") for each in names), scripts=scripts, routes=routes, retries=ONCE, health=healthy
    ) as w:
        before = w.desk.generation
        first = await invoke(w.router, chat(model="m"))
        second = await invoke(w.router, chat(model="m"))
    assert [len(outcomes(each)) for each in (first, second)] == [2, 4]
