"""Attempts for one answer: fallback by failure class, the free retry, clocks, bulkheads, callers that leave."""

from __future__ import annotations

import contextlib
import io

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from spear.config import Credential, Price, RetryConfig, Route, RouteMatch, RouterLimits, Timeouts
from spear.ir import (
    CallerError,
    ErrorCode,
    Failure,
    InternalError,
    Limits,
    ResponseEnvelope,
    RoutingError,
    SpearError,
    make_error,
)
from spear.router import POLICIES, invoke, stream
from spear.router import Route as RouteMessage
from spear.router._failures import RULES
from spear.secrets import Secret
from tests.spear.router.world import Script, World, answer, broken, chat, instance, world


def outcomes(response: ResponseEnvelope) -> list[tuple[str, str, str]]:
    attempts = response.backend.attempts if response.backend else response.result.error.attempts
    return [(each.backend, each.reason, each.outcome) for each in attempts]


async def test_an_answer_says_who_gave_it_and_what_it_cost(autojump_clock: object) -> None:
    price = Price(input=1.0, output=10.0)
    scripts = {"a": Script([answer("four char", input_tokens=100, output_tokens=10)])}
    async with world(instance("a", model="m-1", model_class="small", price=price), scripts=scripts) as w:
        response = await invoke(w.router, chat(model="small"))
    assert response.unwrap().text == "four char"
    assert response.backend.name == "a"
    assert response.backend.kind == "scripted"
    assert response.backend.model == "m-1"
    assert response.backend.generation == 1
    assert outcomes(response) == [("a", "chosen", "ok")]
    assert response.usage.cost == pytest.approx((100 * 1.0 + 10 * 10.0) / 1_000_000)
    assert not response.usage.estimated
    assert scripts["a"].requests[0].payload.model == "m-1"


async def test_usage_that_nobody_counted_is_estimated_and_priced() -> None:
    scripts = {"a": Script([answer("12345678")])}
    async with world(instance("a", price=Price(input=4.0, output=8.0)), scripts=scripts) as w:
        response = await invoke(w.router, chat("123456789"))
    assert (response.usage.input_tokens, response.usage.output_tokens) == (3, 2)
    assert response.usage.estimated
    assert response.usage.cost == pytest.approx((3 * 4.0 + 2 * 8.0) / 1_000_000)


FALLS_BACK = {
    Failure.CONNECT: True,
    Failure.SERVER: True,
    Failure.RATE_LIMIT: True,
    Failure.AUTH: True,
    Failure.REQUEST: False,
    Failure.CONTEXT_WINDOW: False,
    Failure.REFUSED: False,
    Failure.OVERLOAD: True,
    Failure.INTERNAL: True,
}


@pytest.mark.parametrize("failure", list(Failure))
async def test_every_failure_class_falls_back_or_not(failure: Failure) -> None:
    scripts = {"a": Script([broken(failure)])}
    first_then_second = {"a": 0, "b": 1}
    backends = [instance(name, priority=level) for name, level in first_then_second.items()]
    async with world(*backends, scripts=scripts, default_policy="priority") as w:
        response = await invoke(w.router, chat())
    if FALLS_BACK[failure]:
        assert response.backend.name == "b"
        assert outcomes(response)[-1] == ("b", "fallback", "ok")
    else:
        assert response.result.error.code is ErrorCode.BACKEND_ERROR
        assert outcomes(response) == [("a", "chosen", "failed")]


@pytest.mark.parametrize(
    ("raised", "code", "falls_back"),
    [
        (CallerError(make_error(ErrorCode.INVALID_REQUEST, "model: blank")), ErrorCode.INVALID_REQUEST, False),
        (RoutingError(make_error(ErrorCode.MISSING_CAPABILITIES, "no")), ErrorCode.MISSING_CAPABILITIES, False),
        (InternalError(make_error(ErrorCode.INTERNAL, "bug", incident="1")), ErrorCode.INTERNAL, True),
        (ZeroDivisionError("an adapter's bug"), ErrorCode.INTERNAL, True),
    ],
)
async def test_what_an_adapter_raises_otherwise(raised: Exception, code: ErrorCode, falls_back: bool) -> None:
    scripts = {"a": Script([raised]), "b": Script()}
    async with world(instance("a"), scripts=scripts) as w:
        alone = await invoke(w.router, chat())
    assert alone.result.error.code is code
    async with world(instance("a"), instance("b", priority=1), scripts=scripts, default_policy="priority") as w:
        assert bool((await invoke(w.router, chat())).backend) == falls_back
        assert {node.path: node.restarts for node in w.supervisor.snapshot().walk()}["test/a"] == 0


