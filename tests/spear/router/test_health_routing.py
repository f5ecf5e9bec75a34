"""Health through the real router, in virtual time: outages, flapping, hung probes, exhaustion, repetitions."""

from __future__ import annotations

from collections import Counter

import pytest
import trio

from spear.backends import Finished
from spear.config import HealthConfig, InstanceConfig, RetryConfig, Route, RouterLimits, Timeouts
from spear.ir import (
    BackendError,
    CanonicalError,
    ContentDelta,
    ErrorCode,
    Failure,
    ResponseEnvelope,
    Started,
    make_error,
)
from spear.router import Instance, invoke, stream
from tests.spear.router.test_router_invoke import assert_quiet, outcomes
from tests.spear.router.world import CHAT, Script, World, answer, broken, chat, instance, world

ONCE = RetryConfig(per_instance=1)


class Outage(Script):
    """Fails from `begins` to `ends`, on Trio's clock; answers in `takes` seconds otherwise."""

    def __init__(self, begins: float = 0.0, ends: float = 1e9, failure: BackendError | float | None = None) -> None:
        super().__init__()
        self.begins, self.ends = trio.current_time() + begins, trio.current_time() + ends
        self.failure = failure or broken()

    def step(self, request: object, call: object) -> object:
        super().step(request, call)
        return self.failure if self.begins <= trio.current_time() < self.ends else answer()


def limited(retry_after_ms: int | None = None) -> BackendError:
    error = make_error(ErrorCode.RATE_LIMITED, "slow down", retry_after_ms=retry_after_ms)
    return BackendError(error, Failure.RATE_LIMIT)


def view(w: World, name: str = "a") -> Instance:
    return w.desk.generation.by_name[name]


def state(w: World, name: str = "a") -> str:
    return view(w, name).health.state(trio.current_time())


def error_of(response: ResponseEnvelope) -> CanonicalError:
    assert response.result.error is not None
    return response.result.error


async def trip(w: World, times: int = 5) -> None:
    for _ in range(times):
        await invoke(w.router, chat(timeout_ms=2000))


# --- breakers -------------------------------------------------------------------------------------------------------


async def test_a_failing_backend_is_left_out_and_says_so(autojump_clock: object) -> None:
    scripts = {"a": Outage()}
    async with world(instance("a"), instance("b"), scripts=scripts) as w:
        for _ in range(40):
            assert (await invoke(w.router, chat())).backend.name == "b"
        assert len(scripts["a"].requests) == 5
        row = next(each for each in w.desk.explain(chat()).candidates if each.backend == "a")
        assert row.rejected == "breaker_open"
        observed = w.counts()["instances"]["a"]["health"]
        assert observed["state"] == "breaker_open"
        assert observed["breakers"] == {"chat_completions": "open"}
        assert observed["opened"] == 1


async def test_all_down_and_back_loses_only_what_failed_before_the_breakers_opened(autojump_clock: object) -> None:
    """`wait`: requests that come during the outage wait for the recovery, and no more than one probes each backend."""
    scripts = {name: Outage(10, 14) for name in "ab"}
    responses: list[ResponseEnvelope] = []

    async def ask(w: World) -> None:
        responses.append(await invoke(w.router, chat(timeout_ms=30_000)))

    async with world(*map(instance, "ab"), scripts=scripts, retries=ONCE) as w:
        async with trio.open_nursery() as nursery:
            for _ in range(400):
                nursery.start_soon(ask, w)
                await trio.sleep(0.05)
        await trio.testing.wait_all_tasks_blocked()
        assert_quiet(w)
        counts = w.counts()
    failed = [each for each in responses if each.result.error]
    during = sum(1 for script in scripts.values() for request in script.requests) - (len(responses) - len(failed))
    assert len(responses) == 400
    assert len(failed) <= 10, "five in a row open each of the two breakers"
    assert during <= 12
    assert counts["waited"] > 50


