"""The race: who wins, what becomes of the others, and that nothing is left of them when the call returns."""

from __future__ import annotations

import contextlib
import io
import math

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from spear.backends import Finished
from spear.config import (
    Config,
    Credential,
    DecisionsConfig,
    FilterConfig,
    HealthConfig,
    Hedge,
    RetryConfig,
    Route,
    RouteMatch,
    RouterLimits,
    Timeouts,
)
from spear.ir import (
    Attempt,
    ChatMessage,
    ChatRequest,
    Completed,
    ContentDelta,
    EmbeddingsRequest,
    ErrorCode,
    ErrorEvent,
    Failure,
    Limits,
    Operation,
    RequestEnvelope,
    ResponseEnvelope,
    SpearError,
    Started,
)
from spear.router import build_generation, invoke, stream, succeed
from spear.secrets import Secret
from tests.spear.router.test_external_filter import Said
from tests.spear.router.test_router_invoke import assert_quiet, outcomes
from tests.spear.router.world import CHAT, Script, ScriptedKind, World, answer, broken, chat, instance, world

ALWAYS = Hedge(max_extra_load=1.0, delay=1.0)
AB = [instance("a"), instance("b", priority=1)]
ABC = [*AB, instance("c", priority=2)]


def hedged(hedge: Hedge = ALWAYS, **route: object) -> dict[str, object]:
    return {"default_policy": "priority", "routes": (Route(hedge=hedge, **route),)}


def slow(seconds: float, text: str = "slow") -> Script:
    """Answers after so many seconds, streamed or not."""
    return _Slow(seconds, text)


class _Slow(Script):
    def __init__(self, seconds: float, text: str) -> None:
        super().__init__()
        self.seconds, self.text = seconds, text

    async def invoke(self, request, call):  # type: ignore[no-untyped-def]
        self.steps = [self.seconds]
        await super().invoke(request, call)
        return answer(self.text)

    def stream(self, request, call):  # type: ignore[no-untyped-def]
        started, delta = Started(backend="scripted"), ContentDelta(delta=self.text)
        self.steps = [[started, self.seconds, delta, Finished(answer(self.text))]]
        return super().stream(request, call)


async def by_invoke(w: World, request: RequestEnvelope | None = None) -> ResponseEnvelope:
    return await invoke(w.router, request or chat())


async def by_stream(w: World, request: RequestEnvelope | None = None) -> ResponseEnvelope:
    """The response, or that of a failure; what was streamed must be what the response says."""
    try:
        async with stream(w.router, request or chat()) as events:
            seen = [event async for event in events]
    except SpearError as error:
        return ResponseEnvelope(request_id="r", operation=CHAT, result={"error": error.error})  # type: ignore[arg-type]
    assert isinstance(seen[-1], Completed)
    assert [event.type for event in seen].count("started") == 1, "nothing of a loser"
    text = "".join(event.delta for event in seen if isinstance(event, ContentDelta))
    assert text == seen[-1].response.unwrap().text
    return seen[-1].response


both = pytest.mark.parametrize("ask", [by_invoke, by_stream])


@both
async def test_a_hedge_wins_and_the_loser_has_ended_when_the_call_returns(autojump_clock: object, ask) -> None:
    scripts = {"a": slow(60), "b": slow(0.5, "quick")}
    scripts["a"].cleanup_s = 3.0
    async with world(*AB, scripts=scripts, **hedged()) as w:
        begun = trio.current_time()
        response = await ask(w)
        assert scripts["a"].running == 0, "joined"
        assert scripts["a"].cancelled == 1
        assert trio.current_time() - begun == pytest.approx(1 + 0.5 + 3)
        assert len(w.desk.budget) == 0
        assert_quiet(w)
        counts = w.counts()
    assert response.unwrap().text == "quick"
    assert outcomes(response) == [("a", "chosen", "superseded"), ("b", "hedge", "ok")]
    assert (counts["hedges"], counts["hedges_won"], counts["superseded"]) == (1, 1, 1)
    assert counts["attempts"] == 2
    assert counts["ok"] == 1