async def test_at_most_three_sends_each_to_another_instance() -> None:
    scripts = {name: Script([broken()]) for name in "abcde"}
    async with world(*map(instance, "abcde"), scripts=scripts) as w:
        response = await invoke(w.router, chat())
        counts = w.counts()
    error = response.result.error
    assert error.code is ErrorCode.BACKEND_ERROR
    assert len(error.attempts) == 3
    assert len({each.backend for each in error.attempts}) == 3
    assert sum(len(script.requests) for script in scripts.values()) == 3
    assert counts["attempts"] == 3
    assert counts["fallbacks"] == 2
    assert counts["errors"] == {"backend_error": 1}


async def test_max_attempts_is_configurable() -> None:
    scripts = {name: Script([broken()]) for name in "ab"}
    async with world(*map(instance, "ab"), scripts=scripts, router=RouterLimits(max_attempts=1)) as w:
        response = await invoke(w.router, chat())
    assert len(response.result.error.attempts) == 1


async def test_the_connect_retry_is_free_and_happens_once() -> None:
    connect = broken(Failure.CONNECT, ErrorCode.BACKEND_UNAVAILABLE)
    scripts = {name: Script([connect]) for name in "abcd"}
    async with world(*map(instance, "abcd"), scripts=scripts) as w:
        response = await invoke(w.router, chat())
        counts = w.counts()
    reasons = [(each.reason, each.backend) for each in response.result.error.attempts]
    assert [reason for reason, _ in reasons] == ["chosen", "connect_retry", "fallback", "fallback"]
    assert reasons[0][1] == reasons[1][1]
    assert counts["connect_retries"] == 1


async def test_a_connect_retry_that_succeeds() -> None:
    connect = broken(Failure.CONNECT, ErrorCode.BACKEND_UNAVAILABLE)
    async with world(instance("a"), scripts={"a": Script([connect, answer()])}) as w:
        response = await invoke(w.router, chat())
    assert outcomes(response) == [("a", "chosen", "failed"), ("a", "connect_retry", "ok")]


async def test_a_connect_that_timed_out_is_not_retried_for_free() -> None:
    slow = broken(Failure.CONNECT, ErrorCode.TIMEOUT)
    async with world(instance("a"), scripts={"a": Script([slow])}) as w:
        response = await invoke(w.router, chat())
    assert outcomes(response) == [("a", "chosen", "failed")]
    assert response.result.error.code is ErrorCode.TIMEOUT


async def test_only_connect_failures_get_the_free_retry() -> None:
    once = RetryConfig(per_instance=1)
    async with world(instance("a"), scripts={"a": Script([broken(), answer()])}, retries=once) as w:
        response = await invoke(w.router, chat())
    assert outcomes(response) == [("a", "chosen", "failed")]


async def test_fallback_classes_of_the_route_follow_in_order() -> None:
    backends = [
        instance("small", model_class="small"),
        instance("big", model="big-1", model_class="big"),
        instance("huge", model_class="huge"),
    ]
    routes = (Route(match=RouteMatch(model_class="small"), fallback=("big", "huge")),)
    scripts = {"small": Script([broken()]), "big": Script(), "huge": Script()}
    async with world(*backends, scripts=scripts, routes=routes) as w:
        response = await invoke(w.router, chat(model="small"))
        other = await invoke(w.router, chat(model="huge"))
    assert outcomes(response) == [("small", "chosen", "failed"), ("big", "fallback", "ok")]
    assert scripts["big"].requests[0].payload.model == "big-1"
    assert outcomes(other) == [("huge", "chosen", "ok")]


