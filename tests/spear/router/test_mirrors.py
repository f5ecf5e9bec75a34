"""Mirroring in a runtime of scripted backends: who is mirrored, what it may not do, what it leaves behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

import spear
from spear.backends import Finished
from spear.ir import ContentDelta, Failure, Routing, SpearError, Started
from tests.spear.router.world import Script, ScriptedKind, answer, broken, chat

PRIMARY = {"name": "a", "kind": "scripted", "hosting": "local", "model": "m"}
CANDIDATE = {"name": "b", "kind": "scripted", "hosting": "local", "model": "n"}


@asynccontextmanager
async def mirrored(
    a: Script | None = None,
    b: Script | None = None,
    *,
    candidate: Mapping[str, object] | None = None,
    route: Mapping[str, object] | None = None,
    mirrors: Mapping[str, object] | None = None,
    **more: object,
) -> AsyncIterator[tuple[spear.Runtime, Script, Script]]:
    """Everything that `a` answers is mirrored to `b`, unless it is said otherwise."""
    scripts = {"a": a or Script(), "b": b or Script()}
    config = {
        "backends": [PRIMARY, {**CANDIDATE, **(candidate or {})}],
        "routes": [{"mirror": {"to": "b", "percent": 100, **(route or {})}}],
        "mirrors": {"requests_per_minute": 1000, **(mirrors or {})},
        "health": {"slow_start_s": 0},
        **more,
    }
    kind = ScriptedKind(scripts)
    async with spear.open_runtime({"spear": config}, seed=1, kinds={"scripted": kind}) as runtime:
        yield runtime, scripts["a"], scripts["b"]


def counts(runtime: spear.Runtime) -> Mapping[str, Any]:
    return next(node.state for node in runtime.snapshot().walk() if node.path == "runtime/mirrors")


async def ask(runtime: spear.Runtime, text: str = "hi", **fields: object) -> str:
    return (await runtime.invoke(chat(text, model="m", **fields))).unwrap().text


async def read_stream(runtime: spear.Runtime) -> list[str]:
    async with runtime.stream(chat(model="m")) as events:
        return [event.type async for event in events]


async def test_an_answer_is_mirrored_and_compared(autojump_clock: object) -> None:
    scripts = Script([answer("one two three four")]), Script([2.0, answer("unused")])
    async with mirrored(*scripts, mirrors={"content": True}) as (runtime, a, b):
        before = trio.current_time()
        assert await ask(runtime, "what?") == "one two three four"
        assert trio.current_time() == before
        await trio.sleep(5)
        (record,) = runtime.mirrors()
        assert counts(runtime)["compared"] == 1
    assert (a.requests[0].payload.model, b.requests[0].payload.model) == ("m", "n")
    assert a.requests[0].request_id == b.requests[0].request_id == record["request_id"]
    assert (record["primary"], record["mirror"], record["model"]) == ("a", "b", "m")
    assert record["text_similarity"] == 0
    assert record["mirror_latency_ms"] == 2000
    assert (record["prompt"], record["primary_text"], record["mirror_text"]) == ("what?", "one two three four", "ok")


async def test_without_content_no_text_is_kept(autojump_clock: object) -> None:
    async with mirrored(Script([answer("a secret answer")]), Script([answer("a secret reply")])) as (runtime, _, _):
        await ask(runtime, "a secret question")
        await trio.sleep(1)
        assert "secret" not in str(runtime.mirrors())
        assert counts(runtime)["records"] == 1


async def test_content_is_cut_and_redacted(autojump_clock: object) -> None:
    key = "sk-" + "a1B2" * 10
    scripts = Script([answer(f"{key} " + "x" * 100)]), Script([answer("y" * 1000)])
    async with mirrored(*scripts, mirrors={"content": True, "content_chars": 60}) as (runtime, _, _):
        await ask(runtime)
        await trio.sleep(1)
        (record,) = runtime.mirrors()
    assert key not in record["primary_text"]
    assert record["mirror_text"] == "y" * 60


async def test_the_part_that_is_drawn_repeats_with_the_seed(autojump_clock: object) -> None:
    found = []
    for _ in range(2):
        async with mirrored(route={"percent": 20}) as (runtime, _, b):
            for number in range(300):
                await ask(runtime, request_id=f"req_{number}")
                await trio.sleep(0.1)
            found.append([each.request_id for each in b.requests])
    assert found[0] == found[1]
    assert 30 < len(found[0]) < 90


async def test_nothing_is_mirrored_to_who_answered_or_where_no_route_says_so(autojump_clock: object) -> None:
    other = [
        {"match": {"model_class": "n"}, "mirror": {"to": "a", "percent": 100}},
        {"mirror": {"to": "a", "percent": 100}},
    ]
    async with mirrored(routes=other) as (runtime, a, b):
        await ask(runtime)
        await trio.sleep(1)
        assert (len(a.requests), len(b.requests)) == (1, 0)
        assert counts(runtime)["sent"] == 0
    async with mirrored(routes=[]) as (runtime, _, _):
        assert [node for node in runtime.snapshot().walk() if node.path == "runtime/mirrors"] == []
        assert runtime.mirrors() == []


async def test_a_failed_request_is_not_mirrored(autojump_clock: object) -> None:
    async with mirrored(Script([broken(Failure.REQUEST)])) as (runtime, _, b):
        with pytest.raises(SpearError):
            await ask(runtime)
        with pytest.raises(SpearError):
            await read_stream(runtime)
        await trio.sleep(1)
        assert b.requests == []


async def test_who_leaves_before_the_answer_is_not_mirrored_and_after_it_is(autojump_clock: object) -> None:
    async with mirrored(Script([10.0])) as (runtime, a, b):
        with trio.move_on_after(1) as scope:
            await ask(runtime)
        assert scope.cancelled_caught
        await trio.sleep(20)
        assert (len(a.requests), len(b.requests)) == (1, 0)
    slow = [Started(backend="a"), ContentDelta(delta="be"), 10.0, ContentDelta(delta="gun"), Finished(answer())]
    async with mirrored(Script([slow]), Script([[5.0, *slow]])) as (runtime, a, b):
        async with runtime.stream(chat(model="m")) as events:
            await anext(events)
        await trio.sleep(60)
        (record,) = runtime.mirrors()
    assert a.cancelled == 1
    assert b.cancelled == 0
    assert (record["primary_outcome"], record["mirror_outcome"], record["compared"]) == ("left", "ok", False)


async def test_a_stream_is_mirrored_at_its_commit_and_compared_at_its_end(autojump_clock: object) -> None:
    slow = [
        Started(backend="a"),
        1.0,
        ContentDelta(delta="one "),
        10.0,
        ContentDelta(delta="two"),
        Finished(answer("one two")),
    ]
    fast = [Started(backend="b"), 0.5, ContentDelta(delta="one two"), Finished(answer("one two"))]
    async with mirrored(Script([slow]), Script([fast])) as (runtime, _, b):
        async with runtime.stream(chat(model="m")) as events:
            async for event in events:
                if event.type == "content_delta" and event.delta == "one ":
                    await trio.sleep(0.1)
                    assert len(b.requests) == 1
                    assert runtime.mirrors() == []
        await trio.sleep(1)
        (record,) = runtime.mirrors()
    assert record["streamed"]
    assert record["text_similarity"] == 1
    assert (record["primary_first_event_ms"], record["primary_latency_ms"]) == (1000, 11000)
    assert (record["mirror_first_event_ms"], record["mirror_latency_ms"]) == (500, 500)


async def test_a_stream_that_breaks_after_its_commit(autojump_clock: object) -> None:
    breaks = [Started(backend="a"), ContentDelta(delta="one "), 1.0, broken()]
    async with mirrored(Script([breaks])) as (runtime, _, _):
        assert (await read_stream(runtime))[-1] == "error"
        await trio.sleep(1)
        (record,) = runtime.mirrors()
    assert (record["primary_outcome"], record["compared"]) == ("backend_error", False)


async def test_a_stream_without_content_is_mirrored_once(autojump_clock: object) -> None:
    empty = [Started(backend="a"), Finished(answer(""))]
    async with mirrored(Script([empty]), Script([empty])) as (runtime, _, b):
        assert (await read_stream(runtime))[-1] == "completed"
        await trio.sleep(1)
        assert len(b.requests) == 1
        assert runtime.mirrors()[0]["text_similarity"] == 1


async def test_a_mirror_that_hangs_ends_with_its_time_and_the_primary_does_not_notice(autojump_clock: object) -> None:
    async with mirrored(b=Script([1e6]), mirrors={"timeout_s": 30, "max_inflight": 2, "max_waiting": 1}) as (
        runtime, a, b,
    ):  # fmt: skip
        for _ in range(10):
            began = trio.current_time()
            assert await ask(runtime) == "ok"
            assert trio.current_time() == began
            await trio.sleep(0.1)
        found = counts(runtime)
        assert (found["sent"], found["dropped"]) == (2, {"full": 7})
        assert len(a.requests) == 10
        await trio.sleep(100)
        found = counts(runtime)
        assert found["failed"] == {"timeout": 3}
        assert [each["mirror_outcome"] for each in runtime.mirrors()] == ["timeout"] * 3
        assert [each["primary_outcome"] for each in runtime.mirrors()] == ["ok"] * 3
    assert (b.running, b.cancelled) == (0, 3)


async def test_what_mirrors_do_feeds_nobody(autojump_clock: object) -> None:
    """The mirror fails every time: its own breaker stays closed, and nobody's latency or counters know of it."""
    async with mirrored(b=Script([broken()])) as (runtime, _, b):
        for _ in range(20):
            await ask(runtime)
            await trio.sleep(0.1)
        router = next(node.state for node in runtime.snapshot().walk() if node.path == "runtime/router")
        instances = {each.name: each for each in runtime._desk.generation.instances}
        explained = runtime.explain(chat(model="n"))
    assert len(b.requests) == 20
    assert (router["requests"], router["attempts"], router["ok"], router["errors"]) == (20, 20, 20, {})
    assert (router["instances"]["b"]["sent"], router["instances"]["b"]["failed"]) == (0, 0)
    assert explained.chosen == "b"
    assert instances["b"].latencies == {}
    assert instances["b"].health.quiet
    assert instances["b"].throttle.tokens == 10
    (latency,) = instances["a"].latencies.values()
    assert latency.samples == 20


