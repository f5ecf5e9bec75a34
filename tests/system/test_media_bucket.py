"""The second tier against a real S3-compatible server: copied, brought back, and neither lost nor waited for when the
server dies."""

from __future__ import annotations

import os
import shutil

import pytest
import trio

import spear
from spear.config import load_config
from spear.ir import CallerError, ConfigError, ErrorCode
from spear.media import _keeper, id_of
from tests.servers.s3_server import S3Server
from tests.system.kit import config, environment, stub, until_true

MIB = 1024 * 1024
KEYS = {"SPEAR_TEST_ACCESS": "an-access-key-of-tests", "SPEAR_TEST_SECRET": "a-secret-key-of-tests"}


@pytest.fixture(scope="module")
def server():
    made = S3Server().start()
    yield made
    made.kill()


@pytest.fixture(autouse=True)
def keys():
    with environment(**KEYS):
        yield


def source(folder, server, **more):
    s3 = {
        "bucket": server.bucket,
        "endpoint_url": server.url,
        "region": "us-east-1",
        "prefix": f"{folder.parent.name}/",
        "access_key_env": "SPEAR_TEST_ACCESS",
        "secret_key_env": "SPEAR_TEST_SECRET",
        "timeout_s": 2,
        **more,
    }
    return config(stub(), media={"path": str(folder), "s3": s3})


def keys_of(server, folder):
    found = server.keys()
    return [key for key in found if key.startswith(f"{folder.parent.name}/")]


def state(runtime):
    return runtime.snapshot().children[0].state


async def test_saved_is_copied_and_comes_back(tmp_path, server):
    first, second = tmp_path / "first", tmp_path / "second"
    data = os.urandom(3 * MIB + 5)
    async with spear.open_runtime(source(first, server)) as runtime:
        ref = await runtime.media.save(data, "image/png", task_id="a")
        key = f"{tmp_path.name}/{id_of(ref.uri)}"
        assert keys_of(server, first) == [f"{key}/data", f"{key}/record.json"]
        assert server.read(f"{key}/data") == data
    async with spear.open_runtime(source(second, server)) as runtime:
        with pytest.raises(CallerError) as raised:
            await runtime.media.load(ref, task_id="b")
        assert raised.value.code is ErrorCode.MEDIA_NOT_FOUND
        loaded = await runtime.media.load(ref, task_id="a")
        assert (loaded.data, loaded.mime) == (data, "image/png")
        assert state(runtime)["brought"] == 1
        assert runtime.media.files.account.of("a").objects == 1
        assert (await runtime.media.load(ref, task_id="a")).data == data
        assert state(runtime)["brought"] == 1
        unknown = ref.model_copy(update={"uri": "smsfile://" + "0" * 40})
        with pytest.raises(CallerError, match="no such object"):
            await runtime.media.load(unknown, task_id=None)
        await runtime.media.delete(ref)
        await until_true(lambda: not keys_of(server, second))


async def test_many_ask_for_the_same_at_once(tmp_path, server):
    async with spear.open_runtime(source(tmp_path / "first", server)) as runtime:
        ref = await runtime.media.save(b"x" * MIB, "image/png", task_id="a")
    async with spear.open_runtime(source(tmp_path / "second", server)) as runtime:
        found = []

        async def one():
            found.append((await runtime.media.load(ref, task_id="a")).data)

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(one)
        assert found == [b"x" * MIB] * 8
        held = runtime.media.files.account.of("a")
        assert (held.objects, held.bytes) == (1, MIB)


async def test_a_guests_commit_is_copied_in_the_background(tmp_path, server):
    folder = tmp_path / "media"
    async with spear.open_runtime(source(folder, server)) as runtime:
        writing = runtime.media.files.create("text/plain", "a")
        writing.append(b"from a guest")
        ref = writing.commit()
        await until_true(lambda: state(runtime)["copied"] == 1)
        assert server.read(f"{tmp_path.name}/{id_of(ref.uri)}/data") == b"from a guest"


DAMAGE = [
    ("data", b"other"),
    ("data", b"hell"),
    ("data", b"hello and more" * 100_000),
    ("record.json", b"{}"),
    ("record.json", b"x" * 100_000),
]


async def test_what_was_damaged_there_is_not_given(tmp_path, server):
    async with spear.open_runtime(source(tmp_path / "first", server)) as runtime:
        refs = [await runtime.media.save(b"hello", "text/plain", task_id="a") for _ in DAMAGE]
        for ref, (name, data) in zip(refs, DAMAGE, strict=True):
            server.write(f"{tmp_path.name}/{id_of(ref.uri)}/{name}", data)
    async with spear.open_runtime(source(tmp_path / "second", server)) as runtime:
        for ref in refs:
            with pytest.raises(CallerError) as raised:
                await runtime.media.load(ref, task_id="a")
            assert raised.value.code is ErrorCode.MEDIA_NOT_FOUND
        assert runtime.media.files.account.total.objects == 0


