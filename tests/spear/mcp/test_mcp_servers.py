"""Real servers as processes: what they do wrong, what the caller is told, and what is left afterwards."""

from __future__ import annotations

import json
import re
from collections import Counter
from functools import partial
from random import Random

import pytest
import trio

import spear
import spear.blocking
from spear.config import load_config
from spear.ir import BackendError, CallerError
from spear.mcp import _actor, _client, _stdio
from spear.mcp._policy import Access
from spear.telemetry import configure_logging
from tests.spear.mcp.mcp_kit import config, opened, processes, sdk, stdio, until
from tests.system.kit import nothing_left

ALL = Access(True, ("s",))


async def told(runtime, *, tool="echo", **arguments):
    with trio.fail_after(20), pytest.raises(BackendError) as failed:
        await runtime.call_mcp_tool("s", tool, arguments)
    return failed.value.error.message.removeprefix("MCP: ")


async def test_a_server_of_the_sdk():
    async with nothing_left(), opened(sdk()) as runtime:
        with trio.fail_after(30):
            [tool] = await runtime.mcp_tools("sdk")
            result = await runtime.call_mcp_tool("sdk", "add", {"a": 20, "b": 22})
        assert (tool["name"], tool["description"]) == ("add", "Add two numbers.")
        assert result["content"] == [{"type": "text", "text": "42"}]
        await until(lambda: len(processes()) == 1)
    assert processes() == []


async def test_one_process_for_many_calls(tmp_path):
    notes = tmp_path / "notes"
    async with nothing_left(), opened(stdio(notes=notes, budgets={"max_concurrency": 4})) as runtime:
        assert runtime.mcp_servers()[0]["state"] == "not started"
        assert processes() == []
        async with trio.open_nursery() as nursery:
            for n in range(20):
                nursery.start_soon(partial(runtime.call_mcp_tool, "s", "echo", {"text": str(n)}))
        [row] = runtime.mcp_servers()
        assert (row["state"], row["connections"], row["inflight"]) == ("ready", 1, 0)
    said = notes.read_text(encoding="utf-8").splitlines()
    assert sum(line.startswith("start") for line in said) == 1
    assert sum(line.startswith("tools/call") for line in said) == 20
    assert said[-1] == "end"  # it was let go, not killed


async def test_calls_at_a_time_are_bounded():
    async with opened(stdio(budgets={"max_concurrency": 2})) as runtime:
        await runtime.call_mcp_tool("s", "echo")
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(runtime.call_mcp_tool, "s", "echo", {"text": "sleep"})
        assert trio.current_time() - began >= 0.6  # two by two, 0.3 s each


AT_THE_START = [
    ("exits", r"the handshake failed: the server ended with exit code 3"),
    ("not-utf8", None),
    ("junk", None),
    ("slow", None),
    ("old", r"the handshake failed: the server speaks no revision of MCP that is known here"),
    ("no-version", r"the handshake failed: the server speaks no revision .*"),
    ("endless", r"the handshake failed: the server sent a message of more than 16777216 bytes"),
    ("flood", r"the handshake failed: the server floods: too much that nobody asked for"),
]


@pytest.mark.parametrize(("fault", "text"), AT_THE_START)
async def test_faults_at_the_start(fault, text):
    async with nothing_left(), opened(stdio(fault)) as runtime:
        if text is None:
            assert len(await runtime.mcp_tools("s")) == 3
        else:
            assert re.fullmatch(text, await told(runtime))
            await until(lambda: processes() == [])
            [row] = runtime.mcp_servers()
            assert row["state"] == "failed"
            # While it waits for the next try, nobody else waits for it.
            began = trio.current_time()
            assert re.fullmatch(text, await told(runtime))
            assert trio.current_time() - began < 0.6
            if fault == "exits":
                await until(lambda: runtime.mcp_servers()[0]["stderr"] == "cannot open /etc/nothing")


