"""Key pools against real servers that answer each key as they like: what is sent, who is left out, what guests read."""

from __future__ import annotations

import json
import time
from collections import Counter
from email.utils import formatdate

import pytest
import trio

import spear
from spear.ir import Completed, ErrorCode, Meta
from tests.system.kit import GUESTS, backend, chat, config, environment, nothing_left

ONE, TWO = "value-of-one", "value-of-two"
KEYS = {"KEY_OF_TEST_ONE": ONE, "KEY_OF_TEST_TWO": TWO}


@pytest.fixture(autouse=True)
def _keys():
    with environment(**KEYS):
        yield


def pool(server, *more, group=None, **options):
    """`server` with two keys, then `more` at a later priority."""
    credentials = [{"name": "one", "env": "KEY_OF_TEST_ONE"}, {"name": "two", "env": "KEY_OF_TEST_TWO"}]
    if group is not None:
        credentials = [{**each, "quota_group": group} for each in credentials]
    backends = [backend(server, credentials=["one", "two"], priority=0)]
    backends += [backend(each, priority=1) for each in more]
    return config(*backends, credentials=credentials, routes=[{"policy": "priority"}], **options)


def asked(server) -> Counter[str]:
    return Counter(
        value for each in server.requests() for key, value in each["headers"] if key.lower() == "authorization"
    )


def tries(response):
    error = response.result.error
    attempts = response.backend.attempts if error is None else error.attempts
    return [(each.backend, each.key_id, each.reason) for each in attempts]


def states(runtime):
    return {key["id"]: key["state"] for row in runtime.backends() for key in row["keys"]}


@pytest.mark.parametrize("status", [401, 402, 403])
async def test_a_refused_key_is_left_out_and_the_other_serves(fault_server, status):
    fault_server.script(times=None, key=ONE, status=status)
    async with nothing_left(), spear.open_runtime(pool(fault_server)) as runtime:
        answers = [await runtime.invoke(chat()) for _ in range(8)]
        assert all(each.result.error is None for each in answers)
        assert Counter(reason for each in answers for *_, reason in tries(each)) == {"chosen": 8, "another_key": 1}
        assert states(runtime) == {"one": "dead", "two": "ok"}
    assert asked(fault_server) == {f"Bearer {ONE}": 1, f"Bearer {TWO}": 8}
    await fault_server.until(open=0, connections_open=0)


async def test_a_stream_changes_its_key(fault_server):
    fault_server.script(times=None, key=ONE, status=429, retry_after=30)
    async with nothing_left(), spear.open_runtime(pool(fault_server)) as runtime:
        for _ in range(4):
            async with runtime.stream(chat()) as events:
                last = [event async for event in events][-1]
            assert isinstance(last, Completed)
        assert states(runtime) == {"one": "cooling", "two": "ok"}
    assert asked(fault_server) == {f"Bearer {ONE}": 1, f"Bearer {TWO}": 4}
    await fault_server.until(open=0, connections_open=0)


@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_a_limited_key_is_left_out_for_its_retry_after(fault_server, form):
    wait = 2 if form == "seconds" else formatdate(time.time() + 3, usegmt=True)
    fault_server.script(times=1, key=ONE, status=429, retry_after=wait)
    async with nothing_left(), spear.open_runtime(pool(fault_server)) as runtime:
        begun = trio.current_time()
        with trio.fail_after(10):
            while asked(fault_server)[f"Bearer {ONE}"] < 2:
                assert (await runtime.invoke(chat())).result.error is None
                await trio.sleep(0.02)
        assert 1.9 <= trio.current_time() - begun < 4.5
        assert states(runtime) == {"one": "ok", "two": "ok"}


async def test_another_quota_group_or_another_backend(fault_servers):
    """Two keys of one organization: the second one is not even tried."""
    first, second = fault_servers(), fault_servers()
    first.script(times=None, status=429, retry_after=30)
    async with nothing_left(), spear.open_runtime(pool(first, second, group="org")) as runtime:
        response = await runtime.invoke(chat())
        assert [each[::2] for each in tries(response)] == [(first.name, "chosen"), (second.name, "fallback")]
        assert tries(await runtime.invoke(chat())) == [(second.name, None, "chosen")]
        assert states(runtime) == {"one": "cooling", "two": "cooling"}
    assert asked(first).total() == 1
    first.reset()
    first.script(times=None, status=429, retry_after=30)
    async with nothing_left(), spear.open_runtime(pool(first, second)) as runtime:
        reasons = [(name, reason) for name, _, reason in tries(await runtime.invoke(chat()))]
        assert reasons == [(first.name, "chosen"), (first.name, "another_key"), (second.name, "fallback")]
    assert asked(first) == {f"Bearer {ONE}": 1, f"Bearer {TWO}": 1}


