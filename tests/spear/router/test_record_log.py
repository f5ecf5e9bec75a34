"""What is kept of decisions, and what that costs those that are not."""

from __future__ import annotations

import json

from spear.config import DecisionsConfig
from spear.ir import ChatMessage, ChatRequest, ErrorCode, ImagePart, RequestEnvelope, StoredMedia
from spear.router import explain, facts_of, invoke
from spear.router.record import Decisions, Trail
from spear.router.record._log import KEPT, LOOKS_PER_SECOND
from tests.spear.router.record_world import decided, desk_of, log_of, verdicts
from tests.spear.router.test_decide import plan_for
from tests.spear.router.test_record_replay import three
from tests.spear.router.world import CHAT, Script, broken, chat, instance, still_generation, world

NOTHING = DecisionsConfig(sample=0.0)


def kept(desk):
    return [record for record in desk.decisions.records() if record["kind"] == "decision"]


def closed(desk, plan, outcome="ok", error=None):
    trail = Trail(sampled=False)
    if plan.step is not None:
        trail.decided(plan.step)
    desk.decisions.close(trail, "r", outcome, error, 0.5, 1)


def test_nothing_is_looked_at_without_a_reason():
    desk = desk_of(three(), settings=NOTHING)
    assert all(desk.decide(facts_of(chat()), 0.0).step is None for _ in range(100))
    desk.decisions.tune(DecisionsConfig(sample=1.0))
    assert desk.decide(facts_of(chat()), 0.0).step is not None


def test_one_request_is_sampled_whole_or_not_at_all():
    desk = desk_of(three())
    assert desk.decide(facts_of(chat()), 0.0, sampled=False).step is None
    desk.decisions.tune(NOTHING)
    assert desk.decide(facts_of(chat()), 0.0, sampled=True).step is not None


def test_looks_at_decisions_that_found_nobody_are_bounded():
    desk = desk_of(three(), settings=NOTHING)
    for now in (10.0, 10.5, 11.5):
        for _ in range(100):
            closed(desk, desk.decide(facts_of(chat(model="gone", routing={"denylist": ("a", "b", "c")})), now))
    records = kept(desk)
    assert len(records) == 300  # all are recorded
    assert sum(record["inputs"] is not None for record in records) == 2 * LOOKS_PER_SECOND


def test_the_ring_forgets_the_oldest(monkeypatch):
    desk = desk_of(three())
    for number in range(KEPT + 10):
        decided(desk, chat(request_id=f"r{number}"), 0.0)
    assert [record["request_id"] for record in kept(desk)] == [f"r{number}" for number in range(10, KEPT + 10)]
    monkeypatch.setattr("spear.router.record._log.KEPT_BYTES", 10_000)
    decided(desk, chat(), 0.0)
    assert sum(len(json.dumps(record)) for record in kept(desk)) < 12_000
    assert kept(desk)


def test_what_json_cannot_say_is_dropped_and_counted():
    desk = desk_of(three())
    decided(desk, chat(model="half a \ud800"), 0.0)
    assert kept(desk) == []
    assert desk.decisions.observe()["dropped"] == 1
    big = StoredMedia(uri="smsfile://x", size=10**30)
    message = ChatMessage(role="user", content_parts=(ImagePart(media=big),))
    decided(desk, RequestEnvelope(operation=CHAT, payload=ChatRequest(messages=(message,))), 0.0)
    assert kept(desk)[0]["facts"]["sizes"]["media_bytes"] == 2**53  # more is no more
    (verdict,) = verdicts(log_of(desk))
    assert verdict.differs == ()


async def test_a_sampled_request_has_all_its_decisions():
    scripts = {"a": Script([broken()]), "b": Script([broken()])}
    async with world(
        instance("a"), instance("b"), instance("c"), scripts=scripts, decisions=DecisionsConfig(sample=1.0)
    ) as found:
        response = await invoke(found.router, chat())
        records = kept(found.desk)
    assert [record["plan"]["chosen"] for record in records] == ["a", "b", "c"]
    assert [record["attempts"][0]["outcome"] for record in records] == ["failed", "failed", "ok"]
    assert [record["number"] for record in records] == [1, 2, 3]
    assert {(record["request_id"], record["outcome"], record["sent"]) for record in records} == {
        (response.request_id, "ok", 3)
    }
    assert records[1]["inputs"]["exclude"] == ["a"]
    assert all(not each.differs for each in verdicts(log_of(found.desk)))


