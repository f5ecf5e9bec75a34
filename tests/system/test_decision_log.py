"""The decision log of a running runtime: under load, rotated, with a full disk, after a kill, across reloads."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress

import pytest
import trio

import spear
from spear.ir import ConfigError, SpearError
from spear.router.record import Replay, Unreadable, Verdict, in_order, read_records
from spear.testing import FakeBackend, fake_kinds
from tests.spear.cli.command import spear as command
from tests.system.kit import backend, chat, config, nothing_left, stub, until_true

NAMES = ("a", "b", "c")


def log_at(path, **decisions):
    return config(
        *(stub(name, weight=weight) for name, weight in zip(NAMES, (5, 3, 1), strict=True)),
        stub("other", model="other"),
        default_policy="weighted_round_robin",
        decisions={"path": str(path), **decisions},
    )


def files_of(path):
    """In the order in which they were written."""
    return in_order(each for each in path.parent.iterdir() if each.name.startswith(path.name))


def read(path):
    return [found for each in files_of(path) for found in read_records(io.BytesIO(each.read_bytes()), each.name)]


def decisions_in(path):
    return [record for _, record in read(path) if record.kind == "decision"]


def replayed(path):
    again = Replay()
    found = [each if isinstance(each, Unreadable) else again.take(*each) for each in read(path)]
    return [each for each in found if each is not None]


async def ask(runtime, count, at_once=20, **fields):
    limiter = trio.CapacityLimiter(at_once)

    async def one():
        async with limiter:
            await runtime.invoke(chat(model="", **fields))

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(one)


async def test_a_sample_under_load(tmp_path):
    path = tmp_path / "d.jsonl"
    async with nothing_left(), spear.open_runtime(log_at(path, sample=0.1), seed=5) as runtime:
        await ask(runtime, 2000)
        assert 150 < len([each for each in runtime.decisions() if each["kind"] == "decision"]) < 250
        observed = runtime.snapshot().children[0]
        assert observed.path == "runtime/decisions"
    records = decisions_in(path)
    assert 150 < len(records) < 250
    assert all(record.sampled and record.outcome == "ok" for record in records)
    assert len({record.request_id for record in records}) == len(records)
    verdicts = replayed(path)
    assert all(isinstance(each, Verdict) and not each.differs for each in verdicts)
    assert len(verdicts) == len(records)


async def test_failures_are_recorded_whatever_the_sample(tmp_path, fault_server):
    path = tmp_path / "d.jsonl"
    source = config(
        backend(fault_server, "one"),
        backend(fault_server, "two"),
        decisions={"path": str(path), "sample": 0.0},
        retries={"per_instance": 1},
    )
    async with spear.open_runtime(source) as runtime:
        await runtime.invoke(chat())
        fault_server.script(times=1, status=503)
        assert (await runtime.invoke(chat())).result.error is None  # the second one answered
        assert runtime.decisions() == []
        fault_server.script(times=None, status=503)
        failed = await runtime.invoke(chat())
        nobody = await runtime.invoke(chat(model="nobody has it"))
        with pytest.raises(SpearError):
            async with runtime.stream(chat()):
                pass
    records = decisions_in(path)
    assert [record.sampled for record in records] == [False] * len(records)
    first = [record for record in records if record.request_id == failed.request_id]
    assert [record.plan["chosen"] for record in first if record.attempts] == [
        each.backend for each in failed.result.error.attempts
    ]
    assert [record.number for record in first] == list(range(1, len(first) + 1))
    assert {(record.outcome, record.error) for record in first} == {("failed", "backend_error")}
    assert [each["outcome"] for record in first for each in record.attempts] == ["failed", "failed"]
    assert [record.inputs is None for record in first] == [True, True, False]  # the last one found nobody
    (alone,) = [record for record in records if record.request_id == nobody.request_id]
    assert (alone.plan["error"], alone.inputs is None) == ("no_candidate_backend", False)
    assert len({record.request_id for record in records}) == 3
    assert all(not each.differs for each in replayed(path) if isinstance(each, Verdict))


async def test_a_caller_that_leaves(tmp_path):
    path = tmp_path / "d.jsonl"
    source = config(stub(options={"delay_ms": 60_000}), decisions={"path": str(path), "sample": 1.0})
    async with spear.open_runtime(source) as runtime:
        with trio.move_on_after(0.05):
            await runtime.invoke(chat())
    (record,) = decisions_in(path)
    assert (record.outcome, record.attempts[0]["outcome"]) == ("cancelled", "cancelled")


async def test_rotation_under_load(tmp_path):
    path = tmp_path / "d.jsonl"
    source = log_at(path, sample=1.0, max_bytes=65_536, files=3)
    async with spear.open_runtime(source) as runtime:
        for _ in range(10):
            await ask(runtime, 50)
            await trio.sleep(0.05)
            assert all(each.stat().st_size <= 65_536 for each in files_of(path))
            assert len(files_of(path)) <= 3
    assert [each.name for each in files_of(path)] == ["d.jsonl.2", "d.jsonl.1", "d.jsonl"]
    verdicts = replayed(path)
    assert all(not each.differs for each in verdicts)  # each file has its generation
    assert 50 < len(verdicts) < 300


async def test_a_full_disk_harms_nobody(monkeypatch):
    monkeypatch.setattr("spear.config._spear._takes_a_file", lambda path: True)  # a device that is always full
    monkeypatch.setattr("spear.router.record._file._check_regular", lambda fd: None)
    async with nothing_left(), spear.open_runtime(log_at("/dev/full", sample=1.0)) as runtime:
        await ask(runtime, 50)
        log = runtime.snapshot().children[0]
        await until_true(lambda: runtime.snapshot().children[0].state["lost"] == 50)
        await ask(runtime, 50)
        await until_true(lambda: runtime.snapshot().children[0].state["lost"] == 100)
        state = runtime.snapshot().children[0].state
        assert (state["written"], state["dropped"]) == (0, 0)
        assert state["write_failures"] >= 2
        assert log.restarts == 0
        assert len(runtime.decisions()) == 101  # in memory all the same


async def test_a_disk_that_has_room_again(tmp_path):
    path = tmp_path / "there" / "d.jsonl"
    path.parent.mkdir()
    async with spear.open_runtime(log_at(path, sample=1.0)) as runtime:
        path.parent.rename(tmp_path / "away")
        await ask(runtime, 10)
        await until_true(lambda: runtime.snapshot().children[0].state["lost"] == 10)
        (tmp_path / "away").rename(path.parent)
        await ask(runtime, 10)
    assert len(decisions_in(path)) == 10
    assert all(not each.differs for each in replayed(path))


async def test_a_reload_changes_the_file_and_the_sample(tmp_path):
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    async with nothing_left(), spear.open_runtime(log_at(one, sample=1.0)) as runtime:
        await ask(runtime, 30)
        assert (await runtime.reload(log_at(two, sample=1.0))).settings == ("decisions",)
        await ask(runtime, 20)
        assert (await runtime.reload(log_at(two, sample=0.0))).ok
        await ask(runtime, 10)
        assert (await runtime.reload(log_at(one, sample=1.0))).ok
        await ask(runtime, 5)
    assert Counter(record.generation for record in decisions_in(one)) == {1: 30, 4: 5}
    assert Counter(record.generation for record in decisions_in(two)) == {2: 20}
    assert all(not each.differs for path in (one, two) for each in replayed(path))


async def test_a_log_that_begins_with_a_reload(tmp_path):
    path = tmp_path / "d.jsonl"
    plain = log_at(path)
    del plain["spear"]["decisions"]
    async with nothing_left(), spear.open_runtime(plain) as runtime:
        assert [node.path for node in runtime.snapshot().children] == ["runtime/backends", "runtime/router"]
        assert (await runtime.reload(log_at(path, sample=1.0))).ok
        await ask(runtime, 20)
        assert (await runtime.reload(plain)).ok
        await ask(runtime, 20)
    assert len(decisions_in(path)) == 20


async def test_what_ends_last_is_written_too(tmp_path):
    """A request that is still under way when the block is left: the router finishes it, and then the writer."""
    path = tmp_path / "d.jsonl"
    source = config(stub(options={"delay_ms": 300}), decisions={"path": str(path), "sample": 1.0})
    plain = config(stub(options={"delay_ms": 300}))
    for first in (source, plain):  # plain: its writer is younger than the router, and so stops before it
        async with trio.open_nursery() as nursery, spear.open_runtime(first) as runtime:
            await runtime.reload(source)
            nursery.start_soon(runtime.invoke, chat())
            await trio.sleep(0.1)
    assert [record.outcome for record in decisions_in(path)] == ["ok", "ok"]


async def test_cancelled_in_the_middle_of_writing(tmp_path):
    path = tmp_path / "d.jsonl"
    async with nothing_left():
        for moment in (0.0, 0.05, 0.1, 0.11, 0.12, 0.15):
            with trio.move_on_after(moment):
                async with spear.open_runtime(log_at(path, sample=1.0)) as runtime:
                    while True:
                        await runtime.invoke(chat(model=""))
    assert all(not isinstance(each, Unreadable) for each in read(path))


def test_two_processes_with_one_file(tmp_path):
    path = tmp_path / "d.jsonl"

    async def both():
        async with spear.open_runtime(log_at(path, sample=1.0)) as one:
            await ask(one, 5)
            await until_true(lambda: path.exists() and path.stat().st_size > 0)
            with trio.fail_after(10):
                async with spear.open_runtime(log_at(path, sample=1.0)) as other:
                    await ask(other, 7)
                    await until_true(lambda: other.snapshot().children[0].state["lost"] == 7)
            await ask(one, 5)

    trio.run(both)
    assert len(decisions_in(path)) == 10


KILLED = """
import sys, trio, spear
from tests.system.test_decision_log import ask, log_at
async def main():
    async with spear.open_runtime(log_at(sys.argv[1], sample=1.0, max_bytes=65536, files=50)) as runtime:
        while True:
            await ask(runtime, 20)