async def test_a_server_that_does_not_get_through_the_handshake(monkeypatch):
    monkeypatch.setattr(_actor, "HANDSHAKE_S", 0.3)
    async with nothing_left(), opened(stdio("hang")) as runtime:
        assert (await told(runtime)).startswith("the handshake failed: it took more than")
        await until(lambda: processes() == [])


async def test_a_program_that_is_not_there():
    async with nothing_left(), opened(stdio(stdio={"command": "/no/such/program"})) as runtime:
        assert await told(runtime) == "the server cannot be started: no such file or directory"


IN_THE_LIST = [
    ("lies-list", "its list of tools is no list"),
    ("no-list", "its list of tools is no list"),
    ("list-error", "no tools today"),
    ("list-dies", "the server ended with exit code 4"),
]


@pytest.mark.parametrize(("fault", "text"), IN_THE_LIST)
async def test_faults_in_the_list(fault, text):
    async with nothing_left(), opened(stdio(fault)) as runtime:
        with pytest.raises(BackendError) as failed, trio.fail_after(10):
            await runtime.mcp_tools("s")
        assert failed.value.error.message == f"MCP: {text}"
        registry = runtime._reloader.mcp.registry
        assert await registry.tools(ALL) == ()  # for guests there are no tools then, and no error


@pytest.mark.parametrize(("fault", "count", "left_out"), [("many", 512, 1), ("bad-schemas", 3, 4), ("pages", 3, 0)])
async def test_lists(fault, count, left_out):
    async with opened(stdio(fault)) as runtime:
        assert len(await runtime.mcp_tools("s")) == count
        assert len(runtime.mcp_servers()[0]["left_out"]) == left_out


async def test_a_list_is_kept_where_the_server_tells_of_changes(tmp_path):
    notes = tmp_path / "notes"
    async with opened(stdio("changes", notes=notes)) as runtime:
        registry = runtime._reloader.mcp.registry
        assert len(await registry.tools(ALL)) == 1
        await until(lambda: registry._servers["s"].state.changes == 1)
        for _ in range(3):
            assert len(await registry.tools(ALL)) == 3
    assert notes.read_text(encoding="utf-8").count("tools/list") == 2
    async with opened(stdio("", notes=notes)) as runtime:
        for _ in range(3):
            await runtime._reloader.mcp.registry.tools(ALL)
    assert notes.read_text(encoding="utf-8").count("tools/list") == 5


IN_A_CALL = [
    ("dies", "the server ended with exit code 7"),
    ("closes", "the server closed its output"),
    ("not-a-result", "the server's answer is no result of a tool"),
    ("neither", "an answer that is neither a result nor an error"),
    ("error", "no such file; key is [secret]"),
    ("never-ending", "the server sent a message of more than 16777216 bytes"),
    ("wrong-id", "mcp tool timeout"),
    ("string-id", "mcp tool timeout"),
]


@pytest.mark.parametrize(("fault", "text"), IN_A_CALL)
async def test_faults_in_a_call(fault, text, monkeypatch):
    monkeypatch.setenv("TOKEN_OF_THE_HOST", "a-long-secret-value")
    env = {"TOKEN": "${ENV:TOKEN_OF_THE_HOST}"}
    async with nothing_left(), opened(stdio(fault, stdio={"env": env}, budgets={"tool_timeout_ms": 700})) as runtime:
        assert await told(runtime) == text
        if fault in {"dies", "closes", "never-ending"}:  # its supervisor starts it again
            await until(lambda: runtime.mcp_servers()[0]["connections"] == 2)
            await until(lambda: runtime.mcp_servers()[0]["state"] == "ready")
            assert len(processes()) == 1
        else:
            assert runtime.mcp_servers()[0]["connections"] == 1


async def test_everyone_in_a_call_is_told_why():
    async with opened(stdio(budgets={"max_concurrency": 8})) as runtime:
        await runtime.mcp_tools("s")
        texts = []

        async def call():
            texts.append(await told(runtime, text="hang"))

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(call)
            await until(lambda: runtime.mcp_servers()[0]["inflight"] == 8)
            await trio.sleep(0.05)
            [pid] = processes()
            import os
            import signal

            os.kill(pid, signal.SIGKILL)
        assert texts == ["the server was ended by SIGKILL"] * 8


