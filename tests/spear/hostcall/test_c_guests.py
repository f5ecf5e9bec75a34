"""Guests compiled from C, unchanged, on the real engine; the backend behind them is a few lines of this file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio

from spear.hostcall import ChatReply, ChatSnapshot, Execution, GuestEngine, GuestTask
from tests.spear.hostcall.probe import success, wants

ROOT = Path(__file__).resolve().parents[3]
SAMPLES = ROOT / "spear" / "guests"
FAULTS = ROOT / "tests" / "spear" / "guests" / "tool_faults.wasm"


async def calls_once(session: ChatSnapshot) -> ChatReply:
    """Asks for the first tool, then repeats what the tool said."""
    await trio.lowlevel.checkpoint()
    last = session.messages[-1]
    if last["role"] == "tool" or not session.tools:
        return success(f"heard: {last['content']}")
    name = json.loads(session.tools[0][1])["function"]["name"]
    return wants(("c1", name, '{"a":20,"b":22}'))


async def run(path: Path, entry: str = "", timeout_s: float = 20) -> Execution:
    async with GuestEngine(cache_directory=None) as engine:
        module = await engine.load(path)
        with trio.fail_after(30):
            return await engine.run(
                module, entry=entry, task=GuestTask(path.stem), chat=calls_once, timeout_s=timeout_s
            )


async def test_hello():
    done = await run(SAMPLES / "hello.wasm")
    assert (done.status, done.exit_code) == ("completed", 0)
    assert done.stdout == "hello, world\n"
    assert done.stderr == "and this is stderr\n"
    assert [record.message for record in done.logs] == ["hello from a guest"]
    assert (await run(SAMPLES / "hello.wasm", "answer")).output == "42"
    done = await run(SAMPLES / "hello.wasm", "fail")
    assert (done.status, done.exit_code) == ("failed", 7)


async def test_output_comes_line_by_line():
    seen: list[bytes] = []
    async with GuestEngine(cache_directory=None) as engine:
        module = await engine.load(SAMPLES / "epoll_loop.wasm")
        done = await engine.run(module, task=GuestTask("t"), chat=calls_once, on_stdout=seen.append)
    assert done.status == "completed", done
    assert "WRONG" not in done.stdout
    assert b"".join(seen).decode() == done.stdout
    assert sum(piece.endswith(b"\n") for piece in seen) >= 10


async def test_a_chat_with_a_tool():
    done = await run(SAMPLES / "chat_tool.wasm")
    assert done.status == "completed", done
    assert "heard: 42" in done.stdout
    assert [record.message for record in done.logs] == ["add(20, 22) = 42"]
    assert done.usage.requests == 2


@pytest.mark.parametrize("name", ["chat", "chat_tool", "epoll_loop", "hello"])
async def test_every_sample_completes(name: str):
    assert (await run(SAMPLES / f"{name}.wasm")).status == "completed"


async def test_the_text_example():
    assert (await run(SAMPLES / "hello.wat")).status == "completed"


def failed(rc: int) -> str:
    return f'heard: {{"error":{{"code":"tool_exec_failed","message":"tool rc: {rc}"}}}}'


@pytest.mark.parametrize(
    ("entry", "content"),
    [
        ("tool_traps", failed(-5)),
        ("tool_fails", failed(77)),
        ("tool_lies", failed(-5)),
        ("tool_no_utf8", failed(-5)),
        ("tool_empty", "heard: "),
        ("tool_echoes", 'heard: {"a":20,"b":22}'),
        ("tool_says_capacity", "heard: at 16, cap 65536, len at 65552"),
        ("tool_in_a_small_arena", "heard: at 16, cap 72, len at 88"),
        ("tool_asks_again", "heard: second call, 20"),
        ("tool_always_asks", failed(-5)),
        ("tool_asks_too_much", failed(-28)),
        ("tool_chats", "heard: heard: inner question"),
        ("tool_scribbles", "heard: yyy"),
        ("tool_of_wrong_type", failed(-5)),
        ("tool_out_of_range", failed(-5)),
        ("tool_negative", failed(-14)),
        ("tool_null", failed(-5)),
        ("tool_without_arena", failed(-14)),
        ("tool_arena_too_small", failed(-28)),
        ("tool_arena_outside", failed(-14)),
    ],
)
async def test_tools_that_misbehave(entry: str, content: str):
    done = await run(FAULTS, entry)
    assert (done.status, done.output) == ("completed", "0"), done
    assert json.loads(done.stdout)["choices"][0]["message"]["content"] == content


async def test_tools_that_nest_without_end_stop_at_four():
    """The deepest send is still answered; the tool it wants is not called any more."""
    done = await run(FAULTS, "tool_recurses")
    assert done.status == "completed", done
    bodies = [json.loads(line)["choices"][0]["message"]["content"] for line in done.stdout.splitlines()]
    assert bodies == [failed(-5), *[f"heard: depth {depth}" for depth in (4, 3, 2, 1)]]
    assert done.usage.requests == 10


async def test_a_tool_that_exits_and_one_that_closes_everything():
    done = await run(FAULTS, "tool_exits")
    assert (done.status, done.exit_code) == ("failed", 9)
    done = await run(FAULTS, "tool_closes")
    assert (done.status, done.stdout) == ("completed", "error -9\n")  # the response is closed, too


@pytest.mark.parametrize("entry", ["spin", "tool_spins", "sleep_an_hour", "tool_sleeps"])
async def test_guests_that_never_end(entry: str):
    assert (await run(FAULTS, entry, timeout_s=0.2)).status == "timeout"


@pytest.mark.parametrize("entry", ["trap", "overflow"])
async def test_guests_that_trap(entry: str):
    done = await run(FAULTS, entry)
    assert done.status == "failed"
    assert (done.error_message or "").startswith("wasm trap: ")