async def test_it_leaves_half_of_the_room_to_others(autojump_clock: object) -> None:
    limits = {"limits": {"max_inflight": 2, "max_queue": 2}}
    scripts = Script(), Script([50.0])
    async with mirrored(*scripts, candidate=limits, mirrors={"max_inflight": 8}) as (runtime, _, b):
        for _ in range(6):
            await ask(runtime)
            await trio.sleep(0.1)
        assert counts(runtime)["dropped"] == {"no_room": 4}
        instance = runtime._desk.generation.by_name["b"]
        assert instance.load == 2
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(runtime.invoke, chat(model="n"))
            await trio.sleep(1)
            refused = await runtime.invoke(chat(model="n"))
        assert refused.result.error.code == "overloaded"
        assert instance.load == 0
    assert len(b.requests) == 4


@pytest.mark.parametrize(
    ("fields", "config", "candidate"),
    [
        ({"task_id": "guest"}, {"tasks": [{"id": "guest", "allow_backends": ["a"]}]}, {}),
        ({"routing": Routing(backend="a")}, {}, {}),
        ({"routing": Routing(allowlist=("a",))}, {}, {}),
        ({"routing": Routing(denylist=("b",))}, {}, {}),
        ({}, {}, {"limits": {"max_chars": 1}}),
    ],
)
async def test_a_mirror_is_no_way_around_the_filter(
    fields: dict[str, object], config: dict[str, object], candidate: dict[str, object], autojump_clock: object
) -> None:
    async with mirrored(candidate=candidate, **config) as (runtime, _, b):
        await ask(runtime, **fields)
        await trio.sleep(1)
        assert b.requests == []
        assert counts(runtime)["dropped"] == {"not_allowed": 1}