async def test_the_first_of_two_answers_counts():
    async with opened(stdio("twice")) as runtime:
        for n in range(3):
            result = await runtime.call_mcp_tool("s", "echo", {"text": str(n)})
            assert result["content"][0]["text"] == f"echo: {n}"


async def test_what_a_server_asks_of_us(tmp_path):
    notes = tmp_path / "notes"
    async with opened(stdio("asks", notes=notes)) as runtime:
        await runtime.call_mcp_tool("s", "echo")
        await until(lambda: notes.read_text(encoding="utf-8").count("answer") == 2)
    assert "answer {}\n" in notes.read_text(encoding="utf-8")
    assert '"code": -32601' in notes.read_text(encoding="utf-8")


async def test_a_large_answer_is_cut_at_a_character():
    async with opened(stdio("huge", budgets={"max_tool_output_bytes": 1001})) as runtime:
        registry = runtime._reloader.mcp.registry
        content = await registry.call(ALL, "s", "echo", None, max_output_bytes=None)
        assert 1000 <= len(content.encode()) <= 1001
        assert content.startswith('{"content":[{"text":"é')


async def test_a_hanging_call_is_given_up_and_the_server_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(_stdio, "SILENT_S", 0.5)
    notes = tmp_path / "notes"
    server = stdio(notes=notes, budgets={"tool_timeout_ms": 200})
    async with nothing_left(), opened(server, mcp={"start": "at_once"}) as runtime:
        await until(lambda: runtime.mcp_servers()[0]["state"] == "ready")
        assert await told(runtime, text="hang") == "mcp tool timeout"
        await until(lambda: "notifications/cancelled" in notes.read_text(encoding="utf-8"))
        assert await runtime.call_mcp_tool("s", "echo")  # the others go on
        for _ in range(3):
            assert await told(runtime, text="hang") == "mcp tool timeout"
        await until(lambda: runtime.mcp_servers()[0]["connections"] == 2)  # it was taken to hang


async def test_callers_who_leave_soon_do_not_make_it_hang():
    async with opened(stdio()) as runtime:
        await runtime.mcp_tools("s")
        for _ in range(10):
            with trio.move_on_after(0.01):
                await runtime.call_mcp_tool("s", "echo", {"text": "hang"})
        await runtime.call_mcp_tool("s", "echo")
        assert runtime.mcp_servers()[0]["connections"] == 1