async def test_all_down_for_long_fails_with_the_time_to_ask_again(autojump_clock: object) -> None:
    async with world(instance("a"), scripts={"a": Outage()}, retries=ONCE, health=HealthConfig(max_wait_s=2)) as w:
        await trip(w)
        begun = trio.current_time()
        error = error_of(await invoke(w.router, chat()))
        assert trio.current_time() == begun, "the recovery does not fit: nobody waits in vain"
    assert error.code is ErrorCode.BACKEND_UNAVAILABLE
    assert error.rejected_reasons == {"a": "breaker_open"}
    assert 3900 <= (error.retry_after_ms or 0) <= 6000


async def test_a_wait_must_fit_the_deadline(autojump_clock: object) -> None:
    async with world(instance("a"), scripts={"a": Outage(0, 3)}, retries=ONCE) as w:
        await trip(w)
        begun = trio.current_time()
        error = error_of(await invoke(w.router, chat(timeout_ms=1000)))
        assert trio.current_time() == begun
        response = await invoke(w.router, chat(timeout_ms=9000))
        assert 3.9 <= trio.current_time() - begun <= 6.1
    assert error.code is ErrorCode.BACKEND_UNAVAILABLE
    assert outcomes(response) == [("a", "chosen", "ok")]


async def test_fail_does_not_wait(autojump_clock: object) -> None:
    async with world(instance("a"), scripts={"a": Outage(0, 3)}, retries=ONCE, on_exhausted="fail") as w:
        await trip(w)
        begun = trio.current_time()
        error = error_of(await invoke(w.router, chat()))
        assert trio.current_time() == begun
    assert (error.code, error.retryable) == (ErrorCode.BACKEND_UNAVAILABLE, True)
    assert error.retry_after_ms


async def test_panic_tries_the_least_bad(autojump_clock: object) -> None:
    scripts = {"a": Outage(0, 1), "b": Outage(0, 1)}
    async with world(*map(instance, "ab"), scripts=scripts, retries=ONCE, on_exhausted="panic") as w:
        for _ in range(5):
            await invoke(w.router, chat())
        assert {state(w, "a"), state(w, "b")} == {"breaker_open"}
        await trio.sleep(1.5)
        response = await invoke(w.router, chat())
        counts = w.counts()
        view(w, "b").health._breakers.clear()
        view(w, "b").health.eject(trio.current_time(), 1.0)
        least_bad = [(await invoke(w.router, chat())).backend.name for _ in range(10)]
    assert [(reason, outcome) for _, reason, outcome in outcomes(response)] == [("panic", "ok")]
    assert counts["panics"] >= 1
    assert set(least_bad) == {"b"}, "an ejected one before one whose breaker is open"


async def test_panic_never_uses_a_dead_key(autojump_clock: object) -> None:
    backends = [instance("a"), instance("b")]
    async with world(*backends, scripts={"a": Outage(0, 1)}, retries=ONCE, on_exhausted="panic") as w:
        view(w, "b").reason = "missing_credential"
        await trip(w)
        await trio.sleep(2)
        for _ in range(5):
            assert (await invoke(w.router, chat())).backend.name == "a"
        assert w.scripts["b"].requests == []


async def test_a_flapping_backend_gets_less_and_less(autojump_clock: object) -> None:
    class Flapping(Script):
        def step(self, request: object, call: object) -> object:
            super().step(request, call)
            return answer() if len(self.requests) % 8 in {6, 7} else broken()

    scripts = {"a": Flapping()}
    sent: list[int] = []
    async with world(*map(instance, "ab"), scripts=scripts) as w:
        for _ in range(6):
            before = len(scripts["a"].requests)
            for _ in range(500):
                assert (await invoke(w.router, chat())).result.error is None
                await trio.sleep(0.2)
            sent.append(len(scripts["a"].requests) - before)
    assert sent[0] > 2 * sent[-1]
    assert sum(sent) < 100, "of 3000 requests"


