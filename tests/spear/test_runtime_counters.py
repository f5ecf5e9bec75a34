"""What a runtime counts by itself: requests however they end, attempts, tokens, the turns of its actors."""

from __future__ import annotations

import pytest

import spear
from spear.ir import SpearError
from spear.testing import FakeBackend, backend_failure, open_test_runtime
from tests.system.kit import HELLO, chat, config, stub


def counted(runtime, name, **labels):
    """The sum over all series of `name` that have these labels."""
    lines = [line for line in runtime.counters.prometheus().splitlines() if line.startswith(f"{name}{{")]
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    return sum(float(line.rpartition(" ")[2]) for line in lines if all(pair in line for pair in wanted))


async def test_requests_are_counted_once_by_their_end():
    fake = FakeBackend("one", "two", backend_failure(), backend_failure())
    async with open_test_runtime(fake) as runtime:
        await runtime.invoke(chat(model=""))
        async with runtime.stream(chat(model="")) as events:
            async for _ in events:
                pass
        failed = await runtime.invoke(chat(model=""))
        with pytest.raises(SpearError):
            async with runtime.stream(chat(model="")):
                pass
        code = failed.result.error.code.value
        assert counted(runtime, "requests_total", code="ok") == 2
        assert counted(runtime, "requests_total", code=code) == 2
        assert counted(runtime, "attempts_total", outcome="ok") == 2
        assert counted(runtime, "attempts_total", outcome="failed") == 2
        assert counted(runtime, "tokens_total", direction="output") > 0
        assert counted(runtime, "request_seconds_count") == 2
        assert counted(runtime, "actor_turns_total", actor="runtime/router") == 4


async def test_guests_share_one_series():
    async with spear.open_runtime(config(stub())) as runtime:
        for _ in range(3):
            await runtime.run_guest(HELLO)
        assert counted(runtime, "actor_turns_total", actor="runtime/executions/guests/*", outcome="ok") == 3
