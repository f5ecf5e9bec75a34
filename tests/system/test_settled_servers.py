"""Whoever leaves, and whatever breaks, at whatever moment: every reservation is settled once, and nothing is held.

Every limit and budget that there is stands in the way of each of these requests, and every meter writes down what it is
asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import trio

import spear
from spear.ir import ErrorCode, SpearError
from spear.router import Desk
from spear.router.limits import Quota, local_meter
from tests.servers.fault_server import FaultServer
from tests.system.kit import backend, chat, config, nothing_left, open_fds, until_true
from tests.system.test_cancellation import busy, cancel_at_step, quiet

KEY = "the-key-of-these-tests"
BUDGETS = [
    {"name": "money", "window": "1h", "cost": 1e9},
    {"name": "tasks", "window": "1h", "per": "task", "requests": 10**6, "tokens": 10**9},
    {"name": "backends", "window": "1h", "per": "backend", "requests": 10**6, "tokens": 10**9, "cost": 1e9},
    {"name": "keys", "window": "1h", "per": "key", "tokens": 10**9},
]
RATES = {"rpm": 10**6, "tpm": 10**9, "input_tpm": 10**9, "output_tpm": 10**9, "rpd": 10**6, "tpd": 10**9}
NEVER_OPEN = {"enabled": False}


class Ledger:
    """A real meter, and what was done with it."""

    def __init__(self, quota: Quota) -> None:
        self.quota = quota
        self.inner = local_meter(quota)
        self.admits, self.ready_at, self.remaining = self.inner.admits, self.inner.ready_at, self.inner.remaining
        self.open: Counter[tuple[float, float]] = Counter()
        self.reservations = 0
        self.reserved = self.used = self.refunded = 0.0

    def reserve(self, amount: float, now: float) -> None:
        self.open[amount, now] += 1
        self.reservations += 1
        self.reserved += amount
        self.inner.reserve(amount, now)

    def settle(self, reserved: float, used: float, since: float, now: float) -> None:
        assert self.open[reserved, since] > 0, f"{self.quota.subject}: settled what was not reserved, or twice"
        self.open[reserved, since] -= 1
        self.used += used
        self.refunded += reserved - used
        self.inner.settle(reserved, used, since, now)


@dataclass
class Ledgers:
    made: list[Ledger] = field(default_factory=list)

    def __call__(self, quota: Quota) -> Ledger:
        self.made.append(Ledger(quota))
        return self.made[-1]

    def check(self) -> None:
        """On each meter reserved = settled + given back, and nothing is still out."""
        for each in self.made:
            assert not +each.open, f"{each.quota.subject} {each.quota.quantity}: {+each.open} is still reserved"
            assert each.reserved == pytest.approx(each.used + each.refunded)
            assert 0 <= each.used

    def sent(self) -> int:
        """Attempts that were reserved for."""
        return sum(
            each.reservations
            for each in self.made
            if each.quota.subject.startswith("backend:") and (each.quota.quantity, each.quota.period) == ("requests", 60)
        )


@pytest.fixture
def ledgers(monkeypatch: pytest.MonkeyPatch) -> Ledgers:
    made = Ledgers()
    monkeypatch.setattr("spear._runtime.Desk", partial(Desk, meters=made))
    return made


def limited(*servers: FaultServer, route: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """In the order of the servers; a mirror, if `route` has one, is the last."""
    own = {
        "limits": RATES,
        "price": {"input": 1.0, "output": 2.0},
        "credentials": ["key"],
        "timeouts": {"total": 5},
    }
    backends = [backend(server, priority=at, **own) for at, server in enumerate(servers)]
    if route is not None and "mirror" in route:
        backends[-1]["weight"] = 0
    source: dict[str, Any] = {
        "credentials": [{"name": "key", "env": "SETTLED_KEY", "limits": {"rpm": 10**6, "tpm": 10**9}}],
        "budgets": BUDGETS,
        "health": NEVER_OPEN,
        "retries": {"backoff_s": 0.01, "throttle_tokens": 1000, "budget_min": 1000},
        "routes": [{"match": {"operation": "chat_completions"}, "policy": "priority", **(route or {})}],
        "mirrors": {"requests_per_minute": 100_000, "max_cost_per_hour": 1e6},
        **more,
    }
    return config(*backends, **source)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SETTLED_KEY", KEY)


async def settled(runtime: spear.Runtime, ledgers: Ledgers, *servers: FaultServer) -> None:
    """Nobody works any more, and nothing is held by anybody."""
    await quiet(runtime, *servers)
    desk = runtime._desk
    ledgers.check()
    assert len(desk.budget) == 0
    assert desk.pausing == 0
    assert desk.counts.active == 0
    counts: Any = desk.observe()
    assert counts["requests"] == counts["ok"] + counts["cancelled"] + sum(counts["errors"].values())
    assert ledgers.sent() == counts["attempts"] + mirrors_sent(runtime)
    for each in desk.generation.instances:
        assert not each.turns
        assert each.load == 0
        for breaker in each.health._breakers.values():
            assert breaker._probe is None
    if desk.mirroring is not None:
        assert desk.mirroring.purse._reserved == pytest.approx(0)
        mirrored = desk.mirroring.counts
        assert mirrored.sent == mirrored.ok + mirrored.cancelled + sum(mirrored.failed.values())


def mirrors_sent(runtime: spear.Runtime) -> int:
    mirroring = runtime._desk.mirroring
    return 0 if mirroring is None else mirroring.counts.sent


# --- what a caller does


async def ask(runtime: spear.Runtime) -> None:
    await runtime.invoke(chat("one two three", task_id="t"))


async def read(runtime: spear.Runtime) -> None:
    try:
        async with runtime.stream(chat("one two three", task_id="t")) as events:
            async for _ in events:
                pass
    except SpearError:
        pass


async def leave(runtime: spear.Runtime) -> None:
    """After the first content."""
    try:
        async with runtime.stream(chat("one two three", task_id="t")) as events:
            async for event in events:
                if event.type == "content_delta":
                    return
    except SpearError:
        pass


# --- the stages that a request can be in

Script = Callable[[list[FaultServer]], dict[str, Any]]
STAGES: dict[str, tuple[int, Script]] = {}


def stage(servers: int) -> Callable[[Script], Script]:
    def add(script: Script) -> Script:
        STAGES[script.__name__] = (servers, script)
        return script

    return add


@stage(1)
def plain(servers: list[FaultServer]) -> dict[str, Any]:
    return limited(*servers)


@stage(1)
def retry(servers: list[FaultServer]) -> dict[str, Any]:
    servers[0].script(times=None, status=503)
    return limited(*servers)


@stage(1)
def asked_to_wait(servers: list[FaultServer]) -> dict[str, Any]:
    servers[0].script(times=None, status=429, retry_after=0.01)
    return limited(*servers)


@stage(2)
def fallback(servers: list[FaultServer]) -> dict[str, Any]:
    servers[0].script(times=None, status=500)
    return limited(*servers)


@stage(2)
def connection_lost(servers: list[FaultServer]) -> dict[str, Any]:
    servers[0].script(times=None, cut="rst")
    return limited(*servers)


@stage(1)
def truncated(servers: list[FaultServer]) -> dict[str, Any]:
    servers[0].script(times=None, cut="fin", cut_after=3)
    return limited(*servers)


@stage(2)
def continued(servers: list[FaultServer]) -> dict[str, Any]:
    servers[0].script(times=None, cut="fin", cut_after=3)
    return limited(*servers, route={"continuation": "prefill"})


@stage(2)
def hedged(servers: list[FaultServer]) -> dict[str, Any]:
    """Both at once, so that each may win."""
    return limited(*servers, route={"hedge": {"max_extra_load": 1.0, "delay": 0.0001}})


@stage(3)
def hedge_fails(servers: list[FaultServer]) -> dict[str, Any]:
    """And is replaced, while the first one is still running."""
    servers[0].script(times=None, delay=0.005)
    servers[1].script(times=None, status=500)
    return limited(*servers, route={"hedge": {"max_extra_load": 1.0, "delay": 0.0001}})


@stage(2)
def hedge_and_cut(servers: list[FaultServer]) -> dict[str, Any]:
    for each in servers:
        each.script(times=None, cut="fin", cut_after=3)
    return limited(*servers, route={"hedge": {"max_extra_load": 1.0, "delay": 0.0001}, "continuation": "prefill"})


@stage(2)
def mirrored(servers: list[FaultServer]) -> dict[str, Any]:
    return limited(*servers, route={"mirror": {"to": servers[-1].name, "percent": 100}})


@stage(3)
def hedged_and_mirrored(servers: list[FaultServer]) -> dict[str, Any]:
    hedge = {"max_extra_load": 1.0, "delay": 0.0001}
    return limited(*servers, route={"hedge": hedge, "mirror": {"to": servers[-1].name, "percent": 100}})


@stage(1)
def probing(servers: list[FaultServer]) -> dict[str, Any]:
    """Its breaker opens with each failure, and lets one request through a moment later."""
    servers[0].script(times=None, status=500)
    health = {"failures": 1, "open_s": 0.001, "open_max_s": 0.002, "max_wait_s": 0.05, "eject_max_share": 0}
    return limited(*servers, health=health, on_exhausted="wait", retries={"per_instance": 1})


@pytest.mark.parametrize("action", [ask, read, leave])
@pytest.mark.parametrize("name", STAGES)
async def test_left_after_any_step(
    fault_servers: Any, ledgers: Ledgers, name: str, action: Callable[[spear.Runtime], Awaitable[None]]
) -> None:
    """From the first step to beyond the last one: how many there are, the sweep finds out."""
    count, script = STAGES[name]
    servers = [fault_servers() for _ in range(count)]
    source = script(servers)
    async with nothing_left(), spear.open_runtime(source, seed=5) as runtime:
        await action(runtime)
        n = completed = cancelled = 0
        with trio.fail_after(60):
            while completed < 3:
                n += 1
                with cancel_at_step(n) as scope:
                    await action(runtime)
                completed = 0 if scope.cancelled_caught else completed + 1
                cancelled += scope.cancelled_caught
                await until_true(lambda: not busy(runtime))
                ledgers.check()
        assert cancelled > 8
        await settled(runtime, ledgers, *servers)
        assert ledgers.sent() > cancelled // 2
    for server in servers:
        await server.until(open=0, connections_open=0)


@pytest.mark.parametrize("action", [ask, read, leave])
@pytest.mark.parametrize("name", STAGES)
async def test_left_after_any_time(
    fault_servers: Any, ledgers: Ledgers, name: str, action: Callable[[spear.Runtime], Awaitable[None]]
) -> None:
    """With servers that take their time, many callers at once, each with a patience of its own."""
    count, script = STAGES[name]
    servers = [fault_servers() for _ in range(count)]
    for server in servers:
        server.script(times=None, delay=0.004, drip={"bytes": 40, "every": 0.001})
    source = script(servers)
    cancelled = 0

    async def one(runtime: spear.Runtime, patience: float) -> None:
        nonlocal cancelled
        with trio.move_on_after(patience) as scope:
            await action(runtime)
        cancelled += scope.cancelled_caught

    with trio.fail_after(30):
        async with nothing_left(), spear.open_runtime(source, seed=6) as runtime:
            async with trio.open_nursery() as nursery:
                for number in range(30):
                    nursery.start_soon(one, runtime, number * 0.002)
            await settled(runtime, ledgers, *servers)
    assert cancelled > 0
