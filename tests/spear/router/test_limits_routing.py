"""Limits and budgets as a request meets them: who takes it instead, which error, when to come again."""

from __future__ import annotations

import pytest
import trio

import spear
from spear.config import Budget, BudgetMatch, Config, Credential, KeyLimits, Price, Route
from spear.ir import ContentDelta, ErrorCode, ErrorEvent, Failure, Limits, RequestEnvelope, SpearError
from spear.router import Desk, Facts, build_generation, decide, facts_of, invoke, stream, succeed
from spear.router.limits import Quota, Window
from spear.router.limits._allowance import PerSubject, Scope
from spear.router.limits._book import local_meter
from spear.router.policies import Memory
from spear.secrets import Secret
from tests.spear.router.record_world import decided, desk_of, log_of, verdicts
from tests.spear.router.world import (
    Script,
    ScriptedKind,
    answer,
    broken,
    chat,
    instance,
    still_generation,
    world,
)

PRICE = Price(input=1_000_000, output=1_000_000)  # a token costs 1


def capped(text: str = "hi", max_tokens: int = 10, **fields: object) -> RequestEnvelope:
    made = chat(text, **fields)
    generation = made.payload.generation.model_copy(update={"max_tokens": max_tokens})
    return made.model_copy(update={"payload": made.payload.model_copy(update={"generation": generation})})


