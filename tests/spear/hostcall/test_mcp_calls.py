"""MCP for guests: SET_PARAM rules, what is offered, what a call comes to. The port is scripted; real servers are met
in tests/system/test_guest_mcp.py."""

from __future__ import annotations

import json

import pytest

from spear.hostcall import ChatReply
from spear.hostcall._errno import EACCES, EINVAL
from spear.hostcall._mcp import GuestMcp
from spear.hostcall._session import ChatSession
from spear.mcp import McpFailed, Tool, task_policy
from tests.spear.hostcall.probe import Scripted, open_probe, success, wants

CONFIG = {"mcp.enabled": "true", "mcp.default_server_ids": "fs", "mcp.allowed_server_ids": "fs,git"}


class FakePort:
    """Two servers, two tools each, all allowed. A call gives back what it got, or fails."""

    def __init__(self, tools: int = 2) -> None:
        self.listed: list[object] = []
        self.called: list[object] = []
        self._tools = tools

    async def tools(self, access):
        self.listed.append(access.servers)
        names = [f"t{n}" for n in range(self._tools)]
        return tuple(Tool(server, name, "", {"type": "object"}) for server in access.servers for name in names)

    async def call(self, access, server, tool, arguments, *, max_output_bytes):
        self.called.append((server, tool, arguments, max_output_bytes))
        if tool == "fails":
            raise McpFailed("mcp tool timeout")
        return "content"


def errno(code: int) -> int:
    return -abs(code)


def probe_with(*replies: ChatReply, config=CONFIG, port=None):
    return open_probe(Scripted(*replies), mcp=GuestMcp(task_policy(config), port))


RULES = [
    ({}, "mcp.task_anything", 1, EACCES),
    (CONFIG, "mcp.task_tool_allowlist", [], EACCES),
    ({}, "mcp.enabled", "yes", EINVAL),
    ({}, "mcp.enabled", True, EACCES),
    ({}, "mcp.enabled", False, 0),
    (CONFIG, "mcp.enabled", True, 0),
    (CONFIG, "mcp.server_ids", "fs", EINVAL),
    (CONFIG, "mcp.server_ids", ["fs", 3, "", "git"], 0),
    (CONFIG, "mcp.server_ids", ["fs", "other"], EACCES),
    ({}, "mcp.server_ids", ["fs"], EACCES),
    ({}, "mcp.server_ids", [""], 0),
    (CONFIG, "mcp.tool_allowlist", {}, EINVAL),
    (CONFIG, "mcp.tool_allowlist", ["a", 1], 0),
    ({}, "mcp.tool_denylist", ["a"], 0),
    ({}, "mcp.other", 1, 0),
]


@pytest.mark.parametrize(("config", "key", "value", "result"), RULES)
async def test_rules_of_set_param(config, key, value, result):
    async with probe_with(config=config) as probe:
        fd = await probe.call("cchat_create")
        assert await probe.param(fd, key, value) == errno(result)


async def test_a_session_starts_with_the_tasks_servers():
    async with probe_with() as probe:
        session = probe.guest.fds.open(await probe.call("cchat_create"), ChatSession)
        assert session.mcp.enabled
        assert session.mcp.server_ids == ["fs"]
    async with probe_with(config={"mcp.enabled": "true", "mcp.allowed_server_ids": "fs"}) as probe:
        session = probe.guest.fds.open(await probe.call("cchat_create"), ChatSession)
        assert not session.mcp.enabled


@pytest.mark.parametrize("flags", [0, 2])
async def test_tools_go_with_the_request_and_not_into_the_session(flags):
    port, script = FakePort(), Scripted(success())
    async with open_probe(script, mcp=GuestMcp(task_policy(CONFIG), port)) as probe:
        fd = await probe.call("cchat_create")
        await probe.tool(fd, 0, '{"name":"own"}')
        await probe.say(fd, "hi")
        await probe.param(fd, "mcp.server_ids", ["git", "fs"])
        await probe.call("cchat_send", fd, flags)
        session = probe.guest.fds.open(fd, ChatSession)
        assert len(session.tools) == 1
    [asked] = script.asked
    names = [json.loads(text).get("function", json.loads(text))["name"] for _, text in asked.tools]
    assert names == ["own", *(f"mcp__{s}__{t}" for s in ("Z2l0", "ZnM") for t in ("dDA", "dDE"))]
    assert port.listed == [("git", "fs")]


