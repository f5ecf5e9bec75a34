"""Servers behind streamable HTTP: sessions, headers, streams, refusals, egress."""

from __future__ import annotations

import pytest
import trio

import spear
from spear.ir import BackendError, ConfigError
from tests.spear.mcp.mcp_kit import config, http, http_server, opened, sdk_http_server, until
from tests.system.kit import nothing_left


async def test_a_session(tmp_path, monkeypatch):
    monkeypatch.setenv("MCP_KEY_OF_TEST", "the-key-of-the-server")
    notes = tmp_path / "notes"
    more = {"credentials": [{"name": "k", "env": "MCP_KEY_OF_TEST"}]}
    async with http_server(notes=notes) as url:
        server = http(url, http={"auth_ref": "k", "headers": {"X-Custom": "c-${ENV:MCP_KEY_OF_TEST}"}})
        async with nothing_left(), opened(server, **more) as runtime:
            assert [tool["name"] for tool in await runtime.mcp_tools("h")] == ["echo", "read_file", "write_file"]
            result = await runtime.call_mcp_tool("h", "echo", {"text": "hi"})
            assert result["content"][0]["text"] == "echo: hi"
            assert url not in repr(runtime.mcp_servers())
    said = [line for line in notes.read_text(encoding="utf-8").splitlines() if line.startswith(("POST", "DELETE"))]
    auth = "authorization=Bearer the-key-of-the-server custom=c-the-key-of-the-server"
    assert said == [
        f"POST initialize session=None version=None {auth}",
        f"POST notifications/initialized session=s-1 version=2025-06-18 {auth}",
        f"POST tools/list session=s-1 version=2025-06-18 {auth}",
        f"POST tools/call session=s-1 version=2025-06-18 {auth}",
        "DELETE session=s-1",
    ]


async def test_a_server_of_the_sdk():
    async with sdk_http_server() as url, nothing_left(), opened(http(url)) as runtime:
        with trio.fail_after(10):
            assert [tool["name"] for tool in await runtime.mcp_tools("h")] == ["add"]
            for n in range(3):
                result = await runtime.call_mcp_tool("h", "add", {"a": 20, "b": n})
                assert result["structuredContent"] == {"result": 20 + n}


FAULTS = [
    ("sse", None),
    ("sse-cut", "the server's stream ended without an answer"),
    ("redirect", "the server refused: status 307"),
    ("refuses", "the server refused: status 403"),
    ("html", "the server's answer is neither JSON nor a stream of events"),
    ("wrong-id", "the server answered something else than what it was asked"),
    ("endless-body", "the server sent a message of more than 16777216 bytes"),
    ("hang-call", "mcp tool timeout"),
    ("error", "no such file; key is"),
]


@pytest.mark.parametrize(("fault", "text"), FAULTS)
async def test_calls(fault, text, tmp_path):
    notes = tmp_path / "notes"
    async with (
        http_server(fault, notes) as url,
        nothing_left(),
        opened(http(url, budgets={"tool_timeout_ms": 900})) as rt,
    ):
        with trio.fail_after(10):
            if text is None:
                assert (await rt.call_mcp_tool("h", "echo", {"text": "x"}))["content"][0]["text"] == "echo: x"
                return
            with pytest.raises(BackendError) as failed:
                await rt.call_mcp_tool("h", "echo")
            assert failed.value.error.message.strip() == f"MCP: {text}"
            if fault == "hang-call":
                await until(lambda: "notifications/cancelled" in notes.read_text(encoding="utf-8"))


async def test_a_session_that_the_server_has_forgotten():
    async with http_server("forgets") as url, nothing_left(), opened(http(url)) as runtime:
        with pytest.raises(BackendError, match="the server has ended the session"):
            await runtime.call_mcp_tool("h", "echo")
        await until(lambda: runtime.mcp_servers()[0]["connections"] == 2)
        assert await runtime.call_mcp_tool("h", "echo")


async def test_nobody_is_there():
    async with http_server() as url:
        pass
    async with nothing_left(), opened(http(url)) as runtime:
        with pytest.raises(BackendError, match="the handshake failed: the server cannot be reached"):
            await runtime.call_mcp_tool("h", "echo")


async def test_a_key_that_is_missing():
    server = http("https://mcp.example/mcp", http={"auth_ref": "k"})
    async with opened(server, credentials=[{"name": "k", "env": "SURELY_NOT_SET"}]) as runtime:
        assert runtime.mcp_servers()[0]["detail"] == "missing_credential: k has no value"
        with pytest.raises(BackendError, match="the server is not there"):
            await runtime.call_mcp_tool("h", "echo")


@pytest.mark.parametrize("url", ["http://mcp.example/mcp", "https://user@mcp.example/mcp", "https://mcp.example/?a=b"])
async def test_addresses_that_may_not_be_called(url):
    server = {**http(url), "http": {"url": url}}
    with pytest.raises(ConfigError) as failed:
        async with spear.open_runtime(config(server)):
            pass
    assert "mcp.example" not in str(failed.value)
    assert "http.url" in str(failed.value)
    async with spear.open_runtime(config()) as runtime:
        report = await runtime.reload(config(server))
        assert not report.ok
        assert runtime.mcp_servers() == []