async def test_a_stream_is_not_mirrored_to_who_cannot_stream(autojump_clock: object) -> None:
    async with mirrored(candidate={"features": []}) as (runtime, _, b):
        await read_stream(runtime)
        await ask(runtime)
        await trio.sleep(1)
        assert len(b.requests) == 1
        assert counts(runtime)["dropped"] == {"not_allowed": 1}


async def test_a_weight_of_0_keeps_real_requests_away_and_no_mirrors(autojump_clock: object) -> None:
    async with mirrored(candidate={"weight": 0}) as (runtime, _, b):
        await ask(runtime)
        await trio.sleep(1)
        assert len(b.requests) == 1
        assert (await runtime.invoke(chat(model="n"))).result.error.code == "backend_unavailable"


async def test_who_is_unwell_gets_no_mirrors(autojump_clock: object) -> None:
    retries = {"per_instance": 1}
    async with mirrored(b=Script([broken()]), retries=retries, on_exhausted="fail") as (runtime, _, b):
        for _ in range(5):
            await runtime.invoke(chat(model="n"))
        sent = len(b.requests)
        await ask(runtime)
        await trio.sleep(1)
        assert len(b.requests) == sent
        assert counts(runtime)["dropped"] == {"unwell": 1}


async def test_the_purse_bounds_requests_and_cost(autojump_clock: object) -> None:
    async with mirrored(mirrors={"requests_per_minute": 3}) as (runtime, _, b):
        for _ in range(10):
            await ask(runtime)
            await trio.sleep(0.1)
        assert (len(b.requests), counts(runtime)["dropped"]) == (3, {"budget": 7})
        await trio.sleep(62)
        await ask(runtime)
        await trio.sleep(1)
        assert len(b.requests) == 4
    # Each answer costs 1; the estimate (256 tokens) is below that.
    price = {"price": {"output": 1.0}}
    paid = Script([answer(output_tokens=1_000_000, input_tokens=0)])
    async with mirrored(b=paid, candidate=price, mirrors={"max_cost_per_hour": 2.5}) as (runtime, _, b):
        for _ in range(10):
            await ask(runtime)
            await trio.sleep(1)
        assert len(b.requests) == 3
        assert counts(runtime)["cost_last_hour"] == 3
        await trio.sleep(3700)
        await ask(runtime)
        await trio.sleep(1)
        assert len(b.requests) == 4


