"""cchat_send with STREAM and ASYNC: what the guest reads, and when each step is ready."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
import trio.testing

from spear.hostcall import ChatReply, Limits
from spear.hostcall._errno import ENOMEM
from spear.hostcall._limits import MAX_EVENTS
from spear.ir import (
    AudioDelta,
    ContentDelta,
    ErrorCode,
    ReasoningDelta,
    Started,
    ToolCallDelta,
    Usage,
    UsageEvent,
    make_error,
)
from tests.spear.hostcall.probe import Probe, Scripted, Streaming, open_probe, success

METRICS, STREAM, ASYNC = 1, 4, 8
IN, HUP = 0x001, 0x010
ALL = 0x01D
STARTED = Started(backend="b", model="small", request_id="hidden")
BROKEN = ChatReply(
    {"error": {"message": "Runtime error: broke off"}}, error=make_error(ErrorCode.STREAM_TRUNCATED, "broke off")
)


def word(text: str = "x") -> ContentDelta:
    return ContentDelta(delta=text)


async def session_of(probe: Probe) -> int:
    fd = await probe.call("cchat_create")
    await probe.say(fd, "hello")
    return fd


async def ready(probe: Probe, fd: int) -> list[str]:
    raw = await probe.out("spear_fd_ctl", fd, 4)
    assert isinstance(raw, bytes)
    return [name.removeprefix("EPOLL") for name in json.loads(raw)["poll_mask"]]


async def read_all(probe: Probe, fd: int) -> list[dict[str, Any]]:
    epfd = await probe.call("spear_epoll_create")
    await probe.watch(epfd, fd, ALL)
    events = []
    with trio.fail_after(5):
        while True:
            raw = await probe.out("cchat_recv", fd)
            if raw == -11:
                await probe.wait(epfd, 5000)
            elif raw == b"":
                await probe.call("spear_epoll_close", epfd)
                return events
            else:
                assert isinstance(raw, bytes), raw
                assert raw == json.dumps(json.loads(raw), separators=(",", ":"), sort_keys=True).encode()
                events.append(json.loads(raw))


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked(0.005)


async def test_every_kind_of_event():
    usage = UsageEvent(usage=Usage(input_tokens=3, output_tokens=2))
    steps = [
        STARTED,
        ReasoningDelta(delta="hm"),
        word("Hel"),
        ToolCallDelta(call_index=1, id="c1", name="add", arguments="{"),
        ToolCallDelta(call_index=1, arguments="}"),
        AudioDelta(audio="AAAA", format="pcm16"),
        usage,
    ]
    async with open_probe(Streaming([*steps, success("Hello")])) as probe:
        response = await probe.call("cchat_send", await session_of(probe), STREAM | METRICS)
        assert response == 1001
        events = await read_all(probe, response)
        body = success("Hello").body
        rest = [
            {"type": "started", "backend": "b", "model": "small"},
            {"type": "reasoning_delta", "choice": 0, "delta": "hm"},
            {"type": "content_delta", "choice": 0, "delta": "Hel"},
            {"type": "tool_call_delta", "choice": 0, "call_index": 1, "id": "c1", "name": "add", "arguments": "{"},
            {"type": "tool_call_delta", "choice": 0, "call_index": 1, "id": None, "name": None, "arguments": "}"},
            {"type": "audio_delta", "choice": 0, "audio": "AAAA", "format": "pcm16"},
            {"type": "usage", "completion_tokens": 2, "prompt_tokens": 3, "total_tokens": 5},
            {"type": "completed", "finish_reason": "stop", "response": body},
        ]
        assert events == [{**event, "seq": seq, "round": 0} for seq, event in enumerate(rest, 1)]
        assert probe.guest.usage.requests == 1
        assert probe.guest.usage.input_tokens == 3
        assert await probe.out("spear_last_error") == b"{}"


async def test_readiness_at_each_step():
    more, last = trio.Event(), trio.Event()
    async with open_probe(Streaming([STARTED, more, word(), last, success()])) as probe:
        fd = await probe.call("cchat_send", await session_of(probe), STREAM | METRICS)
        assert await ready(probe, fd) == []
        assert await probe.out("cchat_recv", fd) == -11
        await settle()
        assert await ready(probe, fd) == ["IN"]
        first = await probe.out("cchat_recv", fd, capacity=10)
        assert first == -28  # peeked, not popped
        size = probe.u32(8)
        assert await ready(probe, fd) == ["IN"]
        raw = await probe.out("cchat_recv", fd, capacity=size)
        assert isinstance(raw, bytes)
        assert len(raw) == size
        assert json.loads(raw)["type"] == "started"
        assert await ready(probe, fd) == []
        assert await probe.out("cchat_recv", fd) == -11
        more.set()
        await settle()
        assert await probe.call("cchat_recv", fd, 1 << 20, 8) == -14  # nor is it popped by a bad range
        assert await ready(probe, fd) == ["IN"]
        assert b"content_delta" in await probe.out("cchat_recv", fd)  # type: ignore[operator]
        assert await probe.out("cchat_ctl", fd, 2) == b"{}"
        last.set()
        await settle()
        assert probe.guest.requests.in_flight == 0
        assert await probe.out("cchat_ctl", fd, 2) == b'{"completion_tokens":2,"prompt_tokens":3,"total_tokens":5}'
        assert b"usage" in await probe.out("cchat_recv", fd)  # type: ignore[operator]
        assert await ready(probe, fd) == ["IN"]  # the terminal event is not read yet
        assert b"completed" in await probe.out("cchat_recv", fd)  # type: ignore[operator]
        assert await ready(probe, fd) == ["IN", "HUP"]
        for _ in range(2):
            assert await probe.out("cchat_recv", fd, capacity=0) == b""
        assert await ready(probe, fd) == ["IN", "HUP"]
        epfd = await probe.call("spear_epoll_create")
        await probe.watch(epfd, fd, ALL)
        assert await probe.wait(epfd) == [(fd, IN | HUP)]
        await probe.watch(epfd, fd, IN, op=2)
        assert await probe.wait(epfd) == [(fd, IN)]  # HUP only if asked for
        await probe.call("cchat_close", fd)
        assert await ready(probe, fd) == ["HUP"]
        assert await probe.out("cchat_recv", fd) == -9


async def test_an_epoll_wakes_for_each_event():
    async with open_probe(Streaming([STARTED, 0.02, word(), 0.02, success()])) as probe:
        fd = await probe.call("cchat_send", await session_of(probe), STREAM)
        epfd = await probe.call("spear_epoll_create")
        await probe.watch(epfd, fd, ALL)
        seen = []
        with trio.fail_after(5):
            while "completed" not in seen:
                assert await probe.wait(epfd, -1) == [(fd, IN)]
                raw = await probe.out("cchat_recv", fd)
                assert isinstance(raw, bytes)
                seen.append(json.loads(raw)["type"])
            assert await probe.wait(epfd, -1) == [(fd, IN | HUP)]
        assert seen == ["started", "content_delta", "usage", "completed"]


async def test_async_gives_the_body_of_a_blocking_send():
    async with open_probe(Streaming([0.02, success("later")])) as probe:
        session = await session_of(probe)
        fd = await probe.call("cchat_send", session, ASYNC | METRICS)
        assert await probe.out("cchat_recv", fd) == -11
        assert await ready(probe, fd) == []
        assert await probe.out("cchat_ctl", fd, 2) == b"{}"
        epfd = await probe.call("spear_epoll_create")
        await probe.watch(epfd, fd, ALL)
        assert await probe.wait(epfd, 5000) == [(fd, IN)]
        blocking = await probe.call("cchat_send", session, METRICS)
        body = await probe.out("cchat_recv", fd)
        assert body == await probe.out("cchat_recv", fd)
        assert body == await probe.out("cchat_recv", blocking)
        assert await probe.out("cchat_ctl", fd, 2) == await probe.out("cchat_ctl", blocking, 2) != b"{}"
        assert await ready(probe, fd) == ["IN"]


async def test_stream_and_async_is_stream():
    async with open_probe(Streaming([success()])) as probe:
        fd = await probe.call("cchat_send", await session_of(probe), STREAM | ASYNC)
        assert [event["type"] for event in await read_all(probe, fd)] == ["usage", "completed"]


async def test_a_plain_send_leaves_the_session_as_it_is_and_open():
    hold = trio.Event()
    chat = Streaming([hold, success()])
    async with open_probe(chat) as probe:
        session = await session_of(probe)
        first = await probe.call("cchat_send", session, ASYNC)
        assert await probe.say(session, "more") == 0
        second = await probe.call("cchat_send", session, STREAM)
        assert await probe.call("cchat_close", session) == 0
        hold.set()
        await settle()
        assert sorted(len(asked.messages) for asked in chat.asked) == [1, 2]  # as they were at the send
        assert b"_spear" in await probe.out("cchat_recv", first)  # type: ignore[operator]
        assert len(await read_all(probe, second)) == 2


async def test_errors_are_the_terminal_event_or_the_body():
    async with open_probe(Streaming([STARTED, word(), BROKEN])) as probe:
        session = await session_of(probe)
        fd = await probe.call("cchat_send", session, STREAM | METRICS)
        *_, last = await read_all(probe, fd)
        error = {
            "attempts": 0,
            "code": "stream_truncated",
            "message": "broke off",
            "operation": None,
            "rejected": {},
            "required": [],
            "retry_after_ms": None,
            "retryable": True,
        }
        assert last == {"error": error, "round": 0, "seq": 3, "type": "error"}
        assert await probe.out("cchat_ctl", fd, 2) == b"{}"
        raw = await probe.out("spear_last_error")
        assert isinstance(raw, bytes)
        assert json.loads(raw) == {**error, "call": "cchat_send", "errno": 0, "fd": fd}
        later = await probe.call("cchat_send", session, ASYNC | METRICS)
        await settle()
        assert await probe.out("cchat_recv", later) == b'{"error":{"message":"Runtime error: broke off"}}'
        assert await probe.out("cchat_ctl", later, 2) == b"{}"


async def test_check_order():
    chat = Streaming([trio.Event(), success()])
    async with open_probe(chat, limits=Limits(open_fds=4, in_flight=2)) as probe:
        session = await session_of(probe)
        for flag in (STREAM, ASYNC):
            assert await probe.call("cchat_send", 5, flag) == -9
        assert await probe.call("cchat_send", session, STREAM) == 1001
        assert await probe.call("cchat_send", session, ASYNC) == 1002
        assert await probe.call("cchat_send", session, ASYNC) == -11  # before the fd cap
        assert await probe.call("cchat_close", 1002) == 0
        assert await probe.call("cchat_send", session, STREAM) == 1003
        assert await probe.call("cchat_close", 1003) == 0
        assert await probe.call("cchat_create") == 1004
        assert await probe.call("cchat_create") == 1005
        assert await probe.call("cchat_send", session, ASYNC) == -12
        await settle()
        assert len(chat.asked) == 3
        assert chat.left == 2
        assert probe.guest.requests.in_flight == 1


async def test_32_in_flight_and_blocking_sends_are_not_counted():
    hold = trio.Event()
    async with open_probe(Streaming([hold, success()])) as probe:
        session = await session_of(probe)
        fds = [await probe.call("cchat_send", session, STREAM if n % 2 else ASYNC) for n in range(32)]
        assert min(fds) > 0
        assert await probe.call("cchat_send", session, ASYNC) == -11
        assert await probe.call("cchat_send", session, STREAM) == -11
        hold.set()
        assert await probe.call("cchat_send", session, 0) > 0
        await settle()
        assert probe.guest.requests.in_flight == 0  # queued, though nobody has read them
        assert await probe.call("cchat_send", session, ASYNC) > 0


async def test_starting_and_closing_in_a_loop_heaps_nothing_up():
    chat = Streaming([trio.Event(), success()])
    async with open_probe(chat) as probe:
        session = await session_of(probe)
        nursery = probe.guest.requests._nursery
        assert nursery is not None
        most = 0
        for _ in range(300):
            fd = await probe.call("cchat_send", session, ASYNC)
            most = max(most, len(nursery.child_tasks))
            if fd > 0:
                await probe.call("cchat_close", fd)
        assert most <= 64
        await settle()
        assert await probe.call("cchat_send", session, ASYNC) > 0


async def test_closing_cancels_and_frees():
    chat = Streaming([STARTED, word(), trio.Event(), success()])
    async with open_probe(chat) as probe:
        session = await session_of(probe)
        fd = await probe.call("cchat_send", session, STREAM)
        await settle()
        held = probe.guest.holdings.bytes
        assert await probe.call("cchat_close", fd) == 0
        assert probe.guest.requests.in_flight == 0
        assert probe.guest.holdings.bytes < held
        await settle()
        assert chat.left == 1
        assert await probe.out("cchat_recv", fd) == -9
        assert await probe.call("cchat_close", session) == 0
        assert probe.guest.holdings.bytes == 0


async def test_a_closed_session_counts_until_its_request_is_over():
    chat = Streaming([trio.Event(), success()])
    async with open_probe(chat) as probe:
        session = await session_of(probe)
        fd = await probe.call("cchat_send", session, ASYNC)
        await settle()
        await probe.call("cchat_close", session)
        assert probe.guest.holdings.bytes > 0
        await probe.call("cchat_close", fd)
        await settle()
        assert probe.guest.holdings.bytes == 0


async def test_a_guest_that_does_not_read_holds_the_backend_up():
    chat = Streaming([STARTED, *[word()] * (2 * MAX_EVENTS), success()])
    async with open_probe(chat) as probe:
        fd = await probe.call("cchat_send", await session_of(probe), STREAM)
        await settle()
        assert chat.emitted == MAX_EVENTS
        assert (chat.ended, probe.guest.requests.in_flight) == (0, 1)
        for n in range(10):
            assert b'"seq":%d' % (n + 1) in await probe.out("cchat_recv", fd)  # type: ignore[operator]
        await settle()
        assert chat.emitted == MAX_EVENTS + 10
        events = await read_all(probe, fd)
        assert len(events) == 2 * MAX_EVENTS + 1 + 2 - 10
        assert [event["seq"] for event in events] == list(range(11, 2 * MAX_EVENTS + 4))


async def test_a_timeout_bounds_the_whole_request(autojump_clock):
    chat = Streaming([STARTED, trio.Event(), success()])
    async with open_probe(chat) as probe:
        session = await session_of(probe)
        await probe.param(session, "timeout_ms", 300)
        fd = await probe.call("cchat_send", session, STREAM)
        later = await probe.call("cchat_send", session, ASYNC)
        await trio.sleep(0.29)
        assert await probe.out("cchat_recv", later) == -11
        await trio.sleep(0.02)
        assert b'"started"' in await probe.out("cchat_recv", fd)  # type: ignore[operator]
        error = json.loads(await probe.out("cchat_recv", fd))["error"]  # type: ignore[arg-type]
        assert (error["code"], error["retryable"]) == ("timeout", True)
        assert b"Runtime error: " in await probe.out("cchat_recv", later)  # type: ignore[operator]
        assert chat.left == 2


async def test_waiting_for_the_guest_counts_against_the_timeout(autojump_clock):
    chat = Streaming([*[word()] * (MAX_EVENTS + 5), success()])
    async with open_probe(chat) as probe:
        session = await session_of(probe)
        await probe.param(session, "timeout_ms", 1000)
        fd = await probe.call("cchat_send", session, STREAM)
        await trio.sleep(2)
        assert chat.left == 1
        events = await read_all(probe, fd)
        assert len(events) == MAX_EVENTS + 1  # what was queued, and the end
        assert events[-1]["error"]["code"] == "timeout"


@pytest.mark.parametrize("value", [0, -5, 1.5, "300", True, None, 10**30])
async def test_no_timeout(value: Any):
    async with open_probe(Streaming([0.01, success()])) as probe:
        session = await session_of(probe)
        await probe.param(session, "timeout_ms", value)
        fd = await probe.call("cchat_send", session, STREAM)
        assert (await read_all(probe, fd))[-1]["type"] == "completed"


async def test_a_body_too_large():
    async with open_probe(Streaming([success("y" * 300)]), limits=Limits(body_bytes=200)) as probe:
        session = await session_of(probe)
        fd = await probe.call("cchat_send", session, STREAM | METRICS)
        last = (await read_all(probe, fd))[-1]
        assert (last["error"]["code"], last["error"]["message"]) == ("backend_error", "response too large")
        later = await probe.call("cchat_send", session, ASYNC)
        await settle()
        assert await probe.out("cchat_recv", later) == b'{"error":{"message":"Runtime error: response too large"}}'


async def test_more_than_the_guest_may_hold():
    async with open_probe(Streaming([word("y" * 5000), success("y" * 5000)]), limits=Limits(held_bytes=4000)) as probe:
        session = await session_of(probe)
        fd = await probe.call("cchat_send", session, STREAM)
        events = await read_all(probe, fd)
        assert [event["type"] for event in events] == ["error"]
        assert events[0]["error"]["code"] == "overloaded"
        later = await probe.call("cchat_send", session, ASYNC)
        await settle()
        assert b"error" in await probe.out("cchat_recv", later)  # type: ignore[operator]
        assert await probe.call("cchat_send", session, 0) == ENOMEM  # as before


async def test_what_the_port_raises_ends_the_guest():
    class Bad(Scripted):
        async def stream(self, session: Any, emit: Any) -> ChatReply:
            raise ZeroDivisionError

    async def run() -> None:
        async with open_probe(Bad(success())) as probe:
            await probe.call("cchat_send", await session_of(probe), STREAM)
            await trio.sleep(5)

    with pytest.raises(ZeroDivisionError):
        await run()
