"""What limits have done, counted: by whom, by which, and only where a request was decided for."""

from __future__ import annotations

import pytest
import trio

from spear.config import Budget
from spear.ir import ErrorCode, Limits
from spear.router import Desk, invoke
from spear.router.limits import LimitCounts
from spear.telemetry import Counters
from tests.spear.router.world import chat, instance, still_generation, world


async def test_who_was_left_out_by_which_rate(autojump_clock: object) -> None:
    a = instance("a", model_class="small", limits=Limits(rpm=2))
    b = instance("b", model_class="small", limits=Limits(rpm=1, tpm=1_000_000))
    async with world(a, b, instance("c", model_class="other"), default_policy="round_robin") as w:
        counters = Counters()
        w.desk.limits.counts.attach(counters)
        for _ in range(3):
            (await invoke(w.router, chat(model="small"))).unwrap()
        assert w.desk.observe()["limited"] == {"b": {"rpm": 1}}
        for _ in range(2):
            error = (await invoke(w.router, chat(model="small"))).result.error
            assert error.code is ErrorCode.RATE_LIMITED
        assert w.desk.observe()["limited"] == {"a": {"rpm": 2}, "b": {"rpm": 3}}
        for _ in range(3):
            w.desk.explain(chat(model="small"))
        found = counters.snapshot()
        assert found['limited_total{backend="a",limit="rpm"}'] == 2
        assert found['limited_total{backend="b",limit="rpm"}'] == 3
        assert w.desk.observe()["budget_rejections"] == {}


async def test_a_budget_counts_once_for_a_decision_however_many_it_leaves_out(autojump_clock: object) -> None:
    budget = Budget(name="money", window=60.0, requests=2)
    async with world(*(instance(name) for name in "abc"), budgets=(budget,)) as w:
        for _ in range(5):
            await invoke(w.router, chat())
        seen = w.desk.observe()
    assert seen["budget_rejections"] == {"money": 3}
    assert seen["limited"] == {}


async def test_those_behind_a_full_one_are_counted(mock_clock: object) -> None:
    await trio.lowlevel.checkpoint()
    counts_before = LimitCounts().observe()
    desk = Desk(still_generation(instance("a", limits=Limits(rpm=1)), instance("b"), instance("c")))
    a, b, _ = desk.generation.instances
    a.bounds.reserve(desk.facts(chat()), None, 0.0)
    b.turns.update(range(b.room))
    assert desk.decide(desk.facts(chat()), 0.0).chosen.name == "c"
    assert desk.limits.counts.limited == {("a", "rpm"): 1}
    desk.decide(desk.facts(chat()), 0.0, {"c"})
    assert desk.limits.counts.limited == {("a", "rpm"): 2}
    assert counts_before == {"limited": {}, "budget_rejections": {}, "degraded": {}, "budget_warnings": {}}


async def test_without_limits_nothing_is_counted_or_shown(mock_clock: object) -> None:
    await trio.lowlevel.checkpoint()
    desk = Desk(still_generation(instance("a")))
    assert not desk.limits.limiting
    assert "limited" not in desk.observe()


async def test_requests_that_are_degraded(autojump_clock: object) -> None:
    budget = Budget(name="b", window=60.0, requests=4, soft=0.5, degrade_to="small")
    async with world(instance("a", model_class="big"), instance("s", model_class="small"), budgets=(budget,)) as w:
        for _ in range(4):
            (await invoke(w.router, chat(model="big"))).unwrap()
        w.desk.explain(chat(model="big"))
        assert w.desk.observe()["degraded"] == {"b": 2}
        assert w.desk.observe()["budget_warnings"] == {}


@pytest.mark.parametrize("per", ["all", "task"])
async def test_a_soft_limit_alone_is_said_once_for_each_crossing(
    autojump_clock: object, capfd: pytest.CaptureFixture[str], per: str
) -> None:
    budget = Budget(name="b", window=60.0, per=per, requests=10, soft=0.3)
    async with world(instance("a"), budgets=(budget,)) as w:

        async def ask(times: int, task: str = "t") -> int:
            for _ in range(times):
                (await invoke(w.router, chat(task_id=task))).unwrap()
            return capfd.readouterr().err.count("budget_soft_limit")

        assert await ask(3) == 0  # it is crossed by the third, which the next one finds
        assert await ask(1) == 1
        assert await ask(3) == 0
        w.desk.explain(chat(task_id="v"))
        assert await ask(2, "u") == 0
        await trio.sleep(70)  # nothing of that counts any more
        assert await ask(3) == 0
        assert await ask(1) == 1
        assert w.desk.observe()["budget_warnings"] == {"b": 2}
        assert await ask(4, "u") == (per == "task")


async def test_a_soft_limit_that_is_not_written_warns_nobody(autojump_clock: object) -> None:
    async with world(instance("a"), budgets=(Budget(name="b", window=60.0, requests=2),)) as w:
        for _ in range(3):
            await invoke(w.router, chat())
        assert w.desk.observe()["budget_warnings"] == {}
