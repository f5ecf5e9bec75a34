"""The store as callers and adapters see it, and as a part of a runtime."""

from __future__ import annotations

import base64
import os
import stat
import tempfile
from contextlib import asynccontextmanager, suppress
from functools import partial

import pytest
import trio

import spear
from spear.backends import find_kind
from spear.config import MediaConfig
from spear.ir import (
    CallerError,
    ConfigError,
    ErrorCode,
    InlineMedia,
    UrlMedia,
)
from spear.media import MediaStore, Writing, id_of
from tests.system.kit import HELLO, config, nothing_left, stub, until_true

MIB = 1024 * 1024


@asynccontextmanager
async def opened(**settings):
    store = MediaStore(MediaConfig(**settings))
    try:
        yield store
    finally:
        store.close()


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    return tmp_path / "tmp"


def folders(temporary):
    return list(temporary.glob("spear-media-*/*"))


async def test_in_and_out(temporary):
    async with opened() as store:
        assert folders(temporary) == []
        data = os.urandom(5 * MIB + 1)
        ref = await store.save(data, "image/png", task_id="a")
        loaded = await store.load(ref, task_id="a")
        assert (loaded.data, loaded.mime) == (data, "image/png")
        async with store.read(ref, task_id="a") as reading:
            assert (reading.size, reading.mime) == (len(data), "image/png")
            assert b"".join([part async for part in parts_of(reading)]) == data
        (parent,) = temporary.iterdir()
        (folder,) = parent.iterdir()
        assert stat.S_IMODE(parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert folders(temporary) == []


async def parts_of(reading, size=MIB):
    while part := await reading.read(size):
        yield part


async def test_inline_media_is_decoded():
    async with opened() as store:
        ref = InlineMedia(mime="text/plain", data=base64.b64encode(b"hello").decode())
        assert (await store.load(ref, task_id="a")).data == b"hello"
        async with store.read(ref, task_id="a") as reading:
            assert await reading.read(3) == b"hel"
            assert await reading.read(30) == b"lo"
            assert await reading.read(30) == b""
        with pytest.raises(CallerError) as raised:
            await store.load(ref, task_id="a", max_bytes=4)
        assert raised.value.code is ErrorCode.MEDIA_TOO_LARGE
        assert not store.used, "for what is inline there is no folder"


async def test_no_origin_is_allowed_by_default():
    async with opened() as store:
        with pytest.raises(CallerError) as raised:
            await store.load(UrlMedia(url="https://example.com/a.png"), task_id=None)
        assert raised.value.code is ErrorCode.MEDIA_NOT_ALLOWED


async def test_what_is_too_large_for_the_reader():
    async with opened() as store:
        ref = await store.save(b"12345", "text/plain", task_id=None)
        with pytest.raises(CallerError, match="5 bytes; at most 4") as raised:
            await store.load(ref, task_id=None, max_bytes=4)
        assert raised.value.code is ErrorCode.MEDIA_TOO_LARGE


async def test_leaving_without_commit_leaves_nothing():
    async with opened() as store:
        async with store.write("text/plain", task_id="a") as writing:
            await writing.write(b"half")
        with suppress(ZeroDivisionError):
            async with store.write("text/plain", task_id="a") as writing:
                await writing.write(b"half")
                raise ZeroDivisionError
        assert store.files.account.total.objects == 0


@pytest.mark.parametrize("where", ["append", "commit"])
async def test_cancelled_in_the_middle(monkeypatch, where):
    """The thread finishes its piece; after that there is a whole object or none, and nothing is left open."""
    slow = getattr(Writing, where)
    entered = trio.Event()
    token = trio.lowlevel.current_trio_token()

    def slowly(self, *args, **more):
        token.run_sync_soon(entered.set)
        trio.from_thread.run(trio.sleep, 0)
        return slow(self, *args, **more)

    async with opened() as store:
        await store.save(b"other", "text/plain", task_id="a")
        async with nothing_left(), trio.open_nursery() as nursery:
            monkeypatch.setattr(Writing, where, slowly)
            nursery.start_soon(partial(store.save, b"x" * 3 * MIB, "text/plain", task_id="a"))
            await entered.wait()
            nursery.cancel_scope.cancel()
        held = store.files.account.of("a")
        assert (held.bytes, held.objects) == (5, 1)


async def test_cancelled_while_reading():
    async with opened() as store:
        ref = await store.save(b"x" * MIB, "text/plain", task_id="a")
        async with nothing_left():
            with trio.move_on_after(5) as scope:
                async with store.read(ref, task_id="a") as reading:
                    await reading.read(10)
                    scope.cancel()
                    await reading.read(10)
            assert scope.cancelled_caught


async def test_a_hundred_at_a_time():
    async with opened() as store:
        found = {}

        async def one(number):
            ref = await store.save(f"number {number % 10}".encode(), "text/plain", task_id=str(number))
            found[number] = (await store.load(ref, task_id=str(number))).data

        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(one, number)
        assert found == {number: f"number {number % 10}".encode() for number in range(100)}


async def test_somebody_elses_folder_is_not_used(temporary):
    """In a folder where all may write, anybody may have made ours."""
    planted = temporary / f"spear-media-{os.getuid()}"
    planted.mkdir(mode=0o777)
    planted.chmod(0o777)
    async with opened() as store:
        ref = await store.save(b"x", "text/plain", task_id=None)
        assert list(planted.iterdir()) == []
        assert (await store.load(ref, task_id=None)).data == b"x"


async def test_what_killed_processes_left_goes(temporary):
    async with opened() as store:
        await store.save(b"x", "text/plain", task_id=None)
        parent = temporary / f"spear-media-{os.getuid()}"
        (parent / "0123456789abcdef" / "store").mkdir(parents=True)
        (parent / "0123456789abcdef" / "lock").touch()
        (parent / "halfmade").mkdir()
        async with opened() as other:
            await other.save(b"y", "text/plain", task_id=None)
            assert len(folders(temporary)) == 2


async def test_closed():
    async with opened() as store:
        await store.save(b"x", "text/plain", task_id=None)
    with pytest.raises(CallerError, match="closed"):
        await store.save(b"x", "text/plain", task_id=None)


# --- in a runtime


async def test_a_runtime_that_only_chats_makes_nothing(temporary):
    async with spear.open_runtime(config(stub())) as runtime:
        await runtime.chat(messages=[{"role": "user", "content": "hello"}])
        await runtime.run_guest(HELLO)
        assert folders(temporary) == []
        assert not any(node.path == "runtime/media" for node in runtime.snapshot().walk())


async def test_a_runtime_has_one_and_takes_it_with_it(temporary):
    async with spear.open_runtime(config(stub())) as runtime:
        ref = await runtime.media.save(b"hello", "text/plain", task_id="a")
        assert (await runtime.media.load(ref, task_id="a")).data == b"hello"
        (node,) = [node for node in runtime.snapshot().walk() if node.path == "runtime/media"]
        assert (node.state["objects"], node.state["bytes"]) == (1, 5)
        assert len(folders(temporary)) == 1
    assert folders(temporary) == []


async def test_a_cancelled_runtime_takes_it_too(temporary):
    with trio.CancelScope() as scope:
        async with spear.open_runtime(config(stub())) as runtime:
            await runtime.media.save(b"hello", "text/plain", task_id="a")
            scope.cancel()
            await trio.sleep_forever()
    assert folders(temporary) == []


async def test_with_a_path_objects_outlive_the_runtime(tmp_path, temporary):
    source = config(stub(), media={"path": str(tmp_path / "media")})
    async with spear.open_runtime(source) as runtime:
        ref = await runtime.media.save(b"hello", "text/plain", task_id="a")
        passing = runtime.media.files.create("text/plain", "a")
        passing.append(b"from a guest")
        second = passing.commit()
        assert runtime.snapshot().children[0].path == "runtime/media"
        await until_true(lambda: runtime.snapshot().children[0].state["synced"] == 1)
    async with spear.open_runtime(source) as runtime, spear.open_runtime(source) as other:
        for each in (runtime, other):
            assert (await each.media.load(ref, task_id="a")).data == b"hello"
            assert (await each.media.load(second, task_id="a")).data == b"from a guest"
        third = await runtime.media.save(b"later", "text/plain", task_id="b")
        assert (await other.media.load(third, task_id="b")).data == b"later"
        assert await other.media.delete_task("b") == 1
        with pytest.raises(CallerError):
            await runtime.media.load(third, task_id="b")
        await runtime.media.grant(ref, task_id="c")
        assert (await runtime.media.load(ref, task_id="c")).data == b"hello"
        await runtime.media.delete(ref)
        with pytest.raises(CallerError):
            await runtime.media.load(ref, task_id=None)
    assert folders(temporary) == []


async def test_what_has_expired_goes_by_itself(tmp_path):
    source = config(stub(), media={"path": str(tmp_path / "media"), "expire_s": 0.05})
    async with spear.open_runtime(source) as runtime:
        ref = await runtime.media.save(b"hello", "text/plain", task_id="a")
        await until_true(lambda: runtime.snapshot().children[0].state["expired"] == 1)
        assert runtime.media.files.ref(id_of(ref.uri)) is None


async def test_adapters_save_and_load(tmp_path):
    """The same store, after a reload as well."""
    seen = []

    class Drawing(type(find_kind("stub"))):
        def open(self, instance, host):
            seen.append(host.media)
            return super().open(instance, host)

    kinds = {"drawing": Drawing()}
    async with spear.open_runtime(config({**stub(), "kind": "drawing"}), kinds=kinds) as runtime:
        source = config({**stub(), "kind": "drawing", "model": "other"}, media={"max_objects": 7})
        report = await runtime.reload(source)
        assert report.not_applied == ("media stays as it is until the next start",)
        assert len(seen) == 2
        for media in seen:
            ref = await media.save(b"drawn", "image/png", task_id="a")
            assert (await runtime.media.load(ref, task_id="a")).data == b"drawn"
            assert (await media.load(await runtime.media.save(b"given", "image/png", task_id="a"), task_id="a")).data


@pytest.mark.parametrize(
    ("media", "says"),
    [
        ({"path": ""}, "empty or no path"),
        ({"path": "missing/media"}, "no place for a folder"),
        ({"path": 3}, "expected a string"),
        ({"max_object_bytes": 0}, "at least 1"),
        ({"max_object_bytes": 1000, "max_task_bytes": 10}, "spear.media.max_task_bytes.* expected at least"),
        ({"expire_s": 0}, "expected more than 0"),
        ({"folder": "x"}, "not a known key"),
        (3, "expected a table"),
    ],
)
async def test_what_is_wrong_in_a_configuration(media, says):
    with pytest.raises(ConfigError, match=says):
        async with spear.open_runtime(config(stub(), media=media)):
            pass


async def test_a_folder_that_cannot_be_used(tmp_path):
    path = tmp_path / "media"
    path.mkdir()
    (path / "objects").write_bytes(b"a file")
    with pytest.raises(ConfigError, match=r"spear\.media\.path: the media store cannot use its disk: file exists"):
        async with spear.open_runtime(config(stub(), media={"path": str(path)})):
            pass
