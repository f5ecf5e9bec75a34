"""The misbehaving guests really misbehave, each entry in its own way; what a host makes of it is tested elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import wasmtime

from tests.spear.guests.fake_host import FakeHost, compact, completion, load

MODULE = Path(__file__).with_name("tool_faults.wasm")


def run(entry):
    host = FakeHost(body_of=lambda session: compact(completion(session.messages[-1]["content"])).encode())
    code = host.run(MODULE, entry)
    return code, host


@pytest.mark.parametrize(
    ("entry", "content"),
    [
        ("tool_fails", "rc 77"),
        ("tool_echoes", '{"a":20,"b":22}'),
        ("tool_says_capacity", "at 16, cap 65536, len at 65552"),
        ("tool_in_a_small_arena", "at 16, cap 72, len at 88"),
        ("tool_empty", ""),
        ("tool_asks_again", "rc -28"),
        ("tool_always_asks", "rc -28"),
        ("tool_asks_too_much", "rc -28"),
        ("tool_chats", "inner question"),
    ],
)
def test_tools_that_return(entry, content):
    code, host = run(entry)
    assert code == 0
    assert host.sessions[0].messages[-1]["content"] == content


@pytest.mark.parametrize("entry", ["tool_traps", "tool_overflows", "trap", "overflow"])
def test_entries_that_trap(entry):
    with pytest.raises(wasmtime.Trap):
        run(entry)


def test_an_entry_that_exits():
    assert run("tool_exits")[0] == 9


def test_the_other_entries_are_there():
    names = {one.name for one in load(MODULE).exports}
    assert names >= {
        "tool_lies",
        "tool_no_utf8",
        "tool_recurses",
        "tool_spins",
        "tool_sleeps",
        "tool_closes",
        "tool_scribbles",
        "tool_of_wrong_type",
        "tool_out_of_range",
        "tool_negative",
        "tool_null",
        "tool_without_arena",
        "tool_arena_too_small",
        "tool_arena_outside",
        "spin",
        "sleep_an_hour",
    }
