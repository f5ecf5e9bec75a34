"""Key pools through the real router, in virtual time: another key, cooling, dead keys, trials, what callers see."""

from __future__ import annotations

from collections import Counter

import pytest
import trio

from spear.backends import Call
from spear.config import Config, Credential, KeyLimits, KeysConfig, RetryConfig, Route
from spear.ir import (
    BackendError,
    CanonicalError,
    ErrorCode,
    Failure,
    Meta,
    RequestEnvelope,
    ResponseEnvelope,
    make_error,
)
from spear.router import Desk, build_generation, facts_of, invoke, stream, succeed
from spear.secrets import Secret
from tests.spear.router.record_world import decided, desk_of, log_of, verdicts
from tests.spear.router.test_router_invoke import assert_quiet
from tests.spear.router.world import (
    Script,
    ScriptedKind,
    StillRef,
    answer,
    broken,
    chat,
    instance,
    still_generation,
    world,
)

PRIORITY = {"default_policy": "priority"}


class ByKey(Script):
    """Each key has a script of its own: the steps of `keys[id]`, the last one repeated; others answer."""

    def __init__(self, **keys: list[object]) -> None:
        super().__init__()
        self.keys = keys
        self.asked: Counter[str] = Counter()

    def step(self, request: RequestEnvelope, call: Call) -> object:
        super().step(request, call)
        assert call.key is not None
        self.asked[call.key.id] += 1
        steps = self.keys.get(call.key.id, [answer()])
        return steps[min(self.asked[call.key.id], len(steps)) - 1]


def limited(retry_after_ms: int | None = None) -> BackendError:
    error = make_error(ErrorCode.RATE_LIMITED, "slow down", retry_after_ms=retry_after_ms)
    return BackendError(error, Failure.RATE_LIMIT)


def refused() -> BackendError:
    return BackendError(make_error(ErrorCode.BACKEND_ERROR, "upstream status: 401", retryable=False), Failure.AUTH)


def keys(*names: str, **groups: str) -> tuple[Credential, ...]:
    return tuple(
        Credential(name=name, source=f"env:{name}", value=Secret(f"value of {name}"), quota_group=groups.get(name))
        for name in names
    )


def tries(response: ResponseEnvelope) -> list[tuple[str, str | None, str]]:
    error = response.result.error
    attempts = response.backend.attempts if error is None else error.attempts
    return [(each.backend, each.key_id, each.reason) for each in attempts]


def error_of(response: ResponseEnvelope) -> CanonicalError:
    assert response.result.error is not None
    return response.result.error


def in_session(session: str, **fields: object) -> RequestEnvelope:
    return chat(meta=Meta(session_id=session), **fields)


def keyed(name: str = "a", *names: str, **fields: object):
    return instance(name, credentials=names or ("k1", "k2"), **fields)


# --- which key ------------------------------------------------------------------------------------------------------


async def test_keys_take_turns_by_weight(autojump_clock: object) -> None:
    one, two = keys("k1", "k2")
    script = ByKey()
    async with world(keyed(), scripts={"a": script}, credentials=(one, two.model_copy(update={"weight": 3}))) as w:
        for _ in range(40):
            await invoke(w.router, chat())
    assert script.asked == {"k1": 10, "k2": 30}


async def test_a_session_keeps_its_key_and_comes_back_to_it(autojump_clock: object) -> None:
    script = ByKey()
    async with world(keyed(), scripts={"a": script}, credentials=keys("k1", "k2")) as w:

        async def key_of(session: str) -> str | None:
            return tries(await invoke(w.router, in_session(session)))[-1][1]

        found = {f"s{n}": await key_of(f"s{n}") for n in range(20)}
        assert set(found.values()) == {"k1", "k2"}
        for session, key in found.items():
            assert await key_of(session) == key
        script.keys["k1"] = [limited(5000)] * 100
        for session in found:
            assert await key_of(session) == "k2"
        assert script.asked["k1"] + script.asked["k2"] == 61, "one found out, the others were not sent there"
        script.keys.clear()
        await trio.sleep(5)
        assert {session: await key_of(session) for session in found} == found


