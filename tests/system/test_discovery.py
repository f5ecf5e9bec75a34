"""Discovery of models from a server: at start, at a reload, in both layouts, and what comes of it when that fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import trio

import spear
from spear.ir import ContentDelta
from tests.servers.dialect_server import DialectServer
from tests.spear.cli.command import spear as command
from tests.system.kit import chat

LIMIT = 20.0


def source(server: DialectServer, **fields: Any) -> dict[str, Any]:
    found = {"enabled": True, "base_url": server.root_url, **fields}
    return {"spear": {"discovery": {"ollama": found}, "backends": [{"name": "s", "kind": "stub", "hosting": "local"}]}}


def names(runtime: spear.Runtime) -> list[str]:
    return [row["name"] for row in runtime.backends() if row["discovered"]]


async def test_models_are_found_used_and_go(dialect_server: DialectServer) -> None:
    dialect_server.models("m:1", "idle-n")
    with trio.fail_after(LIMIT):
        async with spear.open_runtime(source(dialect_server)) as runtime:
            assert names(runtime) == ["ollama/m_1"]
            reply = await runtime.chat("m:1", messages=[{"role": "user", "content": "hi"}])
            assert (reply.text, reply.response.backend.name) == ("echo: hi", "ollama/m_1")  # type: ignore[union-attr]
            async with runtime.stream(chat("hi", model="m:1")) as events:
                said = [event.delta async for event in events if isinstance(event, ContentDelta)]
            assert "".join(said) == "echo: hi"
            dialect_server.models("m:1", "k")
            report = await runtime.reload()
            assert (report.added, report.unchanged, report.settings) == (("ollama/k",), ("s", "ollama/m_1"), ())
            dialect_server.models("k")
            assert (await runtime.reload()).removed == ("ollama/m_1",)
            assert names(runtime) == ["ollama/k"]
        await dialect_server.until(open=0, connections_open=0)


async def test_a_server_that_does_not_answer_is_a_warning(dialect_server: DialectServer) -> None:
    dialect_server.models("m")
    slow = source(dialect_server, timeout="200ms")
    with trio.fail_after(LIMIT):
        dialect_server.script(operation="models", never=True)
        async with spear.open_runtime(slow) as runtime:
            assert names(runtime) == []
            (warning,) = runtime.config.warnings
            assert "no models found: timeout" in warning
            assert f":{dialect_server.port}" not in warning
            assert (await runtime.reload()).added == ("ollama/m",)
            for fault in ({"status": 500}, {"body": "[]"}, {"body": "no"}, {"cut": "rst"}, {"huge_body_mib": 17}):
                dialect_server.script(operation="models", **fault)
                report = await runtime.reload()
                assert "the 1 found before stay" in report.warnings[0]
                assert report.unchanged == ("s", "ollama/m")
            assert (await runtime.chat("m", messages=[{"role": "user", "content": "hi"}])).text == "echo: hi"
        await dialect_server.until(open=0, connections_open=0)


async def test_nobody_is_there() -> None:
    nobody = {"spear": {"discovery": {"ollama": {"enabled": True, "base_url": "http://127.0.0.1:9"}}}}
    with trio.fail_after(LIMIT):
        async with spear.open_runtime(nobody) as runtime:
            assert runtime.backends() == []
            assert "connection refused" in runtime.config.warnings[-1]


def existing_file(server: DialectServer, folder: Path) -> Path:
    """Of the layout whose absent lists are empty."""
    server.models("m", "o")
    file = folder / "config.toml"
    file.write_text(f"""
[[spearlet.llm.backends]]
name = "own"
kind = "ollama_chat"
hosting = "local"
base_url = "{server.root_url}"
model = "o"
ops = ["chat_completions"]

[spearlet.llm.discovery.ollama]
enabled = true
scope = "installed"
base_url = "{server.root_url}"
default_features = ["supports_tools"]
""")
    return file


async def test_an_existing_file_finds_models_and_opens_them(dialect_server: DialectServer, tmp_path: Path) -> None:
    file = existing_file(dialect_server, tmp_path)
    with trio.fail_after(LIMIT):
        async with spear.open_runtime(file) as runtime:
            assert [(row["name"], row["features"]) for row in runtime.backends()] == [
                ("own", []),
                ("ollama/m", ["supports_tools"]),
                ("ollama/o", ["supports_tools"]),
            ]
            assert (await runtime.chat("m", messages=[{"role": "user", "content": "hi"}])).text == "echo: hi"


def test_the_commands_show_them(dialect_server: DialectServer, tmp_path: Path) -> None:
    file = existing_file(dialect_server, tmp_path)
    done = command("backends", "--config", file, cwd=tmp_path)
    assert "running, discovered" in done.out
    assert str(dialect_server.port) not in done.out + done.err
    done = command("config", "check", file, cwd=tmp_path)
    assert "models that Ollama is able to serve become backends at start" in done.out
    assert "ollama/m" not in done.out
