"""Limits shared through a real redis-server: by two processes, and with the server killed, hung, missing or none."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import ExitStack
from functools import partial
from random import Random

import anyio
import pytest
import trio

import spear
from spear.config import RedisConfig
from spear.ir import ConfigError, ErrorCode
from spear.router.limits import Quota
from spear.router.shared import Link, SharedLimits
from spear.router.shared._meter import Asked
from spear.router.shared._script import SCRIPT, key_of, mark_key, nodes_key, question, read_answer
from spear.secrets import Secret
from tests.servers.redis_server import RedisServer
from tests.spear.router.shared_store import SimulatedStore
from tests.system.kit import chat, config, nothing_left, stub, until_true

# coredis leaves memory streams of its connections to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:Unclosed <Memory:ResourceWarning")
ROOT = __file__.rpartition("/tests/")[0]


def sharing(server, limit=40, **redis):
    return config(stub(limits={"rpm": limit}), redis={"url": server.url, **redis})


def state(runtime):
    (node,) = [each for each in runtime.snapshot().walk() if each.path == "runtime/shared_limits"]
    return node.state


async def used_up(runtime, most=200) -> int:
    """How many requests are answered until three in a row are refused."""
    done = refused = 0
    while refused < 3 and done < most:
        error = (await runtime.invoke(chat(model=""))).result.error
        if error is None:
            done, refused = done + 1, 0
        else:
            assert error.code is ErrorCode.RATE_LIMITED
            refused += 1
            await trio.sleep(0.15)
    return done


class Processes:
    """So many processes that ask, all from the same moment on."""

    def __init__(self, source, tmp_path, *, count=2, seconds=2.0, rate=200.0):
        self._file = tmp_path / "shared.json"
        self._file.write_text(json.dumps(source))
        command = [sys.executable, "-W", "ignore", "-m", "tests.system.shared_process", str(self._file)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "cwd": ROOT, "text": True}
        self._stack = ExitStack()
        self._all = [
            self._stack.enter_context(subprocess.Popen([*command, str(seconds), str(rate)], **pipes))
            for _ in range(count)
        ]

    def __enter__(self):
        for each in self._all:
            assert each.stdout.readline() == "ready\n"
        time.sleep(0.3)
        for each in self._all:
            each.stdin.write("go\n")
            each.stdin.flush()
        return self

    def results(self):
        found = [json.loads(each.stdout.readline()) for each in self._all]
        assert [each.wait(10) for each in self._all] == [0] * len(found)
        assert all(each["restarts"] == 0 for each in found)
        assert all(set(each["refused"]) <= {"rate_limited", "budget_exceeded"} for each in found)
        return found

    def __exit__(self, *exc):
        for each in self._all:
            each.kill()
        self._stack.close()


def most_in_a_window(results, seconds):
    times = sorted(at for each in results for at in each["answered"])
    return max(sum(start <= at < start + seconds for at in times) for start in times)


def test_two_processes_share_one_limit(redis_server, tmp_path):
    with Processes(sharing(redis_server), tmp_path) as both:
        results = both.results()
    done = [len(each["answered"]) for each in results]
    assert 36 <= sum(done) <= 40, done
    assert min(done) >= 5, "none of them has taken it all"
    assert all(each["leasing"] and each["nodes"] == 2 for each in results)


def test_in_no_window_more_than_the_limit(redis_server, tmp_path):
    budget = {"name": "all", "requests": 30, "window": 1.0}
    source = config(stub(), budgets=[budget], redis={"url": redis_server.url, "lease_s": 0.2})
    with Processes(source, tmp_path, seconds=4.0) as both:
        results = both.results()
    assert most_in_a_window(results, 0.95) <= 30, "what is measured is the answer, a little after the reservation"
    assert sum(len(each["answered"]) for each in results) >= 45, "of 120, less what leases and slices cost"


def test_killed_and_restarted_in_mid_traffic(redis_server, tmp_path):
    """What is used before, during and after stays within the limit; nobody fails otherwise, nobody waits."""
    with Processes(sharing(redis_server, 60, lease_s=0.4), tmp_path, seconds=5.0, rate=15) as both:
        time.sleep(1.0)
        redis_server.kill()
        time.sleep(1.5)
        redis_server.start()
        results = both.results()
    assert sum(len(each["answered"]) for each in results) <= 60
    for each in results:
        assert each["leasing"], each
        assert each["losses"] == each["reconciled"] == 1
        assert any(at for at in each["answered"])
        assert each["slowest"] < 1, "it was away for 1.5 s"


def test_a_process_that_is_killed_takes_nothing_with_it_but_its_lease(redis_server, tmp_path):
    with Processes(sharing(redis_server), tmp_path, count=1, seconds=60, rate=5) as one:
        time.sleep(1.0)
        one._all[0].kill()

    async def main():
        async with spear.open_runtime(sharing(redis_server)) as runtime:
            await trio.sleep(7)  # until it counts no more as alive
            assert state(runtime)["nodes"] == 1
            assert await used_up(runtime) >= 10

    trio.run(main)


async def test_what_is_not_used_is_free_again_at_once_after_a_stop(redis_server):
    async with nothing_left():
        async with spear.open_runtime(sharing(redis_server)) as first:
            assert (await first.invoke(chat(model=""))).result.error is None
        async with spear.open_runtime(sharing(redis_server)) as second:
            assert await used_up(second) == 39


async def test_hung_it_is_given_up_and_requests_never_wait(redis_server):
    async with nothing_left(), spear.open_runtime(sharing(redis_server, 1000, lease_s=0.4)) as runtime:
        await until_true(lambda: state(runtime)["leasing"])
        redis_server.hang(1500)
        begun, slowest = trio.current_time(), 0.0
        while trio.current_time() < begun + 1.2:
            asked = trio.current_time()
            assert (await runtime.invoke(chat(model=""))).result.error is None
            slowest = max(slowest, trio.current_time() - asked)
            await trio.sleep(0.01)
        assert not state(runtime)["leasing"]
        assert slowest < 0.8, "it hung for 1.5 s"
        assert "shared_limits_leasing 0" in runtime.counters.prometheus()
        await until_true(lambda: state(runtime)["leasing"])
        assert state(runtime)["reconciled"] == 0, "it has lost nothing"
        assert "shared_limits_lost_total 1" in runtime.counters.prometheus()


async def test_without_it_at_the_start_a_share_holds_until_it_comes(tmp_path):
    server = RedisServer(tmp_path)
    async with nothing_left():
        with trio.fail_after(5):
            async with spear.open_runtime(sharing(server, nodes=4, lease_s=0.4)) as runtime:
                assert await used_up(runtime) == 10
                server.start()
                try:
                    await until_true(lambda: state(runtime)["leasing"])
                    assert await used_up(runtime) == 30, "alone it may take the rest, but for what it has used"
                finally:
                    server.kill()


async def test_what_somebody_else_wrote_there_frees_nothing(redis_server):
    """Less than nothing taken, in the slice that everybody is about to take from."""
    async with spear.open_runtime(sharing(redis_server)) as runtime:
        (key,) = [each for each in redis_server.names() if each not in {nodes_key("spear:"), mark_key("spear:")}]
        slices = range(int(time.time()) - 2, int(time.time()) + 3)
        redis_server.ask("HSET", key, *[text for each in slices for text in (each, -1_000_000)])
        await trio.sleep(1)  # it is seen to, in the next round
        assert 30 <= await used_up(runtime) <= 40
        assert state(runtime)["leasing"]


@pytest.mark.parametrize(("policy", "warned"), [("noeviction", False), ("volatile-lru", True)])
async def test_a_redis_that_may_forget_is_warned_of(redis_server, policy, warned, capsys):
    redis_server.ask("CONFIG", "SET", "maxmemory-policy", policy)
    async with spear.open_runtime(sharing(redis_server)) as runtime:
        assert state(runtime)["leasing"]
    said = capsys.readouterr().err
    assert ("shared_limits_may_be_evicted" in said and policy in said) == warned


async def test_full_it_refuses_and_shares_hold(redis_server):
    async with spear.open_runtime(sharing(redis_server, nodes=4, lease_s=0.4)) as runtime:
        await until_true(lambda: state(runtime)["leasing"])
        redis_server.ask("CONFIG", "SET", "maxmemory", "1")
        await until_true(lambda: not state(runtime)["leasing"])
        await trio.sleep(0.5)  # until the lease is over
        assert 5 <= await used_up(runtime) <= 10
        assert "OOM" in state(runtime)["problem"]


async def answer(data: bytes, stream: trio.SocketStream) -> None:
    async with stream:
        try:
            while await stream.receive_some(4096):
                await stream.send_all(data)
        except trio.BrokenResourceError:
            pass


async def test_a_connection_that_is_closed_under_it_is_no_crash(redis_server):
    """As coredis says it where its reader has given the connection up in the middle of an answer."""
    settings = RedisConfig(url=Secret(redis_server.url))
    actor = SharedLimits(settings, Link(settings), lambda _: None)
    for kind in (anyio.ClosedResourceError, anyio.BrokenResourceError, anyio.EndOfStream):

        async def work(_, kind=kind):
            await trio.lowlevel.checkpoint()
            raise kind

        assert kind.__name__ in await actor._session(work)


@pytest.mark.parametrize(
    "data", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"+OK\r\n", b"$-1\r\n", b"\x00" * 40, b"*99999\r\n"]
)
async def test_something_else_than_a_redis(data):
    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, partial(answer, data), 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        source = config(stub(limits={"rpm": 40}), redis={"url": f"redis://127.0.0.1:{port}", "lease_s": 0.4})
        with trio.fail_after(10):
            async with spear.open_runtime(source) as runtime:
                await trio.sleep(0.5)
                assert await used_up(runtime) == 40
                assert not state(runtime)["leasing"]
                assert [each.restarts for each in runtime.snapshot().walk()] == [0] * len(
                    list(runtime.snapshot().walk())
                )
        nursery.cancel_scope.cancel()


async def test_a_password_shows_nowhere(redis_server, monkeypatch):
    monkeypatch.setenv("REDIS_OF_TEST", f"redis://user:canary-word@127.0.0.1:{redis_server.port}/0")
    source = config(stub(limits={"rpm": 40}), redis={"env": "REDIS_OF_TEST", "lease_s": 0.4})
    async with spear.open_runtime(source) as runtime:
        await trio.sleep(0.5)
        told = f"{state(runtime)} {runtime.config!r} {runtime.config.model_dump_json()} {runtime.config.warnings}"
    assert "problem" in told
    assert "canary" not in told
    assert str(redis_server.port) not in told


async def test_a_reload_keeps_leases_and_says_what_waits(redis_server):
    async with spear.open_runtime(sharing(redis_server)) as runtime:
        await until_true(lambda: state(runtime)["leasing"])
        done = await used_up(runtime)
        report = await runtime.reload(sharing(redis_server, prefix="other:"))
        assert report.not_applied == ("redis stays as it is until the next start",)
        assert (done, await used_up(runtime)) == (40, 0)


async def test_limits_that_nobody_uses_sleep_and_wake(redis_server, monkeypatch):
    monkeypatch.setattr("spear.router.shared._actor._IDLE_S", 0.3)
    async with spear.open_runtime(sharing(redis_server, lease_s=0.4)) as runtime:
        assert (await runtime.invoke(chat(model=""))).result.error is None
        await until_true(lambda: state(runtime)["limits"] == 0)
        rounds = state(runtime)["rounds"]
        await trio.sleep(0.5)
        assert state(runtime)["rounds"] <= rounds + 6, "it has nothing to ask for"
        async with spear.open_runtime(sharing(redis_server, lease_s=0.4)) as other:
            assert await used_up(other) == 39, "all of it has gone back"
        assert await used_up(runtime) <= 40, "its share, once, before it has asked"
        await until_true(lambda: state(runtime)["limits"] == 0)
        assert (await runtime.invoke(chat(model=""))).result.error is not None, "it was all used when it last heard"


WRONG = [
    ({}, "has none of `env`, `file`, `url`; expected one of them"),
    ({"url": "redis://h", "env": "X"}, "expected one of them"),
    ({"url": "http://canary/"}, "is no address of a Redis"),
    ({"url": "redis://:canary@h/0"}, "holds a password, which never stands in a configuration"),
    ({"url": "redis://h:canary"}, "is not a URL"),
    ({"url": 5}, "is 5; expected a string"),
    ({"env": "NOT_SET_ANYWHERE"}, "the variable is missing or empty"),
    ({"env": "not a name"}, "is not the name of an environment variable"),
    ({"file": "/nowhere"}, "the file is missing or empty"),
    ({"url": "redis://h", "lease_s": 0.1}, "expected at least 0.2"),
    ({"url": "redis://h", "nodes": 0}, "expected at least 1"),
    ({"url": "redis://h", "lease": 1}, 'did you mean "lease_s"?'),
]


@pytest.mark.parametrize(("redis", "words"), WRONG, ids=[each[1] for each in WRONG])
async def test_mistakes(redis, words):
    with pytest.raises(ConfigError) as caught:
        async with spear.open_runtime(config(stub(), redis=redis)):
            pass
    assert words in str(caught.value)
    assert "canary" not in str(caught.value)


async def test_the_script_does_what_the_simulation_of_it_does(redis_server):
    """The same questions to both, at times that the test gives; that is all that is changed in the script."""
    from coredis import Redis

    timed = SCRIPT.replace("redis.call('TIME')", "{ARGV[2], '0'}")
    assert timed != SCRIPT
    rng, model = Random(5), SimulatedStore()
    quotas = [Quota("a", "tokens", 50.0, 6.0), Quota("b", "requests", 7.0, 60.0)]
    keys = [nodes_key("x:"), mark_key("x:"), *(key_of("x:", quota) for quota in quotas)]
    born, slices = None, [0, 0]
    async with Redis.from_url(redis_server.url, decode_responses=True) as client:
        script = client.register_script(timed)
        for number in range(400):
            model.now += rng.choice([0.001, 0.3, 2.0, 30.0])
            asked = [
                Asked(
                    quota.period / 60, 63, quota.limit, slices[at], rng.choice([0.0, 1.0, 2.0]),
                    tuple((slices[at] - rng.randrange(3), float(rng.randrange(3))) for _ in range(rng.randrange(3))),
                    rng.choice([0.0, 1.0]), rng.choice([0.0, 1.0, 5.0]), rng.choice([0.25, 1.0]),
                )
                for at, quota in enumerate(quotas)
            ]  # fmt: skip
            told = question(
                list(zip(quotas, asked, strict=True)), node=rng.choice("ab"), mark=str(number), lease_s=2.0,
                born="another" if number % 40 == 39 else born, leaving=rng.random() < 0.1,
            )  # fmt: skip
            found = read_answer(await script(keys, [told, f"{model.now:.6f}"]), 2)
            model.now = float(f"{model.now:.6f}")
            expected = read_answer(model.run(keys, told), 2)
            assert (found.mark, found.hold, found.nodes) == (expected.mark, expected.hold, expected.nodes)
            for one, other in zip(found.answers, expected.answers, strict=True):
                assert tuple(one) == pytest.approx(tuple(other), abs=1e-4)
            if found.answers:
                slices = [each.slice for each in found.answers]
            born = found.mark