# --- another key ----------------------------------------------------------------------------------------------------


async def test_429_moves_on_to_another_key_of_the_same_instance_at_once(autojump_clock: object) -> None:
    script = ByKey(k1=[limited(30_000)])
    async with world(
        keyed(), instance("b", priority=1), scripts={"a": script}, credentials=keys("k1", "k2"), **PRIORITY
    ) as w:
        begun = trio.current_time()
        first = await invoke(w.router, chat())
        assert tries(first) == [("a", "k1", "chosen"), ("a", "k2", "another_key")]
        assert trio.current_time() == begun
        for _ in range(3):
            assert tries(await invoke(w.router, chat())) == [("a", "k2", "chosen")]
        counts = w.counts()
        assert (counts["another_key"], counts["fallbacks"], counts["retries"]) == (1, 0, 0)
        assert counts["keys"]["states"]["k1"] == {"id": "k1", "state": "cooling", "for_s": 30.0}
        await trio.sleep(30)
        script.keys.clear()
        assert {tries(await invoke(w.router, chat()))[0][1] for _ in range(2)} == {"k1", "k2"}
        assert not w.desk.generation.by_name["a"].keys_troubled
        assert_quiet(w)


async def test_no_other_key_of_the_same_quota_group(autojump_clock: object) -> None:
    script = ByKey(k1=[limited(30_000)])
    credentials = keys("k1", "k2", "k3", k1="org", k2="org")
    async with world(
        keyed("a", "k1", "k2"), instance("b", priority=1), scripts={"a": script}, credentials=credentials, **PRIORITY
    ) as w:
        assert tries(await invoke(w.router, chat())) == [("a", "k1", "chosen"), ("b", None, "fallback")]
        plan = w.desk.decide(facts_of(chat()), trio.current_time())
        assert plan.rejected == {"a": "keys_cooling"}
    script = ByKey(k1=[limited(0)])
    async with world(
        keyed("a", "k1", "k2"), instance("b", priority=1), scripts={"a": script}, credentials=credentials, **PRIORITY
    ) as w:
        assert tries(await invoke(w.router, chat()))[1] == ("b", None, "fallback"), "even where nothing cools"
    script = ByKey(k1=[limited(30_000)])
    async with world(keyed("a", "k1", "k2", "k3"), scripts={"a": script}, credentials=credentials) as w:
        assert tries(await invoke(w.router, chat())) == [("a", "k1", "chosen"), ("a", "k3", "another_key")]


async def test_a_refused_key_is_dead_and_the_next_one_is_tried(autojump_clock: object) -> None:
    script = ByKey(k1=[refused()])
    async with world(keyed(), scripts={"a": script}, credentials=keys("k1", "k2")) as w:
        assert tries(await invoke(w.router, chat())) == [("a", "k1", "chosen"), ("a", "k2", "another_key")]
        for _ in range(5):
            assert tries(await invoke(w.router, chat())) == [("a", "k2", "chosen")]
        observed = w.counts()["keys"]
        assert observed["killed"] == 1
        assert observed["states"]["k1"] == {
            "id": "k1", "state": "dead", "for_s": 600.0, "reason": "upstream status: 401"
        }  # fmt: skip
        assert w.desk.generation.by_name["a"].health.state(trio.current_time()) == "ok"