@both
async def test_the_first_one_may_still_win(autojump_clock: object, ask) -> None:
    scripts = {"a": slow(1.5, "first"), "b": slow(60)}
    async with world(*AB, scripts=scripts, **hedged()) as w:
        response = await ask(w)
        assert scripts["b"].running == 0
        assert_quiet(w)
        counts = w.counts()
    assert response.unwrap().text == "first"
    assert outcomes(response) == [("b", "hedge", "superseded"), ("a", "chosen", "ok")]
    assert (counts["hedges"], counts["hedges_won"], counts["superseded"]) == (1, 0, 1)


@both
async def test_one_in_time_is_not_hedged(autojump_clock: object, ask) -> None:
    async with world(*AB, scripts={"a": slow(0.9)}, **hedged()) as w:
        response = await ask(w)
        assert w.scripts["b"].requests == []
        assert w.counts()["hedges"] == 0
        assert_quiet(w)
    assert outcomes(response) == [("a", "chosen", "ok")]


@both
async def test_a_tie_has_one_winner(autojump_clock: object, ask) -> None:
    """Both answer at the same instant, in whatever order Trio runs them."""
    for _ in range(20):
        async with world(*AB, scripts={"a": slow(2), "b": slow(1)}, **hedged()) as w:
            response = await ask(w)
            assert_quiet(w)
            assert w.counts()["superseded"] == 1
        assert sorted(outcome for _, _, outcome in outcomes(response)) == ["ok", "superseded"]


@both
async def test_the_delay_is_learned_from_the_instance_itself(autojump_clock: object, ask) -> None:
    scripts = {"a": slow(0.2), "b": slow(0.1)}
    async with world(*AB, scripts=scripts, **hedged(Hedge(max_extra_load=0.5, delay="p95"))) as w:
        for _ in range(20):
            await ask(w)
        assert w.counts()["hedges"] == 0
        scripts["a"].seconds = 60
        begun = trio.current_time()
        response = await ask(w)
        assert trio.current_time() - begun == pytest.approx(0.2 + 0.1)
    assert outcomes(response)[-1] == ("b", "hedge", "ok")


@both
async def test_hedges_stay_within_their_part_of_the_requests(autojump_clock: object, ask) -> None:
    async with world(*AB, scripts={"a": slow(2)}, **hedged(Hedge(max_extra_load=0.1, delay=1.0))) as w:
        for number in range(1, 101):
            await ask(w)
            assert len(w.scripts["b"].requests) <= number / 10
        counts = w.counts()
    assert counts["hedges"] == 10
    assert counts["hedges_denied"] == 90


@both
async def test_no_hedge_while_the_budget_of_extra_attempts_is_full(autojump_clock: object, ask) -> None:
    retries = RetryConfig(budget_min=0, budget_share=0)
    async with world(*AB, scripts={"a": slow(2)}, retries=retries, **hedged()) as w:
        response = await ask(w)
        counts = w.counts()
    assert outcomes(response) == [("a", "chosen", "ok")]
    assert (counts["hedges"], counts["hedges_denied"]) == (0, 1)


@both
async def test_a_failure_beside_a_running_one_is_replaced_at_once(autojump_clock: object, ask) -> None:
    scripts = {"a": slow(60), "b": Script([broken()]), "c": slow(0.5, "third")}
    async with world(*ABC, scripts=scripts, **hedged()) as w:
        begun = trio.current_time()
        response = await ask(w)
        assert trio.current_time() - begun == pytest.approx(1.5)
        assert_quiet(w)
    assert [each for each in outcomes(response) if each[2] != "superseded"] == [
        ("b", "hedge", "failed"),
        ("c", "fallback", "ok"),
    ]


