"""Any order of sends, reads, waits and closes: nothing is lost, nothing is left, and every stream has one end."""

from __future__ import annotations

import json
from typing import Any

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from spear.hostcall import Limits
from spear.hostcall._session import ChatSession
from spear.ir import ContentDelta, Started
from tests.spear.hostcall.probe import RELAXED, Probe, Streaming, open_probe, success, wants
from tests.spear.hostcall.test_chat_stream import BROKEN, settle
from tests.spear.hostcall.test_tool_loop import TOOLS, prepare

STARTED = Started(backend="b", model="m")
WORDS = [ContentDelta(delta=f"word {n}") for n in range(6)]
CALLS = wants(("c1", "echo", "{}"), ("c2", "trap", "{}"), ("c3", "sends", "{}"), ("c4", "nix", "{}"))
ROUNDS = st.sampled_from([[STARTED, *WORDS, success("done")], [STARTED, CALLS], [STARTED, *WORDS, BROKEN], [CALLS]])
STEPS = st.one_of(
    st.tuples(st.just("send"), st.sampled_from([4, 8, 6, 10, 12])),
    st.tuples(st.just("recv"), st.integers(0, 5)),
    st.tuples(st.just("small"), st.integers(0, 5)),
    st.tuples(st.just("close"), st.integers(0, 5)),
    st.tuples(st.just("settle"), st.just(0)),
    st.tuples(st.just("say"), st.just(0)),
    st.tuples(st.just("status"), st.integers(0, 5)),
    st.tuples(st.just("drop session"), st.just(0)),
)


class Reader:
    """What one response gave."""

    def __init__(self, fd: int, flags: int) -> None:
        self.fd = fd
        self.stream = bool(flags & 4)
        self.seen: list[dict[str, Any]] = []
        self.closed = False

    async def read(self, probe: Probe, capacity: int) -> None:
        raw = await probe.out("cchat_recv", self.fd, at=30_000, capacity=capacity)
        if self.closed:
            assert raw == -9
        elif isinstance(raw, bytes):
            assert raw or (self.stream and self.seen[-1]["type"] in {"completed", "error"})
            if raw and self.stream:
                self.seen.append(json.loads(raw))
        else:
            assert raw in {-11, -28}

    def check(self) -> None:
        assert [event["seq"] for event in self.seen] == list(range(1, len(self.seen) + 1))
        ends = [event["type"] in {"completed", "error"} for event in self.seen]
        assert not any(ends[:-1])
        rounds = [event["round"] for event in self.seen]
        assert rounds == sorted(rounds)


@settings(RELAXED, max_examples=25)
@given(rounds=st.lists(ROUNDS, min_size=1, max_size=4), steps=st.lists(STEPS, max_size=40))
async def test_any_order(rounds: list[list[Any]], steps: list[tuple[str, int]]):
    chat = Streaming(*rounds, [STARTED, success("done")])
    async with open_probe(chat, pages=4, extra=TOOLS, limits=Limits(in_flight=3)) as probe:
        session = await prepare(probe, "echo", "trap", "sends")
        readers: list[Reader] = []
        for what, number in steps:
            await step(probe, session, readers, what, number)
        with trio.fail_after(10):
            while probe.guest.requests.in_flight:
                for reader in readers:
                    await reader.read(probe, 30_000)
                await settle()
        for reader in readers:
            reader.check()
        await settle()
        entry = probe.guest.fds.get(session)
        assert isinstance(entry, ChatSession)
        if not entry.closed:
            assert entry.loop is None
            check_answers(entry.messages)
        for reader in readers:
            await probe.call("cchat_close", reader.fd)
        for fd in range(1001, 1001 + 200):  # those that a tool opened, too
            await probe.call("cchat_close", fd)
        await probe.call("cchat_close", session)
        await settle()
        assert probe.guest.holdings.bytes == 0
        assert probe.guest.requests.in_flight == 0


async def step(probe: Probe, session: int, readers: list[Reader], what: str, number: int) -> None:
    if what == "send":
        fd = await probe.call("cchat_send", session, number)
        if fd > 0:
            readers.append(Reader(fd, number))
        else:
            assert fd in {-11, -9}
    elif what == "settle":
        await settle()
    elif what == "say":
        assert await probe.say(session, "more") in {0, -11, -9}
    elif what == "drop session":
        await probe.call("cchat_close", session)
    elif number < len(readers):
        reader = readers[number]
        if what == "close":
            reader.closed = True
            assert await probe.call("cchat_close", reader.fd) == 0
        elif what == "status":
            assert isinstance(await probe.out("spear_fd_ctl", reader.fd, 4), bytes)
        else:
            await reader.read(probe, 30_000 if what == "recv" else 7)


def check_answers(messages: list[dict[str, Any]]) -> None:
    """Every call of an assistant has an answer, once."""
    asked = [call["id"] for message in messages for call in message.get("tool_calls", ())]
    answered = [message["tool_call_id"] for message in messages if message["role"] == "tool"]
    assert sorted(asked) == sorted(answered)