async def test_a_fallback_class_passes_the_same_filter() -> None:
    """Elsewhere the capabilities are checked for the first attempt only."""
    backends = [
        instance("small", model_class="small"),
        instance("big", model_class="big", features=()),
        instance("huge", model_class="huge"),
    ]
    routes = (Route(fallback=("big", "huge")),)
    request = chat(model="small", requirements={"required_features": ("supports_tools",)})
    async with world(*backends, scripts={"small": Script([broken()])}, routes=routes) as w:
        response = await invoke(w.router, request)
    assert outcomes(response) == [("small", "chosen", "failed"), ("huge", "fallback", "ok")]


async def test_a_bound_request_never_falls_back_to_an_unbound_instance(autojump_clock: object) -> None:
    backends = [instance("bound", model="m"), instance("unbound")]
    async with world(*backends, scripts={"bound": Script([broken()])}) as w:
        response = await invoke(w.router, chat(model="m"))
    assert outcomes(response) == [("bound", "chosen", "failed"), ("bound", "retry", "failed")]
    assert response.result.error.code is ErrorCode.BACKEND_ERROR


async def test_a_full_mailbox_is_passed_over_at_once(autojump_clock: object) -> None:
    limits = Limits(max_inflight=1, max_queue=1)
    backends = [instance("slow", limits=limits), instance("free", priority=1)]
    async with (
        world(*backends, scripts={"slow": Script([60.0])}, default_policy="priority") as w,
        trio.open_nursery() as nursery,
    ):
        for _ in range(2):
            nursery.start_soon(invoke, w.router, chat())
        await trio.testing.wait_all_tasks_blocked()
        begun = trio.current_time()
        response = await invoke(w.router, chat())
        assert trio.current_time() == begun
    assert response.backend.name == "free"


async def test_a_full_mailbox_met_by_surprise_is_refused_and_the_next_follows(autojump_clock: object) -> None:
    """Somebody else fills the mailbox between the decision and the send; here the router believes there is room."""
    limits = Limits(max_inflight=1, max_queue=1)
    backends = [instance("slow", limits=limits), instance("free", priority=1)]
    async with world(*backends, scripts={"slow": Script([60.0])}, default_policy="priority") as w:
        w.desk.generation.by_name["slow"].room = 1000
        responses: list[ResponseEnvelope] = []

        async def ask() -> None:
            responses.append(await invoke(w.router, chat()))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask)
        counts = w.counts()
    refused = [each for each in responses if len(each.backend.attempts) == 2]
    assert [outcomes(each) for each in refused] == [[("slow", "chosen", "refused"), ("free", "fallback", "ok")]]
    assert counts["refused"] == 1


async def test_a_refusal_is_no_send(autojump_clock: object) -> None:
    limits = Limits(max_inflight=1, max_queue=1)
    backends = [instance("slow", limits=limits), instance("free", priority=1)]
    settings = {"default_policy": "priority", "router": RouterLimits(max_attempts=1)}
    async with (
        world(*backends, scripts={"slow": Script([60.0])}, **settings) as w,
        trio.open_nursery() as nursery,
    ):
        w.desk.generation.by_name["slow"].room = 1000
        for _ in range(2):
            nursery.start_soon(invoke, w.router, chat())
        await trio.testing.wait_all_tasks_blocked()
        response = await invoke(w.router, chat())
        nursery.cancel_scope.cancel()
    assert outcomes(response) == [("slow", "chosen", "refused"), ("free", "fallback", "ok")]