@both
async def test_the_late_one_that_fails_is_replaced_too(autojump_clock: object, ask) -> None:
    items = [1.5, broken()]

    class LateFailure(Script):
        async def invoke(self, request, call):  # type: ignore[no-untyped-def]
            self.requests.append(request)
            await trio.sleep(1.5)
            raise broken()

    scripts = {"a": LateFailure([items]), "b": slow(60), "c": slow(0.5, "third")}
    async with world(*ABC, scripts=scripts, **hedged()) as w:
        response = await ask(w)
        assert_quiet(w)
    assert outcomes(response) == [
        ("a", "chosen", "failed"),
        ("b", "hedge", "superseded"),
        ("c", "fallback", "ok"),
    ]


@both
async def test_with_nobody_left_the_running_one_is_waited_for(autojump_clock: object, ask) -> None:
    scripts = {"a": slow(5, "late"), "b": Script([broken()])}
    async with world(*AB, scripts=scripts, **hedged()) as w:
        response = await ask(w)
        assert_quiet(w)
    assert response.unwrap().text == "late"
    assert outcomes(response) == [("b", "hedge", "failed"), ("a", "chosen", "ok")]


@both
async def test_a_late_one_that_nobody_can_help_is_no_news(autojump_clock: object, ask) -> None:
    """Routes with one backend would fill the record with it; where the request fails, it belongs to the story."""
    unsampled = DecisionsConfig(sample=0.0)
    async with world(AB[0], scripts={"a": slow(5)}, decisions=unsampled, **hedged()) as w:
        (await ask(w)).unwrap()
        assert w.desk.decisions.records() == []
        assert w.desk.counts.hedges == 0
    hasty = instance("a", timeouts=Timeouts(total=3))
    async with world(
        hasty, scripts={"a": slow(5)}, decisions=unsampled, retries=RetryConfig(per_instance=1), **hedged()
    ) as w:
        assert (await ask(w)).result.error is not None
        found = [each for each in w.desk.decisions.records() if each["kind"] == "decision"]
        assert len(found) >= 2
        assert [each for each in found if each["sampled"]] == []


@both
async def test_one_that_fails_before_it_is_late_falls_back_and_that_one_is_hedged(autojump_clock: object, ask) -> None:
    scripts = {"a": Script([broken()]), "b": slow(60), "c": slow(0.1, "third")}
    async with world(*ABC, scripts=scripts, **hedged()) as w:
        response = await ask(w)
        assert_quiet(w)
    assert outcomes(response) == [
        ("a", "chosen", "failed"),
        ("b", "fallback", "superseded"),
        ("c", "hedge", "ok"),
    ]


async def test_when_all_of_a_race_fail_the_course_goes_on(autojump_clock: object) -> None:
    """The same instance again after a backoff, as without a race."""
    scripts = {"a": Script([[1.5, broken()], answer("ok")]), "b": Script([[2.0, broken()]])}
    async with world(*AB, scripts=scripts, **hedged()) as w:
        response = await by_stream(w)
        assert_quiet(w)
    assert outcomes(response) == [
        ("a", "chosen", "failed"),
        ("b", "hedge", "failed"),
        ("a", "retry", "ok"),
    ]


@pytest.mark.parametrize("failure", [Failure.REQUEST, Failure.REFUSED])
@both
async def test_what_no_other_could_mend_ends_the_race(autojump_clock: object, ask, failure: Failure) -> None:
    scripts = {"a": slow(60), "b": Script([broken(failure, ErrorCode.CONTENT_REFUSED)])}
    async with world(*ABC, scripts=scripts, **hedged()) as w:
        begun = trio.current_time()
        response = await ask(w)
        assert trio.current_time() - begun == pytest.approx(1)
        assert scripts["a"].running == 0
        assert w.scripts["c"].requests == []
        assert_quiet(w)
    assert response.result.error is not None
    assert response.result.error.code is ErrorCode.CONTENT_REFUSED
    assert outcomes(response) == [("b", "hedge", "failed"), ("a", "chosen", "superseded")]