async def test_an_unsampled_request_that_recovers_leaves_nothing():
    scripts = {"a": Script([broken()])}
    async with world(instance("a"), instance("b"), scripts=scripts, decisions=NOTHING) as found:
        await invoke(found.router, chat())
        assert kept(found.desk) == []


async def test_waiting_for_a_recovery_is_recorded(autojump_clock):
    """Each time somebody looks again is a decision."""
    scripts = {"a": Script([broken()] * 5 + [0.1])}
    config = {"decisions": DecisionsConfig(sample=1.0)}
    async with world(instance("a"), scripts=scripts, **config) as found:
        for _ in range(6):
            await invoke(found.router, chat(timeout_ms=60_000))
        reasons = {reason for record in kept(found.desk) for reason in record["plan"]["rejected"].values()}
    assert {"already_tried", "breaker_open"} <= reasons
    assert all(not each.differs for each in verdicts(log_of(found.desk)))


async def test_a_bug_ends_the_record_too(monkeypatch):
    async with world(instance("a"), decisions=DecisionsConfig(sample=1.0)) as found:
        monkeypatch.setattr("spear.router._attempts.settle_usage", lambda *_: 1 / 0)
        response = await invoke(found.router, chat())
        assert response.result.error.code is ErrorCode.INTERNAL
        (record,) = kept(found.desk)
    assert (record["plan"]["chosen"], record["outcome"], record["error"]) == ("a", "failed", "internal")


def test_what_waits_for_the_writer_is_bounded(monkeypatch, tmp_path):
    monkeypatch.setattr("spear.router.record._log.QUEUED_BYTES", 5_000)
    settings = DecisionsConfig(sample=1.0, path=str(tmp_path / "d"))
    desk = desk_of(three(), settings=settings)
    for _ in range(50):
        decided(desk, chat(), 0.0)
    waiting = desk.decisions.take(10**9)
    assert sum(len(each.line) for each in waiting) <= 5_000
    assert desk.decisions.dropped == 50 - len(waiting) > 0
    assert len(kept(desk)) == 50  # in memory all the same
    assert not desk.decisions.arrived.is_set()


def test_batches_end_where_the_settings_change(tmp_path):
    one, two = (DecisionsConfig(sample=1.0, path=str(tmp_path / name)) for name in "ab")
    decisions = Decisions(one)
    generation = three()
    desk = desk_of(generation)
    desk.decisions = decisions
    for settings in (one, two, two, one):
        decisions.tune(settings)
        for _ in range(3):
            decided(desk, chat(), 0.0)
    taken = []
    while batch := decisions.take(10**9):
        taken.append((decisions.writing, len(batch)))
    assert taken == [(one, 3), (two, 6), (one, 3)]
    for _ in range(3):
        decided(desk, chat(), 0.0)
    assert [len(decisions.take(1)) for _ in range(4)] == [1, 1, 1, 0]


def test_an_explanation_shows_health_and_latency():
    generation = still_generation(instance("a"), instance("b"), instance("c"))
    a, b, _ = generation.instances
    a.latency((CHAT, False)).answered(0.25, 0.0)
    b.health.eject(0.0, 1.0)
    b.health.ejection.until = 1.0  # over, and in its slow start
    explanation = explain(generation, plan_for(generation, chat()), "r", 2.0)
    by_name = {each.backend: each for each in explanation.candidates}
    assert [by_name[name].health for name in "abc"] == ["ok", "slow_start", "ok"]
    rows = {row[0]: row for row in explanation.rows()}
    assert rows["a"][5] == "250"
    assert rows["b"][3] in {"candidate, slow_start", "slow_start", "ejected, slow_start", "chosen, slow_start"}


async def test_the_router_shows_what_was_recorded():
    async with world(instance("a"), decisions=DecisionsConfig(sample=1.0)) as found:
        await invoke(found.router, chat())
        assert found.counts()["decisions"]["recorded"] == 1


def test_however_often_it_is_reloaded_without_a_file_nothing_piles_up():
    decisions = Decisions(DecisionsConfig())
    for number in range(100):
        decisions.tune(DecisionsConfig(sample=number / 100))
    assert len(decisions._queue) <= 1
    assert decisions.take(1000) == []
    assert round(decisions.writing.sample * 100) == 99
