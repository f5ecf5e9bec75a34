"""Records that no router has written: each is a decision or a line that is named; none reaches the terminal raw."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spear.router import POLICIES
from spear.router.record import Replay, Tally, Unreadable, Verdict, read_records
from spear.router.record._replay import _GENERATIONS
from tests.spear.router.record_world import decided, desk_of, log_of
from tests.spear.router.test_record_replay import three
from tests.spear.router.world import chat

ESCAPE = "\x1b]0;mine\x07\x9b31m\u202e"
VALUES = st.sampled_from(
    [None, True, 0, -1, 2**63, 10**400, -1.5, 5e-324, 1e308, "", ESCAPE, "a", [], [0, 0, 0], [-1], {}, {ESCAPE: 1}]
)


def log() -> list[dict[str, Any]]:
    desk = desk_of(three())
    decided(desk, chat(), 10.0)
    lines = [json.loads(line) for line in log_of(desk).splitlines()]
    lines[1]["inputs"]["instances"] = {"a": {"load": 2, "latency": [[30.0, 0.1, 0.2, 5.0, 1.0]], "limited": "rpm"}}
    lines[1]["facts"]["verdict"] = {"filter": "f", "dropped": [], "weights": {"a": 3}}
    return lines


LOG = log()


def places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [each for key, inner in items for each in ((*path, key), *places(inner, (*path, key)))]


def forged(path: tuple[str | int, ...], value: Any) -> bytes:
    lines = json.loads(json.dumps(LOG))
    at: Any = lines
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return b"".join(json.dumps(each).encode() + b"\n" for each in lines)


def replayed(data: bytes, policy: str | None = None) -> list[object]:
    replay, tally, found = Replay(policy), Tally(), []
    for each in read_records(io.BytesIO(data), "log"):
        result = each if isinstance(each, Unreadable) else replay.take(*each)
        if isinstance(result, Verdict):
            tally.add(result)
        found.append(result)
    json.dumps(tally.as_json(), allow_nan=False)
    return found


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from([path for path in places(LOG) if len(path) > 1]), VALUES, st.sampled_from([None, *sorted(POLICIES)])
)
def test_any_value_anywhere(path: tuple[str | int, ...], value: Any, policy: str | None) -> None:
    for each in replayed(forged(path, value), policy):
        assert not isinstance(each, Unreadable) or len(each.reason) < 500


@pytest.mark.parametrize("policy", sorted(POLICIES))
@pytest.mark.parametrize(
    ("path", "value"),
    [
        ((1, "facts", "verdict", "weights", "a"), 0),
        ((1, "facts", "verdict", "weights", "a"), 10**400),
        ((1, "facts", "input_tokens"), 10**400),
        ((1, "inputs", "instances", "a", "load"), 10**30),
        ((1, "inputs", "instances", "a", "latency", 0, 1), 1e308),
    ],
    ids=lambda each: str(each)[:24],
)
def test_numbers_that_no_router_writes(path: tuple[str | int, ...], value: Any, policy: str) -> None:
    assert len(replayed(forged(path, value), policy)) == 2


def test_a_file_of_generations_does_not_fill_the_memory() -> None:
    replay = Replay()
    for number in range(2 * _GENERATIONS):
        data = forged((0, "generation"), number).splitlines(keepends=True)[0]
        (found,) = read_records(io.BytesIO(data), "log")
        assert not isinstance(found, Unreadable)
        assert replay.take(*found) is None
    assert len(replay._generations) == _GENERATIONS


def test_nothing_of_a_file_reaches_a_terminal_raw(tmp_path: Any) -> None:
    name = os.fsencode(tmp_path) + b"/\x1b]0;name\x07\xff.jsonl"
    with open(name, "wb") as file:
        file.write(forged((1, "facts", "sizes"), {ESCAPE: "x"}) + forged((0, "kinds"), {ESCAPE: "x"}))
        file.write(forged((1, "request_id"), ESCAPE) + forged((1, "plan", "chosen"), ESCAPE))
        file.write(forged((1, "run"), ESCAPE))
    for more in ([], ["--policy", "cheapest"], ["--json"]):
        said = at_a_terminal("replay", name, *more)
        assert "sizes." in said
        assert "Traceback" not in said
        assert all(each.isprintable() or each in "\r\n\t" for each in said)
    assert "Traceback" not in at_a_terminal("mirror", "report", "--json", name)


def at_a_terminal(*arguments: str | bytes) -> str:
    """What a terminal would get of both outputs, without what JSON spells out."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-m", "spear.cli", *arguments], stdout=theirs, stderr=theirs)
    os.close(theirs)
    data = b""
    while True:
        try:
            more = os.read(ours, 65_536)
        except OSError:
            break
        if not more:
            break
        data += more
    os.close(ours)
    process.wait(30)
    return data.decode()