def spent(text: str = "ok", tokens: int = 10) -> Script:
    return Script([answer(text, input_tokens=tokens // 2, output_tokens=tokens - tokens // 2)])


async def test_a_rate_refuses_says_when_and_admits_exactly_then(autojump_clock: object) -> None:
    async with world(instance("a", limits=Limits(rpm=2))) as w:
        for _ in range(2):
            (await invoke(w.router, chat())).unwrap()
        refused = (await invoke(w.router, chat())).result.error
        assert refused.code is ErrorCode.RATE_LIMITED
        assert refused.retryable
        assert refused.rejected_reasons == {"a": "limit:rpm"}
        assert refused.retry_after_ms == 30_000
        assert len(w.scripts["a"].requests) == 2
        await trio.sleep(29.9)
        assert (await invoke(w.router, chat())).result.error.retry_after_ms == 100
        await trio.sleep(0.1)
        (await invoke(w.router, chat())).unwrap()


@pytest.mark.parametrize(
    ("limits", "reason", "sent"),
    [
        (Limits(rpm=3), "limit:rpm", 3),
        (Limits(rpd=3), "limit:rpd", 3),
        (Limits(tpm=36), "limit:tpm", 3),
        (Limits(tpd=36), "limit:tpd", 3),
        (Limits(input_tpm=6), "limit:input_tpm", 3),
        (Limits(output_tpm=30), "limit:output_tpm", 3),
    ],
)
async def test_each_limit_counts_what_it_says(limits, reason, sent, autojump_clock: object) -> None:
    scripts = {"a": Script([answer("ok", input_tokens=2, output_tokens=10)])}
    async with world(instance("a", limits=limits), scripts=scripts) as w:
        answers = [await invoke(w.router, capped("12345678")) for _ in range(4)]
    assert [each.result.error is None for each in answers] == [True] * sent + [False]
    assert answers[-1].result.error.rejected_reasons == {"a": reason}


async def test_another_instance_takes_what_one_may_not(autojump_clock: object) -> None:
    async with world(instance("a", limits=Limits(rpm=1)), instance("b", limits=Limits(rpm=2))) as w:
        names = [(await invoke(w.router, chat())).backend.name for _ in range(3)]
        error = (await invoke(w.router, chat())).result.error
    assert sorted(names) == ["a", "b", "b"]
    assert error.retry_after_ms == 30_000  # b's, which is sooner than a's


async def test_a_fallback_class_takes_what_the_asked_one_may_not(autojump_clock: object) -> None:
    routes = (Route(fallback=("big",)),)
    a, b = instance("a", model_class="small", limits=Limits(rpm=1)), instance("b", model_class="big")
    async with world(a, b, routes=routes) as w:
        names = [(await invoke(w.router, chat(model="small"))).backend.name for _ in range(2)]
    assert names == ["a", "b"]


async def test_a_request_beyond_the_limit_itself_is_never_to_come_again(autojump_clock: object) -> None:
    async with world(instance("a", limits=Limits(tpm=100))) as w:
        error = (await invoke(w.router, capped(max_tokens=200))).result.error
    assert error.code is ErrorCode.RATE_LIMITED
    assert not error.retryable
    assert error.retry_after_ms is None
    assert "larger than what is allowed" in error.message


async def test_full_passes_sooner_than_a_rate(autojump_clock: object) -> None:
    full = instance("full", limits=Limits(max_inflight=1, max_queue=0))
    limited = instance("a", limits=Limits(rpm=1))
    async with world(full, limited, scripts={"full": Script([5.0])}) as w, trio.open_nursery() as nursery:
        nursery.start_soon(invoke, w.router, chat())
        nursery.start_soon(invoke, w.router, chat())
        await trio.sleep(1)
        error = (await invoke(w.router, chat())).result.error
    assert error.code is ErrorCode.OVERLOADED
    assert error.rejected_reasons == {"full": "full", "a": "limit:rpm"}


async def test_a_key_s_limit_is_shared_by_the_backends_that_use_it(autojump_clock: object) -> None:
    key = Credential(name="k", source="env:K", value=Secret("sk-1"), limits=KeyLimits(rpm=2))
    a, b = instance("a", credentials=("k",)), instance("b", credentials=("k",))
    async with world(a, b, credentials=(key,)) as w:
        for _ in range(2):
            (await invoke(w.router, chat())).unwrap()
        error = (await invoke(w.router, chat())).result.error
    assert error.code is ErrorCode.RATE_LIMITED
    assert error.rejected_reasons == {"a": "limit:key_rpm", "b": "limit:key_rpm"}


# --- what attempts come to -------------------------------------------------------------------------------


async def test_a_failed_connection_takes_nothing(autojump_clock: object) -> None:
    scripts = {"a": Script([broken(Failure.CONNECT)] * 2 + [answer()])}
    async with world(instance("a", limits=Limits(rpm=1)), scripts=scripts) as w:
        assert (await invoke(w.router, chat())).result.error is not None
        assert len(w.scripts["a"].requests) == 2  # the free retry, too
        (await invoke(w.router, chat())).unwrap()


async def test_a_stream_is_priced_by_what_passed_through(autojump_clock: object) -> None:
    """Never zero: not where the backend says nothing, not where the stream breaks, not where the caller leaves."""
    money = Budget(name="money", window=3600.0, cost=1000)
    whole = [ContentDelta(delta="x" * 40)]
    scripts = {"a": Script([[*whole, 5.0], whole, [*whole, broken(Failure.SERVER)], answer("y" * 40)])}
    async with world(instance("a", price=PRICE), scripts=scripts, budgets=(money,)) as w:

        def left() -> float:
            return w.desk.observe()["budgets"]["money"]["cost_left"]

        async with stream(w.router, capped("1234")) as events:  # the caller leaves
            assert (await anext(events)).delta
        await trio.sleep(0.1)
        assert left() == pytest.approx(1000 - 11)
        async with stream(w.router, capped("1234")) as events:  # the stream ends without an end
            found = [each async for each in events]
        assert isinstance(found[-1], ErrorEvent)
        assert left() == pytest.approx(1000 - 22)
        async with stream(w.router, capped("1234")) as events:  # it breaks
            found = [each async for each in events]
        assert found[-1].usage.cost == pytest.approx(11)
        assert left() == pytest.approx(1000 - 33)
        async with stream(w.router, capped("1234")) as events:  # all is well, and no usage is said
            found = [each async for each in events]
        assert found[-1].response.usage.cost == pytest.approx(11)
        assert left() == pytest.approx(1000 - 44)


async def test_a_caller_that_leaves_an_answer_pays_what_was_reserved(autojump_clock: object) -> None:
    budget = Budget(name="b", window=60.0, tokens=100)
    async with world(instance("a"), scripts={"a": Script([60.0])}, budgets=(budget,)) as w:
        with trio.move_on_after(1):
            await invoke(w.router, capped("1234", max_tokens=50))
        assert w.desk.observe()["budgets"]["b"]["tokens_left"] == 49


async def test_a_bug_of_the_router_keeps_what_was_reserved(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = Budget(name="b", window=60.0, tokens=100)

    async def bug(*_: object) -> None:
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError

    monkeypatch.setattr("spear.router._invoke._send", bug)
    async with world(instance("a"), budgets=(budget,)) as w:
        assert (await invoke(w.router, capped("1234", max_tokens=50))).result.error.code is ErrorCode.INTERNAL
        assert w.desk.observe()["budgets"]["b"]["tokens_left"] == 49


async def test_an_actor_that_stops_in_mid_call_leaves_what_was_reserved_as_used(autojump_clock: object) -> None:
    budget = Budget(name="b", window=60.0, tokens=100)
    async with world(instance("a"), scripts={"a": Script([60.0])}, budgets=(budget,)) as w:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(invoke, w.router, capped("1234", max_tokens=50))
            await trio.sleep(1)
            await w.supervisor.stop(w.desk.generation.by_name["a"].ref)
        assert w.desk.usage()["budgets"]["b"]["tokens_left"] == 49
        assert w.desk.observe()["errors"] == {"backend_unavailable": 1}


# --- budgets -------------------------------------------------------------------------------------------------


async def test_a_budget_that_is_used_up(autojump_clock: object) -> None:
    budget = Budget(name="hourly", window=3600.0, cost=25)
    async with world(instance("a", price=PRICE), scripts={"a": spent()}, budgets=(budget,)) as w:
        for _ in range(2):
            (await invoke(w.router, capped(max_tokens=4))).unwrap()  # reserves 5, costs 10
        (await invoke(w.router, capped(max_tokens=4))).unwrap()  # 20 + 5: just fits, and comes to 30
        error = (await invoke(w.router, capped(max_tokens=4))).result.error
        assert error.code is ErrorCode.BUDGET_EXCEEDED
        assert error.rejected_reasons == {"a": "budget:hourly"}
        assert 3600_000 < error.retry_after_ms <= 3660_000
        await trio.sleep(error.retry_after_ms / 1000)
        (await invoke(w.router, capped(max_tokens=4))).unwrap()


async def test_each_task_has_its_own(autojump_clock: object) -> None:
    budget = Budget(name="b", window=60.0, per="task", requests=1)
    async with world(instance("a"), budgets=(budget,)) as w:
        codes = [(await invoke(w.router, chat(task_id=task))).result.error for task in ("t", "u", None, "t", "u", None)]
    assert [each and each.code for each in codes] == [None] * 3 + [ErrorCode.BUDGET_EXCEEDED] * 3


async def test_each_run_of_a_guest_has_its_own_and_others_have_none(autojump_clock: object) -> None:
    budget = Budget(name="b", window=60.0, per="guest", requests=1)

    def asks(run: str | None) -> RequestEnvelope:
        made = chat(task_id="t")
        return made.model_copy(update={"meta": made.meta.model_copy(update={"execution_id": run})})

    async with world(instance("a"), budgets=(budget,)) as w:
        found = [(await invoke(w.router, asks(run))).result.error for run in ("1", "2", "1", None, None)]
    assert [each is None for each in found] == [True, True, False, True, True]


async def test_each_backend_and_each_key_has_its_own(autojump_clock: object) -> None:
    keys = tuple(Credential(name=name, source=f"env:{name}", value=Secret(f"sk-{name}")) for name in ("k", "l"))
    backends = [instance(name, credentials=(key,)) for name, key in (("a", "k"), ("b", "k"), ("c", "l"))]
    budgets = (
        Budget(name="host", window=60.0, per="backend", requests=3),
        Budget(name="key", window=60.0, per="key", requests=4),
    )
    async with world(*backends, credentials=keys, budgets=budgets, default_policy="round_robin") as w:
        names = [(await invoke(w.router, chat())).backend.name for _ in range(7)]
        error = (await invoke(w.router, chat())).result.error
        seen = w.desk.observe()["budgets"]
    assert sorted(names) == ["a", "a", "b", "b", "c", "c", "c"]
    assert error.code is ErrorCode.BUDGET_EXCEEDED
    assert error.rejected_reasons == {"a": "budget:key", "b": "budget:key", "c": "budget:host"}
    assert seen["key"]["requests_left"] == {"k": 0, "l": 1}
    assert seen["host"]["requests_left"] == {"a": 1, "b": 1, "c": 0}


async def test_a_budget_pays_only_for_what_it_matches(autojump_clock: object) -> None:
    budget = Budget(name="big", window=60.0, match=BudgetMatch(model_class="big", task="t"), requests=1)
    a, b = instance("a", model_class="big"), instance("b", model_class="small")
    async with world(a, b, budgets=(budget,)) as w:
        (await invoke(w.router, chat(model="big", task_id="t"))).unwrap()
        (await invoke(w.router, chat(model="big", task_id="u"))).unwrap()
        (await invoke(w.router, chat(model="small", task_id="t"))).unwrap()
        assert (await invoke(w.router, chat(model="big", task_id="t"))).result.error is not None


async def test_from_the_soft_limit_on_the_cheaper_class_answers_and_the_response_says_so(
    autojump_clock: object,
) -> None:
    budget = Budget(
        name="b", window=60.0, match=BudgetMatch(model_class="big"), requests=4, soft=0.5, degrade_to="small"
    )
    a, b = instance("a", model_class="big"), instance("b", model_class="small")
    async with world(a, b, budgets=(budget,)) as w:
        answers = [await invoke(w.router, chat(model="big")) for _ in range(6)]
        named = chat(model="big")
        routing = named.routing.model_copy(update={"backend": "a"})
        named = named.model_copy(update={"routing": routing})
        answers += [await invoke(w.router, named) for _ in range(3)]
        assert w.desk.explain(chat(model="big")).chosen == "b"
    assert [each.backend and each.backend.name for each in answers] == [*"aabbbb", *"aa", None]
    assert [each.backend.degraded for each in answers[:3]] == [(), (), ("budget:b",)]
    assert answers[-1].result.error.code is ErrorCode.BUDGET_EXCEEDED  # who names a backend gets it, to the hard limit
    assert w.scripts["b"].requests[0].payload.model == "small"


def test_a_thousand_tasks_cannot_take_more_memory_than_some() -> None:
    def made(task: str) -> Facts:
        return facts_of(chat(task_id=task))

    budget = PerSubject(
        "budget:b",
        Quota("budget:b", "requests", 2, 60.0, "window"),
        local_meter,
        lambda facts: facts.task_id,
        Scope(),
        most=3,
    )
    for subject in ("t0", "t1", "t2"):
        budget.meter(made(subject), 0.0).reserve(1, 0.0)
    for subject in ("t3", "t4"):  # all are in use: these share one
        assert budget.admits(made(subject), 1, 1.0)
        budget.meter(made(subject), 1.0).reserve(1, 1.0)
    assert len(budget) == 3
    assert not budget.admits(made("t5"), 1, 1.0)
    assert not budget.admits(made("t3"), 1, 1.0)
    assert budget.ready_at(made("t5"), 1, 1.0) == pytest.approx(62)
    assert budget.admits(made("t0"), 1, 1.0)  # whoever has one keeps it
    budget.meter(made("t0"), 1.0).reserve(1, 1.0)
    assert not budget.admits(made("t0"), 1, 30.0)
    assert budget.admits(made("t9"), 1, 70.0)  # nothing of the others counts any more
    budget.meter(made("t9"), 70.0).reserve(1, 70.0)
    assert len(budget) == 1


# --- around it -------------------------------------------------------------------------------------------------


async def test_deciding_and_explaining_take_nothing(mock_clock: object) -> None:
    await trio.lowlevel.checkpoint()
    budget = Budget(name="b", window=60.0, per="task", requests=5)
    desk = Desk(still_generation(instance("a", limits=Limits(rpm=5)), budgets=(budget,)))
    before = desk.observe()
    facts = desk.facts(chat(task_id="t"))
    plans = [
        decide(desk.generation, desk.generation.instances, facts, Memory(), 1, trio.current_time())[0].chosen
        for _ in range(20)
    ]
    for _ in range(20):
        desk.explain(chat(task_id="t"))
    assert {each.name for each in plans} == {"a"}
    assert desk.observe() == before


async def test_what_is_used_stays_used_across_a_reload(mock_clock: object) -> None:
    await trio.lowlevel.checkpoint()
    kind = ScriptedKind()

    def generation(rpm: int, *, weight: int = 1, per: str = "task", window: float = 60.0):
        config = Config(
            backends=(instance("a", limits=Limits(rpm=rpm), weight=weight, price=PRICE),),
            budgets=(Budget(name="b", window=window, per=per, requests=10),),
        )
        return build_generation(config, find_kind=lambda _: kind)

    desk = Desk(generation(5))
    (a,) = desk.generation.instances
    facts = desk.facts(chat(task_id="t"))
    a.bounds.reserve(facts, None, 0.0)
    a.bounds.outputs(facts.operation).learn(1)

    def left() -> tuple[float, object]:
        seen = desk.observe()
        return seen["instances"]["a"]["left"]["limit:rpm"], seen["budgets"]["b"]["requests_left"]

    assert left() == (4, {"t": 9})
    for weight in (2, 3):
        desk.switch(succeed(desk.generation, generation(5, weight=weight)))
        assert desk.generation.instances == (a,)
        assert left() == (4, {"t": 9})
    desk.switch(succeed(desk.generation, generation(7)))
    assert desk.generation.instances == (a,)  # a rate is the router's: the actor goes on
    assert left() == (7, {"t": 9})
    assert len(a.bounds.outputs(facts.operation)._sizes) == 1
    desk.switch(succeed(desk.generation, generation(7, window=120.0)))
    assert left() == (7, {})
    desk.switch(succeed(desk.generation, generation(7, per="all")))
    assert left() == (7, 10)
    desk.switch(succeed(desk.generation, build_generation(Config(backends=(instance("a"),)), find_kind=lambda _: kind)))
    assert desk.generation.instances[0].bounds is None


async def test_without_limits_there_is_nothing_to_ask(mock_clock: object) -> None:
    await trio.lowlevel.checkpoint()
    desk = Desk(still_generation(instance("a"), instance("b", limits=Limits(max_inflight=3))))
    assert [each.bounds for each in desk.generation.instances] == [None, None]
    assert not desk.limits.degrades
    assert desk.generation.remembered.usable


def test_a_rate_does_not_keep_the_filter_from_remembering() -> None:
    assert still_generation(instance("a", limits=Limits(rpm=3))).remembered.usable


async def test_streams_are_refused_before_they_begin(autojump_clock: object) -> None:
    async with world(instance("a", limits=Limits(rpm=1))) as w:
        async with stream(w.router, chat()) as events:
            [each async for each in events]
        with pytest.raises(SpearError) as caught:
            async with stream(w.router, chat()):
                pass
    assert caught.value.code is ErrorCode.RATE_LIMITED
    assert caught.value.error.retry_after_ms == 60_000


async def test_a_mirror_draws_on_its_backend_and_on_no_task(autojump_clock: object) -> None:
    config = {
        "backends": [
            {"name": "a", "kind": "scripted", "hosting": "local", "model": "m"},
            {"name": "b", "kind": "scripted", "hosting": "local", "model": "n", "limits": {"rpm": 2}},
        ],
        "routes": [{"mirror": {"to": "b", "percent": 100}}],
        "mirrors": {"requests_per_minute": 1000},
        "budgets": [
            {"name": "task", "window": "1h", "per": "task", "requests": 100},
            {"name": "all", "window": "1h", "tokens": 1000},
        ],
    }
    scripts = {"a": spent(tokens=10), "b": Script([answer("ok", input_tokens=3, output_tokens=4), broken(), answer()])}
    async with spear.open_runtime({"spear": config}, kinds={"scripted": ScriptedKind(scripts)}) as runtime:
        for _ in range(3):
            (await runtime.invoke(capped(task_id="t", model="m"))).unwrap()
            await trio.sleep(1)
        seen = runtime.usage()
    assert len(scripts["b"].requests) == 2  # the third was dropped
    assert seen["budgets"]["task"]["requests_left"] == {"t": 97}
    assert seen["budgets"]["all"]["tokens_left"] == 1000 - 30 - 7 - 11  # the second failed: as it was reserved
    assert seen["backends"]["b"]["limit:rpm"] < 0.2


async def test_decisions_under_limits_are_replayed_bit_for_bit(mock_clock: object) -> None:
    await trio.lowlevel.checkpoint()
    budget = Budget(name="b", window=60.0, per="task", requests=3)
    limited = instance("a", limits=Limits(rpm=2)), instance("b", limits=Limits(tpm=600))
    desk = desk_of(still_generation(*limited, budgets=(budget,), default_policy="round_robin"))
    reasons = set()
    for number in range(8):
        plan = decided(desk, chat(task_id="t" if number % 2 else "u"), float(number))
        reasons |= set(plan.rejected.values())
        if plan.chosen is not None:
            plan.chosen.bounds.reserve(plan.facts, None, float(number))
    assert reasons >= {"limit:rpm", "limit:tpm"}
    found = verdicts(log_of(desk))
    assert len(found) == 8
    assert not any(each.differs for each in found)
    assert any(each.then["retry_after_ms"] for each in found)


def test_looking_for_tasks_that_may_be_forgotten_never_stops_the_others() -> None:
    """With thousands of them it is done piece by piece: whoever comes new looks at some, and at none right after."""
    looked: list[float] = []

    class Watched(Window):
        def remaining(self, now: float) -> float:
            looked.append(now)
            return super().remaining(now)

    quota, most = Quota("budget:b", "requests", 2, 1.0, "window"), 3000
    budget = PerSubject("budget:b", quota, Watched, lambda facts: facts.task_id, Scope(), most=most)
    for number in range(most):
        budget.meter(facts_of(chat(task_id=f"t{number}")), 0.0).reserve(1, 0.0)
    new = facts_of(chat(task_id="new"))
    for _ in range(50):
        assert budget.admits(new, 1, 0.5)
    assert 0 < len(looked) <= 500
    for step in range(20):
        budget.admits(facts_of(chat(task_id=f"new{step}")), 1, 10.0 + step)
        budget.meter(facts_of(chat(task_id=f"new{step}")), 10.0 + step).reserve(1, 10.0 + step)
    assert len(budget) < most