async def test_half_open_with_a_probe_that_never_answers(autojump_clock: object) -> None:
    """One request hangs, and only one: the others go to the other backend, and after the probe's deadline the breaker
    is open again, whether or not the request still hangs."""
    scripts = {"a": Script([broken()] * 5 + [1e6])}
    backends = [instance("a"), instance("b", priority=1)]
    async with world(*backends, scripts=scripts, default_policy="priority") as w:
        await trip(w)
        await trio.sleep(6.5)
        assert state(w) == "breaker_half_open"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(invoke, w.router, chat())
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(100):
                assert (await invoke(w.router, chat())).backend.name == "b"
                await trio.sleep(0.25)
            assert len(scripts["a"].requests) == 6
            await trio.sleep(6)
            assert state(w) == "breaker_open", "the probe is overdue"
            assert (await invoke(w.router, chat())).backend.name == "b"
            nursery.cancel_scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert_quiet(w)


async def test_those_who_wait_are_woken_by_a_probes_answer(autojump_clock: object) -> None:
    scripts = {"a": Script([broken()] * 5 + [0.1])}
    async with world(instance("a"), scripts=scripts, retries=ONCE) as w:
        await trip(w)
        await trio.sleep(6.5)
        begun = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(invoke, w.router, chat())
        took = trio.current_time() - begun
    assert took == pytest.approx(0.3), "a probe, another probe, then everybody at once"


async def test_a_probe_that_cannot_connect_has_no_free_retry(autojump_clock: object) -> None:
    refused = broken(Failure.CONNECT, ErrorCode.BACKEND_UNAVAILABLE)
    async with world(instance("a"), scripts={"a": Script([refused])}, on_exhausted="fail") as w:
        await trip(w)
        before = len(w.scripts["a"].requests)
        await trio.sleep(6.5)
        error = error_of(await invoke(w.router, chat()))
        assert len(w.scripts["a"].requests) == before + 1
    assert [each.reason for each in error.attempts] == ["chosen"]


async def test_a_probe_whose_caller_leaves_makes_room_for_the_next(autojump_clock: object) -> None:
    scripts = {"a": Script([broken()] * 5 + [1e6, answer()])}
    async with world(instance("a"), scripts=scripts, retries=ONCE) as w:
        await trip(w)
        await trio.sleep(6.5)
        with trio.move_on_after(1):
            await invoke(w.router, chat())
        assert (await invoke(w.router, chat())).backend.name == "a"
        assert (await invoke(w.router, chat())).backend.name == "a"
        assert state(w) == "slow_start"


async def test_the_clock_jumps(autojump_clock: trio.testing.MockClock) -> None:
    scripts = {"a": Outage(0, 1)}
    async with world(*map(instance, "ab"), scripts=scripts) as w:
        for _ in range(60):
            await invoke(w.router, chat())
        assert state(w) == "breaker_open"
        autojump_clock.jump(1e7)
        for _ in range(20):
            assert (await invoke(w.router, chat())).result.error is None
        assert view(w).health.reason(CHAT, trio.current_time()) is None
        autojump_clock.jump(1e7)
        for _ in range(4):
            assert (await invoke(w.router, chat())).result.error is None
        assert state(w) == "ok"


async def test_a_probing_stream_is_proved_at_its_commit(autojump_clock: object) -> None:
    items = [Started(backend="a"), ContentDelta(delta="x"), 60.0, Finished(answer())]
    scripts = {"a": Script([broken()] * 5 + [items])}
    async with world(instance("a"), scripts=scripts, retries=ONCE) as w:
        await trip(w)
        await trio.sleep(6.5)
        async with stream(w.router, chat()) as first, stream(w.router, chat()) as second:
            assert (await anext(first)).type == "started"
            assert (await anext(second)).type == "started"
            await trio.testing.wait_all_tasks_blocked()
            assert view(w).health.reason(CHAT, trio.current_time()) is None