@both
async def test_three_sends_in_all_are_the_bound_of_a_race_too(autojump_clock: object, ask) -> None:
    scripts = {name: slow(60) for name in "abcde"}
    backends = [instance(name, priority=at) for at, name in enumerate("abcde")]
    hedge = Hedge(max_extra_load=1.0, max_attempts=5, delay=1.0)
    async with world(*backends, scripts=scripts, **hedged(hedge)) as w:
        w.desk.purses.of(RouteMatch(), hedge)._tokens = 10_000_000
        await ask(w)
        assert sum(len(script.requests) for script in scripts.values()) == 3
        assert_quiet(w)


@both
async def test_several_hedges_follow_one_another(autojump_clock: object, ask) -> None:
    scripts = {"a": slow(60), "b": slow(60), "c": slow(0.5, "third")}
    hedge = Hedge(max_extra_load=1.0, max_attempts=3, delay=1.0)
    async with world(*ABC, scripts=scripts, **hedged(hedge)) as w:
        w.desk.purses.of(RouteMatch(), hedge)._tokens = 10_000_000
        begun = trio.current_time()
        response = await ask(w)
        assert trio.current_time() - begun == pytest.approx(2.5)
        assert_quiet(w)
    assert outcomes(response)[-1] == ("c", "hedge", "ok")
    assert [outcome for _, _, outcome in outcomes(response)] == ["superseded", "superseded", "ok"]


@both
async def test_a_full_target_is_no_hedge_and_the_next_one_is(autojump_clock: object, ask) -> None:
    limits = Limits(max_inflight=1, max_queue=0)
    backends = [instance("a"), instance("b", priority=1, limits=limits), instance("c", priority=2)]
    scripts = {"a": slow(60), "b": slow(1000), "c": slow(0.5, "third")}
    async with world(*backends, scripts=scripts, **hedged()) as w, trio.open_nursery() as nursery:
        nursery.start_soon(by_invoke, w, chat(routing={"backend": "b"}))
        await trio.testing.wait_all_tasks_blocked()
        w.desk.generation.by_name["b"].room = 1000  # the router believes that there is room
        response = await ask(w)
        counts = w.counts()
        nursery.cancel_scope.cancel()
    assert outcomes(response) == [
        ("b", "hedge", "refused"),
        ("a", "chosen", "superseded"),
        ("c", "hedge", "ok"),
    ]
    assert counts["hedges"] == 1


@both
async def test_a_full_target_and_nobody_else_leaves_the_first_one_alone(autojump_clock: object, ask) -> None:
    limits = Limits(max_inflight=1, max_queue=0)
    scripts = {"a": slow(2, "mine"), "b": slow(1000)}
    backends = [instance("a"), instance("b", priority=1, limits=limits)]
    async with world(*backends, scripts=scripts, **hedged()) as w, trio.open_nursery() as nursery:
        nursery.start_soon(by_invoke, w, chat(routing={"backend": "b"}))
        await trio.testing.wait_all_tasks_blocked()
        w.desk.generation.by_name["b"].room = 1000
        tokens = w.desk.purses.of(RouteMatch(), ALWAYS).tokens
        response = await ask(w)
        assert w.desk.purses.of(RouteMatch(), ALWAYS).tokens == tokens + 1, "it was not paid for"
        counts = w.counts()
        nursery.cancel_scope.cancel()
    assert response.unwrap().text == "mine"
    assert counts["hedges"] == 0


@both
async def test_a_first_one_that_met_a_full_mailbox_pays_nothing_in(autojump_clock: object, ask) -> None:
    limits = Limits(max_inflight=1, max_queue=0)
    backends = [instance("a", limits=limits), instance("b", priority=1)]
    async with world(*backends, scripts={"a": slow(1000)}, **hedged()) as w, trio.open_nursery() as nursery:
        nursery.start_soon(by_invoke, w, chat())
        await trio.testing.wait_all_tasks_blocked()
        purse = w.desk.purses.of(RouteMatch(), ALWAYS)
        assert purse.tokens == 1
        w.desk.generation.by_name["a"].room = 1000
        response = await ask(w)
        assert purse.tokens == 2
        nursery.cancel_scope.cancel()
    assert outcomes(response) == [("a", "chosen", "refused"), ("b", "fallback", "ok")]