async def test_every_key_is_tried_within_the_sends_of_a_request(autojump_clock: object) -> None:
    names = ("k1", "k2", "k3", "k4")
    script = ByKey(**{name: [refused()] for name in names})
    async with world(keyed("a", *names), scripts={"a": script}, credentials=keys(*names)) as w:
        error = error_of(await invoke(w.router, chat()))
        assert (error.code, len(error.attempts)) == (ErrorCode.BACKEND_ERROR, 3)
        assert len({each.key_id for each in error.attempts}) == 3
        await invoke(w.router, chat())
        error = error_of(await invoke(w.router, chat()))
        assert (error.code, error.attempts, error.retryable) == (ErrorCode.CREDENTIALS_EXHAUSTED, (), False)
        assert error.rejected_reasons == {"a": "keys_dead"}
        assert error.retry_after_ms is None
        assert len(script.requests) == 4


async def test_another_key_is_no_repetition(autojump_clock: object) -> None:
    """After it, the instance may still be asked again, although it was sent two requests."""
    script = ByKey(k1=[refused()], k2=[broken(), answer()])
    async with world(keyed(), scripts={"a": script}, credentials=keys("k1", "k2")) as w:
        assert tries(await invoke(w.router, chat())) == [
            ("a", "k1", "chosen"), ("a", "k2", "another_key"), ("a", "k2", "retry")
        ]  # fmt: skip


async def test_after_a_failure_of_the_backend_the_repetition_has_another_key(autojump_clock: object) -> None:
    script = ByKey(k1=[broken()], k2=[answer()])
    async with world(keyed(), scripts={"a": script}, credentials=keys("k1", "k2")) as w:
        begun = trio.current_time()
        assert tries(await invoke(w.router, chat())) == [("a", "k1", "chosen"), ("a", "k2", "retry")]
        assert trio.current_time() > begun
        assert w.counts()["keys"]["killed"] == w.counts()["keys"]["cooled"] == 0


async def test_a_limited_key_does_not_make_an_instance_look_slow(autojump_clock: object) -> None:
    async with world(keyed(), scripts={"a": ByKey(k1=[limited(9000)], k2=[0.1])}, credentials=keys("k1", "k2")) as w:
        await invoke(w.router, chat())
        estimate = w.desk.generation.by_name["a"].estimate(facts_of(chat()).timing, 30.0)
        assert estimate is not None
        assert estimate.mean == pytest.approx(0.1)


async def test_streams_change_their_key_before_the_commit(autojump_clock: object) -> None:
    script = ByKey(k1=[limited(30_000)])
    async with world(keyed(), scripts={"a": script}, credentials=keys("k1", "k2")) as w:
        async with stream(w.router, chat()) as events:
            kinds = [event.type async for event in events]
        assert kinds[-1] == "completed"
        assert script.asked == {"k1": 1, "k2": 1}
        assert_quiet(w)


# --- nobody is left -------------------------------------------------------------------------------------------------


async def test_all_cooling_is_rate_limited_until_the_first_is_ready(autojump_clock: object) -> None:
    script = ByKey(k1=[limited(90_000)], k2=[limited(70_000)])
    async with world(keyed(), scripts={"a": script}, credentials=keys("k1", "k2")) as w:
        first = error_of(await invoke(w.router, chat()))
        assert first.code is ErrorCode.RATE_LIMITED
        await trio.sleep(10)
        error = error_of(await invoke(w.router, chat()))
        assert (error.code, error.retry_after_ms, error.attempts) == (ErrorCode.RATE_LIMITED, 60_000, ())
        assert error.rejected_reasons == {"a": "keys_cooling"}
        assert error.retryable
        await trio.sleep(59.5)
        assert error_of(await invoke(w.router, chat())).retry_after_ms == 500
        assert len(script.requests) == 2, "nobody was sent there meanwhile"
        script.keys.clear()
        await trio.sleep(0.5)
        assert tries(await invoke(w.router, chat())) == [("a", "k2", "chosen")]


async def test_dead_and_cooling_is_rate_limited(autojump_clock: object) -> None:
    script = ByKey(k1=[refused()], k2=[limited(70_000)])
    async with world(keyed(), scripts={"a": script}, credentials=keys("k1", "k2")) as w:
        await invoke(w.router, chat())
        assert error_of(await invoke(w.router, chat())).code is ErrorCode.RATE_LIMITED


