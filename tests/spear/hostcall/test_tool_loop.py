"""Automatic tool calls, with tools that are real wasm functions and a scripted backend."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from spear.hostcall import ChatReply, ChatSnapshot, Limits
from spear.hostcall._endings import Exited, Stopped
from spear.hostcall._guest_tool import Arena, ToolFailed, plan_arena
from spear.hostcall._session import ChatSession
from spear.hostcall._tool_plan import loop_limits, requested_calls
from spear.hostcall._tool_schema import inspect_tool
from tests.spear.hostcall.probe import PAGE, RELAXED, Probe, Scripted, open_probe, success, wants

TOOL = "(param $args i32) (param $len i32) (param $out i32) (param $cap i32) (result i32)"
ECHO = """(memory.copy (local.get $out) (local.get $args) (local.get $len))
          (i32.store (local.get $cap) (local.get $len)) (i32.const 0)"""
NAMES = [
    *("echo", "trap", "lies", "fails", "twice", "small", "huge", "utf8", "sleeps", "sends", "spins", "exits"),
    *("closes", "wrong", "deep", "nul", "sees"),
]
TOOLS = f"""
 (global $calls (export "calls") (mut i32) (i32.const 0))
 (func $echo {TOOL} {ECHO})
 (func $trap {TOOL} unreachable)
 (func $lies {TOOL}
   (i32.store (local.get $cap) (i32.add (i32.load (local.get $cap)) (i32.const 1))) (i32.const 0))
 (func $fails {TOOL} (i32.const 77))
 (func $twice {TOOL}
   (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
   (if (i32.eq (global.get $calls) (i32.const 1)) (then
     (i32.store (local.get $cap) (i32.const 10)) (return (i32.const -28))))
   (if (i32.ne (i32.load (local.get $cap)) (i32.const 10)) (then (return (i32.const 99))))
   (i32.store8 (local.get $out) (i32.const 65)) (i32.store (local.get $cap) (i32.const 1)) (i32.const 0))
 (func $small {TOOL}
   (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
   (i32.store (local.get $cap) (i32.const 10)) (i32.const -28))
 (func $huge {TOOL}
   (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
   (i32.store (local.get $cap) (i32.const 70000)) (i32.const -28))
 (func $utf8 {TOOL}
   (i32.store8 (local.get $out) (i32.const 255)) (i32.store (local.get $cap) (i32.const 1)) (i32.const 0))
 (func $sleeps {TOOL} (call $sleep_ms (i32.const 5)) {ECHO})
 (func $sends {TOOL} (drop (call $cchat_send (i32.const 1000) (i32.const 2))) {ECHO})
 (func $spins {TOOL} (loop $l (br $l)) (i32.const 0))
 (func $exits {TOOL} (call $proc_exit (i32.const 3)) (i32.const 0))
 (func $closes {TOOL} (drop (call $cchat_close (i32.const 1000))) {ECHO})
 (func $wrong (param i32) (result i32) (i32.const 0))
 (func $deep {TOOL} (call $deep (local.get $args) (local.get $len) (local.get $out) (local.get $cap))
    (i32.add (i32.const 1)))
 (func $nul {TOOL} (i32.store (local.get $cap) (i32.const 0))
    (i32.load8_u (i32.add (local.get $args) (local.get $len))))
 (func $sees {TOOL}
   (i32.store (local.get $out) (local.get $args)) (i32.store (local.get $cap) (i32.const 0)) (i32.const 0))
 (func (export "calls_made") (result i32) (global.get $calls))
 (table (export "__indirect_function_table") {len(NAMES) + 1} funcref)
 (elem (i32.const 0) {" ".join("$" + name for name in NAMES)})
"""
NULL_SLOT = len(NAMES)
ARENA = 65536
ARENA_LEN = 131_072


async def prepare(probe: Probe, *tools: str, arena: bool = True) -> int:
    fd = await probe.call("cchat_create")
    await probe.say(fd, "hello")
    for name in tools:
        await probe.tool(fd, NAMES.index(name), json.dumps({"type": "function", "function": {"name": name}}))
    if arena:
        assert await probe.param(fd, "tool_arena_ptr", ARENA) == 0
        assert await probe.param(fd, "tool_arena_len", ARENA_LEN) == 0
    return fd


def messages(probe: Probe, fd: int) -> list[dict[str, Any]]:
    return probe.guest.fds.open(fd, ChatSession).messages


def failed(rc: int) -> str:
    return f'{{"error":{{"code":"tool_exec_failed","message":"tool rc: {rc}"}}}}'


def probe_with(*replies: ChatReply, **more: Any):
    return open_probe(Scripted(*replies), pages=4, extra=TOOLS, **more)


async def test_one_round():
    first = wants(("c1", "echo", '{"a":1,"b":"ü"}'))
    async with probe_with(first, success("done")) as probe:
        fd = await prepare(probe, "echo")
        response = await probe.call("cchat_send", fd, 3)
        body = await probe.body(response)
        assert body["choices"][0]["message"]["content"] == "done"
        assert body["_spear"] == {"backend": "b", "model": "m"}
        call = {"id": "c1", "type": "function", "function": {"name": "echo", "arguments": '{"a":1,"b":"ü"}'}}
        assert messages(probe, fd) == [
            {"role": "user", "content": "hello"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": '{"a":1,"b":"ü"}', "tool_call_id": "c1"},
            {"role": "assistant", "content": "done"},
        ]
        assert await probe.out("cchat_ctl", response, 2) == (
            b'{"completion_tokens":4,"prompt_tokens":6,"total_tokens":10}'
        )
        assert probe.guest.usage.requests == 2
        asked = probe.guest.chat.asked  # type: ignore[attr-defined]
        assert len(asked[1].messages) == 3


async def test_without_the_bit_tool_calls_stay_in_the_body():
    async with probe_with(wants(("c1", "echo", "{}"))) as probe:
        fd = await prepare(probe, "echo")
        response = await probe.call("cchat_send", fd, 1 | 16 | 32)
        assert (await probe.body(response))["choices"][0]["message"]["tool_calls"][0]["id"] == "c1"
        assert len(messages(probe, fd)) == 1


@pytest.mark.parametrize(
    ("tool", "arguments", "content"),
    [
        ("trap", "{}", failed(-5)),
        ("deep", "{}", failed(-5)),
        ("lies", "{}", failed(-5)),
        ("fails", "{}", failed(77)),
        ("small", "{}", failed(-5)),
        ("huge", "{}", failed(-28)),
        ("utf8", "{}", failed(-5)),
        ("wrong", "{}", failed(-5)),
        ("twice", "{}", "A"),
        ("sleeps", "{}", "{}"),
        ("nul", "{}", ""),
        ("echo", "", ""),
    ],
)
async def test_what_a_tool_can_do(tool: str, arguments: str, content: str):
    async with probe_with(wants(("c", tool, arguments)), success("done")) as probe:
        fd = await prepare(probe, tool)
        with trio.fail_after(10):
            response = await probe.call("cchat_send", fd, 2)
        assert (await probe.body(response))["choices"][0]["message"]["content"] == "done"
        assert messages(probe, fd)[2] == {"role": "tool", "content": content, "tool_call_id": "c"}
        assert await probe.call("calls_made") == {"twice": 2, "small": 2, "huge": 1}.get(tool, 0)


@pytest.mark.parametrize(
    ("index", "rc"), [(-1, -14), (-(2**31), -14), (NULL_SLOT, -5), (NULL_SLOT + 1, -5), (2**31 - 1, -5)]
)
async def test_bad_table_indexes(index: int, rc: int):
    async with probe_with(wants(("c", "t", "{}")), success("done")) as probe:
        fd = await prepare(probe)
        await probe.tool(fd, index, '{"name":"t"}')
        await probe.call("cchat_send", fd, 2)
        assert messages(probe, fd)[2]["content"] == failed(rc)


async def test_no_table_and_other_table_names():
    for name, rc in ((None, -5), ("table", 77), ("zzz", 77)):
        exported = f'(export "{name}")' if name else ""
        extra = f"(table {exported} 1 funcref) (func $f {TOOL} (i32.const 77)) (elem (i32.const 0) $f)"
        chat = Scripted(wants(("c", "t", "{}")), success("done"))
        async with open_probe(chat, pages=4, extra=extra) as probe:
            fd = await prepare(probe)
            await probe.tool(fd, 0, '{"name":"t"}')
            await probe.call("cchat_send", fd, 2)
            assert messages(probe, fd)[2]["content"] == failed(rc), name


@pytest.mark.parametrize(
    ("pointer", "length", "content"),
    [
        (None, None, failed(-14)),
        (0, 4096, failed(-14)),
        (-8, 4096, failed(-14)),
        (ARENA, 0, failed(-14)),
        ("x", 4096, failed(-14)),
        (True, 4096, failed(-14)),
        (ARENA, 16, failed(-28)),
        (ARENA, 17, failed(-28)),
        (ARENA, 24, "{}"),
        (4 * PAGE - 24, 24, "{}"),
        (4 * PAGE - 16, 24, failed(-14)),
        (2**40, 4096, failed(-14)),
    ],
)
async def test_arenas(pointer: Any, length: Any, content: str):
    async with probe_with(wants(("c", "echo", "{}")), success("done")) as probe:
        fd = await prepare(probe, "echo", arena=False)
        if length is not None:
            await probe.param(fd, "tool_arena_ptr", pointer)
            await probe.param(fd, "tool_arena_len", length)
        await probe.call("cchat_send", fd, 2)
        assert messages(probe, fd)[2]["content"] == content


def test_arena_vector():
    assert plan_arena(1000, 131_072, 14, 65_536) == Arena(1000, 1016, 65_536, 1016 + 65_536)


@RELAXED
@given(st.integers(-10, 300), st.integers(-10, 300), st.integers(0, 100), st.integers(0, 100))
def test_arena_parts_are_inside_and_apart(base: int, length: int, args_len: int, max_output: int):
    rc = 0
    try:
        arena = plan_arena(base, length, args_len, max_output)
    except ToolFailed as refused:
        rc = refused.rc
    assert rc in {0, -14, -28}
    assert (rc == -14) == (base <= 0 or length <= 0)
    if rc:
        return
    assert arena.args_ptr == base
    assert arena.out_ptr >= base + args_len + 1
    assert arena.out_len_ptr >= arena.out_ptr + arena.out_cap
    assert arena.out_len_ptr + 4 <= base + length
    assert 0 < arena.out_cap <= max_output


async def test_unknown_and_mcp_tools():
    calls = wants(("1", "nope", "{}"), ("2", "mcp.fs.read", "{}"), ("3", "mcp__ZnM__cmVhZF9maWxl", "{}"))
    async with probe_with(calls, success("done")) as probe:
        fd = await prepare(probe)
        await probe.call("cchat_send", fd, 2)
        mcp = '{"error":{"code":"mcp_tool_failed","message":"mcp registry not available"}}'
        assert [one["content"] for one in messages(probe, fd)[2:5]] == [
            '{"error":{"code":"unknown_tool","message":"unknown tool: nope"}}',
            mcp,
            mcp,
        ]


async def test_a_guest_tool_goes_before_mcp_and_the_first_registration_wins():
    async with probe_with(wants(("1", "mcp.x", "{}"), ("2", "dup", "q")), success("done")) as probe:
        fd = await prepare(probe)
        await probe.tool(fd, NAMES.index("fails"), '{"name":"mcp.x"}')
        await probe.tool(fd, NAMES.index("echo"), '{"function":{"name":"dup"},"name":"other"}')
        await probe.tool(fd, NAMES.index("fails"), '{"name":"dup"}')
        await probe.tool(fd, NAMES.index("fails"), "{")
        await probe.call("cchat_send", fd, 2)
        assert [one["content"] for one in messages(probe, fd)[2:4]] == [failed(77), "q"]


async def test_max_iterations():
    chat = Scripted(wants(("c", "echo", "{}")))
    async with open_probe(chat, pages=4, extra=TOOLS) as probe:
        fd = await prepare(probe, "echo")
        await probe.param(fd, "max_iterations", 2)
        response = await probe.call("cchat_send", fd, 3)
        limit = {"error": {"code": "tool_call_limit", "message": "exceeded max_iterations"}}
        assert await probe.body(response) == limit
        assert await probe.out("cchat_ctl", response, 2) == b"{}"
        assert len(chat.asked) == 2
        await probe.param(fd, "max_iterations", 0)
        assert await probe.body(await probe.call("cchat_send", fd, 2)) == limit
        assert len(chat.asked) == 2  # nobody was contacted


async def test_max_total_tool_calls():
    calls = wants(("1", "echo", "a"), ("2", "echo", "b"), ("3", "echo", "c"), ("4", "echo", "d"))
    async with probe_with(calls) as probe:
        fd = await prepare(probe, "echo")
        await probe.param(fd, "max_tool_calls", 2)
        response = await probe.call("cchat_send", fd, 2)
        assert await probe.body(response) == {
            "error": {"code": "tool_call_limit", "message": "exceeded max_total_tool_calls"}
        }
        unanswered = '{"error":{"code":"tool_call_limit","message":"not executed"}}'
        assert [(one["tool_call_id"], one["content"]) for one in messages(probe, fd)[2:]] == [
            ("1", "a"),
            ("2", "b"),
            ("3", unanswered),
            ("4", unanswered),
        ]


async def test_an_error_in_a_later_round_is_the_body():
    down = ChatReply({"error": {"message": "Runtime error: down"}})
    async with probe_with(wants(("c", "echo", "{}")), down) as probe:
        fd = await prepare(probe, "echo")
        assert await probe.body(await probe.call("cchat_send", fd, 2)) == down.body
        assert len(messages(probe, fd)) == 3


async def test_session_too_large():
    async with probe_with(wants(("c", "echo", "{}")), limits=Limits(session_messages=2)) as probe:
        fd = await prepare(probe, "echo")
        body = await probe.body(await probe.call("cchat_send", fd, 2))
        assert body == {"error": {"message": "Invalid request: session too large"}}
        assert len(messages(probe, fd)) == 2


async def test_a_tool_that_closes_its_session():
    async with probe_with(wants(("c", "closes", "{}"))) as probe:
        fd = await prepare(probe, "closes")
        response = await probe.call("cchat_send", fd, 2)
        assert await probe.body(response) == {"error": {"message": "Invalid request: session closed"}}
        assert await probe.say(fd, "x") == -9


async def test_a_tool_that_sends_nests_up_to_the_limit():
    """Each level sends on the same session again; the fifth tool is refused."""
    deepest = 0
    guest = None

    async def chat(session: ChatSnapshot) -> ChatReply:
        nonlocal deepest
        await trio.lowlevel.checkpoint()
        deepest = max(deepest, guest.tool_depth)
        rounds = sum("tool_calls" in message for message in session.messages)
        return wants((f"c{rounds}", "sends", "{}")) if rounds < 5 else success("done")

    async with open_probe(chat, pages=4, extra=TOOLS) as probe:
        guest = probe.guest
        fd = await prepare(probe, "sends")
        with trio.fail_after(10):
            response = await probe.call("cchat_send", fd, 2)
        assert (await probe.body(response))["choices"][0]["message"]["content"] == "done"
        assert deepest == 4
        assert probe.guest.tool_depth == 0
        contents = [one["content"] for one in messages(probe, fd) if one["role"] == "tool"]
        assert contents.count(failed(-5)) == 1
        assert contents.count("{}") == 4
        assert probe.guest.fiber.depth == 0


async def test_a_tool_that_exits_ends_the_guest():
    async with probe_with(wants(("c", "exits", "{}"))) as probe:
        fd = await prepare(probe, "exits")
        with pytest.raises(Exited) as ended:
            await probe.call("cchat_send", fd, 2)
        assert ended.value.code == 3


async def test_termination_inside_a_tool_ends_the_guest():
    async def chat(session: ChatSnapshot) -> ChatReply:
        await trio.lowlevel.checkpoint()
        probe.guest.stop_text = "Terminate execution: now"
        return wants(("c", "sends", "{}"))

    async with open_probe(chat, pages=4, extra=TOOLS) as probe:
        fd = await prepare(probe, "sends")
        with pytest.raises(Stopped):
            await probe.call("cchat_send", fd, 2)
        assert [record.message for record in probe.guest.log.read()] == ["Terminate execution: now"]


async def test_a_tool_that_never_returns_can_be_cancelled_and_leaves_the_loop_free():
    async with probe_with(wants(("c", "spins", "{}"))) as probe:
        fd = await prepare(probe, "spins")
        with trio.move_on_after(0.1) as scope:
            await probe.call("cchat_send", fd, 2)
        assert scope.cancelled_caught
        assert probe.guest.fiber.depth == 0
        assert await probe.call("time_now_ms") > 0  # the instance is still sound


@pytest.mark.parametrize("message", [None, [], "x", {"tool_calls": []}, {"tool_calls": {}}, {"tool_calls": [1]}])
def test_final_answers(message: Any):
    assert requested_calls({"choices": [{"message": message}]}) == ()


def test_one_bad_call_makes_the_answer_final():
    good = {"id": "1", "type": "function", "function": {"name": "f", "arguments": {"b": 1, "a": "ü"}}}
    (call,) = requested_calls({"choices": [{"message": {"tool_calls": [good]}}]})
    assert call.arguments == '{"a":"ü","b":1}'
    for key, bad in (("id", 1), ("type", None), ("function", "f"), ("function", {"name": "f"})):
        assert requested_calls({"choices": [{"message": {"tool_calls": [good, {**good, key: bad}]}}]}) == ()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('aü"\\{', max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "message", "tool_calls", "id", "type", "function", "name", "arguments", "x"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@RELAXED
@given(st.dictionaries(st.sampled_from(["choices", "message"]), JSON))
def test_any_body_is_understood_or_final(body: dict[str, Any]):
    for call in requested_calls(body):
        assert all(isinstance(one, str) for one in (call.id, call.type, call.name, call.arguments))


@RELAXED
@given(JSON)
def test_any_tool_text_has_a_name_or_none(value: Any):
    name, _ = inspect_tool(json.dumps(value), 10)
    assert name is None or name


@RELAXED
@given(
    st.dictionaries(
        st.sampled_from(["max_iterations", "max_total_tool_calls", "max_tool_calls", "max_tool_output_bytes"]), JSON
    )
)
def test_limits_are_clamped_or_default(params: dict[str, Any]):
    limits = loop_limits(params)
    assert 0 <= limits.max_iterations <= 128
    assert 0 <= limits.max_total_tool_calls <= 10_000
    assert 0 <= limits.max_tool_output_bytes <= 1_048_576


def test_limit_defaults_and_alias():
    assert loop_limits({}).max_iterations == 8
    assert loop_limits({"max_tool_calls": 5}).max_total_tool_calls == 5
    assert loop_limits({"max_tool_calls": 5, "max_total_tool_calls": 6}).max_total_tool_calls == 6
    assert loop_limits({"max_tool_calls": 5, "max_total_tool_calls": "6"}).max_total_tool_calls == 5
    assert loop_limits({"max_iterations": True}).max_iterations == 8
    assert loop_limits({"max_iterations": -1}).max_iterations == 8
    assert loop_limits({"max_iterations": 10**6}).max_iterations == 128
    assert loop_limits({"max_tool_output_bytes": 10**9}).max_tool_output_bytes == 1_048_576