@both
async def test_the_hedge_goes_to_another_quota_group(autojump_clock: object, ask) -> None:
    secret = Secret("k")
    credentials = tuple(
        Credential(name=name, source="env:K", value=secret, quota_group=group)
        for name, group in (("k1", "org"), ("k2", "org"), ("k3", "other"))
    )
    backends = [
        instance("a", credentials=("k1",)),
        instance("b", priority=1, credentials=("k2",)),
        instance("c", priority=2, credentials=("k3",)),
    ]
    async with world(*backends, scripts={"a": slow(50)}, credentials=credentials, **hedged()) as w:
        response = await ask(w)
        assert w.scripts["b"].requests == []
    assert outcomes(response)[-1] == ("c", "hedge", "ok")
    async with world(*backends[:2], scripts={"a": slow(50)}, credentials=credentials, **hedged()) as w:
        response = await ask(w)
        assert w.desk.purses.of(RouteMatch(), ALWAYS).tokens == 1, "it was not paid for"
    assert outcomes(response) == [("a", "chosen", "ok")]


async def test_stored_responses_and_other_routes_are_never_hedged(autojump_clock: object) -> None:
    messages = (ChatMessage(role="user", content="hi"),)
    stored = RequestEnvelope(operation=CHAT, payload=ChatRequest(messages=messages, extra={"store": True}))
    texts = RequestEnvelope(operation=Operation.EMBEDDINGS, payload=EmbeddingsRequest(input=("a",)))
    async with world(*AB, scripts={"a": slow(50)}, **hedged(match=RouteMatch(operation=CHAT))) as w:
        for request in (stored, texts):
            assert outcomes(await by_invoke(w, request)) == [("a", "chosen", "ok")]
        assert outcomes(await by_stream(w, stored)) == [("a", "chosen", "ok")]
        assert w.desk.purses.of(RouteMatch(operation=CHAT), ALWAYS).tokens == 0, "they pay nothing in"


async def test_without_a_hedge_there_is_no_race(autojump_clock: object) -> None:
    async with world(*AB, scripts={"a": slow(60)}, default_policy="priority") as w:
        assert not w.desk.generation.hedged
        assert outcomes(await by_invoke(w)) == [("a", "chosen", "ok")]


@both
async def test_a_loser_says_nothing_about_its_health(autojump_clock: object, ask) -> None:
    async with world(*AB, scripts={"a": slow(60)}, **hedged()) as w:
        for _ in range(20):
            await ask(w)
        a, b = w.desk.generation.instances
        assert a.health.quiet
        assert b.health.quiet
        assert a.throttle.tokens == 10
        assert (a.sent, a.failed) == (20, 0)
        assert a.load == 0
        estimate = a.estimate(chat_timing(ask), 30.0)
        assert estimate is not None
        assert estimate.mean >= 1.0, "it would have taken longer than that"


def chat_timing(ask: object) -> tuple[Operation, bool]:
    del ask  # neither asks for the feature `stream` by itself
    return CHAT, False


@both
async def test_the_percentile_stands_although_the_slow_ones_are_never_answered(autojump_clock: object, ask) -> None:
    """One in ten is slow. Were those that lose not counted, the delay would sink until everything seemed late."""
    scripts = {"a": slow(0.2), "b": slow(0.1)}
    async with world(*AB, scripts=scripts, **hedged(Hedge(max_extra_load=0.05))) as w:
        a = w.desk.generation.by_name["a"]
        for number in range(400):
            scripts["a"].seconds = 5.0 if number % 10 == 0 else 0.2 + number % 10 / 100
            await ask(w)
        late = a.latency(chat_timing(ask)).percentile(0.95)
        assert 15 <= w.counts()["hedges"] <= 20
        assert late is not None
        assert late >= 0.29


