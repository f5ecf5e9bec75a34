"""Active probes against real servers: who is found out, who comes back, and that nothing stays open."""

from __future__ import annotations

import trio

import spear
from tests.system.kit import backend, chat, config, environment, nothing_left, until_true

PROBE = {"every": 0.2, "timeout": 0.3}
QUICK = {"open_s": 0.3, "slow_start_s": 0}
NEVER = {"every": "1h"}
"""Probed, but not within this test."""


def state(runtime: spear.Runtime, name: str) -> str:
    return {row["name"]: row["state"] for row in runtime.backends()}[name]


def texts(server) -> list[str]:
    return [each["json"]["messages"][0]["content"] for each in server.requests()]


async def test_an_idle_backend_that_dies_is_found_out_before_a_request_meets_it(fault_servers):
    standby, busy = fault_servers(), fault_servers()
    source = config(
        backend(standby, priority=1, probe=PROBE),
        backend(busy, priority=0),
        routes=[{"policy": "priority"}],
        health=QUICK,
    )
    async with nothing_left(), spear.open_runtime(source) as runtime:
        await standby.until(completed=2)
        assert set(texts(standby)) == {"ping"}
        assert {each["json"]["max_tokens"] for each in standby.requests()} == {1}
        standby.script(times=None, cut="rst")
        await until_true(lambda: state(runtime, standby.name) == "breaker_open")
        busy.script(times=1, status=500)
        response = await runtime.invoke(chat())
        assert standby.name not in [each.backend for each in response.backend.attempts]
        assert busy.counts()["total"] == 2
    assert set(texts(standby)) == {"ping"}
    for server in (standby, busy):
        await server.until(open=0, connections_open=0)


async def test_it_comes_back_without_a_request_that_tries(fault_servers):
    down, other = fault_servers(), fault_servers()
    source = config(backend(down, probe=PROBE), backend(other), health=QUICK, default_policy="round_robin")
    async with nothing_left(), spear.open_runtime(source) as runtime:
        down.script(times=None, status=503)
        await until_true(lambda: state(runtime, down.name) == "breaker_open")
        down.script(times=None)
        await until_true(lambda: state(runtime, down.name) == "running")
        assert set(texts(down)) == {"ping"}
        names = [(await runtime.invoke(chat())).backend.name for _ in range(4)]
        assert sorted(names) == sorted([down.name, other.name] * 2)
    await down.until(open=0, connections_open=0)


async def test_no_probe_while_traffic_proves_health(fault_server):
    source = config(backend(fault_server, probe={"every": 0.5, "timeout": 0.3}))
    async with nothing_left(), spear.open_runtime(source, seed=1) as runtime:
        for _ in range(2):  # a first probe may have been due before the first of these
            await runtime.invoke(chat())
            await trio.sleep(0.05)
        before = texts(fault_server).count("ping")
        ends = trio.current_time() + 1.5
        while trio.current_time() < ends:
            await runtime.invoke(chat())
            await trio.sleep(0.02)
        assert texts(fault_server).count("ping") == before <= 1
        await until_true(lambda: texts(fault_server).count("ping") > before)


async def test_a_probe_that_hangs_ends_by_its_timeout(fault_server):
    fault_server.script(times=None, never=True)
    async with nothing_left(), spear.open_runtime(config(backend(fault_server, probe=PROBE), health=QUICK)) as runtime:
        await fault_server.until(open=1)
        await fault_server.until(aborted=1, open=0)
        await fault_server.until(connections_open=0)
        await until_true(lambda: state(runtime, fault_server.name) == "breaker_open")
        assert fault_server.counts()["most_open"] == 1


async def test_shutdown_closes_it(fault_server):
    fault_server.script(times=None, never=True)
    source = config(backend(fault_server, probe={"every": 0.1, "timeout": 60}))
    async with nothing_left():
        with trio.fail_after(5):
            async with spear.open_runtime(source):
                await fault_server.until(open=1)
        await fault_server.until(open=0, aborted=1, connections_open=0)


async def test_probes_count_in_nobodys_latency_or_usage(fault_server):
    seen = []
    source = config(backend(fault_server, probe=PROBE, price={"input": 1, "output": 1}))
    async with nothing_left(), spear.open_runtime(source, observer=lambda *each: seen.append(each)) as runtime:
        await fault_server.until(completed=3)
        counted = runtime.counters.snapshot()
        assert not [name for name in counted if name.startswith(("requests_", "attempts_", "tokens_"))]
        assert counted[f'probes_total{{backend="{fault_server.name}",outcome="succeeded"}}'] >= 2
        (row,) = runtime.explain(chat()).candidates
        assert row.latency_ms is None
        (node,) = (each for each in runtime.snapshot().walk() if each.path == "runtime/router")
        assert (node.state["requests"], node.state["attempts"], node.accepted) == (0, 0, 0)
    assert seen == []


async def test_the_key_goes_with_it(fault_server):
    keys = [{"name": "k", "env": "PROBED_KEY"}]
    with environment(PROBED_KEY="sk-of-the-probe"):
        source = config(backend(fault_server, credentials=["k"], probe=PROBE))
        source["spear"]["credentials"] = keys
        async with nothing_left(), spear.open_runtime(source) as runtime:
            await fault_server.until(completed=1)
            heads = [{key.lower(): value for key, value in each["headers"]} for each in fault_server.requests()]
            assert {each["authorization"] for each in heads} == {"Bearer sk-of-the-probe"}
            fault_server.script(times=None, status=401, leak_key=True)
            await until_true(lambda: any("neutral" in name for name in runtime.counters.snapshot()))
            assert state(runtime, fault_server.name) == "running"


async def test_a_reload_starts_and_ends_them(fault_servers):
    first, second = fault_servers(), fault_servers()
    plain = config(backend(first), backend(second))
    with_probes = config(backend(first, probe=PROBE), backend(second, probe=NEVER))

    def probes(runtime):
        return [each.state for each in runtime.snapshot().walk() if each.path == "runtime/probes"]

    async with nothing_left(), spear.open_runtime(plain) as runtime:
        assert probes(runtime) == []
        report = await runtime.reload(with_probes)
        assert report.adjusted == (first.name, second.name)
        await first.until(completed=1)
        assert [list(each) for each in probes(runtime)] == [[first.name, second.name]]
        first.script(times=None, never=True)
        await first.until(open=1)
        assert (await runtime.reload(plain)).ok
        await first.until(open=0, aborted=1)
        assert probes(runtime) == [{}]
        sent = first.counts()["total"]
        await trio.sleep(0.5)
        assert first.counts()["total"] == sent
        assert (await runtime.reload(with_probes)).ok
        await first.until(open=1)
    assert second.counts()["total"] == 0
    for server in (first, second):
        await server.until(open=0, connections_open=0)


async def test_a_reload_that_is_cancelled_leaves_no_half(fault_server):
    """Where the new configuration holds, its probes are sent, whoever asked for it."""
    async with nothing_left(), spear.open_runtime(config(backend(fault_server))) as runtime:
        source = config(backend(fault_server, probe=PROBE))
        for delay in (0.0, 0.001, 0.002, 0.004, 0.008, 0.016, 0.03, 10):
            with trio.move_on_after(delay):
                await runtime.reload(source)
            asking = [each.state for each in runtime.snapshot().walk() if each.path == "runtime/probes"]
            if runtime.config.backends[0].probe is not None:
                assert len(asking) == 1
        assert runtime.config.backends[0].probe is not None
        await fault_server.until(completed=1)