async def test_what_a_caller_does_wrong_or_in_a_hurry_opens_no_breaker(autojump_clock: object) -> None:
    wrong = [broken(Failure.REQUEST), limited(100_000), broken(Failure.AUTH), broken(Failure.REFUSED)]
    scripts = {"a": Script(wrong * 5 + [1e6])}
    async with world(instance("a"), scripts=scripts) as w:
        for _ in range(20):
            await invoke(w.router, chat())
        for _ in range(20):
            await invoke(w.router, chat(timeout_ms=50))
        for _ in range(20):
            with trio.move_on_after(1):
                await invoke(w.router, chat())
        assert state(w) == "ok"
        for _ in range(5):
            await invoke(w.router, chat(timeout_ms=3000))
        assert state(w) == "breaker_open", "that was time enough"


async def test_a_stream_that_was_answering_when_its_callers_time_ran_out_opens_no_breaker(
    autojump_clock: object,
) -> None:
    slow = [Started(backend="a"), *[each for _ in range(100) for each in (ContentDelta(delta="x"), 1.0)]]
    async with world(instance("a"), scripts={"a": Script([slow])}) as w:
        for _ in range(10):
            async with stream(w.router, chat(timeout_ms=5000)) as events:
                assert [event.type async for event in events][-1] == "error"
        assert state(w) == "ok"


async def test_a_breaker_of_one_instance_is_none_of_anothers(autojump_clock: object) -> None:
    """A backend that hangs opens its own breaker; whoever has another model does not even notice."""
    backends = [
        instance("hung", model="h", timeouts=Timeouts(total=2.0)),
        instance("well", model="w"),
    ]
    async with world(*backends, scripts={"hung": Script([1e6])}, retries=ONCE) as w:
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(invoke, w.router, chat(model="h"))
            for _ in range(50):
                begun = trio.current_time()
                assert (await invoke(w.router, chat(model="w"))).backend.name == "well"
                assert trio.current_time() == begun
                await trio.sleep(0.1)
            nursery.cancel_scope.cancel()
        assert (state(w, "hung"), state(w, "well")) == ("breaker_open", "ok")


# --- ejection and slow start ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["weighted_random", "weighted_round_robin", "round_robin", "least_inflight"])
async def test_a_recovered_instance_is_not_flooded(policy: str, autojump_clock: object) -> None:
    async with world(*map(instance, "ab"), scripts={"a": Outage(0, 2)}, default_policy=policy) as w:
        for _ in range(60):
            await invoke(w.router, chat())
        assert state(w) == "breaker_open"
        await trio.sleep(6.5)
        for _ in range(60):
            await invoke(w.router, chat())
            if state(w) == "slow_start":
                break
        shares = []
        for _ in range(4):
            got: Counter[str] = Counter()
            for _ in range(1000):
                got[(await invoke(w.router, chat())).backend.name] += 1
                await trio.sleep(0.01)
            shares.append(got["a"] / 1000)
    assert 0.03 <= shares[0] <= 0.14, "from a tenth to a third of its half"
    assert shares[0] < shares[1] < shares[2]
    assert 0.44 <= shares[3] <= 0.56


async def test_an_instance_in_slow_start_serves_when_it_is_the_only_one(autojump_clock: object) -> None:
    async with world(instance("a"), scripts={"a": Outage(0, 2)}, retries=ONCE) as w:
        await trip(w)
        await trio.sleep(6.5)
        for _ in range(50):
            assert (await invoke(w.router, chat())).backend.name == "a"


async def test_one_that_stands_out_is_ejected_with_its_reason(autojump_clock: object) -> None:
    """Two of three fail at everything: one of them is ejected, since no more than half of the group may be."""
    no_breaker = HealthConfig(failures=10_000, min_requests=10_000)
    scripts = {"a": Outage(), "b": Outage()}
    async with world(*map(instance, "abc"), scripts=scripts, health=no_breaker, default_policy="round_robin") as w:
        for _ in range(80):
            assert (await invoke(w.router, chat())).backend.name == "c"
            await trio.sleep(0.1)
        reasons = [each.rejected for each in w.desk.explain(chat()).candidates]
        assert reasons.count("ejected") == 1
        assert w.counts()["instances"]["c"]["health"]["state"] == "ok"


