"""Requests are counted as they end, in a whole runtime."""

from __future__ import annotations

import pytest
import trio

import spear
from spear.ir import SpearError
from spear.telemetry import ActorCounters, Counters, HistogramValue, RequestCounters

CONFIG = {
    "spear": {
        "backends": [
            {"name": "one", "kind": "stub", "hosting": "local", "model": "m", "price": {"input": 1e6, "output": 1e6}}
        ]
    }
}


async def test_requests_attempts_and_tokens() -> None:
    counters = Counters()
    ask = [{"role": "user", "content": "hello there"}]
    with trio.fail_after(10):
        async with spear.open_runtime(
            CONFIG, instruments=[ActorCounters(counters)], observer=RequestCounters(counters)
        ) as runtime:
            replies = [await runtime.chat("m", messages=ask) for _ in range(3)]
            with pytest.raises(SpearError):
                await runtime.chat("nobody-has-this", messages=ask)
    found = counters.snapshot()
    assert found['requests_total{code="ok",operation="chat_completions"}'] == 3
    assert found['requests_total{code="no_candidate_backend",operation="chat_completions"}'] == 1
    assert found['attempts_total{backend="one",code="none",outcome="ok"}'] == 3
    usages = [reply.response.usage for reply in replies]
    for direction in ("input", "output"):
        used = sum(getattr(usage, f"{direction}_tokens") for usage in usages)
        assert found[f'tokens_total{{backend="one",direction="{direction}",estimated="true"}}'] == used > 0
    assert found['cost_total{backend="one"}'] == pytest.approx(sum(usage.cost or 0 for usage in usages))
    seconds = found['request_seconds{backend="one",operation="chat_completions"}']
    assert isinstance(seconds, HistogramValue)
    assert seconds.count == 3
    turns = {
        key: value for key, value in found.items() if key.startswith("actor_turns_total") and 'outcome="ok"' in key
    }
    assert any("router" in key and value == 4 for key, value in turns.items()), turns
    assert all(value == 0 for key, value in found.items() if key.startswith("actor_turns_running"))