async def test_the_time_of_the_winner_does_not_count_the_cleanup_of_the_loser(autojump_clock: object) -> None:
    scripts = {"a": slow(60), "b": slow(0.5)}
    scripts["a"].cleanup_s = 9.0
    async with world(*AB, scripts=scripts, **hedged()) as w:
        await by_invoke(w)
        estimate = w.desk.generation.by_name["b"].estimate((CHAT, False), 30.0)
        assert estimate is not None
        assert estimate.mean == pytest.approx(0.5)


@both
async def test_a_half_open_probe_that_is_superseded_is_given_back(autojump_clock: object, ask) -> None:
    health = HealthConfig(failures=1, min_requests=1000, open_s=5.0, slow_start_s=0.0)
    scripts = {"a": slow(3, "first"), "b": Script([broken(), 100.0])}
    backends = [instance("a"), instance("b", priority=1)]
    async with world(*backends, scripts=scripts, health=health, retries=RetryConfig(per_instance=1), **hedged()) as w:
        await by_invoke(w, chat(routing={"backend": "b"}))
        b = w.desk.generation.by_name["b"]
        assert b.health.reason(CHAT, trio.current_time()) == "breaker_open"
        await trio.sleep(8)
        scripts["b"].steps = [[100.0]] if ask is by_stream else [100.0]
        response = await ask(w)
        assert outcomes(response)[0] == ("b", "hedge", "superseded")
        assert b.health.reason(CHAT, trio.current_time()) is None, "the next one may try"


@both
async def test_the_request_s_time_runs_out_for_all_of_them(autojump_clock: object, ask) -> None:
    async with world(*AB, scripts={"a": slow(60), "b": slow(60)}, **hedged()) as w:
        begun = trio.current_time()
        response = await ask(w, chat(timeout_ms=4000))
        assert trio.current_time() - begun == pytest.approx(4)
        assert response.result.error is not None
        assert response.result.error.code is ErrorCode.TIMEOUT
        assert_quiet(w)
    assert sorted(outcomes(response)) == [("a", "chosen", "failed"), ("b", "hedge", "failed")]


@both
async def test_an_attempt_s_own_time_runs_out_and_the_hedge_goes_on(autojump_clock: object, ask) -> None:
    backends = [instance("a", timeouts=Timeouts(total=2.0)), instance("b", priority=1)]
    async with world(*backends, scripts={"a": slow(60), "b": slow(3, "second")}, **hedged()) as w:
        response = await ask(w)
        assert_quiet(w)
    assert outcomes(response) == [("a", "chosen", "failed"), ("b", "hedge", "ok")]


async def test_a_stream_that_won_and_then_breaks_ends_with_an_error(autojump_clock: object) -> None:
    items = [Started(backend="b"), ContentDelta(delta="half"), broken()]
    scripts = {"a": slow(60), "b": Script([items])}
    async with world(*ABC, scripts=scripts, **hedged()) as w:
        async with stream(w.router, chat()) as events:
            seen = [event async for event in events]
        assert [event.type for event in seen] == ["started", "content_delta", "error"]
        assert isinstance(seen[-1], ErrorEvent)
        assert [each.outcome for each in seen[-1].error.attempts] == ["superseded", "failed"]
        assert w.scripts["c"].requests == []
        assert_quiet(w)
        assert w.counts()["errors"] == {"backend_error": 1}


async def test_a_stream_without_content_wins_by_its_end(autojump_clock: object) -> None:
    scripts = {"a": slow(60), "b": Script([[Started(backend="b"), 0.5, Finished(answer(""))]])}
    async with world(*AB, scripts=scripts, **hedged()) as w:
        async with stream(w.router, chat()) as events:
            seen = [event async for event in events]
        assert scripts["a"].running == 0
        assert_quiet(w)
    assert [event.type for event in seen] == ["started", "completed"]