async def test_the_request_that_met_the_limit_waits_for_its_key(autojump_clock: object) -> None:
    script = ByKey(k1=[limited(2500), answer()])
    async with world(keyed("a", "k1"), scripts={"a": script}, credentials=keys("k1")) as w:
        begun = trio.current_time()
        assert tries(await invoke(w.router, chat())) == [("a", "k1", "chosen"), ("a", "k1", "retry")]
        assert trio.current_time() - begun == pytest.approx(2.5)


async def test_it_waits_for_a_cooling_that_others_have_prolonged(autojump_clock: object) -> None:
    script = ByKey(k1=[limited(2000), limited(5000), answer()])
    async with world(keyed("a", "k1"), scripts={"a": script}, credentials=keys("k1")) as w:
        begun, took = trio.current_time(), []

        async def ask() -> None:
            response = await invoke(w.router, chat())
            took.append((trio.current_time() - begun, tries(response)[-1]))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            nursery.start_soon(ask)
        assert [round(at, 3) for at, _ in took] == [5, 5]
        assert_quiet(w)


async def test_where_somebody_is_merely_unwell_there_is_a_recovery_to_wait_for(autojump_clock: object) -> None:
    """Whoever is back first: a cooling key counts as one who is."""
    scripts = {"a": ByKey(), "b": Script([broken()])}
    retries = RetryConfig(per_instance=1)
    async with world(
        keyed("a", "k1"),
        instance("b", priority=1),
        scripts=scripts,
        credentials=keys("k1"),
        retries=retries,
        **PRIORITY,
    ) as w:
        for _ in range(5):
            await invoke(w.router, chat(routing={"backend": "b"}))
        (key,) = w.desk.generation.by_name["a"].pool.keys
        begun = trio.current_time()
        w.desk.keys.failed(key, object(), "cool", limited(2000).error, begun, begun)
        assert tries(await invoke(w.router, chat())) == [("a", "k1", "chosen")]
        assert trio.current_time() - begun == pytest.approx(2.0)


async def test_panic_never_takes_a_dead_key(autojump_clock: object) -> None:
    scripts = {"a": ByKey(k1=[refused()]), "b": Script([broken()])}
    async with world(
        keyed("a", "k1"), instance("b", priority=1), scripts=scripts, credentials=keys("k1"), on_exhausted="panic",
        retries=RetryConfig(per_instance=1), **PRIORITY,
    ) as w:  # fmt: skip
        for _ in range(12):
            await invoke(w.router, chat())
        assert scripts["a"].asked["k1"] == 1
        assert w.counts()["panics"] > 0


async def test_without_keys_nothing_changes(autojump_clock: object) -> None:
    async with world(instance("a"), scripts={"a": Script([limited(1000), answer()])}) as w:
        assert tries(await invoke(w.router, chat())) == [("a", None, "chosen"), ("a", None, "retry")]
        assert w.desk.generation.by_name["a"].pool is None


async def test_fallback_classes_follow_where_keys_are_dead(autojump_clock: object) -> None:
    script = ByKey(k1=[refused()])
    async with world(
        keyed("a", "k1", model="m"), instance("b", model="n"), scripts={"a": script}, credentials=keys("k1"),
        routes=(Route(fallback=("n",)),),
    ) as w:  # fmt: skip
        for _ in range(2):
            assert tries(await invoke(w.router, chat(model="m")))[-1][0] == "b"


# --- trials ---------------------------------------------------------------------------------------------------------


