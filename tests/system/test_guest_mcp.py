"""Real guests, a real model server, real MCP servers: the whole way, and what is left when somebody leaves."""

from __future__ import annotations

import json

import pytest
import trio

import spear
from spear.config import load_config
from spear.hostcall._mcp import GuestMcp
from spear.hostcall._session import ChatSession
from spear.mcp import task_policy
from spear.mcp._names import encode_name
from spear.mcp._registry import McpRegistry
from tests.spear.hostcall.probe import Streaming, open_probe, success, wants
from tests.spear.hostcall.test_chat_background_tools import AUTO, STARTED, next_event
from tests.spear.hostcall.test_chat_stream import ASYNC, STREAM, settle
from tests.spear.mcp import mcp_kit
from tests.spear.mcp.mcp_kit import processes, stdio, until
from tests.system.kit import CHAT_TOOL, backend, config, nothing_left

TASK = {"mcp.enabled": "true", "mcp.default_server_ids": "s", "mcp.allowed_server_ids": "s,t"}
ECHO = encode_name("s", "echo")


def source(server, *servers, task=TASK, **more):
    tasks = [{"id": "chat_tool", "config": task}] if task is not None else []
    return config(backend(server), mcp={"servers": list(servers)}, tasks=tasks, **more)


def told(server) -> list[str]:
    return [m["content"] for m in server.requests()[1]["json"]["messages"] if m["role"] == "tool"]


async def test_a_call_goes_to_the_server_and_back(fault_server, tmp_path):
    notes = tmp_path / "notes"
    fault_server.script(tools=[{"name": ECHO, "arguments": '{"text":"hi"}'}])
    async with nothing_left(), spear.open_runtime(source(fault_server, stdio(notes=notes), stdio(name="t"))) as runtime:
        with trio.fail_after(20):
            execution = await runtime.run_guest(CHAT_TOOL)
        assert execution.status == "completed", execution
        assert execution.usage.requests == 2
    first, second = (request["json"] for request in fault_server.requests())
    names = [tool["function"]["name"] for tool in first["tools"]]
    assert names == ["add", *(encode_name("s", name) for name in ("echo", "read_file", "write_file"))]
    assert second["tools"] == first["tools"]
    [content] = told(fault_server)
    assert json.loads(content) == {"content": [{"type": "text", "text": "echo: hi"}], "isError": False}
    assert 'tools/call {"name": "echo", "arguments": {"text": "hi"}}' in notes.read_text(encoding="utf-8")
    assert processes() == []


@pytest.mark.parametrize("task", [None, {}, {"mcp.enabled": "true"}, {**TASK, "mcp.enabled": "no"}])
async def test_a_task_that_has_none(fault_server, task):
    fault_server.script(tools=[{"name": ECHO}])
    async with spear.open_runtime(source(fault_server, stdio(), task=task)) as runtime:
        await runtime.run_guest(CHAT_TOOL)
        assert runtime.mcp_servers()[0]["state"] == "not started"
    assert [tool["function"]["name"] for tool in fault_server.requests()[0]["json"]["tools"]] == ["add"]
    assert told(fault_server) == ['{"error":{"code":"mcp_tool_failed","message":"mcp not enabled"}}']


FAILURES = [
    ("dies", "the server ended with exit code 7"),
    ("hang-call", "mcp tool timeout"),
    ("error", "no such file; key is"),
    ("lies-list", None),
]


@pytest.mark.parametrize(("fault", "text"), FAILURES)
async def test_what_fails_is_told_to_the_model_and_the_chat_goes_on(fault_server, fault, text):
    fault_server.script(tools=[{"name": ECHO, "arguments": "{}"}])
    server = stdio(fault, budgets={"tool_timeout_ms": 500})
    async with nothing_left(), spear.open_runtime(source(fault_server, server)) as runtime:
        execution = await runtime.run_guest(CHAT_TOOL)
        assert execution.status == "completed"
        assert "tool said: " in execution.stdout
    [content] = told(fault_server)
    if text is None:  # it has no tools to list; the one that the model made up is called all the same
        assert len(fault_server.requests()[0]["json"]["tools"]) == 1
        assert json.loads(content)["content"]
    else:
        message = json.loads(content)["error"]["message"]
        assert message.strip() == text