# --- repetitions ----------------------------------------------------------------------------------------------------


async def test_others_come_first_then_the_same_again_after_a_backoff(autojump_clock: object) -> None:
    scripts = {name: Script([broken(), answer()]) for name in "ab"}
    async with world(*map(instance, "ab"), scripts=scripts) as w:
        begun = trio.current_time()
        response = await invoke(w.router, chat())
        took = trio.current_time() - begun
        counts = w.counts()
    names = [name for name, _, _ in outcomes(response)]
    assert [reason for _, reason, _ in outcomes(response)] == ["chosen", "fallback", "retry"]
    assert names[0] != names[1]
    assert names[2] == names[0], "whose backoff is over first"
    assert 0.4 <= took <= 0.6
    assert counts["retries"] == 1


async def test_three_sends_in_all_and_two_at_one_instance(autojump_clock: object) -> None:
    async with world(instance("a"), scripts={"a": Outage()}) as w:
        alone = error_of(await invoke(w.router, chat()))
    async with world(*map(instance, "ab"), scripts={"a": Outage(), "b": Outage()}) as w:
        both = error_of(await invoke(w.router, chat()))
    assert [each.reason for each in alone.attempts] == ["chosen", "retry"]
    assert [each.reason for each in both.attempts] == ["chosen", "fallback", "retry"]


@pytest.mark.parametrize(
    ("retry_after_ms", "timeout_ms", "waits"),
    [(2500, None, 2.5), (60_000, None, 60.0), (60_001, None, None), (2500, 2000, None), (0, None, 0.0)],
)
async def test_a_retry_after_is_obeyed_exactly(
    retry_after_ms: int, timeout_ms: int | None, waits: float | None, autojump_clock: object
) -> None:
    scripts = {"a": Script([limited(retry_after_ms), answer()])}
    async with world(instance("a"), scripts=scripts) as w:
        begun = trio.current_time()
        response = await invoke(w.router, chat(timeout_ms=timeout_ms))
        took = trio.current_time() - begun
    if waits is None:
        error = error_of(response)
        assert (error.code, error.retry_after_ms, took) == (ErrorCode.RATE_LIMITED, retry_after_ms, 0.0)
    else:
        assert outcomes(response) == [("a", "chosen", "failed"), ("a", "retry", "ok")]
        assert took == pytest.approx(waits)


async def test_a_retry_after_that_is_too_long_ends_nothing_else(autojump_clock: object) -> None:
    scripts = {"a": Script([limited(100_000)]), "b": Script([broken(), answer()])}
    backends = [instance("a"), instance("b", priority=1)]
    async with world(*backends, scripts=scripts, default_policy="priority") as w:
        response = await invoke(w.router, chat())
    assert [name for name, _, _ in outcomes(response)] == ["a", "b", "b"]


async def test_a_stream_is_repeated_before_its_commit_too(autojump_clock: object) -> None:
    scripts = {"a": Script([broken(), [Started(backend="a"), ContentDelta(delta="x"), Finished(answer())]])}
    async with world(instance("a"), scripts=scripts) as w:
        async with stream(w.router, chat()) as events:
            kinds = [event.type async for event in events]
        await trio.testing.wait_all_tasks_blocked()
        assert_quiet(w)
    assert kinds == ["started", "content_delta", "completed"]


async def test_a_caller_that_leaves_during_a_pause_is_counted_once(autojump_clock: object) -> None:
    async with world(instance("a"), scripts={"a": Script([limited(30_000)])}) as w:
        with trio.move_on_after(3):
            await invoke(w.router, chat())
        await trio.testing.wait_all_tasks_blocked()
        assert_quiet(w)
        assert w.counts()["cancelled"] == 1
        assert w.desk.pausing == 0


