"""The tool loop inside a send with STREAM or ASYNC: the guest's own tools run nested in its recv."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from spear.hostcall import ChatReply, Limits
from spear.hostcall._endings import Exited
from spear.hostcall._fds import HUP, IN
from spear.ir import Started
from tests.spear.hostcall.probe import Probe, Streaming, open_probe, success, wants
from tests.spear.hostcall.test_chat_stream import ALL, ASYNC, METRICS, STREAM, ready, settle
from tests.spear.hostcall.test_tool_loop import NAMES, TOOLS, messages, prepare

AUTO = 2
STARTED = Started(backend="b", model="small")
CANCELLED = '{"error":{"code":"cancelled","message":"not executed"}}'
RECV_INSIDE = """
 (func $again (param $args i32) (param $len i32) (param $out i32) (param $cap i32) (result i32)
   (i32.store (i32.const 40) (i32.const 60000))
   (i32.store (local.get $out) (i32.add (call $cchat_recv (i32.const 1001) (i32.const 4096) (i32.const 40))
     (i32.const 76)))
   (i32.store (local.get $cap) (i32.const 1)) (i32.const 0))
 (func $leaves (param $args i32) (param $len i32) (param $out i32) (param $cap i32) (result i32)
   (drop (call $cchat_close (i32.const 1001)))
   (i32.store (local.get $cap) (i32.const 0)) (i32.const 0))
 (table (export "__indirect_function_table") 2 funcref)
 (elem (i32.const 0) $again $leaves)
