"""Configurations with the servers of tests/servers, and the count of their processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

import spear

SERVERS = Path(__file__).parents[2] / "servers"
PLAIN = str(SERVERS / "mcp_server.py")
SDK = str(SERVERS / "mcp_sdk_server.py")


def stdio(fault: str = "", name: str = "s", notes: Path | str = "", **more: Any) -> dict[str, Any]:
    arguments = [PLAIN, fault, str(notes)]
    return {
        "server_id": name,
        "transport": "stdio",
        "stdio": {"command": sys.executable, "args": arguments, **more.pop("stdio", {})},
        "allowed_tools": ["*"],
        **more,
    }


def sdk(name: str = "sdk") -> dict[str, Any]:
    return {
        "server_id": name,
        "transport": "stdio",
        "stdio": {"command": sys.executable, "args": [SDK]},
        "allowed_tools": ["*"],
    }


def config(*servers: dict[str, Any], **more: Any) -> dict[str, Any]:
    stub = {"name": "stub", "kind": "stub", "hosting": "local"}
    section = {"servers": list(servers), **more.pop("mcp", {})}
    return {"spear": {"backends": [stub], "guests": {"module_cache": False}, "mcp": section, **more}}


def opened(*servers: dict[str, Any], **more: Any):
    return spear.open_runtime(config(*servers, **more))


def processes(pattern: str = "servers/mcp_") -> list[int]:
    """Our own living children, and what they started, whose command line has `pattern`."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                line = Path("/proc", name, "cmdline").read_bytes().decode("utf-8", "replace")
                state = Path("/proc", name, "stat").read_text(encoding="utf-8").rpartition(") ")[2]
            except OSError:
                continue
            if pattern in line and state[0] != "Z" and _ours(int(name)):
                found.append(int(name))
    return found


def _ours(pid: int) -> bool:
    while pid > 1:
        if pid == os.getpid():
            return True
        try:
            pid = int(Path("/proc", str(pid), "stat").read_text(encoding="utf-8").rpartition(") ")[2].split()[1])
        except OSError:
            return False
    return False


async def until(condition: Any, limit: float = 5.0) -> None:
    with trio.fail_after(limit):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.01)


@asynccontextmanager
async def http_server(fault: str = "", notes: Path | str = "") -> AsyncIterator[str]:
    """Its address."""
    command = [sys.executable, PLAIN, fault, str(notes), "--http"]
    process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        port = int(await process.stdout.receive_some(100))
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            await stream.aclose()


@asynccontextmanager
async def sdk_http_server() -> AsyncIterator[str]:
    """The address of one written with the SDK."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    process = await trio.lowlevel.open_process(
        [sys.executable, SDK, str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with trio.fail_after(30):
            while not await _listens(port):  # noqa: ASYNC110
                await trio.sleep(0.05)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
        assert process.stdin is not None
        await process.stdin.aclose()


async def _listens(port: int) -> bool:
    try:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
    except OSError:
        return False
    await stream.aclose()
    return True


def http(url: str, name: str = "h", **more: Any) -> dict[str, Any]:
    return {
        "server_id": name,
        "transport": "streamable_http",
        "http": {"url": url, "hosting": "local", **more.pop("http", {})},
        "allowed_tools": ["*"],
        **more,
    }