async def test_a_guest_that_is_ended_in_a_call(fault_server, tmp_path):
    notes = tmp_path / "notes"
    fault_server.script(tools=[{"name": ECHO, "arguments": '{"text":"hang"}'}])
    async with nothing_left(), spear.open_runtime(source(fault_server, stdio(notes=notes))) as runtime:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(runtime.run_guest, CHAT_TOOL)
            await until(lambda: notes.is_file() and "tools/call" in notes.read_text(encoding="utf-8"))
            nursery.cancel_scope.cancel()
        await until(lambda: "notifications/cancelled" in notes.read_text(encoding="utf-8"))
        [row] = runtime.mcp_servers()
        assert (row["state"], row["connections"], row["inflight"]) == ("ready", 1, 0)
        assert len(processes()) == 1
    assert processes() == []


async def test_many_guests_share_one_process(fault_server):
    fault_server.script(tools=[{"name": ECHO, "arguments": '{"text":"x"}'}])
    async with spear.open_runtime(source(fault_server, stdio())) as runtime:
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(runtime.run_guest, CHAT_TOOL)
        assert runtime.mcp_servers()[0]["connections"] == 1
        assert len(processes()) == 1


def probe_with(registry, *rounds):
    chat = Streaming(*([STARTED, each] for each in rounds))
    return open_probe(chat, pages=4, mcp=GuestMcp(task_policy(TASK), registry))


@pytest.mark.parametrize("flags", [STREAM, ASYNC])
async def test_in_the_background(flags):
    registry = McpRegistry(load_config(mcp_kit.config(stdio())))
    async with (
        nothing_left(),
        registry.opened(),
        probe_with(registry, wants(("c1", ECHO, '{"text":"hi"}')), success("done")) as probe,
    ):
        session = await probe.call("cchat_create")
        await probe.say(session, "hello")
        fd = await probe.call("cchat_send", session, flags | AUTO)
        if flags == STREAM:
            seen = []
            while not seen or seen[-1]["type"] != "completed":
                seen.append(await next_event(probe, fd))
            [result] = [event for event in seen if event["type"] == "tool_result"]
            assert json.loads(result["content"])["content"][0]["text"] == "echo: hi"
            assert not result["is_error"]
        else:
            with trio.fail_after(5):
                while isinstance(await probe.out("cchat_recv", fd), int):
                    await settle()
        roles = [message["role"] for message in probe.guest.fds.open(session, ChatSession).messages]
        assert roles == ["user", "assistant", "tool", "assistant"]


@pytest.mark.parametrize("flags", [STREAM, ASYNC])
async def test_closing_the_response_ends_the_call(flags, tmp_path):
    notes = tmp_path / "notes"
    registry = McpRegistry(load_config(mcp_kit.config(stdio(notes=notes))))
    async with (
        nothing_left(),
        registry.opened(),
        probe_with(registry, wants(("c1", ECHO, '{"text":"hang"}')), success("done")) as probe,
    ):
        session = await probe.call("cchat_create")
        await probe.say(session, "hello")
        fd = await probe.call("cchat_send", session, flags | AUTO)
        await until(lambda: notes.is_file() and "tools/call" in notes.read_text(encoding="utf-8"))
        assert await probe.call("cchat_close", fd) == 0
        await until(lambda: "notifications/cancelled" in notes.read_text(encoding="utf-8"))
        assert next(registry.rows())["inflight"] == 0
        last = probe.guest.fds.open(session, ChatSession).messages[-1]
        assert last["content"] == '{"error":{"code":"cancelled","message":"not executed"}}'