"""


def stream_with(*rounds: Any, extra: str = TOOLS, **more: Any):
    chat = Streaming(*(each if isinstance(each, list) else [STARTED, each] for each in rounds))
    return open_probe(chat, pages=4, extra=extra, **more)


async def next_event(probe: Probe, fd: int) -> dict[str, Any]:
    with trio.fail_after(5):
        while True:
            raw = await probe.out("cchat_recv", fd, at=30_000, capacity=30_000)
            if isinstance(raw, bytes):
                return json.loads(raw)
            assert raw == -11
            await settle()


async def types(probe: Probe, fd: int, until: str = "completed") -> list[tuple[str, int]]:
    found = []
    while not found or found[-1][0] != until:
        event = await next_event(probe, fd)
        found.append((event["type"], event["round"]))
    return found


def rest(probe: Probe, session: int) -> list[tuple[str, Any]]:
    return [(message["role"], message["content"]) for message in messages(probe, session)[1:]]


async def test_a_streamed_loop():
    async with stream_with(wants(("c1", "echo", '{"a":1}'), ("c2", "nix", "{}")), success("done")) as probe:
        session = await prepare(probe, "echo")
        fd = await probe.call("cchat_send", session, STREAM | AUTO | METRICS)
        assert [(await next_event(probe, fd))["type"] for _ in range(2)] == ["started", "usage"]
        call = await next_event(probe, fd)
        assert call == {
            "type": "tool_call",
            "seq": 3,
            "round": 0,
            "id": "c1",
            "name": "echo",
            "arguments": '{"a":1}',
        }
        await settle()
        assert rest(probe, session) == [("assistant", None)]  # the tool has not run
        assert await ready(probe, fd) == ["IN"]
        epfd = await probe.call("spear_epoll_create")
        await probe.watch(epfd, fd, ALL)
        assert await probe.wait(epfd, 1000) == [(fd, IN)]
        assert await probe.out("cchat_recv", fd, capacity=5) == -28  # it ran; its event stays
        assert rest(probe, session) == [("assistant", None), ("tool", '{"a":1}')]
        result = await next_event(probe, fd)
        assert result == {
            "type": "tool_result",
            "seq": 4,
            "round": 0,
            "id": "c1",
            "name": "echo",
            "content": '{"a":1}',
            "is_error": False,
        }
        assert (await next_event(probe, fd))["name"] == "nix"
        unknown = await next_event(probe, fd)
        assert unknown["is_error"]
        assert unknown["content"] == '{"error":{"code":"unknown_tool","message":"unknown tool: nix"}}'
        assert await types(probe, fd) == [("started", 1), ("usage", 1), ("completed", 1)]
        assert await probe.wait(epfd, 1000) == [(fd, IN | HUP)]
        assert await probe.out("cchat_ctl", fd, 2) == b'{"completion_tokens":4,"prompt_tokens":6,"total_tokens":10}'
        assert [role for role, _ in rest(probe, session)] == ["assistant", "tool", "tool", "assistant"]
        assert rest(probe, session)[-1] == ("assistant", "done")
        asked = probe.guest.chat.asked  # type: ignore[attr-defined]
        assert len(asked[1].messages) == 4


async def test_an_async_loop():
    async with stream_with(wants(("c1", "echo", '{"a":1}'), ("c2", "fails", "{}")), success("done")) as probe:
        session = await prepare(probe, "echo", "fails")
        fd = await probe.call("cchat_send", session, ASYNC | AUTO | METRICS)
        assert await probe.out("cchat_recv", fd) == -11  # nothing is due yet
        await settle()
        assert await ready(probe, fd) == ["IN"]  # a tool is due
        assert await probe.out("cchat_recv", fd) == -11
        assert rest(probe, session)[-1] == ("tool", '{"a":1}')
        assert await ready(probe, fd) == []
        await settle()
        assert await ready(probe, fd) == ["IN"]
        assert await probe.out("cchat_recv", fd) == -11
        assert "tool rc: 77" in rest(probe, session)[-1][1]
        await settle()
        assert (await probe.body(fd))["choices"][0]["message"]["content"] == "done"
        assert await ready(probe, fd) == ["IN"]
        assert await probe.out("cchat_ctl", fd, 2) == b'{"completion_tokens":4,"prompt_tokens":6,"total_tokens":10}'


@pytest.mark.parametrize("way", [STREAM, ASYNC])
async def test_the_session_is_the_loops_until_it_ends(way: int):
    async with stream_with(wants(("c1", "echo", "{}")), success("done"), limits=Limits(role_bytes=4)) as probe:
        session = await prepare(probe, "echo")
        fd = await probe.call("cchat_send", session, way | AUTO)
        await settle()
        call = probe.call
        assert await call("cchat_write_msg", session, -1, 1, 0, 1) == -14
        assert await call("cchat_write_msg", session, 0, 5, 0, 1) == -22
        assert await call("cchat_write_msg", 5, 0, 1, 0, 1) == -9
        assert await call("cchat_write_msg", session, 0, 1, 0, 1) == -11
        assert await call("cchat_write_fn", session, 0, -1, 1) == -14
        assert await call("cchat_write_fn", session, 0, 0, 1) == -11
        for flags in (0, AUTO, ASYNC, STREAM, STREAM | AUTO):
            assert await call("cchat_send", session, flags) == -11
        assert await probe.param(session, "temperature", 0.5) == 0
        while probe.guest.fds.open(session, object_session()).loop is not None:
            await probe.out("cchat_recv", fd)
            await settle()
        assert await call("cchat_write_msg", session, 0, 1, 0, 1) == 0
        first, second = probe.guest.chat.asked  # type: ignore[attr-defined]
        assert "temperature" not in first.params
        assert second.params["temperature"] == pytest.approx(0.5)


def object_session() -> Any:
    from spear.hostcall._session import ChatSession

    return ChatSession


@pytest.mark.parametrize("way", [STREAM, ASYNC])
async def test_closing_leaves_an_answer_to_every_call(way: int):
    async with stream_with(wants(("c1", "echo", "{}"), ("c2", "echo", "{}"), ("c3", "echo", "{}"))) as probe:
        session = await prepare(probe, "echo")
        fd = await probe.call("cchat_send", session, way | AUTO)
        await settle()
        while not any(role == "tool" for role, _ in rest(probe, session)):
            await probe.out("cchat_recv", fd)
        assert await probe.call("cchat_close", fd) == 0
        contents = [content for role, content in rest(probe, session) if role == "tool"]
        assert contents == ["{}", CANCELLED, CANCELLED]
        assert await probe.say(session, "on we go") == 0
        await settle()
        assert len(messages(probe, session)) == 6
        calls = messages(probe, session)[1]["tool_calls"]
        answered = [message["tool_call_id"] for message in messages(probe, session) if message["role"] == "tool"]
        assert answered == [call["id"] for call in calls]


async def test_a_due_tool_does_not_run_after_the_close():
    async with stream_with(wants(("c1", "twice", "{}"))) as probe:
        session = await prepare(probe, "twice")
        fd = await probe.call("cchat_send", session, ASYNC | AUTO)
        await settle()
        assert await ready(probe, fd) == ["IN"]
        await probe.call("cchat_close", fd)
        assert await probe.out("cchat_recv", fd) == -9
        assert await probe.call("calls_made") == 0
        assert rest(probe, session)[-1] == ("tool", CANCELLED)


async def test_closing_while_the_backend_is_asked():
    hold = [STARTED, trio.Event(), success()]
    async with stream_with(wants(("c1", "echo", "{}")), hold) as probe:
        session = await prepare(probe, "echo")
        fd = await probe.call("cchat_send", session, STREAM | AUTO)
        await types(probe, fd, "tool_result")
        await settle()
        await probe.call("cchat_close", fd)
        assert [role for role, _ in rest(probe, session)] == ["assistant", "tool"]
        await settle()
        assert probe.guest.chat.left == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("way", [STREAM, ASYNC])
async def test_closing_the_session_does_not_stop_the_request(way: int):
    async with stream_with(wants(("c1", "echo", '"x"')), success("done")) as probe:
        session = await prepare(probe, "echo")
        fd = await probe.call("cchat_send", session, way | AUTO)
        await settle()
        await probe.call("cchat_close", session)
        if way == STREAM:
            assert (await types(probe, fd))[-1] == ("completed", 1)
        else:
            for _ in range(2):
                await probe.out("cchat_recv", fd)
                await settle()
            assert (await probe.body(fd))["choices"][0]["message"]["content"] == "done"
        second = probe.guest.chat.asked[1]  # type: ignore[attr-defined]
        assert [message["role"] for message in second.messages] == ["user", "assistant", "tool"]
        await probe.call("cchat_close", fd)
        await settle()
        assert probe.guest.holdings.bytes == 0


@pytest.mark.parametrize("way", [STREAM, ASYNC])
async def test_a_recv_inside_the_tool_is_11(way: int):
    async with stream_with(wants(("c1", "tool", "{}")), success(), extra=RECV_INSIDE) as probe:
        session = await probe.call("cchat_create")
        await probe.tool(session, 0, '{"name":"tool"}')
        await probe.param(session, "tool_arena_ptr", 65536)
        await probe.param(session, "tool_arena_len", 65536)
        assert await probe.call("cchat_send", session, way | AUTO) == 1001
        for _ in range(20):
            await settle()
            await probe.out("cchat_recv", 1001)
        contents = [message["content"] for message in messages(probe, session) if message["role"] == "tool"]
        assert contents == [chr(76 - 11)]


@pytest.mark.parametrize("way", [STREAM, ASYNC])
async def test_a_tool_that_closes_its_own_response(way: int):
    async with stream_with(wants(("c1", "tool", "{}")), success(), extra=RECV_INSIDE) as probe:
        session = await probe.call("cchat_create")
        await probe.tool(session, 1, '{"name":"tool"}')
        await probe.param(session, "tool_arena_ptr", 65536)
        await probe.param(session, "tool_arena_len", 65536)
        fd = await probe.call("cchat_send", session, way | AUTO)
        raw: Any = 0
        while raw != -9:
            await settle()
            raw = await probe.out("cchat_recv", fd)
            assert raw == -9 or raw == -11 or isinstance(raw, bytes)
        assert messages(probe, session)[-1]["content"] == CANCELLED


async def test_a_deadline_while_the_tool_runs(autojump_clock):
    slow = wants(("c1", "sleeps", "{}"))
    async with stream_with(slow, success()) as probe:
        session = await prepare(probe, "sleeps")
        await probe.param(session, "timeout_ms", 3)  # it sleeps for 5
        fd = await probe.call("cchat_send", session, STREAM | AUTO)
        await types(probe, fd, "tool_call")
        with trio.fail_after(5):
            last = await next_event(probe, fd)
        assert last["error"]["code"] == "timeout"
        assert rest(probe, session)[-1] == ("tool", CANCELLED)
        assert await probe.out("cchat_recv", fd) == b""
        assert await probe.say(session, "again") == 0


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"max_iterations": 1}, "exceeded max_iterations"),
        ({"max_iterations": 0}, "exceeded max_iterations"),
        ({"max_total_tool_calls": 1}, "exceeded max_total_tool_calls"),
    ],
)
async def test_limits(params: dict[str, int], message: str):
    async with stream_with(wants(("c1", "echo", "{}"), ("c2", "echo", "{}")), success("done")) as probe:
        session = await prepare(probe, "echo")
        for key, value in params.items():
            await probe.param(session, key, value)
        fd = await probe.call("cchat_send", session, STREAM | AUTO | METRICS)
        event = {"type": ""}
        while event["type"] != "error":
            event = await next_event(probe, fd)
        assert (event["error"]["code"], event["error"]["message"]) == ("tool_call_limit", message)
        assert await probe.out("cchat_ctl", fd, 2) == b"{}"
        raw = await probe.out("spear_last_error")
        assert b"tool_call_limit" in raw  # type: ignore[operator]


async def test_a_session_that_grows_too_large():
    limits = Limits(session_messages=3)
    async with stream_with(wants(("c1", "echo", "{}"), ("c2", "echo", "{}")), success(), limits=limits) as probe:
        session = await prepare(probe, "echo")
        fd = await probe.call("cchat_send", session, STREAM | AUTO)
        event = {"type": ""}
        while event["type"] != "error":
            event = await next_event(probe, fd)
        assert event["error"]["code"] == "invalid_request"
        assert event["error"]["message"] == "session too large"
        assert len(messages(probe, session)) == 3
        assert probe.guest.fds.open(session, object_session()).loop is None


async def test_two_loops_at_once_each_with_its_tool():
    async with stream_with(wants(("c1", "echo", "{}")), wants(("c2", "echo", "[]")), success("done")) as probe:
        first = await prepare(probe, "echo")
        second = await prepare(probe, "echo")
        fds = [await probe.call("cchat_send", session, STREAM | AUTO) for session in (first, second)]
        for fd in fds:
            assert (await types(probe, fd))[-1] == ("completed", 1)


async def test_a_guest_that_ends_in_the_middle_leaves_nothing():
    chat = Streaming([STARTED, wants(("c1", "echo", "{}"))], [trio.Event(), success()])
    async with open_probe(chat, pages=4, extra=TOOLS) as probe:
        session = await prepare(probe, "echo")
        fd = await probe.call("cchat_send", session, STREAM | AUTO)
        await types(probe, fd, "tool_result")
        await settle()
    assert chat.left == 1
    assert probe.guest.requests.in_flight == 0


async def test_an_exit_inside_the_tool_ends_the_guest():
    chat = Streaming([wants(("c1", "exits", "{}"))])

    async def run() -> None:
        async with open_probe(chat, pages=4, extra=TOOLS) as probe:
            session = await prepare(probe, "exits")
            fd = await probe.call("cchat_send", session, ASYNC | AUTO)
            await settle()
            await probe.out("cchat_recv", fd)

    with pytest.raises(Exited):
        await run()


async def test_a_guest_that_is_cancelled_inside_the_tool():
    async with stream_with(wants(("c1", "spins", "{}"))) as probe:
        session = await prepare(probe, "spins")
        fd = await probe.call("cchat_send", session, ASYNC | AUTO)
        await settle()
        with trio.move_on_after(0.1) as scope:
            await probe.out("cchat_recv", fd)
        assert scope.cancelled_caught
        assert messages(probe, session)[-1]["role"] == "assistant"  # nobody will read it any more


async def test_a_guest_that_never_waits_still_gets_its_events():
    polls = """
 (func (export "polls") (param $fd i32) (result i32) (local $r i32) (local $n i32)
   (loop $l
     (i32.store (i32.const 8) (i32.const 4000))
     (local.set $r (call $cchat_recv (local.get $fd) (i32.const 4096) (i32.const 8)))
     (if (i32.gt_s (local.get $r) (i32.const 0)) (then (local.set $n (i32.add (local.get $n) (i32.const 1)))))
     (br_if $l (local.get $r)))
   (local.get $n))
"""
    chat = Streaming([STARTED, 0.01, STARTED, 0.01, success()])
    async with open_probe(chat, extra=polls) as probe:
        session = await probe.call("cchat_create")
        fd = await probe.call("cchat_send", session, STREAM)
        with trio.fail_after(5):
            assert await probe.call("polls", fd) == 3  # started only once


def test_names_are_those_of_the_table():
    assert NAMES[0] == "echo"
    assert isinstance(success(), ChatReply)
