"""cchat_*: results, check orders, caps, and what the backend is asked."""

from __future__ import annotations

import json
from typing import Any

import pytest

from spear.hostcall import ChatReply, Limits
from spear.hostcall._session import ChatSession
from tests.spear.hostcall.probe import PAGE, Probe, Scripted, open_probe, success

END = 2 * PAGE
ERROR = ChatReply({"error": {"message": "Runtime error: down"}})


def session_of(probe: Probe, fd: int) -> ChatSession:
    return probe.guest.fds.open(fd, ChatSession)


async def test_a_conversation():
    chat = Scripted(success("Grüße"))
    async with open_probe(chat) as probe:
        fd = await probe.call("cchat_create")
        assert fd == 1000
        assert await probe.say(fd, "hé", role="system") == 0
        assert await probe.tool(fd, 7, "{broken") == 0
        assert await probe.param(fd, "temperature", 0.5) == 0
        assert await probe.param(fd, "model", "small") == 0
        response = await probe.call("cchat_send", fd, 1)
        assert response == 1001
        raw = await probe.out("cchat_recv", response)
        again = await probe.out("cchat_recv", response)
        assert raw == again
        assert isinstance(raw, bytes)
        assert raw.startswith(b'{"_spear":{"backend":"b","model":"m"},"choices":[')
        assert "Grüße".encode() in raw
        metrics = await probe.out("cchat_ctl", response, 2)
        assert metrics == b'{"completion_tokens":2,"prompt_tokens":3,"total_tokens":5}'
        asked = chat.asked[0]
        assert asked.fd == fd
        assert asked.messages == ({"role": "system", "content": "hé"},)
        assert asked.tools == ((7, "{broken"),)
        assert asked.params == {"temperature": 0.5, "model": "small"}
        assert session_of(probe, fd).messages == [{"role": "system", "content": "hé"}]  # a plain send changes nothing
        assert await probe.call("cchat_close", response) == 0
        assert await probe.out("cchat_recv", response) == -9
        assert await probe.out("cchat_ctl", response, 2) == -9
        assert probe.guest.usage.requests == 1
        assert (probe.guest.usage.input_tokens, probe.guest.usage.output_tokens) == (3, 2)


async def test_write_msg_check_order():
    async with open_probe() as probe:
        fd = await probe.call("cchat_create")
        closed = await probe.call("cchat_create")
        await probe.call("cchat_close", closed)
        call = probe.call
        assert await call("cchat_write_msg", 5, -1, 300, -1, 5 << 20) == -14
        assert await call("cchat_write_msg", 5, 0, 257, -1, 1) == -22  # the cap right after its memory check
        assert await call("cchat_write_msg", 5, 0, 256, -1, 1) == -14
        assert await call("cchat_write_msg", 5, 0, 1, 0, 1) == -9
        assert await call("cchat_write_msg", closed, 0, 1, 0, 1) == -9
        assert await call("cchat_write_msg", fd, 0, 256, 0, 0) == 0
        assert await call("cchat_write_msg", fd, 0, 0, END, 0) == 0


async def test_content_cap_comes_before_the_fd():
    async with open_probe(limits=Limits(message_bytes=10)) as probe:
        assert await probe.call("cchat_write_msg", 5, 0, 1, 0, 11) == -22
        assert await probe.call("cchat_write_msg", 5, 0, 1, 0, 10) == -9
        assert await probe.call("cchat_write_msg", 5, 0, 1, END - 5, 11) == -14


async def test_write_fn_check_order():
    async with open_probe(limits=Limits(tool_bytes=10, session_tools=2)) as probe:
        fd = await probe.call("cchat_create")
        assert await probe.call("cchat_write_fn", 5, 0, -1, 11) == -14
        assert await probe.call("cchat_write_fn", 5, 0, 0, 11) == -22
        assert await probe.call("cchat_write_fn", 5, 0, 0, 10) == -9
        for _ in range(2):
            assert await probe.call("cchat_write_fn", fd, -3, 0, 10) == 0
        assert await probe.call("cchat_write_fn", fd, 0, 0, 10) == -12
        assert len(session_of(probe, fd).tools) == 2


