"""What the tests of settled attempts share: meters that write down what is asked of them, a configuration in which
every limit and budget there is stands in the way of each request, and the check that nothing is held by anybody."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

import spear
from spear.ir import SpearError
from spear.router.limits import Quota, local_meter
from tests.servers.fault_server import FaultServer
from tests.system.kit import backend, chat, config
from tests.system.test_cancellation import quiet

KEY_ENV = "SPEAR_LEDGER_KEY"
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
            assert each.used >= 0

    def sent(self) -> int:
        """Attempts that were reserved for."""
        return sum(
            each.reservations
            for each in self.made
            if each.quota.subject.startswith("backend:")
            and (each.quota.quantity, each.quota.period) == ("requests", 60)
        )


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
        "credentials": [{"name": "key", "env": KEY_ENV, "limits": {"rpm": 10**6, "tpm": 10**9}}],
        "budgets": BUDGETS,
        "health": NEVER_OPEN,
        "retries": {"backoff_s": 0.01, "throttle_tokens": 1000, "budget_min": 1000},
        "routes": [{"match": {"operation": "chat_completions"}, "policy": "priority", **(route or {})}],
        "mirrors": {"requests_per_minute": 100_000, "max_cost_per_hour": 1e6},
        **more,
    }
    return config(*backends, **source)


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
    with suppress(SpearError):
        async with runtime.stream(chat("one two three", task_id="t")) as events:
            async for _ in events:
                pass


async def leave(runtime: spear.Runtime) -> None:
    """After the first content."""
    with suppress(SpearError):
        async with runtime.stream(chat("one two three", task_id="t")) as events:
            async for event in events:
                if event.type == "content_delta":
                    return