async def test_everybody_full_is_overloaded(autojump_clock: object) -> None:
    limits = Limits(max_inflight=1, max_queue=0)
    async with (
        world(instance("a", limits=limits), scripts={"a": Script([60.0])}) as w,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(invoke, w.router, chat())
        await trio.testing.wait_all_tasks_blocked()
        error = (await invoke(w.router, chat())).result.error
    assert error.code is ErrorCode.OVERLOADED
    assert error.rejected_reasons == {"a": "full"}
    assert error.retry_after_ms


async def test_only_refusals_end_as_overloaded(autojump_clock: object) -> None:
    limits = Limits(max_inflight=1, max_queue=1)
    async with world(instance("a", limits=limits), scripts={"a": Script([60.0])}) as w:
        w.desk.generation.by_name["a"].room = 1000
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(invoke, w.router, chat())
            await trio.testing.wait_all_tasks_blocked()
            response = await invoke(w.router, chat())
            nursery.cancel_scope.cancel()
    assert response.result.error.code is ErrorCode.OVERLOADED
    assert outcomes(response) == [("a", "chosen", "refused")]


async def test_a_hung_backend_does_not_hold_the_others(autojump_clock: object) -> None:
    backends = [instance("hung", model="h", limits=Limits(max_inflight=2, max_queue=2)), instance("well", model="w")]
    async with world(*backends, scripts={"hung": Script([1e6])}) as w, trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(invoke, w.router, chat(model="h"))
        await trio.testing.wait_all_tasks_blocked()
        begun = trio.current_time()
        for _ in range(50):
            assert (await invoke(w.router, chat(model="w"))).backend.name == "well"
        assert trio.current_time() == begun
        nursery.cancel_scope.cancel()


async def test_the_deadline_of_the_request_ends_everything(autojump_clock: object) -> None:
    async with world(instance("a"), scripts={"a": Script([60.0])}) as w:
        begun = trio.current_time()
        response = await invoke(w.router, chat(timeout_ms=2500))
        assert trio.current_time() - begun == pytest.approx(2.5)
        await trio.testing.wait_all_tasks_blocked()
        assert w.scripts["a"].running == 0
        assert w.scripts["a"].cancelled == 1
    error = response.result.error
    assert (error.code, error.clock, error.retryable) == (ErrorCode.TIMEOUT, "total", True)
    assert outcomes(response) == [("a", "chosen", "failed")]
    assert w.scripts["a"].calls[0].deadline == pytest.approx(begun + 2.5)


async def test_the_deadline_covers_all_attempts_together(autojump_clock: object) -> None:
    scripts = {name: Script([60.0]) for name in "abc"}
    backends = [instance(name, timeouts=Timeouts(total=1.0)) for name in "abc"]
    async with world(*backends, scripts=scripts) as w:
        begun = trio.current_time()
        response = await invoke(w.router, chat(timeout_ms=1500))
        assert trio.current_time() - begun == pytest.approx(1.5)
    assert [each.error_code for each in response.result.error.attempts] == [ErrorCode.TIMEOUT] * 2


async def test_an_attempt_that_is_too_slow_is_replaced(autojump_clock: object) -> None:
    backends = [instance("slow", timeouts=Timeouts(total=1.0)), instance("fast", priority=1)]
    async with world(*backends, scripts={"slow": Script([60.0])}, default_policy="priority") as w:
        response = await invoke(w.router, chat())
    assert outcomes(response) == [("slow", "chosen", "failed"), ("fast", "fallback", "ok")]
    assert response.backend.latency_ms == pytest.approx(1000)


async def test_the_clocks_go_down_to_the_adapter() -> None:
    timeouts = Timeouts(connect=1.5, first_event=7.0, idle=9.0, total=20.0)
    async with world(instance("a", timeouts=timeouts)) as w:
        begun = trio.current_time()
        await invoke(w.router, chat())
        (call,) = w.scripts["a"].calls
    assert (call.connect, call.first_event, call.idle) == (1.5, 7.0, 9.0)
    assert call.deadline == pytest.approx(begun + 20.0, abs=1)


async def test_a_request_that_waited_too_long_for_the_router_is_not_sent(autojump_clock: object) -> None:
    async with world(instance("a"), scripts={"a": Script([5.0])}, router=RouterLimits(max_requests=1)) as w:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(invoke, w.router, chat())
            await trio.testing.wait_all_tasks_blocked()
            begun = trio.current_time()
            response = await invoke(w.router, chat(timeout_ms=1000))
            assert trio.current_time() - begun < 2
        late = await w.router.ask(RouteMessage(chat(timeout_ms=1000), trio.current_time() - 1))
    assert (response.result.error.code, response.result.error.clock) == (ErrorCode.TIMEOUT, "queue")
    assert (late.result.error.code, late.result.error.clock) == (ErrorCode.TIMEOUT, "queue")
    assert len(w.scripts["a"].requests) == 1


async def test_a_full_router_is_overloaded(autojump_clock: object) -> None:
    limits = RouterLimits(max_requests=1, max_waiting=0)
    async with (
        world(instance("a"), scripts={"a": Script([5.0])}, router=limits) as w,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(invoke, w.router, chat())
        await trio.testing.wait_all_tasks_blocked()
        response = await invoke(w.router, chat())
    assert response.result.error.code is ErrorCode.OVERLOADED


async def test_a_stopped_router_answers_with_an_envelope() -> None:
    async with world(instance("a")) as w:
        await w.supervisor.stop(w.router)
        response = await invoke(w.router, chat())
    assert response.result.error.code is ErrorCode.BACKEND_UNAVAILABLE


async def test_a_caller_that_leaves_ends_the_backends_turn(autojump_clock: object) -> None:
    scripts = {"a": Script([60.0], cleanup_s=0.5)}
    async with world(instance("a"), scripts=scripts) as w:
        view = w.desk.generation.by_name["a"]
        with trio.move_on_after(1):
            await invoke(w.router, chat())
        await trio.testing.wait_all_tasks_blocked()
        assert view.load == 1, "the turn is still cleaning up and still holds its slot"
        await trio.sleep(1)
        assert view.load == 0
        assert (scripts["a"].running, scripts["a"].cancelled) == (0, 1)
        counts = w.counts()
    assert counts["cancelled"] == 1
    assert counts["requests"] == 1
    assert counts["errors"] == {}


async def test_leaving_at_any_moment_leaves_nothing_behind(autojump_clock: object) -> None:
    connect = broken(Failure.CONNECT, ErrorCode.BACKEND_UNAVAILABLE)
    for tenth in range(25):
        scripts = {"a": Script([0.5, connect]), "b": Script([1.0])}
        backends = [instance("a", timeouts=Timeouts(total=0.3)), instance("b", priority=1)]
        async with world(*backends, scripts=scripts, default_policy="priority") as w:
            with trio.move_on_after(tenth / 10):
                await invoke(w.router, chat())
            await trio.testing.wait_all_tasks_blocked()
            assert_quiet(w)


def assert_quiet(w: World) -> None:
    for view in w.desk.generation.instances:
        assert view.load == 0
        assert not view.turns
    assert all(script.running == 0 for script in w.scripts.values())
    counts = w.counts()
    assert counts["requests"] == counts["ok"] + counts["cancelled"] + sum(counts["errors"].values())


async def test_a_crash_of_the_actor_before_the_answer_is_a_connect_failure(autojump_clock: object) -> None:
    """What ends an incarnation is never one request, but the lifespan; all its turns end with it."""
    scripts = {"a": Script([60.0]), "b": Script()}
    backends = [instance("a"), instance("b", priority=1)]
    async with world(*backends, scripts=scripts, default_policy="priority") as w, trio.open_nursery() as nursery:
        responses: list[ResponseEnvelope] = []

        async def ask() -> None:
            responses.append(await invoke(w.router, chat()))

        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        await w.supervisor.stop(w.desk.generation.by_name["a"].ref)
    (response,) = responses
    assert outcomes(response) == [("a", "chosen", "failed"), ("b", "fallback", "ok")]
    assert response.backend.attempts[0].error_code is ErrorCode.BACKEND_UNAVAILABLE


async def test_instances_whose_actor_is_down_are_no_candidates() -> None:
    async with world(instance("a"), instance("b")) as w:
        await w.supervisor.stop(w.desk.generation.by_name["a"].ref)
        for _ in range(4):
            assert (await invoke(w.router, chat())).backend.name == "b"
        await w.supervisor.stop(w.desk.generation.by_name["b"].ref)
        error = (await invoke(w.router, chat())).result.error
    assert error.code is ErrorCode.BACKEND_UNAVAILABLE
    assert error.rejected_reasons == {"a": "actor:exited", "b": "actor:exited"}
    assert error.retry_after_ms


async def test_a_bug_of_the_router_is_answered_and_does_not_end_it() -> None:
    async with world(instance("a")) as w:
        del w.desk.generation.by_name["a"].turns
        response = await invoke(w.router, chat())
        assert response.result.error.code is ErrorCode.INTERNAL
        assert response.result.error.incident
        assert w.router.status == "running"


async def test_the_key_goes_to_the_adapter_and_only_its_name_into_the_attempt() -> None:
    credentials = (Credential(name="k1", source="env:K1", value=Secret("sk-canary-123456")),)
    async with world(instance("a", credentials=("k1",)), credentials=credentials) as w:
        response = await invoke(w.router, chat())
        assert w.scripts["a"].calls[0].key.secret.reveal() == "sk-canary-123456"
    assert response.backend.attempts[0].key_id == "k1"
    assert "canary" not in response.model_dump_json()


async def test_raw_json_only_where_the_host_turned_it_on() -> None:
    raw = answer()
    raw = type(raw)(raw.payload, raw.usage, raw={"id": 1})
    for debug in (False, True):
        async with world(instance("a"), scripts={"a": Script([raw])}, debug_raw=debug) as w:
            response = await invoke(w.router, chat())
        assert response.raw == ({"id": 1} if debug else None)


async def test_two_thousand_requests_drift_nothing() -> None:
    """Elsewhere a counter drifts and one backend is pinned or starved."""
    scripts = {"a": Script([broken()]), "b": Script()}
    async with world(instance("a"), instance("b"), scripts=scripts, default_policy="least_inflight") as w:
        with trio.fail_after(60):
            for _ in range(20):
                async with trio.open_nursery() as nursery:
                    for _ in range(100):
                        nursery.start_soon(invoke, w.router, chat())
        await trio.testing.wait_all_tasks_blocked()
        assert_quiet(w)
        counts = w.counts()
    assert counts["ok"] == 2000


async def test_a_refused_request_does_not_slip_into_a_fallback_class() -> None:
    backends = [instance("a", model_class="small"), instance("b", model_class="big")]
    async with world(*backends, routes=(Route(fallback=("big",)),)) as w:
        policy = await invoke(w.router, chat(model="small", policy={"name": "weighted_random"}))
        named = await invoke(w.router, chat(model="small", routing={"backend": "gone"}))
        sent = sum(len(script.requests) for script in w.scripts.values())
    assert policy.result.error.code is ErrorCode.INVALID_REQUEST
    assert named.result.error.code is ErrorCode.BACKEND_NOT_ENABLED
    assert sent == 0


async def test_a_requests_policy_does_not_follow_into_a_fallback_class() -> None:
    backends = [instance("a", model_class="small"), instance("b", model_class="big")]
    routes = (
        Route(match=RouteMatch(model_class="small"), allow_policies=("least_inflight",), fallback=("big",)),
        Route(policy="round_robin"),
    )
    async with world(*backends, scripts={"a": Script([broken()])}, routes=routes) as w:
        response = await invoke(w.router, chat(model="small", policy={"name": "least_inflight"}))
    assert outcomes(response) == [("a", "chosen", "failed"), ("b", "fallback", "ok")]


async def test_a_failed_fallback_target_loses_standing_too() -> None:
    """Elsewhere only the first choice is ever held responsible."""
    scripts = {name: Script([broken()]) for name in "ab"} | {"c": Script()}
    async with world(*[instance(name) for name in "abc"], scripts=scripts) as w:
        for _ in range(60):
            await invoke(w.router, chat())
        sent = {view.name: view.sent for view in w.desk.generation.instances}
    assert sent["c"] == 60
    assert sent["a"] + sent["b"] < 50, "in even turns it would be 60"


@pytest.mark.parametrize("policy", POLICIES)
async def test_an_explanation_foretells_the_next_decision_and_changes_nothing(
    policy: str, autojump_clock: object
) -> None:
    async with world(*map(instance, "abcdef"), default_policy=policy) as w:
        for _ in range(20):
            first, again = w.desk.explain(chat()), w.desk.explain(chat())
            response = await invoke(w.router, chat())
            assert first.chosen == again.chosen == response.backend.name
            assert first.seed == again.seed


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("failure", [failure for failure, rule in RULES.items() if rule.another_instance])
async def test_each_failure_moves_on_under_each_policy(failure: Failure, policy: str, autojump_clock: object) -> None:
    scripts = {"bad": Script([broken(failure)]), "good": Script([0.1])}
    async with world(instance("bad"), instance("good"), scripts=scripts, default_policy=policy) as w:
        for session in map(str, range(10)):
            response = await invoke(w.router, chat(meta={"session_id": session}))
            assert response.backend.name == "good"
        assert scripts["bad"].requests, "it was tried at least once"
        assert w.desk.counts.fallbacks > 0


async def test_the_log_of_a_routers_bug_has_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    credentials = (Credential(name="k1", source="env:K1", value=Secret("sk-canary-123456")),)
    async with world(instance("a", credentials=("k1",)), credentials=credentials) as w:
        view = w.desk.generation.by_name["a"]

        class Leaky(set[object]):
            def add(self, item: object) -> None:
                raise RuntimeError(f"turn with {view.keys[0].secret.reveal()}")

        view.turns = Leaky()
        response = await invoke(w.router, chat())
    logged = capsys.readouterr().err
    assert response.result.error.code is ErrorCode.INTERNAL
    assert response.result.error.incident in logged
    assert "RuntimeError" in logged
    assert "canary" not in logged + response.model_dump_json()


async def test_counters_are_part_of_the_snapshot() -> None:
    async with world(instance("a")) as w:
        await invoke(w.router, chat())
        node = next(node for node in w.supervisor.snapshot().walk() if node.path == "test/router")
    assert node.state["requests"] == node.state["ok"] == 1
    assert node.state["instances"]["a"]["sent"] == 1


@given(
    steps=st.lists(st.sampled_from([0.0, 0.4, *Failure, ZeroDivisionError("bug"), answer()]), min_size=1, max_size=6),
    others=st.lists(st.sampled_from([0.2, Failure.SERVER, answer()]), min_size=1, max_size=4),
    leaves=st.floats(0.05, 3.0),
    timeout_ms=st.none() | st.integers(100, 2000),
    streamed=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_whatever_happens_everything_ends_and_adds_up(
    steps: list[object], others: list[object], leaves: float, timeout_ms: int | None, streamed: bool
) -> None:
    """Random scripts, callers and clocks: nothing stays open, every request is counted once, attempts are bounded."""

    def script(steps: list[object]) -> Script:
        return Script([broken(each) if isinstance(each, Failure) else each for each in steps], cleanup_s=0.1)

    async def one(w: World) -> None:
        request = chat(timeout_ms=timeout_ms)
        with trio.move_on_after(leaves), contextlib.suppress(SpearError):
            if not streamed:
                response = await invoke(w.router, request)
                info = response.backend or response.result.error
                assert sum(each.outcome != "refused" for each in info.attempts) <= 4
                return
            async with stream(w.router, request) as events:
                kinds = [event.type async for event in events]
                assert kinds[-1] in ("completed", "error")
                assert not {"completed", "error"} & set(kinds[:-1])

    async def main() -> None:
        limits = Limits(max_inflight=2, max_queue=1)
        backends = [instance("a", limits=limits), instance("b", limits=limits), instance("c", priority=1)]
        scripts = {"a": script(steps), "b": script(others)}
        async with world(*backends, scripts=scripts) as w:
            async with trio.open_nursery() as nursery:
                for _ in range(8):
                    nursery.start_soon(one, w)
            await trio.sleep(10)
            assert_quiet(w)

    with contextlib.redirect_stderr(io.StringIO()):  # the log of the scripted bugs
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