async def test_a_dead_key_is_tried_out_by_one_request(autojump_clock: object) -> None:
    script = ByKey(k1=[refused(), refused(), 5, answer()])
    async with world(keyed("a", "k1"), scripts={"a": script}, credentials=keys("k1")) as w:
        await invoke(w.router, chat())
        await trio.sleep(599)
        assert error_of(await invoke(w.router, chat())).code is ErrorCode.CREDENTIALS_EXHAUSTED
        await trio.sleep(1)
        assert len(tries(await invoke(w.router, chat()))) == 1, "refused again"
        await trio.sleep(600)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(invoke, w.router, chat())
            await trio.sleep(1)
            assert error_of(await invoke(w.router, chat())).code is ErrorCode.CREDENTIALS_EXHAUSTED, "one at a time"
        assert script.asked["k1"] == 3
        assert w.counts()["keys"]["revived"] == 1
        assert (await invoke(w.router, chat())).result.error is None


async def test_a_trial_whose_caller_leaves_says_nothing(autojump_clock: object) -> None:
    script = ByKey(k1=[refused(), 1e6, answer()])
    async with world(keyed("a", "k1"), scripts={"a": script}, credentials=keys("k1")) as w:
        await invoke(w.router, chat())
        await trio.sleep(600)
        with trio.move_on_after(1):
            await invoke(w.router, chat())
        assert w.counts()["keys"]["states"]["k1"]["state"] == "dead"
        assert (await invoke(w.router, chat())).result.error is None
        assert w.counts()["keys"]["states"]["k1"]["state"] == "ok"


async def test_a_stream_revives_its_key_with_the_first_content(autojump_clock: object) -> None:
    script = ByKey(k1=[refused(), answer()])
    async with world(keyed("a", "k1"), scripts={"a": script}, credentials=keys("k1")) as w:
        await invoke(w.router, chat())
        await trio.sleep(600)
        async with stream(w.router, chat()) as events:
            await anext(events)
            assert w.counts()["keys"]["states"]["k1"]["state"] == "ok"
            assert [event.type async for event in events][-1] == "completed"


async def test_a_bug_gives_the_trial_back(autojump_clock: object, monkeypatch: pytest.MonkeyPatch) -> None:
    script = ByKey(k1=[refused(), answer()])
    async with world(keyed("a", "k1"), scripts={"a": script}, credentials=keys("k1")) as w:
        await invoke(w.router, chat())
        await trio.sleep(600)
        with monkeypatch.context() as patch:
            patch.setattr("spear.router._invoke._send", lambda course, leg: 1 / 0)
            assert error_of(await invoke(w.router, chat())).code is ErrorCode.INTERNAL
        assert (await invoke(w.router, chat())).result.error is None


async def test_turned_off(autojump_clock: object) -> None:
    script = ByKey(k1=[refused(), refused(), answer()])
    async with world(
        keyed("a", "k1"), scripts={"a": script}, credentials=keys("k1"), keys=KeysConfig(enabled=False)
    ) as w:
        answers = [await invoke(w.router, chat()) for _ in range(3)]
    assert [each.result.error is None for each in answers] == [False, False, True]


# --- a reload -------------------------------------------------------------------------------------------------------

KIND = ScriptedKind()


def build(credentials: tuple[Credential, ...], *instances):
    return build_generation(Config(backends=instances, credentials=credentials), find_kind=lambda _: KIND)


def test_a_reload_keeps_what_is_known_of_keys_that_stay(autojump_clock: object) -> None:
    desk = Desk(build(keys("k1", "k2"), keyed("a", "k1", "k2"), keyed("b", "k1")))
    one, two = desk.generation.by_name["a"].pool.keys
    desk.keys.failed(one, object(), "kill", refused().error, 0.0, 0.0)
    new = (one_new, _) = keys("k1", "k2")
    changed = (one_new.model_copy(update={"value": Secret("another")}), new[1])
    desk.switch(succeed(desk.generation, build(new, keyed("a", "k1", "k2"), keyed("b", "k1", model="m"))))
    a, b = desk.generation.instances
    assert (a.pool.keys, b.pool.keys) == ((one, two), (one,))
    assert (a.keys_reason(1.0), b.keys_reason(1.0)) == (None, "keys_dead")
    desk.switch(succeed(desk.generation, build(changed, keyed("a", "k1", "k2"), keyed("b", "k1", model="m"))))
    a, b = desk.generation.instances
    assert (a.keys_reason(1.0), b.keys_reason(1.0)) == (None, None)
    assert a.pool.keys[0] is b.pool.keys[0] is not one
    assert a.pool.keys[1] is two


