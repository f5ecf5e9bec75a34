"""A watched file, in real time: what is written takes hold by itself, however it is written."""

from __future__ import annotations

import io
import os
import threading
import time
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

import spear
import spear.blocking
from actors import Spec
from spear._watch import Watcher, look_now, watched
from spear.telemetry import configure_logging
from tests.spear.test_runtime_counters import counted
from tests.system.kit import chat, nothing_left, until_true

QUICK = 0.03


def toml(*names, extra=""):
    return extra + "".join(f'[[spear.backends]]\nname = "{name}"\nkind = "stub"\nhosting = "local"\n' for name in names)


def replace(file, text):
    """As editors do: another file in its place."""
    new = file.with_suffix(".new")
    new.write_text(text)
    new.replace(file)


def names(runtime):
    return [row["name"] for row in runtime.backends()]


@asynccontextmanager
async def watching(file, interval=QUICK):
    """As `open_runtime(watch=True)`, but quicker."""
    async with spear.open_runtime(file) as runtime:
        seen = look_now(watched(file, runtime.config))
        make = partial(Watcher, file, lambda: runtime.config, runtime.reload, seen, interval)
        await runtime._supervisor.start(Spec(name="watch", factory=make))
        yield runtime


def reloads(runtime, outcome="ok"):
    return counted(runtime, "config_reloads_total", outcome=outcome)


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "spear.toml"
    file.write_text(toml("a"))
    return file


async def test_open_runtime_watches(file):
    async with nothing_left(), spear.open_runtime(file, watch=True) as runtime:
        assert (await runtime.reload()).ok
        file.write_text(toml("b"))
        started = time.monotonic()
        await until_true(lambda: names(runtime) == ["b"], limit=15)
        assert time.monotonic() - started > 0.9  # it stood still for one look
        node = next(node for node in runtime.snapshot().walk() if node.path == "runtime/watch")
        assert node.state == {"path": str(file), "reloads": 1, "missing": False}


@pytest.mark.parametrize("given", [{"spear": {"backends": []}}, spear.load_config({"spear": {"backends": []}})])
async def test_there_must_be_a_file(given):
    with pytest.raises(ValueError, match="needs the path of a file"):
        async with spear.open_runtime(given, watch=True):
            pass


@pytest.mark.parametrize("write", [lambda file, text: file.write_text(text), replace], ids=["in place", "renamed over"])
async def test_each_way_of_writing(file, write):
    async with watching(file) as runtime:
        for number in range(3):
            write(file, toml(f"b{number}"))
            await until_true(lambda: names(runtime) == [f"b{number}"])  # noqa: B023
        await until_true(lambda: reloads(runtime) == 3)  # counted a moment after it holds


async def test_a_link_that_is_turned(file, tmp_path):
    other = tmp_path / "other.toml"
    other.write_text(toml("b"))
    link = tmp_path / "link.toml"
    link.symlink_to(file)
    async with watching(link) as runtime:
        new = tmp_path / "link.new"
        new.symlink_to(other)
        new.replace(link)
        await until_true(lambda: names(runtime) == ["b"])


async def test_the_same_size_and_time_in_another_file(file):
    """Tools that keep times: only the inode tells."""
    before = file.stat()
    async with watching(file) as runtime:
        new = file.with_suffix(".new")
        new.write_text(toml("b"))
        os.utime(new, ns=(before.st_atime_ns, before.st_mtime_ns))
        new.replace(file)
        await until_true(lambda: names(runtime) == ["b"])


async def test_nothing_new_is_no_reload(file):
    async with watching(file) as runtime:
        await trio.sleep(10 * QUICK)
        assert reloads(runtime) == 0
        os.utime(file)
        await until_true(lambda: reloads(runtime) == 1)
        await trio.sleep(10 * QUICK)
        assert reloads(runtime) == 1


async def test_a_file_that_is_still_being_written_is_left_alone(file):
    """Half of it would be a configuration, too."""
    async with watching(file, 0.1) as runtime:
        with file.open("w") as stream:
            for number in range(20):
                stream.write(toml(f"b{number}"))
                stream.flush()
                await trio.sleep(0.03)
                assert reloads(runtime) == 0
        await until_true(lambda: reloads(runtime) == 1)
        assert len(names(runtime)) == 20


async def test_a_bad_file_is_said_once_and_its_repair_is_seen(file):
    log = io.StringIO()
    configure_logging("warning", "json", log)
    try:
        async with watching(file) as runtime:
            file.write_text("[[spear.backends]]\n")
            await until_true(lambda: reloads(runtime, "failed") == 1)
            await trio.sleep(10 * QUICK)
            assert reloads(runtime, "failed") == 1
            assert names(runtime) == ["a"]
            assert log.getvalue().count("config_not_reloaded") == 1
            file.unlink()
            await until_true(lambda: "config_missing" in log.getvalue())
            await trio.sleep(5 * QUICK)
            assert log.getvalue().count("config_missing") == 1
            assert names(runtime) == ["a"]
            file.write_text(toml("c"))
            await until_true(lambda: names(runtime) == ["c"])
    finally:
        configure_logging()


async def test_the_files_of_keys_are_watched(file, tmp_path):
    key = tmp_path / "keys" / "one"
    key.parent.mkdir()
    extra = '[[spear.credentials]]\nname = "k"\nfile = "keys/one"\n'
    async with watching(file) as runtime:
        file.write_text(toml("a", extra=extra) + 'credentials = ["k"]\n')
        await until_true(lambda: [row["state"] for row in runtime.backends()] == ["missing_credential"])
        for value in ("first-value", "second-value"):
            key.write_text(value)
            await until_true(lambda: [each.reveal() for each in runtime.config.secrets] == [value])  # noqa: B023
        await until_true(lambda: [row["state"] for row in runtime.backends()] == ["running"])
        await trio.sleep(10 * QUICK)
        assert reloads(runtime) in {3, 4}  # one more because the key's file was new, unless that fell together


def test_from_other_threads(file):
    """The blocking face: it watches, too, and a reload waits for its end."""
    with spear.blocking.open_runtime(file, watch=True) as runtime:
        file.write_text(toml("b"))
        assert runtime.reload().added == ("b",)
        assert runtime.invoke(chat(model="")).backend.name == "b"
        file.write_text("nonsense")
        assert not runtime.reload().ok
        reports = []
        file.write_text(toml("c"))
        threads = [threading.Thread(target=lambda: reports.append(runtime.reload())) for _ in range(8)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert sorted(each.generation for each in reports) == list(range(3, 11))
        file.write_text(toml("d", "e"))
        ends = time.monotonic() + 15
        while [row["name"] for row in runtime.backends()] != ["d", "e"]:
            assert time.monotonic() < ends
            time.sleep(0.05)
