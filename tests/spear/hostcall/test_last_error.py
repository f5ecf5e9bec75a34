"""spear_abi_version and spear_last_error."""

from __future__ import annotations

import json

import pytest

from spear.hostcall import ChatReply
from spear.hostcall._guest_error import guest_error
from spear.hostcall._last_error import LastError
from spear.ir import ErrorCode, Operation, make_error
from tests.spear.hostcall.probe import Probe, Scripted, open_probe

KEYS = [*("attempts", "call", "code", "errno", "fd", "message", "operation"), "rejected", "required"]
KEYS += ["retry_after_ms", "retryable"]


async def last(probe: Probe) -> dict:
    raw = await probe.out("spear_last_error")
    assert isinstance(raw, bytes)
    return json.loads(raw)


async def test_version():
    async with open_probe() as probe:
        assert await probe.call("spear_abi_version") == 65537


async def test_nothing_failed_yet():
    async with open_probe() as probe:
        assert await probe.out("spear_last_error") == b"{}"
        assert await probe.out("spear_last_error", capacity=2) == b"{}"
        assert await probe.out("spear_last_error", capacity=1) == -28
        assert probe.u32(8) == 2
        assert await probe.call("spear_last_error", -1, 8) == -14
        assert await probe.out("spear_last_error") == b"{}"  # it never sets itself


@pytest.mark.parametrize(
    ("call", "arguments", "errno", "fd", "code"),
    [
        ("cchat_write_msg", (5, 0, 1, 0, 1), -9, 5, "invalid_request"),
        ("cchat_write_msg", (5, -1, 1, 0, 1), -14, 5, "invalid_request"),
        ("log", (2, 0, -1), -22, None, "invalid_request"),
        ("cchat_close", (7,), -9, 7, "invalid_request"),
        ("cchat_send", (7, 0), -9, 7, "invalid_request"),
        ("cchat_recv", (7, 0, 0), -9, 7, "invalid_request"),
        ("cchat_ctl", (1000, 99, 0, 0), -22, 1000, "invalid_request"),
        ("cchat_ctl", (1000, 1, 0, 0), -5, 1000, "invalid_request"),
        ("mic_create", (), -38, None, "backend_not_enabled"),
        ("spear_epoll_wait", (1000, 0, 64, 0), -9, 1000, "invalid_request"),
    ],
)
async def test_a_refused_call(call: str, arguments: tuple, errno: int, fd: int | None, code: str):
    async with open_probe() as probe:
        assert await probe.call("cchat_create") == 1000
        probe.put_u32(64, 8)
        assert await probe.call(call, *arguments) == errno
        found = await last(probe)
        assert list(found) == KEYS
        assert (found["call"], found["errno"], found["fd"], found["code"]) == (call, errno, fd, code)
        await probe.say(1000, "success does not clear it")
        assert await last(probe) == found


async def test_what_is_no_failure_is_not_kept():
    async with open_probe() as probe:
        fd = await probe.call("cchat_create")
        response = await probe.call("cchat_send", fd, 0)
        assert await probe.out("cchat_recv", response, capacity=1) == -28
        assert await probe.call("random_i64") is not None
        assert await last(probe) == {}


async def test_a_body_that_is_an_error():
    error = make_error(
        ErrorCode.MISSING_CAPABILITIES,
        "nobody does\nthat",
        operation=Operation.CHAT_COMPLETIONS,
        required=("supports_tools",),
        rejected_reasons={"b1": "feature", "b2": "feature", "b3": "drained"},
    )
    chat = Scripted(ChatReply({"error": {"message": "Operation not supported: nobody does that"}}, error=error))
    async with open_probe(chat) as probe:
        fd = await probe.call("cchat_create")
        await probe.call("cchat_send", fd, 0)
        assert await last(probe) == {
            "attempts": 0,
            "call": "cchat_send",
            "code": "missing_capabilities",
            "errno": 0,
            "fd": 1001,
            "message": "nobody does that",
            "operation": "chat_completions",
            "rejected": {"feature": 2, "drained": 1},
            "required": ["supports_tools"],
            "retry_after_ms": None,
            "retryable": False,
        }


def test_it_stays_small():
    reasons = {f"b{n}": f"{n}" + "ü" * 500 for n in range(5000)}
    error = make_error(
        ErrorCode.OVERLOADED, '"' * 100_000, required=('"' * 500,) * 1000, rejected_reasons=reasons, retry_after_ms=7
    )
    told = guest_error(error)
    assert len(told["message"].encode()) == 1024
    state = LastError()
    state.ended("cchat_send", 1000, error)
    assert len(json.dumps(state.value, ensure_ascii=False).encode()) < 8192