# --- decisions ------------------------------------------------------------------------------------------------------


def test_deciding_picks_no_key_and_changes_nothing() -> None:
    generation = still_generation(keyed("a", "k1", "k2"), credentials=keys("k1", "k2"))
    desk = Desk(generation)
    (a,) = generation.instances
    desk.keys.failed(a.pool.keys[0], object(), "cool", limited(5000).error, 0.0, 0.0)
    before = [(k.dead, k.trial, k.group.until) for k in a.pool.keys]
    for _ in range(5):
        assert desk.decide(facts_of(chat()), 1.0).chosen is a
    assert [(k.dead, k.trial, k.group.until) for k in a.pool.keys] == before
    assert isinstance(a.ref, StillRef)


# --- with limits of their own ---------------------------------------------------------------------------------------


async def test_a_key_without_room_is_passed_over(autojump_clock: object) -> None:
    one, two = keys("k1", "k2")
    script = ByKey()
    limited_one = one.model_copy(update={"limits": KeyLimits(rpm=2)})
    async with world(keyed(), scripts={"a": script}, credentials=(limited_one, two)) as w:
        for _ in range(10):
            assert (await invoke(w.router, in_session("s"))).result.error is None
            assert (await invoke(w.router, chat())).result.error is None
    assert script.asked == {"k1": 2, "k2": 18}


async def test_one_cools_and_the_other_has_no_room(autojump_clock: object) -> None:
    one, two = keys("k1", "k2")
    script = ByKey(k1=[limited(10_000)])
    limited_two = two.model_copy(update={"limits": KeyLimits(rpm=1)})
    async with world(keyed(), scripts={"a": script}, credentials=(one, limited_two)) as w:
        assert tries(await invoke(w.router, chat())) == [("a", "k1", "chosen"), ("a", "k2", "another_key")]
        error = error_of(await invoke(w.router, chat()))
        assert (error.code, error.rejected_reasons) == (ErrorCode.RATE_LIMITED, {"a": "limit:key_rpm"})
        assert error.retry_after_ms == 10_000
        await trio.sleep(10)
        script.keys.clear()
        assert tries(await invoke(w.router, chat())) == [("a", "k1", "chosen")]


def test_decisions_about_keys_replay_bit_for_bit() -> None:
    credentials = keys("k1", "k2", "k3")
    generation = still_generation(keyed("a", "k1", "k2"), keyed("b", "k3", priority=1), credentials=credentials)
    desk = desk_of(generation)
    a, b = generation.instances
    plans = [decided(desk, chat(), 0.0)]
    for key in a.pool.keys:
        desk.keys.failed(key, object(), "kill", refused().error, 0.0, 0.0)
    plans.append(decided(desk, chat(), 1.0))
    desk.keys.failed(b.pool.keys[0], object(), "cool", limited(5000).error, 1.0, 1.0)
    plans.append(decided(desk, chat(), 2.0))
    desk.keys.failed(b.pool.keys[0], object(), "kill", refused().error, 2.0, 2.0)
    plans.append(decided(desk, chat(), 7.0))
    codes = [None if each.error is None else each.error.code for each in plans]
    assert codes == [None, None, ErrorCode.RATE_LIMITED, ErrorCode.CREDENTIALS_EXHAUSTED]
    assert plans[2].error.retry_after_ms == 4000
    found = verdicts(log_of(desk))
    assert len(found) == 4
    assert [each.differs for each in found] == [()] * 4
