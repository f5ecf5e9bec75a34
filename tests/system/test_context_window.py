"""A request that is too long for one model goes to another one only where the route says so."""

from __future__ import annotations

import pytest

import spear
from spear.ir import SpearError
from tests.system.kit import backend, chat, config, nothing_left

TOO_LONG = {"status": 400, "error_type": "invalid_request_error", "error_code": "context_length_exceeded"}


def source(small, twin, large, **route):
    return config(
        backend(small, model_class="small"),
        backend(twin, model_class="small"),
        backend(large, model="large"),
        routes=[{"match": {"model_class": "small"}, "policy": "round_robin", **route}],
    )


async def attempts_of(runtime, streamed):
    if not streamed:
        response = await runtime.invoke(chat())
        error = response.result.error
        return error, error.attempts if error else response.backend.attempts
    try:
        async with runtime.stream(chat()) as events:
            last = [event async for event in events][-1]
    except SpearError as raised:
        return raised.error, raised.error.attempts
    return None, last.response.backend.attempts


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("declared", [False, True], ids=["not declared", "declared"])
async def test_only_where_it_is_declared(fault_servers, streamed, declared):
    small, twin, large = servers = fault_servers(), fault_servers(), fault_servers()
    for each in (small, twin):
        each.script(times=None, **TOO_LONG)
    route = {"context_fallback": "large"} if declared else {}
    async with nothing_left(), spear.open_runtime(source(*servers, **route), seed=1) as runtime:
        error, attempts = await attempts_of(runtime, streamed)
        assert {row["state"] for row in runtime.backends()} == {"running"}
    assert (error is None) is declared
    assert attempts[0].outcome == "failed"
    assert [each.backend for each in attempts[1:]] == ([large.name] if declared else [])
    assert sum(each.counts()["total"] for each in (small, twin)) == 1  # its twin would say the same
    for each in servers:
        await each.until(open=0, connections_open=0)


async def test_too_long_for_the_larger_one_is_the_answer(fault_servers):
    servers = fault_servers(), fault_servers(), fault_servers()
    for each in servers:
        each.script(times=None, **TOO_LONG)
    made = source(*servers, context_fallback="large")
    made["spear"]["routes"].append({"match": {"model_class": "large"}, "context_fallback": "small"})
    async with nothing_left(), spear.open_runtime(made, seed=1) as runtime:
        response = await runtime.invoke(chat())
    assert len(response.result.error.attempts) == 2
    assert servers[2].counts()["total"] == 1


async def test_a_class_that_nobody_has_is_an_error():
    wrong = config({"name": "a", "kind": "stub", "hosting": "local", "model": "m"}, routes=[{"context_fallback": "n"}])
    with pytest.raises(spear.ir.ConfigError, match=r"routes\[0\]\.context_fallback: is not among"):
        async with spear.open_runtime(wrong):
            pass
