"""Mirroring over real sockets: a mirror that hangs, dies or is in the way does not reach the primary."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import trio

import spear
from spear.router.mirrors import Summary, read_lines
from tests.servers.fault_server import FaultServer
from tests.system.kit import backend, chat, config, nothing_left, until_true
from tests.system.test_cancellation import cancel_at_step


def mirrored(primary: FaultServer, mirror: FaultServer, *, percent: float = 100, **mirrors: object) -> dict[str, Any]:
    return config(
        backend(primary, "primary"),
        backend(mirror, "mirror", model="other", weight=0),
        routes=[{"mirror": {"to": "mirror", "percent": percent}}],
        mirrors={"requests_per_minute": 100_000, **mirrors},
    )


def counts(runtime: spear.Runtime) -> Mapping[str, Any]:
    return next(node.state for node in runtime.snapshot().walk() if node.path == "runtime/mirrors")


async def ask(runtime: spear.Runtime, text: str = "one two") -> str:
    return (await runtime.invoke(chat(text))).unwrap().text


async def ask_it(runtime: spear.Runtime) -> bool:
    return await ask(runtime) == "echo: one two"


async def read_stream(runtime: spear.Runtime) -> bool:
    async with runtime.stream(chat("one two")) as events:
        return [event.type async for event in events][-1] == "completed"
    raise AssertionError


async def leave_stream(runtime: spear.Runtime) -> bool:
    async with runtime.stream(chat("one two")) as events:
        async for event in events:
            if event.type == "content_delta":
                return True
    return False


async def test_both_are_asked_and_compared(fault_servers):
    primary, mirror = fault_servers(), fault_servers()
    mirror.script(times=None, text="echo: {text} indeed")
    async with nothing_left(), spear.open_runtime(mirrored(primary, mirror)) as runtime:
        assert await ask(runtime) == "echo: one two"
        async with runtime.stream(chat("one two")) as events:
            assert [event.type async for event in events][-1] == "completed"
        await until_true(lambda: len(runtime.mirrors()) == 2)
        unary, stream = runtime.mirrors()
    assert [each["json"]["model"] for each in mirror.requests()] == ["other", "other"]
    assert [bool(each["json"].get("stream")) for each in mirror.requests()] == [False, True]
    assert unary["text_similarity"] == stream["text_similarity"] == pytest.approx(8 / 9)
    assert (unary["streamed"], stream["streamed"]) == (False, True)
    assert stream["mirror_first_event_ms"] <= stream["mirror_latency_ms"]
    assert (await mirror.until(open=0))["completed"] == 2


async def test_a_mirror_that_hangs_does_not_delay_the_primary(fault_servers):
    """The same requests in turn with and without a hanging mirror: the medians of each half are about the same."""
    primary, mirror = fault_servers(), fault_servers()
    mirror.script(times=None, never=True)
    with_it, without = [], []
    async with (
        nothing_left(),
        spear.open_runtime(mirrored(primary, mirror, timeout_s=60, max_inflight=4, max_waiting=2)) as one,
        spear.open_runtime(mirrored(primary, mirror, percent=0)) as other,
    ):
        for runtime in (one, other):
            await ask(runtime)
        for _ in range(40):
            for runtime, times in ((one, with_it), (other, without)):
                began = time.perf_counter()
                assert await ask(runtime) == "echo: one two"
                times.append(time.perf_counter() - began)
        found = counts(one)
        assert found["sent"] == 4
        assert found["dropped"] == {"full": 41 - 4 - 2}
        await mirror.until(open=4)
        assert counts(other)["sent"] == 0
    assert median(with_it) < 2 * median(without)
    assert (await mirror.until(open=0, connections_open=0))["aborted"] == 4


async def test_a_mirror_that_dies_is_a_failed_mirror_and_nothing_else(fault_servers):
    primary = fault_servers()
    with FaultServer("dying") as mirror:
        mirror.script(times=None, delay=0.5)
        async with nothing_left(), spear.open_runtime(mirrored(primary, mirror)) as runtime:
            assert await ask(runtime) == "echo: one two"
            await mirror.until(open=1)
            await trio.to_thread.run_sync(mirror.stop)
            await until_true(lambda: sum(counts(runtime)["failed"].values()) == 1)
            assert await ask(runtime) == "echo: one two"
            await until_true(lambda: sum(counts(runtime)["failed"].values()) == 2)
            rows = {each["name"]: each["state"] for each in runtime.backends()}
            assert rows == {"primary": "running", "mirror": "drained"}
            assert [each["mirror_outcome"] for each in runtime.mirrors()] == [
                "backend_error",
                "backend_unavailable",
            ]


async def test_shutdown_closes_the_sockets_of_mirrors(fault_servers):
    primary, mirror = fault_servers(), fault_servers()
    mirror.script(times=None, never=True)
    async with nothing_left():
        with trio.fail_after(5):
            async with spear.open_runtime(mirrored(primary, mirror)) as runtime:
                for _ in range(3):
                    await ask(runtime)
                await mirror.until(open=3)
        assert (await mirror.until(open=0, connections_open=0))["aborted"] == 3


async def test_who_leaves_in_the_middle_of_the_primary_has_no_mirror(fault_servers):
    primary, mirror = fault_servers(), fault_servers()
    primary.script(times=None, never=True)
    async with nothing_left(), spear.open_runtime(mirrored(primary, mirror)) as runtime:
        with trio.move_on_after(0.2):
            await ask(runtime)
        assert (await primary.until(open=0))["aborted"] == 1
        await trio.sleep(0.2)
        assert mirror.counts()["total"] == 0
        assert counts(runtime)["sent"] == 0


async def test_who_leaves_after_the_commit_leaves_the_mirror_alone(fault_servers):
    primary, mirror = fault_servers(), fault_servers()
    primary.script(times=None, drip={"bytes": 60, "every": 0.05})
    mirror.script(times=None, delay=0.5)
    async with nothing_left(), spear.open_runtime(mirrored(primary, mirror)) as runtime:
        async with runtime.stream(chat("a b c d e f g h i j k l m n o p q r s t u v w x y z")) as events:
            await anext(events)
        assert (await primary.until(open=0))["aborted"] == 1
        await until_true(lambda: len(runtime.mirrors()) == 1)
        (record,) = runtime.mirrors()
    assert (record["primary_outcome"], record["mirror_outcome"]) == ("left", "ok")
    assert (await mirror.until(open=0))["completed"] == 1


async def test_records_go_to_the_file_and_a_full_disk_hurts_nobody(fault_servers, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("spear.router.mirrors._journal._check_regular", lambda fd: None)  # for one that is always full
    primary, mirror = fault_servers(), fault_servers()
    path, older = tmp_path / "m.jsonl", tmp_path / "m.jsonl.1"
    source = mirrored(primary, mirror, path=str(path), max_bytes=4096, files=2)
    async with nothing_left(), spear.open_runtime(source) as runtime:
        for _ in range(30):
            await ask(runtime)
        await until_true(lambda: counts(runtime)["compared"] == 30)
        await until_true(lambda: not busy(runtime))
        assert path.stat().st_size <= 4096
        assert older.stat().st_size <= 4096
        assert records_in(older) + records_in(path) > 2 * 4096 // 1000
        older.unlink()
        path.unlink()
        path.symlink_to("/dev/full")
        await ask(runtime)
        await until_true(lambda: counts(runtime)["records_lost"] == 1)
        assert await ask(runtime) == "echo: one two"


async def test_what_is_in_memory_is_in_the_file_after_a_shutdown(fault_servers, tmp_path: Path):
    primary, mirror = fault_servers(), fault_servers()
    path = tmp_path / "m.jsonl"
    async with nothing_left(), spear.open_runtime(mirrored(primary, mirror, path=str(path))) as runtime:
        async with trio.open_nursery() as nursery:
            for _ in range(12):
                nursery.start_soon(ask, runtime)
        while len(runtime.mirrors()) < 12:
            await trio.lowlevel.checkpoint()
    assert records_in(path) == 12


def records_in(path: Path) -> int:
    summary = Summary()
    with path.open("rb") as file:
        summary.read(path.name, read_lines(file))
    assert not summary.bad_lines
    return summary.records


def busy(runtime: spear.Runtime) -> list[str]:
    return [node.path for node in runtime.snapshot().walk() if node.running or node.mailbox_used]


async def test_a_reload_brings_mirrors_and_takes_them_away(fault_servers, tmp_path: Path):
    primary, mirror = fault_servers(), fault_servers()
    plain = config(backend(primary, "primary"), backend(mirror, "mirror", model="other", weight=0))
    async with nothing_left(), spear.open_runtime(plain) as runtime:
        await ask(runtime)
        assert not any(node.path == "runtime/mirrors" for node in runtime.snapshot().walk())
        bad = await runtime.reload(mirrored(primary, mirror, path=str(tmp_path / "no" / "m")))
        assert "spear.mirrors.path" in str(bad)
        assert (await runtime.reload(mirrored(primary, mirror))).ok
        await ask(runtime)
        await until_true(lambda: len(runtime.mirrors()) == 1)
        report = await runtime.reload(mirrored(primary, mirror, max_inflight=3, path=str(tmp_path / "m")))
        assert report.not_applied == ("mirrors.max_inflight stays 8 until the next start, which makes it 3",)
        await ask(runtime)
        await until_true(lambda: (tmp_path / "m").stat().st_size)
        assert (await runtime.reload(plain)).ok
        await ask(runtime)
        await trio.sleep(0.1)
        assert counts(runtime)["sent"] == 2
    assert mirror.counts()["total"] == 2


@pytest.mark.parametrize("action", [ask_it, read_stream, leave_stream])
async def test_a_caller_that_leaves_after_any_step(fault_servers, action):
    """From the first step to beyond the mirror's record: nothing is open afterwards, and the counts add up."""
    primary, mirror = fault_servers(), fault_servers()
    async with nothing_left(), spear.open_runtime(mirrored(primary, mirror)) as runtime:
        assert await action(runtime)
        n = completed = cancelled = 0
        with trio.fail_after(60):
            while completed < 3:
                n += 1
                with cancel_at_step(n) as scope:
                    assert await action(runtime)
                    await trio.sleep(0.01)
                completed = 0 if scope.cancelled_caught else completed + 1
                cancelled += scope.cancelled_caught
                await until_true(lambda: not busy(runtime))
                found = counts(runtime)
                assert found["sent"] == found["ok"] + sum(found["failed"].values())
                assert (found["dropped"], found["cancelled"], found["failed"]) == ({}, 0, {})
        assert cancelled > 8
        assert len(runtime.mirrors()) == found["sent"] > 3
        assert all(each.load == 0 for each in runtime._desk.generation.instances)
        assert (await mirror.until(open=0))["aborted"] == 0
        await primary.until(open=0)
    await mirror.until(connections_open=0)
    await primary.until(connections_open=0)


async def test_a_bug_of_ours_ends_one_mirror_only(fault_servers, monkeypatch):
    primary, mirror = fault_servers(), fault_servers()
    async with nothing_left(), spear.open_runtime(mirrored(primary, mirror)) as runtime:
        with monkeypatch.context() as patch:
            patch.setattr("spear.router.mirrors._actor.record_of", None)
            assert await ask(runtime) == "echo: one two"
            await until_true(lambda: counts(runtime)["ok"] == 1 and not busy(runtime))
        assert runtime.mirrors() == []
        assert await ask(runtime) == "echo: one two"
        await until_true(lambda: len(runtime.mirrors()) == 1)
        (node,) = [node for node in runtime.snapshot().walk() if node.path == "runtime/mirrors"]
        assert (node.restarts, node.crashed) == (0, 0)