async def test_nobody_is_asked_where_it_is_off():
    port, script = FakePort(), Scripted(success())
    async with open_probe(script, mcp=GuestMcp(task_policy(CONFIG), port)) as probe:
        fd = await probe.call("cchat_create")
        await probe.param(fd, "mcp.enabled", False)
        await probe.call("cchat_send", fd, 0)
        await probe.param(fd, "mcp.enabled", True)
        await probe.param(fd, "mcp.server_ids", [])
        await probe.call("cchat_send", fd, 2)
    assert port.listed == []
    assert all(asked.tools == () for asked in script.asked)


async def test_more_than_512_are_left_out_with_one_line():
    port, script = FakePort(600), Scripted(success())
    async with open_probe(script, mcp=GuestMcp(task_policy(CONFIG), port)) as probe:
        fd = await probe.call("cchat_create")
        await probe.call("cchat_send", fd, 0)
        assert [record.message for record in probe.guest.log.read()] == ["mcp: 600 tools, of which 512 are offered"]
    assert len(script.asked[0].tools) == 512


def failed(text: str) -> str:
    return json.dumps({"error": {"code": "mcp_tool_failed", "message": text}}, separators=(",", ":"))


CALLS = [
    ("mcp__ZnM__dDA", "content"),
    ("mcp.fs.t1", "content"),
    ("mcp.fs.fails", failed("mcp tool timeout")),
    ("mcp.git.t1", failed("unknown mcp server")),
    ("mcp__Z2l0__dDE", failed("unknown mcp server")),
    ("mcp__", failed("invalid mcp tool name")),
    ("mcp.fs", failed("invalid mcp tool name")),
    ("mcpx", '{"error":{"code":"unknown_tool","message":"unknown tool: mcpx"}}'),
]


@pytest.mark.parametrize(("name", "content"), CALLS)
async def test_a_call_of_the_model(name, content):
    port = FakePort()
    async with probe_with(wants(("c1", name, '{"a":1}')), success("done"), port=port) as probe:
        fd = await probe.call("cchat_create")
        await probe.param(fd, "max_tool_output_bytes", 2_000_000)
        await probe.call("cchat_send", fd, 2)
        told = probe.guest.fds.open(fd, ChatSession).messages[1]
    assert told == {"role": "tool", "content": content, "tool_call_id": "c1"}
    if content == "content":
        assert port.called == [("fs", "t0" if "dDA" in name else "t1", {"a": 1}, 2_000_000)]
    assert len(port.listed) == 2  # once in each round


async def test_a_call_without_a_registry_and_one_without_mcp():
    async with probe_with(wants(("c1", "mcp.fs.t0", "{}")), success("done")) as probe:
        fd = await probe.call("cchat_create")
        await probe.call("cchat_send", fd, 2)
        assert probe.guest.fds.open(fd, ChatSession).messages[1]["content"] == failed("mcp registry not available")
    async with probe_with(wants(("c1", "mcp.fs.t0", "{}")), success("done"), config={}, port=FakePort()) as probe:
        fd = await probe.call("cchat_create")
        await probe.call("cchat_send", fd, 2)
        assert probe.guest.fds.open(fd, ChatSession).messages[1]["content"] == failed("mcp not enabled")


async def test_a_tool_of_the_guest_comes_first():
    port = FakePort()
    async with probe_with(wants(("c1", "mcp.fs.t0", "{}")), success("done"), port=port) as probe:
        fd = await probe.call("cchat_create")
        await probe.tool(fd, 99, '{"name":"mcp.fs.t0"}')
        await probe.call("cchat_send", fd, 2)
        told = json.loads(probe.guest.fds.open(fd, ChatSession).messages[1]["content"])
    assert told["error"]["code"] == "tool_exec_failed"
    assert port.called == []