async def test_the_server_dies_and_returns(tmp_path):
    """Nothing waits for it but what is only there, and what was stored meanwhile is copied afterwards."""
    folder = tmp_path / "media"
    server = S3Server().start()
    try:
        async with spear.open_runtime(source(folder, server, timeout_s=0.3)) as runtime:
            server.kill()
            with trio.fail_after(5):
                ref = await runtime.media.save(b"while it is away", "text/plain", task_id="a")
                assert (await runtime.media.load(ref, task_id="a")).data == b"while it is away"
                missing = ref.model_copy(update={"uri": "smsfile://" + "0" * 40})
                with pytest.raises(CallerError, match="no such object"):
                    await runtime.media.load(missing, task_id="a")
            await until_true(lambda: state(runtime)["bucket_failures"] > 0)
            assert "127.0.0.1" not in state(runtime)["bucket_problem"]
            await until_true(lambda: state(runtime)["to_copy"] == 1)  # while it is tried, it does not wait
            server.start()
            await until_true(lambda: len(keys_of(server, folder)) == 2, limit=10)
            await until_true(lambda: state(runtime)["to_copy"] == 0)
            server.kill()
            last = await runtime.media.save(b"at the very end", "text/plain", task_id="a")
        server.start()
        async with spear.open_runtime(source(folder, server)) as runtime:  # it was away at the stop as well
            await until_true(lambda: len(keys_of(server, folder)) >= 2, limit=10)
            assert server.read(f"{tmp_path.name}/{id_of(last.uri)}/data") == b"at the very end"
    finally:
        server.kill()


async def test_whoever_leaves_while_it_is_copied_loses_nothing(tmp_path, monkeypatch):
    """A server that accepts and never answers."""
    monkeypatch.setattr(_keeper, "_STOP_S", 0.1)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    silent = S3Server()
    silent.port = listeners[0].socket.getsockname()[1]
    async with spear.open_runtime(source(tmp_path / "media", silent, timeout_s=0.5)) as runtime:
        with trio.move_on_after(0.2) as scope:
            await runtime.media.save(b"hello", "text/plain", task_id="a")
        assert scope.cancelled_caught
        (name,) = runtime.media.files.all_ids()
        loaded = await runtime.media.load(runtime.media.files.ref(name), task_id="a")
        assert loaded.data == b"hello"
        await until_true(lambda: state(runtime)["bucket_failures"] > 0)
        await until_true(lambda: state(runtime)["to_copy"] == 1)
    await listeners[0].aclose()


async def test_a_bucket_that_is_not_there(tmp_path, server):
    async with spear.open_runtime(source(tmp_path / "media", server, bucket="nobodys")) as runtime:
        ref = await runtime.media.save(b"hello", "text/plain", task_id="a")
        assert (await runtime.media.load(ref, task_id="a")).data == b"hello"
        assert state(runtime)["bucket_problem"] == "the bucket refuses: NoSuchBucket"
        shutil.rmtree(tmp_path / "media" / "objects")


@pytest.mark.parametrize(
    ("s3", "says"),
    [
        ({}, "bucket: is missing"),
        ({"bucket": "a b"}, "spear.media.s3.bucket"),
        ({"bucket": "objects", "access_key_env": "SPEAR_TEST_ACCESS"}, "expected both or none"),
        ({"bucket": "objects", "access_key_env": "X Y", "secret_key_env": "SPEAR_TEST_SECRET"}, "not the name"),
        (
            {"bucket": "objects", "access_key_env": "NOT_THERE", "secret_key_env": "SPEAR_TEST_SECRET"},
            "missing or empty",
        ),
        ({"bucket": "objects", "secret_key": "x"}, "not a known key"),
        ({"bucket": "objects", "endpoint_url": "nowhere"}, "expected a URL"),
        ({"bucket": "objects", "timeout_s": 0}, "expected more than 0"),
        (3, "expected a table"),
    ],
)
def test_what_is_wrong_in_a_configuration(tmp_path, s3, says):
    with pytest.raises(ConfigError, match=says):
        load_config(config(stub(), media={"path": str(tmp_path / "media"), "s3": s3}))


def test_a_bucket_needs_a_folder():
    with pytest.raises(ConfigError, match=r"needs media\.path"):
        load_config(config(stub(), media={"s3": {"bucket": "objects"}}))


def test_its_keys_are_secrets(tmp_path, server):
    loaded = load_config(source(tmp_path / "media", server))
    told = {each.reveal() for each in loaded.secrets}
    assert told >= {*KEYS.values(), server.url}
    assert not any(value in repr(loaded) for value in (*KEYS.values(), server.url))
