"""What a guest has the host hold outside of its memory: caps on texts, JSON values, and on everything together."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spear.hostcall import Limits, _json
from spear.hostcall._holdings import ITEM_BYTES, VALUE_BYTES
from spear.hostcall._session import ChatSession
from tests.spear.hostcall.probe import RELAXED, Probe, Scripted, open_probe, success

EMPTIES = "[" + ",".join(["{}"] * 99) + "]"  # a hundred values


def session_of(probe: Probe, fd: int) -> ChatSession:
    return probe.guest.fds.open(fd, ChatSession)


async def test_parameters_are_capped_by_values_not_only_by_bytes():
    async with open_probe(limits=Limits(session_json_values=250)) as probe:
        fd = await probe.call("cchat_create")
        value = json.loads(EMPTIES)
        assert await probe.param(fd, "a", value) == 0
        assert await probe.param(fd, "b", value) == 0
        before = probe.guest.holdings.bytes
        assert await probe.param(fd, "c", value) == -12
        assert await probe.param(fd, "a", value * 2) == -12
        assert session_of(probe, fd).params == {"a": value, "b": value}
        assert probe.guest.holdings.bytes == before  # a refused one costs nothing
        assert await probe.param(fd, "a", 1) == 0  # replacing by less gives room
        assert await probe.param(fd, "c", value) == 0
        assert session_of(probe, fd).json_values == 201


async def test_tools_are_capped_by_values_too():
    async with open_probe(limits=Limits(session_json_values=250)) as probe:
        fd = await probe.call("cchat_create")
        assert await probe.tool(fd, 0, EMPTIES) == 0
        assert await probe.tool(fd, 0, EMPTIES) == 0
        assert await probe.tool(fd, 0, EMPTIES) == -12
        assert await probe.tool(fd, 0, "no JSON at all") == 0
        assert len(session_of(probe, fd).tools) == 3


async def test_the_default_lets_256_rich_tools_through():
    schema = {"type": "object", "properties": {f"p{i}": {"type": "string", "description": "d"} for i in range(30)}}
    async with open_probe() as probe:
        fd = await probe.call("cchat_create")
        for i in range(256):
            tool = {"type": "function", "function": {"name": f"f{i}", "description": "d", "parameters": schema}}
            assert await probe.tool(fd, i, json.dumps(tool)) == 0


async def test_mcp_lists_are_counted():
    async with open_probe(limits=Limits(session_json_values=250)) as probe:
        fd = await probe.call("cchat_create")
        for key in ("mcp.tool_allowlist", "mcp.tool_denylist"):
            assert await probe.param(fd, key, [""] * 99) == 0
        assert await probe.param(fd, "mcp.server_ids", [""] * 99) == -12
        assert await probe.param(fd, "mcp.tool_allowlist", ["x"]) == 0
        assert await probe.param(fd, "mcp.server_ids", [""] * 99) == 0


async def test_all_sessions_and_bodies_share_one_total():
    async with open_probe(Scripted(success("b" * 3000)), limits=Limits(held_bytes=20_000)) as probe:
        holdings = probe.guest.holdings
        fds = [await probe.call("cchat_create") for _ in range(3)]
        assert await probe.say(fds[0], "x" * 5000) == 0
        assert holdings.bytes == len("user") + 5000 + ITEM_BYTES
        assert await probe.tool(fds[1], 0, "t" * 5000) == 0
        assert holdings.bytes == len("user") + 2 * (5000 + ITEM_BYTES)
        assert await probe.param(fds[2], "key", [1, 2]) == 0
        assert holdings.bytes > len("user") + 2 * (5000 + ITEM_BYTES) + 3 * VALUE_BYTES + ITEM_BYTES
        response = await probe.call("cchat_send", fds[0], 0)
        assert response > 0
        assert holdings.bytes > 14_000
        assert await probe.say(fds[2], "x" * 5000) == -12
        assert await probe.tool(fds[2], 0, "t" * 5000) == -12
        assert await probe.param(fds[2], "key", "v" * 7000) == -12
        assert await probe.call("cchat_send", fds[0], 0) > 0
        open_before = probe.guest.fds.open_count
        assert await probe.call("cchat_send", fds[0], 0) == -12  # the answer has no room
        assert probe.guest.fds.open_count == open_before
        await probe.call("cchat_close", response)
        assert await probe.call("cchat_send", fds[0], 0) > 0
        for fd in range(1000, 1010):
            await probe.call("cchat_close", fd)
        assert holdings.bytes == 0
        assert await probe.call("cchat_close", fds[0]) == 0  # a second close gives nothing back
        assert holdings.bytes == 0


async def test_small_items_are_not_free():
    async with open_probe(limits=Limits(held_bytes=10 * ITEM_BYTES)) as probe:
        fd = await probe.call("cchat_create")
        results = [await probe.say(fd, "") for _ in range(10)]
        assert results == [0] * 9 + [-12]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=20,
)


def count(value: Any) -> int:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(count(child) for child in children)


@RELAXED
@given(JSON_VALUES)
def test_values_are_counted(value: Any):
    assert _json.count_values(value, 10_000) == count(value)


@RELAXED
@given(JSON_VALUES, st.integers(0, 10))
def test_counting_stops_beyond_the_limit(value: Any, limit: int):
    assert (_json.count_values(value, limit) > limit) == (count(value) > limit)


@RELAXED
@given(JSON_VALUES, st.integers(0, 20))
def test_punctuation_never_calls_small_values_large(value: Any, limit: int):
    text = json.dumps(value, ensure_ascii=False).encode()
    if _json.surely_over(text, limit):
        assert count(value) > limit


@RELAXED
@given(st.text(alphabet='"\\,[{a\n'), st.integers(0, 20))
def test_punctuation_inside_strings_is_none(text: str, limit: int):
    assert not _json.surely_over(json.dumps([text] * 3).encode(), max(limit, 2))


def test_large_texts_are_seen_through_without_parsing():
    assert _json.surely_over(b"[" + b"{}," * 300_000, 100_000)
    assert not _json.surely_over(b'"' + b"{}," * 300_000, 0)  # one string, though it has no end
    assert not _json.surely_over(b'"' + b'\\",' * 300_000 + b'"', 0)
    assert not _json.surely_over(b'"",' * 100 + b'"x' * 300_000, 50)


async def test_a_large_parameter_is_refused_before_it_is_parsed(monkeypatch: pytest.MonkeyPatch):
    async with open_probe(limits=Limits(session_json_values=50)) as probe:
        fd = await probe.call("cchat_create")
        monkeypatch.setattr(_json, "parse", None)
        assert await probe.param(fd, "a", [[]] * 99) == -12
        pointer, length = probe.put(20_000, "[" + ",".join("1" * 101) + "]")
        probe.put_u32(8, length)
        assert await probe.call("spear_fd_ctl", fd, 1, pointer, 8) == -22