async def test_all_cooling_is_rate_limited_at_once(fault_server):
    fault_server.script(times=None, status=429, retry_after=90)
    async with nothing_left(), spear.open_runtime(pool(fault_server)) as runtime:
        assert (await runtime.invoke(chat())).result.error.code is ErrorCode.RATE_LIMITED
        before = fault_server.counts()["total"]
        error = (await runtime.invoke(chat())).result.error
        assert (error.code, error.rejected_reasons) == (ErrorCode.RATE_LIMITED, {fault_server.name: "keys_cooling"})
        assert 80_000 < error.retry_after_ms <= 90_000
        assert fault_server.counts()["total"] == before == 2
        assert runtime.backends()[0]["state"] == "keys_cooling"


async def test_all_dead_is_credentials_exhausted_and_a_guest_reads_it(fault_server):
    fault_server.script(times=None, status=401)
    async with nothing_left(), spear.open_runtime(pool(fault_server)) as runtime:
        first = (await runtime.invoke(chat())).result.error
        assert (first.code, len(first.attempts)) == (ErrorCode.BACKEND_ERROR, 2)
        error = (await runtime.invoke(chat())).result.error
        assert (error.code, error.retryable) == (ErrorCode.CREDENTIALS_EXHAUSTED, False)
        assert runtime.backends()[0]["state"] == "keys_dead"
        execution = await runtime.run_guest(GUESTS, entry="chat_small", timeout_s=20)
        body = json.loads(execution.stdout)
        assert body["error"]["code"] == "credentials_exhausted"
        assert "requests_total" in runtime.counters.prometheus()
        assert 'code="credentials_exhausted"' in runtime.counters.prometheus()
        assert 'keys_total{change="killed",key="one"} 1' in runtime.counters.prometheus()
    assert fault_server.counts()["total"] == 2


async def test_a_new_value_in_its_file_revives_a_key(fault_server, tmp_path):
    key = tmp_path / "key"
    key.write_text(ONE)
    fault_server.script(times=None, key=ONE, status=401)
    file = tmp_path / "spear.toml"
    file.write_text(
        f"""
        [[spear.credentials]]
        name = "k"
        file = "key"
        [[spear.backends]]
        name = "a"
        kind = "openai_chat"
        hosting = "local"
        base_url = "{fault_server.base_url}"
        credentials = ["k"]
        """
    )
    async with nothing_left(), spear.open_runtime(file, watch=True) as runtime:
        for _ in range(2):
            assert (await runtime.invoke(chat())).result.error is not None
        assert (await runtime.reload()).ok
        assert states(runtime) == {"k": "dead"}, "the same value again"
        key.write_text(TWO)
        with trio.fail_after(10):
            while (await runtime.invoke(chat())).result.error is not None:  # noqa: ASYNC110
                await trio.sleep(0.05)
    assert asked(fault_server) == {f"Bearer {ONE}": 1, f"Bearer {TWO}": 1}


async def test_a_dead_key_is_tried_out_by_one_request_at_a_time(fault_server):
    fault_server.script(times=None, key=ONE, status=403)
    source = pool(fault_server, keys={"revive_s": "300ms"})
    async with nothing_left(), spear.open_runtime(source) as runtime:
        for _ in range(4):
            await runtime.invoke(chat())
        fault_server.script(times=None, key=ONE, delay=0.5)
        await trio.sleep(0.35)
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(runtime.invoke, chat())
        assert asked(fault_server)[f"Bearer {ONE}"] == 2
        assert states(runtime) == {"one": "ok", "two": "ok"}


async def test_a_session_keeps_its_key(fault_server):
    async with nothing_left(), spear.open_runtime(pool(fault_server)) as runtime:
        for session in range(8):
            found = set()
            for _ in range(3):
                response = await runtime.invoke(chat(meta=Meta(session_id=f"session {session}")))
                found.add(response.backend.attempts[0].key_id)
            assert len(found) == 1
    assert len(asked(fault_server)) == 2
