"""Every class of failure under every policy, plain and streamed, against real servers: who is asked next, what the
caller gets, whose breaker it counts for, and that nothing stays open at the servers.
"""

from __future__ import annotations

import socket
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

import spear
from spear.ir import Completed, ErrorCode, SpearError
from spear.router import POLICIES
from tests.system.kit import backend, chat, config, nothing_left

REPEATS = 6  # enough to open a breaker of five failures


@dataclass(frozen=True)
class Fault:
    """`after` is what happens to the request: another backend answers, or the error goes to the caller."""

    script: dict[str, Any] | None
    code: ErrorCode
    after: str = "another"
    counts: bool = True
    retried: bool = False
    streamed: ErrorCode | None = None  # the code where a stream has another
    backend: dict[str, Any] = field(default_factory=dict)


FAULTS = {
    "connect refused": Fault(None, ErrorCode.BACKEND_UNAVAILABLE, retried=True),
    "reset before the head": Fault({"cut": "rst"}, ErrorCode.BACKEND_ERROR),
    "closed before the head": Fault({"cut": "fin"}, ErrorCode.BACKEND_ERROR),
    "no HTTP": Fault({"bad_http": True}, ErrorCode.BACKEND_ERROR),
    "500": Fault({"status": 500}, ErrorCode.BACKEND_ERROR),
    "502": Fault({"status": 502}, ErrorCode.BACKEND_ERROR),
    "503": Fault({"status": 503}, ErrorCode.BACKEND_ERROR),
    "never answers": Fault({"never": True}, ErrorCode.TIMEOUT, backend={"timeouts": {"first_event": 0.15}}),
    "HTML": Fault({"body": "<html>busy</html>", "content_type": "text/html"}, ErrorCode.BACKEND_ERROR),
    "truncated": Fault({"cut": "fin", "cut_after": 0}, ErrorCode.BACKEND_ERROR, streamed=ErrorCode.STREAM_TRUNCATED),
    "429": Fault({"status": 429}, ErrorCode.RATE_LIMITED, counts=False),
    "429, an hour": Fault({"status": 429, "retry_after": 3600}, ErrorCode.RATE_LIMITED, counts=False),
    "401": Fault({"status": 401}, ErrorCode.BACKEND_ERROR, counts=False),
    "402": Fault({"status": 402}, ErrorCode.BACKEND_ERROR, counts=False),
    "403": Fault({"status": 403}, ErrorCode.BACKEND_ERROR, counts=False),
    "400": Fault({"status": 400}, ErrorCode.BACKEND_ERROR, after="error", counts=False),
    "404": Fault({"status": 404}, ErrorCode.BACKEND_ERROR, after="error", counts=False),
    "413": Fault({"status": 413}, ErrorCode.BACKEND_ERROR, after="error", counts=False),
    "422": Fault({"status": 422}, ErrorCode.BACKEND_ERROR, after="error", counts=False),
    "content refused": Fault(
        {"status": 400, "error_code": "content_filter"}, ErrorCode.CONTENT_REFUSED, after="error", counts=False
    ),
}


@contextmanager
def _nobody():
    """A port of which it is certain that nobody listens there: it is bound, and that is all."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}/v1"


def _config(bad, good, fault: Fault, **more):
    return config(
        {**backend(good, name="bad"), **bad, **fault.backend, "price": {"input": 1, "output": 1}},
        backend(good, name="good", price={"input": 2, "output": 2}),
        routes=[{"allow_policies": sorted(POLICIES)}],
        retries={"per_instance": 1},
        **more,
    )


async def _ask(runtime, streamed: bool, **fields):
    """The attempts, and the text or the error."""
    request = chat(**fields)
    if not streamed:
        response = await runtime.invoke(request)
        error = response.result.error
        return (error.attempts, error) if error else (response.backend.attempts, response.unwrap().text)
    try:
        async with runtime.stream(request) as events:
            last = [event async for event in events][-1]
    except SpearError as raised:
        return raised.error.attempts, raised.error
    assert isinstance(last, Completed)
    return last.response.backend.attempts, last.response.unwrap().text


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("name", FAULTS)
async def test_who_is_asked_next(fault_servers, name, streamed):
    fault = FAULTS[name]
    code = (streamed and fault.streamed) or fault.code
    flawed, good = fault_servers(), fault_servers()
    with _nobody() as nowhere:
        if fault.script is not None:
            flawed.script(times=None, **fault.script)
        bad = {"base_url": nowhere if fault.script is None else flawed.base_url}
        source = _config(bad, good, fault, health={"failures": 1000, "min_success": 0, "eject_failures": 1})
        async with nothing_left(), spear.open_runtime(source, seed=3) as runtime:
            for policy in sorted(POLICIES):
                attempts, came_to = await _ask(
                    runtime, streamed, requirements={"preferred_backends": ("bad",)}, policy={"name": policy}
                )
                first, rest = attempts[0], attempts[1:]
                assert (first.backend, first.reason, first.outcome) == ("bad", "chosen", "failed"), (policy, attempts)
                assert first.error_code is code, (policy, attempts)
                if fault.retried:
                    assert (rest[0].backend, rest[0].reason, rest[0].outcome) == ("bad", "connect_retry", "failed")
                    rest = rest[1:]
                if fault.after == "error":
                    assert not rest, (policy, attempts)
                    assert came_to.code is code
                else:
                    assert came_to == "echo: hello there", (policy, came_to)
                    (last,) = rest
                    assert (last.backend, last.reason, last.outcome) == ("good", "fallback", "ok"), (policy, attempts)
            await flawed.until(open=0)
            await good.until(open=0)
        asked = 0 if fault.script is None else len(POLICIES)
        counts = await flawed.until(open=0, connections_open=0)
        assert counts["total"] == asked
        answered = 0 if fault.after == "error" else len(POLICIES)
        assert (await good.until(open=0, connections_open=0))["completed"] == answered


@pytest.mark.parametrize("name", FAULTS)
async def test_whose_breaker_it_counts_for(fault_servers, name):
    fault = FAULTS[name]
    flawed, good = fault_servers(), fault_servers()
    with _nobody() as nowhere:
        if fault.script is not None:
            flawed.script(times=None, **fault.script)
        bad = {"base_url": nowhere if fault.script is None else flawed.base_url}
        source = _config(bad, good, fault, health={"open_s": 30}, on_exhausted="fail")
        async with nothing_left(), spear.open_runtime(source, seed=3) as runtime:
            for _ in range(REPEATS):
                await _ask(runtime, False, requirements={"preferred_backends": ("bad",)})
            states = {row["name"]: row["state"] for row in runtime.backends()}
            assert states == {"bad": "breaker_open" if fault.counts else "running", "good": "running"}
            if fault.counts:  # and it is left alone from then on
                before = flawed.counts()["total"]
                attempts, _ = await _ask(runtime, False, requirements={"preferred_backends": ("bad",)})
                assert [each.backend for each in attempts] == ["good"]
                assert flawed.counts()["total"] == before
        await flawed.until(open=0, connections_open=0)
        await good.until(open=0, connections_open=0)