async def test_what_a_server_sees_of_the_environment(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-for-servers")
    monkeypatch.setenv("GIVEN_NAME", "by-its-name")
    monkeypatch.setenv("PART_ONE", "1")
    monkeypatch.setenv("PART_TWO", "2")
    more = {
        "env_from": ["GIVEN_NAME", "PART_*", "NOT_THERE"],
        "env": {"A": "x${ENV:GIVEN_NAME}y", "B": "${ENV:NOT_THERE:-default}", "C": "$HOME", "D": "${ENV:EMPTY:-}"},
    }
    async with opened(stdio("echo-env", stdio=more)) as runtime:
        seen = (await runtime.call_mcp_tool("s", "echo"))["env"]
    assert "OPENAI_API_KEY" not in seen
    assert set(seen) <= {
        *("HOME", "LANG", "LC_ALL", "LC_CTYPE", "PATH", "TMPDIR", "TZ"),
        *("GIVEN_NAME", "PART_ONE", "PART_TWO", "A", "B", "C", "D"),
    }
    assert (seen["A"], seen["B"], seen["C"], seen["D"]) == ("xby-its-namey", "default", "$HOME", "")


async def test_a_missing_variable_is_that_servers_failure_only():
    first = stdio(stdio={"env": {"KEY": "${ENV:SURELY_NOT_SET}"}})
    async with opened(first, stdio(name="other")) as runtime:
        assert await told(runtime) == "the server is not there"
        assert len(await runtime.mcp_tools("other")) == 3
        row = runtime.mcp_servers()[0]
        assert (row["state"], row["detail"]) == ("not usable", "missing: SURELY_NOT_SET")


async def test_stderr_goes_to_the_log_so_many_lines(capsys):
    configure_logging("info", "console")
    try:
        async with opened(stdio("noise")) as runtime:
            await runtime.call_mcp_tool("s", "echo")
            state = runtime._reloader.mcp.registry._servers["s"].state
            await until(lambda: state.last_words == "line 4999 of noise")
    finally:
        configure_logging("warning", "console")
    said = [line for line in capsys.readouterr().err.splitlines() if "mcp_stderr" in line]
    assert 100 <= len(said) <= 150  # 100 at once, then ten a second
    assert state.stderr.dropped == 5000 - len(said)
    assert "server=s" in said[0]
    assert "line 0 of noise" in said[0]


async def test_cancelled_callers_leave_no_process():
    async with nothing_left():
        with trio.move_on_after(0.4):
            async with opened(stdio("slow"), stdio(name="t")) as runtime, trio.open_nursery() as nursery:
                for name in ("s", "t"):
                    nursery.start_soon(runtime.call_mcp_tool, name, "echo", {"text": "hang"})
                await until(lambda: len(processes()) == 2)
                await trio.sleep_forever()
        assert processes() == []


async def test_callers_who_leave_at_any_moment():
    """Sixty callers with a random patience each, over servers that die, hang and answer: nothing stays, nobody waits
    for an answer that does not come, and the good server serves to the end."""
    rng = Random(5)
    servers = [
        stdio(name="s", budgets={"max_concurrency": 4}),
        stdio("dies", name="d"),
        stdio("exits", name="e"),
        stdio("hang-call", name="h", budgets={"tool_timeout_ms": 300}),
    ]
    ended: Counter[str] = Counter()

    async def caller(runtime, number):
        await trio.sleep(rng.random() * 0.5)
        with trio.move_on_after(rng.choice([0, 0.001, 0.01, 0.1, 5])) as scope:
            try:
                await runtime.call_mcp_tool("sdeh"[number % 4], "echo", {"text": rng.choice(["x", "sleep", "hang"])})
                ended["answered"] += 1
            except BackendError:
                ended["failed"] += 1
        ended["left"] += scope.cancelled_caught

    servers[0]["budgets"]["tool_timeout_ms"] = 600
    async with nothing_left(), opened(*servers) as runtime:
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                for number in range(60):
                    nursery.start_soon(caller, runtime, number)
            assert await runtime.call_mcp_tool("s", "echo")
        assert [row["inflight"] for row in runtime.mcp_servers()] == [0, 0, 0, 0]
        assert runtime.mcp_servers()[0]["connections"] == 1
    assert sum(ended.values()) == 60
    assert ended["left"] >= 10
    assert ended["failed"] >= 3
    assert processes() == []


async def test_what_a_server_started_goes_with_it():
    async with nothing_left(), opened(stdio("child")) as runtime:
        await runtime.mcp_tools("s")
        await until(lambda: len(processes("time.sleep(3600)")) == 2)
    import os

    left = [p for p in os.listdir("/proc") if p.isdigit() and _line(p).count("import time; time.sleep(3600)")]
    assert left == []


def _line(pid: str) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


async def test_at_once():
    async with nothing_left(), opened(stdio(), stdio(name="t"), mcp={"start": "at_once"}) as runtime:
        await until(lambda: [row["state"] for row in runtime.mcp_servers()] == ["ready", "ready"])
        node = next(child for child in runtime.snapshot().children if child.path == "runtime/mcp")
        assert [each.path for each in node.children[0].children] == ["runtime/mcp/servers/s", "runtime/mcp/servers/t"]


async def test_a_reload_keeps_what_is_the_same_and_lets_the_others_finish():
    async with nothing_left(), spear.open_runtime(config(stdio(), stdio(name="t"))) as runtime:
        await runtime.mcp_tools("s")
        await runtime.mcp_tools("t")
        before = processes()
        results = []
        async with trio.open_nursery() as nursery:

            async def slow():
                results.append(await runtime.call_mcp_tool("t", "echo", {"text": "sleep"}))

            nursery.start_soon(slow)
            await until(lambda: runtime.mcp_servers()[1]["inflight"] == 1)
            await trio.sleep(0.05)
            changed = config(stdio(), stdio(name="t", allowed_tools=["echo"]), stdio(name="u"))
            report = await runtime.reload(changed)
            assert report.ok
            assert report.settings == ("mcp",)
            assert [tool["name"] for tool in await runtime.mcp_tools("t")] == ["echo"]
        assert len(results) == 1  # the call of before was not cut off
        await runtime.mcp_tools("u")
        await runtime.mcp_tools("s")
        rows = {row["server_id"]: row["connections"] for row in runtime.mcp_servers()}
        assert rows == {"s": 1, "t": 1, "u": 1}
        await until(lambda: len(set(processes()) & set(before)) == 1)
        assert (await runtime.reload(config())).ok
        await until(lambda: processes() == [])
        with pytest.raises(CallerError, match="no MCP server of this host"):
            await runtime.mcp_tools("s")


async def test_the_first_servers_may_come_with_a_reload():
    async with nothing_left(), spear.open_runtime(config()) as runtime:
        assert runtime.mcp_servers() == []
        assert (await runtime.reload(config(stdio(), mcp={"start": "at_once"}))).ok
        await until(lambda: runtime.mcp_servers()[0]["state"] == "ready")


async def test_a_tool_that_is_not_allowed(tmp_path):
    notes = tmp_path / "notes"
    async with opened(stdio(notes=notes, allowed_tools=["read_*"])) as runtime:
        assert [tool["name"] for tool in await runtime.mcp_tools("s")] == ["read_file"]
        assert await told(runtime) == "mcp tool denied by server policy"
        assert "tools/call" not in notes.read_text(encoding="utf-8")


async def test_a_record_of_decisions_has_nothing_of_it(monkeypatch):
    server = stdio(stdio={"args": ["--key", "written-by-mistake"]})
    async with opened(server, decisions={"sample": 1.0}) as runtime:
        await runtime.chat(messages=[{"role": "user", "content": "hi"}])
        records = repr(runtime.decisions())
    assert "generation" in records
    assert "written-by-mistake" not in records
    assert "mcp" not in records


async def test_a_task_with_servers_that_are_not_there(capsys):
    tasks = [{"id": "t", "config": {"mcp.enabled": "true", "mcp.default_server_ids": "s,typo"}}]
    async with opened(stdio(), tasks=tasks):
        pass
    said = capsys.readouterr().err
    assert "mcp_unknown_servers" in said
    assert "servers=['typo'] task=t" in said


def test_from_threads():
    with spear.blocking.open_runtime(config(stdio())) as runtime:
        assert len(runtime.mcp_tools("s")) == 3
        assert runtime.call_mcp_tool("s", "echo", {"text": "hi"})["content"][0]["text"] == "echo: hi"
        assert runtime.mcp_servers()[0]["state"] == "ready"
    assert processes() == []


def test_secrets_are_not_shown(monkeypatch):
    monkeypatch.setenv("TOKEN_OF_THE_HOST", "a-long-secret-value")
    server = stdio(stdio={"env": {"TOKEN": "${ENV:TOKEN_OF_THE_HOST}"}})
    loaded = load_config(config(server))
    assert "a-long-secret-value" not in repr(loaded) + loaded.model_dump_json()
    assert "a-long-secret-value" in [each.reveal() for each in loaded.secrets]


def test_the_client_offers_nothing():
    assert json.loads(json.dumps({"v": _client.PROTOCOL}))["v"] in _client.SPOKEN