trio.run(main)
"""


def size_of(path):
    total = 0
    for each in files_of(path):
        with suppress(FileNotFoundError):  # just rotated
            total += each.stat().st_size
    return total


def test_a_process_that_is_killed(tmp_path):
    """Whatever it has written can be read; its successor appends to it."""
    path = tmp_path / "d.jsonl"
    for _ in range(2):
        before = size_of(path)
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(path)])
        try:
            ends = time.monotonic() + 30
            while size_of(path) < before + 150_000:
                assert time.monotonic() < ends
                time.sleep(0.01)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    with path.open("ab") as file:  # as a kill between two parts of one write would leave it
        file.write(b'{"v":1,"kind":"decision","run":"')
    found = replayed(path)
    assert len([each for each in found if isinstance(each, Verdict) and not each.differs]) > 100
    (broken,) = [each for each in found if not isinstance(each, Verdict)]
    assert "an unfinished last line" in broken.reason
    assert len({record.run for record in decisions_in_readable(path)}) == 2

    async def successor():
        async with spear.open_runtime(log_at(path, sample=1.0, max_bytes=65536, files=50)) as runtime:
            await ask(runtime, 3)

    trio.run(successor)
    found = replayed(path)
    assert len([each for each in found if isinstance(each, Unreadable)]) == 1
    assert len({each.record.run for each in found if isinstance(each, Verdict)}) == 3
    done = command("replay", *map(str, files_of(path)), cwd=tmp_path)
    assert done.code == 0
    assert "decisions reproduced" in done.out
    assert "d.jsonl" in done.err


def decisions_in_readable(path):
    return [each[1] for each in read(path) if not isinstance(each, Unreadable) and each[1].kind == "decision"]


async def test_more_than_the_writer_can_take_is_dropped_and_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("spear.router.record._log.QUEUED_BYTES", 20_000)
    path = tmp_path / "d.jsonl"
    async with spear.open_runtime(log_at(path, sample=1.0)) as runtime:
        await ask(runtime, 200, at_once=200)
        state = dict(runtime.snapshot().children[0].state)
        assert state["dropped"] > 0
        await ask(runtime, 1)
        await until_true(lambda: runtime.snapshot().children[0].state["written"] > 0)
    records = decisions_in(path)
    assert 0 < len(records) < 201
    assert sum(len(line) for line in path.read_bytes().splitlines(keepends=True)) > 1000


async def test_the_ring_is_bounded():
    source = config(stub(), decisions={"sample": 1.0})
    async with spear.open_runtime(source) as runtime:
        await ask(runtime, 1200)
        records = runtime.decisions()
    assert Counter(record["kind"] for record in records) == {"generation": 1, "decision": 1000}


async def test_a_bug_of_an_adapter_is_a_failure_like_others(tmp_path):
    path = tmp_path / "d.jsonl"

    kinds = fake_kinds({"a": FakeBackend(RuntimeError("a bug"))}, kind="fake")
    source = config({"name": "a", "kind": "fake", "hosting": "local"}, decisions={"path": str(path), "sample": 0.0})
    async with spear.open_runtime(source, kinds=kinds) as runtime:
        await runtime.invoke(chat(model=""))
    records = decisions_in(path)
    assert records
    assert {record.outcome for record in records} == {"failed"}


def test_where_no_file_can_be(tmp_path):
    for place in (tmp_path, tmp_path / "no folder" / "d.jsonl", "a\0b"):
        with pytest.raises(ConfigError, match="expected a file in a folder that exists"):
            spear.config.load_config(log_at(place))


def test_a_relative_path_is_beside_the_file_that_names_it(tmp_path):
    (tmp_path / "spear.toml").write_text(
        '[spear.decisions]\npath = "d.jsonl"\n[[spear.backends]]\nname = "a"\nkind = "stub"\nhosting = "local"\n'
    )
    found = spear.config.load_config(tmp_path / "spear.toml").decisions.path
    assert found == str(tmp_path / "d.jsonl")


def test_the_records_of_python_are_those_of_the_file(tmp_path):
    path = tmp_path / "d.jsonl"

    async def main():
        async with spear.open_runtime(log_at(path, sample=1.0)) as runtime:
            await ask(runtime, 3)
            return runtime.decisions()

    assert trio.run(main) == [json.loads(line) for line in path.read_text().splitlines()]
    assert os.stat(path).st_mode & 0o077 == 0