async def test_repetitions_stay_within_the_budget(autojump_clock: object) -> None:
    """In a brown-out the load at the backend grows by the budget, not by the number of attempts that are allowed."""

    class Slow(Script):
        most_extra = 0

        async def invoke(self, request: object, call: object) -> object:
            self.most_extra = max(self.most_extra, len(w.desk.budget))
            assert len(w.desk.budget) <= max(3, 0.2 * w.desk.counts.active)
            self.requests.append(request)
            await trio.sleep(1)
            raise broken()

    no_breaker = HealthConfig(enabled=False)
    many = RetryConfig(throttle_tokens=1_000_000)
    async with world(instance("a"), scripts={"a": Slow()}, health=no_breaker, retries=many) as w:
        async with trio.open_nursery() as nursery:
            for _ in range(60):
                nursery.start_soon(invoke, w.router, chat())
        counts = w.counts()
        assert len(w.desk.budget) == 0
    assert counts["requests"] == 60
    assert 3 <= w.scripts["a"].most_extra <= 12
    assert counts["retries"] == counts["attempts"] - 60
    assert counts["retries_denied"] == 60 - counts["retries"] > 0


async def test_the_throttle_stops_repetitions_at_an_instance_that_keeps_failing(autojump_clock: object) -> None:
    async with world(instance("a"), scripts={"a": Outage()}, health=HealthConfig(enabled=False)) as w:
        attempts = [len(error_of(await invoke(w.router, chat())).attempts) for _ in range(8)]
        tokens = w.counts()["instances"]["a"]["retry_tokens"]
    assert attempts == [2, 2, 2, 1, 1, 1, 1, 1]
    assert tokens == 0


async def test_those_who_wait_leave_room_for_others(autojump_clock: object) -> None:
    """A class that is down must not fill the router with its waiting requests."""
    backends = [instance("down", model="d"), instance("well", model="w")]
    scripts = {"down": Outage()}
    limits = RouterLimits(max_requests=10)
    async with world(*backends, scripts=scripts, router=limits, retries=ONCE) as w:
        for _ in range(5):
            await invoke(w.router, chat(model="d"))
        async with trio.open_nursery() as nursery:
            for _ in range(30):
                nursery.start_soon(invoke, w.router, chat(model="d"))
            await trio.testing.wait_all_tasks_blocked()
            assert w.desk.pausing == 5
            begun = trio.current_time()
            assert (await invoke(w.router, chat(model="w"))).backend.name == "well"
            assert trio.current_time() == begun
            nursery.cancel_scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert w.desk.pausing == 0


async def test_a_fallback_class_comes_before_any_waiting(autojump_clock: object) -> None:
    backends: list[InstanceConfig] = [instance("a", model_class="small"), instance("b", model_class="big")]
    routes = (Route(fallback=("big",)),)
    async with world(*backends, scripts={"a": Outage()}, routes=routes) as w:
        for _ in range(10):
            begun = trio.current_time()
            assert (await invoke(w.router, chat(model="small"))).backend.name == "b"
            assert trio.current_time() == begun
        assert state(w) == "breaker_open"


async def test_a_wait_looks_at_the_fallback_classes_too(autojump_clock: object) -> None:
    backends = [instance("a", model_class="small"), instance("b", model_class="big")]
    scripts = {"a": Outage(), "b": Outage(0, 3)}
    async with world(*backends, scripts=scripts, routes=(Route(fallback=("big",)),), retries=ONCE) as w:
        for _ in range(5):
            await invoke(w.router, chat(model="small"))
        response = await invoke(w.router, chat(model="small"))
    assert response.backend.name == "b"


async def test_a_bug_gives_back_what_its_attempt_held(autojump_clock: object) -> None:
    async with world(instance("a"), scripts={"a": Script([broken()] * 5 + [answer()])}, retries=ONCE) as w:
        await trip(w)
        await trio.sleep(6.5)
        turns = view(w).turns
        del view(w).turns
        assert error_of(await invoke(w.router, chat())).code is ErrorCode.INTERNAL
        view(w).turns = turns
        assert len(w.desk.budget) == 0
        assert (await invoke(w.router, chat())).backend.name == "a", "the probe's place is free"
