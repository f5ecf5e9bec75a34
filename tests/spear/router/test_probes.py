"""Active probes at scripted backends, in virtual time: when they are sent, and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

import pytest
import trio
import trio.testing

from spear.config import Config, HealthConfig, InstanceConfig, Probe, RetryConfig
from spear.ir import (
    BackendError,
    Capabilities,
    ChatRequest,
    ConfigError,
    EmbeddingsRequest,
    Failure,
    Limits,
    Operation,
    RequestEnvelope,
)
from spear.router import build_generation, invoke, stream, succeed
from spear.router.health import HALF_OPEN, Breaker, Health, Tally
from spear.router.probes import prober_spec
from spear.telemetry import Counters
from tests.spear.router.test_health_routing import Outage, limited, state, view
from tests.spear.router.world import CHAT, Script, ScriptedKind, World, answer, broken, chat, instance, world

ONCE = RetryConfig(per_instance=1)
EVERY = 30.0
PROBE = Probe(every=EVERY, timeout=5.0)


def probed(name: str = "a", **fields: object) -> InstanceConfig:
    fields.setdefault("probe", PROBE)
    fields.setdefault("model", "m")
    return instance(name, **fields)


class Noting(Outage):
    """An outage that remembers when it was asked."""

    def __init__(self, begins: float = 0.0, ends: float = 1e9, failure: Any = None) -> None:
        super().__init__(begins, ends, failure)
        self.begun = trio.current_time()
        self.times: list[float] = []

    def step(self, request: object, call: object) -> object:
        self.times.append(trio.current_time() - self.begun)
        return super().step(request, call)


async def start(w: World, seed: int = 1) -> Counters:
    counters = Counters()
    await w.supervisor.start(prober_spec(w.desk, counters, rng=Random(seed)))
    return counters


def seen(w: World) -> Mapping[str, Any]:
    (node,) = (each for each in w.supervisor.snapshot().walk() if each.path == "test/probes")
    return node.state


async def become(w: World, states: set[str], limit: float) -> None:
    with trio.fail_after(limit):
        while state(w) not in states:  # noqa: ASYNC110
            await trio.sleep(0.25)


def first(seed: int = 1) -> float:
    """When the first probe is sent."""
    return EVERY * Random(seed).random()


def refusing(failure: Failure = Failure.AUTH) -> BackendError:
    return broken(failure, message="no")


# --- what it asks -----------------------------------------------------------------------------------------------------


async def test_the_question_is_the_least_that_can_be_asked(autojump_clock: object) -> None:
    script = Script()
    async with world(probed(), scripts={"a": script}) as w:
        await start(w)
        await trio.sleep(EVERY + 1)
    asked = {each.operation: each for each in script.requests}
    payload = asked[CHAT].payload
    assert isinstance(payload, ChatRequest)
    assert (payload.model, payload.messages[0].text(), payload.generation.max_tokens) == ("m", "ping", 1)
    payload = asked[Operation.EMBEDDINGS].payload
    assert isinstance(payload, EmbeddingsRequest)
    assert (payload.model, payload.input) == ("m", ("ping",))
    assert {each.meta.source for each in script.requests} == {"probe"}


async def test_it_has_the_conditions_of_an_attempt(autojump_clock: object) -> None:
    script = Script()
    async with world(probed(ops=(CHAT,)), scripts={"a": script}) as w:
        await start(w)
        await trio.sleep(EVERY + 1)
        call = script.calls[0]
        assert call.deadline == pytest.approx(trio.current_time() - EVERY - 1 + first() + 5)
        assert (call.connect, call.first_event, call.idle) == (3, 5, 30)


# --- when -------------------------------------------------------------------------------------------------------------


async def test_an_idle_backend_is_asked_every_so_often(autojump_clock: object) -> None:
    script = Noting(begins=1e9)
    async with world(probed(ops=(CHAT,)), instance("b", model="m"), scripts={"a": script}) as w:
        counters = await start(w)
        await trio.sleep(10 * EVERY)
        assert w.scripts["b"].requests == []
    assert script.times == pytest.approx([first() + n * EVERY for n in range(10)])
    assert counters.snapshot() == {'probes_total{backend="a",outcome="succeeded"}': 10}


async def test_first_probes_are_spread(autojump_clock: object) -> None:
    scripts = {name: Noting(begins=1e9) for name in "abcdefgh"}
    async with world(*(probed(name, ops=(CHAT,)) for name in scripts), scripts=scripts) as w:
        await start(w)
        await trio.sleep(EVERY)
    times = sorted(each.times[0] for each in scripts.values())
    assert 0 <= times[0] < times[-1] <= EVERY
    assert len(set(times)) == len(times)


@pytest.mark.parametrize("streamed", [False, True])
async def test_no_probe_while_traffic_proves_health(autojump_clock: object, streamed: bool) -> None:
    script = Noting(begins=1e9)
    async with world(probed(ops=(CHAT,)), scripts={"a": script}) as w:
        await start(w)
        for _ in range(20):
            if streamed:
                async with stream(w.router, chat()) as events:
                    async for _event in events:
                        pass
            else:
                await invoke(w.router, chat())
            await trio.sleep(EVERY - 1)
        assert [each.meta.source for each in script.requests] == [None] * 20
        await trio.sleep(2)
        assert script.requests[-1].meta.source == "probe"


async def test_traffic_of_one_operation_proves_nothing_of_another(autojump_clock: object) -> None:
    script = Script()
    async with world(probed(), scripts={"a": script}) as w:
        await start(w)
        for _ in range(20):
            await invoke(w.router, chat())
            await trio.sleep(10)
    sources = {(each.operation, each.meta.source) for each in script.requests}
    assert sources == {(CHAT, None), (Operation.EMBEDDINGS, "probe")}


async def test_a_success_after_a_failed_probe_proves_it_again(autojump_clock: object) -> None:
    script = Script([broken(), answer()])
    async with world(probed(ops=(CHAT,)), scripts={"a": script}) as w:
        await start(w)
        await trio.sleep(first() + 1)
        await invoke(w.router, chat())
        await trio.sleep(EVERY - 0.1)
        assert len(script.requests) == 2
        await trio.sleep(0.2)
        assert len(script.requests) == 3


async def test_traffic_that_fails_proves_nothing(autojump_clock: object) -> None:
    script = Script([refusing()])
    async with world(probed(ops=(CHAT,)), scripts={"a": script}) as w:
        await start(w)
        for _ in range(7):
            await invoke(w.router, chat())
            await trio.sleep(10)
    assert "probe" in [each.meta.source for each in script.requests]


async def test_a_drained_one_is_left_alone(autojump_clock: object) -> None:
    script = Script()
    async with world(probed(weight=0), scripts={"a": script}) as w:
        await start(w)
        await trio.sleep(10 * EVERY)
        assert script.requests == []


async def test_the_last_place_is_not_taken(autojump_clock: object) -> None:
    """Of two places one is taken by a request that hangs: the probe waits until it is gone."""
    script = Script([100.0, answer()])
    async with world(probed(ops=(CHAT,), limits=Limits(max_inflight=2)), scripts={"a": script}) as w:
        await start(w)
        await invoke(w.router, chat())
        assert len(script.requests) == 1
        await trio.sleep(EVERY + 1)
        assert [each.meta.source for each in script.requests] == [None, "probe"]
        assert seen(w)["a"]["skipped"] > 3


# --- down -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failure", "most"),
    [
        (broken(), 2 * EVERY),
        (broken(Failure.CONNECT), 2 * EVERY),
        (1e6, 2 * EVERY + 5 * 5),
        (ValueError("a bug"), 2 * EVERY),
    ],
    ids=["500", "refused", "hangs", "bug"],
)
async def test_an_idle_backend_that_dies_is_found_out(autojump_clock: object, failure: object, most: float) -> None:
    script = Noting(begins=1000, failure=failure)
    async with world(probed(ops=(CHAT,)), instance("b", model="m"), scripts={"a": script}) as w:
        await start(w)
        await trio.sleep(1000)
        assert state(w) == "ok"
        await become(w, {"breaker_open"}, most)
        assert sum(at >= 1000 for at in script.times) == 5
        response = await invoke(w.router, chat())
        assert [each.backend for each in response.backend.attempts] == ["b"]


async def test_many_failures_that_are_allowed_make_no_flood(autojump_clock: object) -> None:
    script = Noting()
    settings = HealthConfig(failures=1_000_000)
    async with world(probed(ops=(CHAT,)), scripts={"a": script}, health=settings) as w:
        await start(w)
        await trio.sleep(10 * EVERY)
        assert 90 <= len(script.times) <= 101


async def test_it_is_back_before_a_request_has_to_try(autojump_clock: object) -> None:
    script = Noting(begins=0, ends=100)
    settings = HealthConfig(slow_start_s=1)
    async with world(probed(ops=(CHAT,)), scripts={"a": script}, health=settings) as w:
        await start(w)
        await trio.sleep(100)
        await become(w, {"slow_start", "ok"}, 100)
        assert {each.meta.source for each in script.requests} == {"probe"}
        outage = [at for at in script.times if at < 100]
        assert len(outage) < 15
        opened = view(w).health.observe(trio.current_time())["opened"]
        assert opened == len(outage) - 4


async def test_a_half_open_breaker_is_probed_at_once(autojump_clock: object) -> None:
    """Whether requests opened it before the prober started, or after it had gone to sleep for much longer."""
    for sleeps in (False, True):
        script = Noting(ends=8)
        async with world(probed(ops=(CHAT,)), scripts={"a": script}, retries=ONCE) as w:
            if sleeps:
                await start(w, seed=3)
                await trio.testing.wait_all_tasks_blocked()
            for _ in range(5):
                await invoke(w.router, chat())
            if not sleeps:
                await start(w, seed=3)
            await trio.lowlevel.checkpoint()
            until = view(w).health.recovers_at(CHAT, trio.current_time())
            assert until < script.begun + first(3)
            await trio.sleep_until(until + 0.001)
            assert script.times[5:] == pytest.approx([until - script.begun])


async def test_who_waits_for_a_recovery_is_woken(autojump_clock: object) -> None:
    """The probe has the one place in the half-open breaker, for 0.3 s: a request goes as soon as it is answered."""
    script = Script([broken()] * 5 + [0.3, answer()])
    async with world(probed(ops=(CHAT,)), scripts={"a": script}, health=HealthConfig(close_after=1), retries=ONCE) as w:
        await start(w, seed=3)
        for _ in range(5):
            await invoke(w.router, chat())
        until = view(w).health.recovers_at(CHAT, trio.current_time())
        await trio.sleep_until(until + 0.1)
        assert view(w).health.reason(CHAT, trio.current_time()) == HALF_OPEN
        response = await invoke(w.router, chat(timeout_ms=20_000))
        assert response.result.error is None
        assert trio.current_time() == pytest.approx(until + 0.3)


async def test_an_unanswered_question_ends_by_its_timeout(autojump_clock: object) -> None:
    script = Script([1e6])
    async with world(probed(ops=(CHAT,)), scripts={"a": script}) as w:
        await start(w)
        await trio.sleep(first() + 4.9)
        assert (script.running, view(w).load) == (1, 1)
        await trio.sleep(0.2)
        assert (script.running, script.cancelled, view(w).load) == (0, 1, 0)


# --- what says nothing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failure", "wait"),
    [
        (refusing(Failure.AUTH), EVERY),
        (refusing(Failure.REQUEST), EVERY),
        (limited(), EVERY),
        (limited(retry_after_ms=100_000), 100),
        (limited(retry_after_ms=1000), EVERY),
    ],
)
async def test_a_neutral_end_waits(autojump_clock: object, failure: BackendError, wait: float) -> None:
    script = Noting(failure=failure)
    async with world(probed(ops=(CHAT,)), scripts={"a": script}) as w:
        counters = await start(w)
        await trio.sleep(first() + 9.5 * wait)
        assert script.times == pytest.approx([first() + n * wait for n in range(10)])
        assert state(w) == "ok"
    assert counters.snapshot() == {'probes_total{backend="a",outcome="neutral"}': 10}


async def test_a_neutral_end_keeps_no_place_in_a_half_open_breaker(autojump_clock: object) -> None:
    script = Script([broken()] * 5 + [refusing()])
    async with world(probed(ops=(CHAT,)), scripts={"a": script}, retries=ONCE) as w:
        for _ in range(5):
            await invoke(w.router, chat())
        await start(w)
        await trio.sleep(7)
        assert len(script.requests) == 6
        assert state(w) == "breaker_half_open"
        assert view(w).health.reason(CHAT, trio.current_time()) is None


# --- what it does not count in ----------------------------------------------------------------------------------------


async def test_probes_count_in_nobodys_numbers(autojump_clock: object) -> None:
    script = Noting(begins=200)
    async with world(probed(), scripts={"a": script}) as w:
        before = dict(w.counts())
        del before["instances"]
        await start(w)
        await trio.sleep(600)
        assert len(script.requests) > 10
        each = view(w)
        assert (each.sent, each.failed, each.refused, each.latencies) == (0, 0, 0, {})
        assert each.throttle.tokens == RetryConfig().throttle_tokens
        assert each.health.tally(trio.current_time()) == Tally(0, 0)
        after = dict(w.counts())
        del after["instances"]
        assert after == before


async def test_answers_to_probes_do_not_hide_requests_that_fail(autojump_clock: object) -> None:
    """It answers "ping" and fails at everything else, now and then: the fifth request in a row opens the breaker."""

    class OnlyPings(Script):
        def step(self, request: RequestEnvelope, call: Any) -> object:
            super().step(request, call)
            return answer() if request.meta.source == "probe" else broken()

    script = OnlyPings()
    async with world(probed(ops=(CHAT,)), scripts={"a": script}, retries=ONCE) as w:
        await start(w)
        for n in range(5):
            assert (n, state(w)) == (n, "ok")
            await invoke(w.router, chat())
            await trio.sleep(3 * EVERY if n < 4 else 0)
        assert state(w) == "breaker_open"
        assert len(script.requests) > 10


def test_the_rows_of_a_breaker() -> None:
    def row(*steps: str) -> bool:
        breaker = Breaker(HealthConfig(min_requests=100))
        for now, step in enumerate(steps):
            trial = breaker.begin(now, 1.0)
            match step:
                case "ok":
                    breaker.succeeded(trial, now)
                case "bad":
                    breaker.failed(trial, now, 1.0)
                case _:
                    breaker.probed(trial, step == "probe ok", now, 1.0)
        return breaker.closed

    assert not row(*["probe bad"] * 5)
    assert row(*["probe bad"] * 4, "probe ok", *["probe bad"] * 4)
    assert row(*["probe bad"] * 4, "ok", *["probe bad"] * 4)
    assert not row("probe bad", "bad", "probe bad", "bad", "bad")
    assert not row(*["bad"] * 4, "probe ok", "bad")
    assert row(*["bad"] * 4, "probe ok")
    assert row(*["bad"] * 4, "ok", "bad")


def test_a_probe_that_was_out_when_it_opened_closes_nothing() -> None:
    breaker = Breaker(HealthConfig())
    late = breaker.begin(0, 1.0)
    for _ in range(5):
        breaker.failed(breaker.begin(1, 1.0), 1, 1.0)
    breaker.probed(late, True, 2, 1.0)
    assert (breaker.closed, breaker.until) == (False, 6)


# --- a configuration that changes -------------------------------------------------------------------------------------


def reload(w: World, *instances: InstanceConfig) -> None:
    old = w.desk.generation
    kind = old.instances[0].kind
    succession = succeed(
        old, build_generation(old.config.model_copy(update={"backends": instances}), find_kind=lambda _: kind)
    )
    assert not succession.starting
    w.desk.switch(succession)


async def test_a_reload_changes_the_pace_at_once(autojump_clock: object) -> None:
    script = Noting(begins=1e9)
    async with world(probed(ops=(CHAT,)), scripts={"a": script}) as w:
        await start(w)
        await trio.sleep(EVERY + 1)
        sent = len(script.times)
        reload(w, probed(ops=(CHAT,), probe=Probe(every=1.0)))
        await trio.sleep(10)
        assert len(script.times) - sent >= 10


async def test_a_reload_takes_probes_away_and_brings_others(autojump_clock: object) -> None:
    hangs, other = Script([1e6]), Script()
    async with world(
        probed("a", ops=(CHAT,)), instance("b", model="m", ops=(CHAT,)), scripts={"a": hangs, "b": other}
    ) as w:
        await start(w)
        await trio.sleep(first() + 1)
        assert hangs.running == 1
        reload(w, instance("a", model="m", ops=(CHAT,)), probed("b", ops=(CHAT,)))
        await trio.sleep(0.1)
        assert (hangs.running, hangs.cancelled) == (0, 1)
        assert view(w).load == 0
        await trio.sleep(3 * EVERY)
        assert len(hangs.requests) == 1
        assert len(other.requests) >= 2
        assert list(seen(w)) == ["b"]


def test_without_probes_health_keeps_no_trace() -> None:
    health = Health(HealthConfig())
    assert health.succeeded_at(CHAT) == float("-inf")
    assert not health.recovering(CHAT, 0.0)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"ops": (Operation.SPEECH_TO_TEXT,)},
            "only chat_completions and embeddings can be probed; this backend does speech_to_text",
        ),
        ({"model": None}, "a probe has to name a model"),
        ({"limits": Limits(max_inflight=1)}, "a probe never takes the last place"),
    ],
)
def test_what_cannot_be_probed_is_refused(fields: dict[str, object], expected: str) -> None:
    class Kind(ScriptedKind):
        capabilities = Capabilities(ops=tuple(Operation))

    with pytest.raises(ConfigError) as caught:
        build_generation(Config(backends=(probed(**fields),)), find_kind=lambda _: Kind())
    (problem,) = caught.value.problems
    assert expected in problem.message
    assert problem.key == "probe"


def test_a_probe_that_nobody_listens_to_is_refused() -> None:
    config = Config(backends=(probed(),), health=HealthConfig(enabled=False))
    with pytest.raises(ConfigError, match=r"health\.enabled = false"):
        build_generation(config, find_kind=lambda _: ScriptedKind())