async def test_a_hedged_stream_reads_on_at_the_consumer_s_pace(autojump_clock: object) -> None:
    items = [Started(backend="b"), *[ContentDelta(delta="x")] * 200, Finished(answer("x" * 200))]
    scripts = {"a": slow(60), "b": Script([items])}
    seen = 0
    async with world(*AB, scripts=scripts, **hedged()) as w, stream(w.router, chat()) as events:
        async for _ in events:
            seen += 1
            await trio.sleep(0.1)
    assert seen == 202


async def test_a_bug_in_a_race_gives_everything_back(autojump_clock: object, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: object) -> None:
        raise ZeroDivisionError

    async with world(*AB, scripts={"a": slow(60), "b": slow(60)}, **hedged()) as w:
        monkeypatch.setattr("spear.router._race.Race.claim", bug)
        w.scripts["b"].seconds = 0.5  # type: ignore[attr-defined]
        with contextlib.redirect_stderr(io.StringIO()):
            response = await by_invoke(w)
        assert response.result.error is not None
        assert response.result.error.code is ErrorCode.INTERNAL
        assert w.scripts["a"].running == 0
        assert len(w.desk.budget) == 0
        counts = w.counts()
    assert counts["requests"] == sum(counts["errors"].values()) == 1
    assert counts["cancelled"] == 0


@both
@pytest.mark.parametrize("after", [0.0, 0.5, 1.0, 1.2, 1.6])
async def test_a_caller_that_leaves_takes_all_of_them_along(autojump_clock: object, ask, after: float) -> None:
    scripts = {"a": slow(60), "b": slow(60)}
    async with world(*AB, scripts=scripts, **hedged()) as w:
        with trio.move_on_after(after) as scope:
            await ask(w)
        assert scope.cancelled_caught
        await trio.testing.wait_all_tasks_blocked()
        assert len(w.desk.budget) == 0
        assert_quiet(w)
        assert w.counts()["cancelled"] == (1 if w.counts()["requests"] else 0)
        assert all(not each.health._breakers or each.health.quiet for each in w.desk.generation.instances)


async def test_a_caller_that_leaves_while_the_loser_is_cleaning_up(autojump_clock: object) -> None:
    scripts = {"a": slow(60), "b": slow(0.5)}
    scripts["a"].cleanup_s = 5.0
    for ask in (by_invoke, by_stream):
        async with world(*AB, scripts=scripts, **hedged()) as w:
            with trio.move_on_after(3) as scope:
                await ask(w)
            assert scope.cancelled_caught
            await trio.sleep(10)
            assert len(w.desk.budget) == 0
            assert_quiet(w)
            assert w.counts()["cancelled"] == 1


@both
async def test_a_reload_in_a_race_loses_nothing(autojump_clock: object, ask) -> None:
    """The next attempt is decided by what holds then; hedging that is gone is gone."""
    scripts = {"a": slow(3, "mine"), "b": slow(60), "c": slow(60)}
    async with world(*ABC, scripts=scripts, **hedged()) as w, trio.open_nursery() as nursery:
        got: list[ResponseEnvelope] = []

        async def one() -> None:
            got.append(await ask(w))

        nursery.start_soon(one)
        await trio.sleep(0.5)
        kind = ScriptedKind(scripts)
        config = Config(backends=tuple(ABC), default_policy="priority")
        following = succeed(w.desk.generation, build_generation(config, number=2, find_kind=lambda _: kind))
        w.desk.switch(following)
        await trio.sleep(10)
        assert_quiet(w)
    assert outcomes(got[0]) == [("a", "chosen", "ok")]