async def test_large_requests_are_not_mirrored(autojump_clock: object) -> None:
    async with mirrored(mirrors={"max_payload_bytes": 100}) as (runtime, _, b):
        await ask(runtime, "x" * 101)
        await ask(runtime, "x" * 100)
        await trio.sleep(1)
        assert (len(b.requests), counts(runtime)["dropped"]) == (1, {"too_large": 1})


async def test_without_compare_nothing_is_kept(autojump_clock: object) -> None:
    async with mirrored(route={"compare": False}) as (runtime, _, b):
        await ask(runtime)
        await trio.sleep(1)
        assert (len(b.requests), runtime.mirrors()) == (1, [])
        assert counts(runtime)["ok"] == 1


async def test_the_latest_records_are_kept(autojump_clock: object) -> None:
    async with mirrored(mirrors={"keep": 3}) as (runtime, _, _):
        for number in range(5):
            await ask(runtime, request_id=f"req_{number}")
            await trio.sleep(0.1)
        assert [each["request_id"] for each in runtime.mirrors()] == ["req_2", "req_3", "req_4"]


async def test_the_counts_add_up_and_are_counters_too(autojump_clock: object) -> None:
    steps = [answer(), broken(), 40.0, answer("x"), ZeroDivisionError("an adapter's bug")]
    async with mirrored(b=Script(steps), mirrors={"max_inflight": 1, "max_waiting": 0, "timeout_s": 20}) as (
        runtime, _, _,
    ):  # fmt: skip
        for _ in range(30):
            await ask(runtime)
            await trio.sleep(2)
        await trio.sleep(60)
        found, series = counts(runtime), runtime.counters.snapshot()
    ended = found["ok"] + sum(found["failed"].values())
    assert found["sent"] == ended == series["mirrors_sent_total"]
    assert found["sent"] + sum(found["dropped"].values()) == 30
    assert found["failed"]["timeout"] == 1
    assert found["failed"]["internal"] >= 1
    assert series['mirrors_dropped_total{reason="full"}'] == found["dropped"]["full"]
    outcomes = Counter({key: value for key, value in series.items() if key.startswith("mirrors_ended_total")})
    assert outcomes.total() == ended


async def test_shutdown_cancels_what_runs(autojump_clock: object) -> None:
    async with mirrored(b=Script([1e5])) as (runtime, _, b):
        await ask(runtime)
        await trio.sleep(1)
        assert b.running == 1
        before = trio.current_time()
    assert (b.running, b.cancelled) == (0, 1)
    assert trio.current_time() - before < 1