async def test_session_caps_give_12_and_change_nothing():
    limits = Limits(session_messages=3, session_params=2, session_text_bytes=200)
    async with open_probe(limits=limits) as probe:
        fd = await probe.call("cchat_create")
        assert await probe.say(fd, "a" * 100) == 0
        assert await probe.say(fd, "a" * 101) == -12
        assert await probe.say(fd, "a") == 0
        assert await probe.say(fd, "") == 0
        assert await probe.say(fd, "") == -12
        assert len(session_of(probe, fd).messages) == 3
        assert await probe.param(fd, "a", 1) == 0
        assert await probe.param(fd, "b", 1) == 0
        assert await probe.param(fd, "c", 1) == -12
        assert await probe.param(fd, "b", 2) == 0  # replacing adds nothing to the count
        assert await probe.param(fd, "b", "x" * 200) == -12
        assert session_of(probe, fd).params == {"a": 1, "b": 2}
        for _ in range(20):
            assert await probe.param(fd, "b", "x" * 30) == 0  # nor does it to the bytes
        texts = [json.dumps({"key": "a", "value": 1}), json.dumps({"key": "b", "value": "x" * 30})]
        assert session_of(probe, fd).text_bytes == 101 + sum(map(len, texts))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"key":"a","value":1}', 0),
        ('{"key":"a"}', 0),
        ('{"key":"a","key":"b","value":[1,{"c":null}]}', 0),
        ("", -5),
        ("{", -5),
        ("[]", -5),
        ("1", -5),
        ('{"value":1}', -5),
        ('{"key":"","value":1}', -5),
        ('{"key":3,"value":1}', -5),
        ('{"key":null}', -5),
        ('{"key":"a","value":NaN}', -5),
        ('{"key":"a","value":Infinity}', -5),
        ('{"key":"a","value":"\\ud800"}', -5),
        ('{"key":"a","value":' + "[" * 127 + "]" * 127 + "}", 0),
        ('{"key":"a","value":' + "[" * 128 + "]" * 128 + "}", -5),
        ('{"key":"a","value":' + "[" * 5000 + "]" * 5000 + "}", -5),
        (b'{"key":"\xff","value":"\xfe"}', 0),
        ('{"key":"a","value":1} x', -5),
        ("\ufeff{}", -5),
    ],
)
async def test_set_param_json(text: Any, expected: int):
    async with open_probe() as probe:
        fd = await probe.call("cchat_create")
        assert await probe.raw_param(fd, text) == expected
        assert len(session_of(probe, fd).params) == (expected == 0)


async def test_set_param_check_order():
    async with open_probe(limits=Limits(param_bytes=60)) as probe:
        fd = await probe.call("cchat_create")
        response = await probe.call("cchat_send", fd, 0)
        epoll = await probe.call("spear_epoll_create")
        closed = await probe.call("cchat_create")
        await probe.call("cchat_close", closed)
        gone = await probe.call("cchat_send", fd, 0)
        await probe.call("cchat_close", gone)
        assert await probe.call("cchat_ctl", 5, 9, -1, -1) == -22  # unknown command: whatever the fd and pointers
        assert await probe.call("cchat_ctl", 5, 0, -1, -1) == -22
        assert await probe.call("cchat_ctl", fd, 1, 0, END - 2) == -14
        probe.put_u32(8, 61)
        assert await probe.call("cchat_ctl", 5, 1, END - 8, 8) == -14
        assert await probe.call("cchat_ctl", 5, 1, 64, 8) == -22
        assert await probe.raw_param(5, "{") == -5
        assert await probe.raw_param(5, "{}") == -5
        assert await probe.param(5, "mcp.task_x", 1) == -9  # unknown fd before the MCP rules
        assert await probe.param(closed, "mcp.task_x", 1) == -13  # the MCP rules before a closed fd
        assert await probe.param(closed, "a", 1) == -9
        assert await probe.param(gone, "a", 1) == -9
        assert await probe.param(response, "a", 1) == 0
        assert await probe.param(response, "mcp.enabled", 3) == -22
        assert await probe.param(epoll, "a", 1) == -9
        assert await probe.param(epoll, "mcp.task_", 1) == -13


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("mcp.task_id", "x", -13),
        ("mcp.task_", None, -13),
        ("mcp.enabled", "yes", -22),
        ("mcp.enabled", 1, -22),
        ("mcp.enabled", None, -22),
        ("mcp.enabled", True, -13),
        ("mcp.enabled", False, 0),
        ("mcp.server_ids", "fs", -22),
        ("mcp.server_ids", ["fs"], -13),
        ("mcp.server_ids", [1, "", None], 0),
        ("mcp.server_ids", [], 0),
        ("mcp.tool_allowlist", {}, -22),
        ("mcp.tool_allowlist", ["a*", 4], 0),
        ("mcp.tool_denylist", None, -22),
        ("mcp.tool_denylist", ["b"], 0),
    ],
)
async def test_mcp_rules_without_a_policy(key: str, value: Any, expected: int):
    async with open_probe() as probe:
        fd = await probe.call("cchat_create")
        assert await probe.param(fd, key, value) == expected
        session = session_of(probe, fd)
        assert session.params == {}
        if expected == 0 and key == "mcp.tool_allowlist":
            assert session.mcp.allowlist == ["a*"]
        assert not session.mcp.enabled


async def test_other_mcp_keys_are_ordinary_params():
    async with open_probe() as probe:
        fd = await probe.call("cchat_create")
        assert await probe.param(fd, "mcp.other", 5) == 0
        assert session_of(probe, fd).params == {"mcp.other": 5}