@both
@pytest.mark.parametrize("reloaded", [False, True])
async def test_what_an_external_filter_said_holds_for_the_hedge(autojump_clock: object, ask, reloaded: bool) -> None:
    """And where a reload has made that void, there is none: what is late does not wait for a filter, too."""
    said = Said({"drop": ["b"]})
    filters = (FilterConfig(name="f", kind="python", timeout=1.0),)
    more = {"filters": filters, "routes": (Route(hedge=ALWAYS, filter="f"),), "default_policy": "priority"}
    async with world(*ABC, scripts={"a": slow(5)}, **more) as w, trio.open_nursery() as nursery:
        w.desk.generation.ports["f"] = said
        got: list[ResponseEnvelope] = []

        async def one() -> None:
            got.append(await ask(w))

        nursery.start_soon(one)
        await trio.sleep(0.5)
        if reloaded:
            old = w.desk.generation
            following = succeed(old, build_generation(old.config, find_kind=lambda _: old.instances[0].kind))
            following.generation.ports["f"] = said
            w.desk.switch(following)
        await trio.sleep(10)
        assert_quiet(w)
        assert w.scripts["b"].requests == []
        assert len(said.questions) == 1
    expected = [("a", "chosen", "ok")] if reloaded else [("a", "chosen", "superseded"), ("c", "hedge", "ok")]
    assert outcomes(got[0]) == expected


TIMES = st.sampled_from([0.0, 0.3, 1.0, 1.5, 2.0, 7.0])
STEPS = st.one_of(
    TIMES.map(lambda seconds: [seconds, Started(backend="x"), ContentDelta(delta="x"), Finished(answer("x"))]),
    st.tuples(TIMES, st.sampled_from(list(Failure))).map(lambda each: [each[0], broken(each[1])]),
    st.tuples(TIMES).map(lambda each: [each[0], ZeroDivisionError("a bug")]),
    TIMES.map(lambda seconds: [Started(backend="x"), seconds]),
)


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.lists(STEPS, min_size=1, max_size=3), min_size=2, max_size=4),
    st.lists(st.tuples(TIMES, st.one_of(st.just(math.inf), TIMES)), min_size=1, max_size=6),
    st.integers(2, 4),
    st.integers(0, 3),
)
def test_whatever_happens_everything_is_given_back(
    backends: list[list[list[object]]], callers: list[tuple[float, float]], most: int, budget: int
) -> None:
    async def main() -> None:
        names = "abcd"[: len(backends)]
        scripts = {name: Script(list(steps), cleanup_s=0.2) for name, steps in zip(names, backends, strict=True)}
        instances = [instance(name, priority=at) for at, name in enumerate(names)]
        hedge = Hedge(max_extra_load=1.0, max_attempts=most, delay=1.0)
        more = {"retries": RetryConfig(budget_min=budget), "router": RouterLimits(max_attempts=4)}
        async with world(*instances, scripts=scripts, **more, **hedged(hedge)) as w:
            async with trio.open_nursery() as nursery:

                async def call(start: float, leave: float) -> None:
                    await trio.sleep(start)
                    with trio.move_on_after(leave):
                        response = await by_stream_or_error(w)
                        attempts: tuple[Attempt, ...] = response
                        assert len({id(each) for each in attempts}) == len(attempts)

                for start, leave in callers:
                    nursery.start_soon(call, start, leave)
            await trio.sleep(1)
            await trio.testing.wait_all_tasks_blocked()
            assert len(w.desk.budget) == 0
            assert_quiet(w)
            counts = w.counts()
            assert counts["hedges"] <= counts["requests"]
            started = sum(len(script.requests) for script in scripts.values())
            assert started <= counts["attempts"]

    with contextlib.redirect_stderr(io.StringIO()):
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def by_stream_or_error(w: World) -> tuple[Attempt, ...]:
    try:
        async with stream(w.router, chat(timeout_ms=20_000)) as events:
            seen = [event async for event in events]
    except SpearError as error:
        return error.error.attempts
    last = seen[-1]
    if isinstance(last, Completed):
        assert last.response.backend is not None
        return last.response.backend.attempts
    assert isinstance(last, ErrorEvent)
    return last.error.attempts