async def test_send_check_order_and_reserved_fd():
    chat = Scripted(success())
    async with open_probe(chat, limits=Limits(open_fds=2)) as probe:
        fd = await probe.call("cchat_create")
        assert await probe.call("cchat_send", 5, 0) == -9
        response = await probe.call("cchat_send", fd, 0xFFFF & ~(2 | 4 | 8))
        assert response == 1001
        assert await probe.call("cchat_send", fd, 0) == -12  # no fd left: nobody is asked
        assert len(chat.asked) == 1
        assert await probe.call("cchat_create") == -12
        assert await probe.call("cchat_send", response, 0) == -9
        await probe.call("cchat_close", response)
        assert await probe.call("cchat_send", fd, 0) == 1002  # numbers are never used again


async def test_recv_outbuf():
    async with open_probe(Scripted(ChatReply({"_spear": {}, "a": "é"}))) as probe:
        fd = await probe.call("cchat_create")
        response = await probe.call("cchat_send", fd, 0)
        body = '{"_spear":{},"a":"é"}'.encode()
        probe.put(4096, b"z" * 64)
        for capacity in (0, 1, len(body) - 1):
            assert await probe.out("cchat_recv", response, capacity=capacity) == -28
            assert probe.u32(8) == len(body)
            assert probe.read(4096, 64) == b"z" * 64
        assert await probe.out("cchat_recv", response, capacity=len(body)) == body
        assert await probe.out("cchat_recv", fd) == -9
        assert await probe.out("cchat_recv", 1) == -9
        # -9 comes before the pointers
        assert await probe.call("cchat_recv", 1, -1, -1) == -9
        probe.put_u32(8, 0xFFFF_FFFF)  # a capacity of 4 GiB is only a number
        assert await probe.call("cchat_recv", response, 4096, 8) == len(body)


async def test_error_bodies_have_no_metrics():
    async with open_probe(Scripted(ERROR)) as probe:
        fd = await probe.call("cchat_create")
        response = await probe.call("cchat_send", fd, 1)
        assert await probe.body(response) == ERROR.body
        assert await probe.out("cchat_ctl", response, 2) == b"{}"
        assert await probe.out("cchat_ctl", fd, 2) == -9
        assert probe.guest.usage.requests == 1


async def test_metrics_only_when_asked_for_and_estimated_when_unknown():
    async with open_probe(Scripted(ChatReply(success("abcde").body))) as probe:
        fd = await probe.call("cchat_create")
        await probe.say(fd, "123456789")
        silent = await probe.call("cchat_send", fd, 0)
        assert await probe.out("cchat_ctl", silent, 2) == b"{}"
        response = await probe.call("cchat_send", fd, 1)
        metrics = await probe.out("cchat_ctl", response, 2)
        assert isinstance(metrics, bytes)
        assert json.loads(metrics) == {"completion_tokens": 2, "prompt_tokens": 3, "total_tokens": 5}
        assert probe.guest.usage.estimated


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"_spear": {}, "text": "x" * 200}, "Runtime error: response too large"),
        ({"_spear": {}, "n": float("inf")}, None),
        ({"_spear": {}, "n": 2**70}, None),
        ({"_spear": {}, "n": object()}, "Runtime error: response is not representable as JSON"),
    ],
)
async def test_odd_bodies(body: dict[str, Any], expected: str | None):
    async with open_probe(Scripted(ChatReply(body, {"input_tokens": 1})), limits=Limits(body_bytes=150)) as probe:
        fd = await probe.call("cchat_create")
        response = await probe.call("cchat_send", fd, 1)
        got = await probe.body(response)
        if expected is None:
            assert got["n"] in {None, 2**70}
        else:
            assert got == {"error": {"message": expected}}
            assert await probe.out("cchat_ctl", response, 2) == b"{}"


async def test_a_closed_session_and_fd_ctl():
    async with open_probe() as probe:
        fd = await probe.call("cchat_create")
        response = await probe.call("cchat_send", fd, 1)
        assert await probe.out("spear_fd_ctl", fd, 3) == b'{"kind":"ChatSession"}'
        assert await probe.out("spear_fd_ctl", response, 3) == b'{"kind":"ChatResponse"}'
        status = b'{"closed":false,"flags":[],"kind":"ChatResponse","poll_mask":["EPOLLIN"]}'
        assert await probe.out("spear_fd_ctl", response, 4) == status
        assert await probe.out("spear_fd_ctl", response, 5) == (
            b'{"completion_tokens":2,"prompt_tokens":3,"total_tokens":5}'
        )
        assert await probe.out("spear_fd_ctl", fd, 5) == b"{}"
        await probe.call("cchat_close", response)
        status = b'{"closed":true,"flags":[],"kind":"ChatResponse","poll_mask":["EPOLLHUP"]}'
        assert await probe.out("spear_fd_ctl", response, 4) == status
        assert await probe.out("spear_fd_ctl", response, 5) == b"{}"
        await probe.call("cchat_close", fd)
        assert await probe.say(fd, "x") == -9
        assert await probe.call("cchat_send", fd, 2) == -9
        assert await probe.call("cchat_close", fd) == 0
        assert await probe.call("cchat_close", 999) == -9
