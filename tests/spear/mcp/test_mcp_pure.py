"""Names, patterns, policies, lists of tools, messages: what needs no server."""

from __future__ import annotations

import fnmatch
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spear.mcp import Access, McpFailed, TaskPolicy, arguments_of, named, task_policy
from spear.mcp._failures import ConnectionLost
from spear.mcp._messages import (
    MAX_UNASKED_BYTES,
    UNASKED_BYTES_PER_S,
    Answer,
    Garbage,
    Lines,
    Notice,
    Question,
    Unasked,
    read_message,
    reply,
)
from spear.mcp._names import MAX_NAME, decode_name, encode_name
from spear.mcp._policy import matches
from spear.mcp._results import content_of, output_bytes, timeout_s
from spear.mcp._tools import MAX_ENTRIES, MAX_TOOL_BYTES, MAX_TOOLS, ListingReader, read_listing

FEW = settings(max_examples=50, deadline=None)
WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def test_the_name_of_the_specification():
    assert encode_name("fs", "read_file") == "mcp__ZnM__cmVhZF9maWxl"
    assert decode_name("mcp__ZnM__cmVhZF9maWxl") == (("fs", "read_file"),)
    assert decode_name("mcp.fs.read.file") == (("fs", "read.file"),)


@FEW
@given(WORDS, WORDS)
def test_a_name_means_what_it_was_made_of(server, tool):
    name = encode_name(server, tool)
    assert re.fullmatch(r"[A-Za-z0-9_-]+", name)
    assert (server, tool) in decode_name(name)


@pytest.mark.parametrize(
    "name", ["mcp__", "mcp__ZnM", "mcp__ZnM__", "mcp__ZnM=__cmVhZA", "mcp__Zn!__cmVhZA", "mcp.", "mcp.fs", "mcp..x",
             "mcp.fs.", "mcp__" + "A" * MAX_NAME, "mcp.a." + "b" * MAX_NAME]
)  # fmt: skip
def test_what_is_no_name(name):
    assert decode_name(name) == ()


def test_a_name_with_several_meanings_is_that_of_a_server_one_has():
    one, other = "\x03\xfe", "x"  # whatever is ambiguous: all readings are there, and membership decides
    name = encode_name(one, other)
    assert named(Access(True, (one,)), name, {}) == (one, other)
    with pytest.raises(McpFailed, match=r"^unknown mcp server$"):
        named(Access(True, ("another",)), name, {})


def test_an_underscore_pair_inside_of_base64url():
    # 0xff 0xff 0xff is "____" in base64url; UTF-8 cannot say that, but U+FFFF ends in 0xbf 0xbf: "77-_"
    for server in ("\uffff\uffff", "~?~?~?", "ÿÿÿ"):
        for tool in ("\uffff", "t"):
            assert (server, tool) in decode_name(encode_name(server, tool))


@FEW
@given(st.text("ab*?", max_size=8), st.text("ab", max_size=10))
def test_patterns_are_those_of_a_shell_without_brackets(pattern, text):
    assert matches(pattern.encode(), text.encode()) == fnmatch.fnmatchcase(text, pattern)


def test_a_question_mark_is_one_byte():
    assert not matches(b"?", "é".encode())
    assert matches(b"??", "é".encode())
    assert not matches(b"READ", b"read")
    assert not matches(b"read", b"read_file")


def test_a_pattern_of_stars_takes_no_time():
    assert not matches(b"*a" * 100 + b"b", b"a" * 1000)


@pytest.mark.parametrize("yes", ["true", "1", "yes", "Y", " ON "])
def test_a_task_that_enables(yes):
    policy = task_policy({"mcp.enabled": yes, "mcp.default_server_ids": "fs, git,fs,, x"})
    assert policy.enabled
    assert policy.allowed_servers == {"fs", "git", "x"}
    assert policy.first_servers == ("fs", "git", "x")


def test_a_task_with_lists_of_json():
    policy = task_policy(
        {
            "mcp.enabled": "true",
            "mcp.default_server_ids": '["a","b", 3]',
            "mcp.allowed_server_ids": '["b"]',
            "mcp.tool_allowlist": '["read_*"]',
            "mcp.tool_denylist": "read_secret",
        }
    )
    assert policy.first_servers == ("b",)
    assert policy.allowlist == ("read_*",)
    assert policy.denylist == ("read_secret",)


def test_a_task_that_says_nothing():
    assert task_policy({"other": "1"}) == TaskPolicy()
    assert not task_policy({"mcp.enabled": "maybe", "mcp.default_server_ids": "a"}).first_servers


ORDER = [
    ("server policy", {"allowed": ()}),
    ("server policy", {"allowed": ("write_*",)}),
    ("task allowlist", {"task": TaskPolicy(allowlist=("write_*",))}),
    ("task denylist", {"task": TaskPolicy(denylist=("read_?",))}),
    ("session allowlist", {"allowlist": ("x",)}),
    ("session denylist", {"denylist": ("*",)}),
]


@pytest.mark.parametrize(("who", "more"), ORDER)
def test_who_denies(who, more):
    allowed = more.pop("allowed", ("*",))
    denied = Access(True, ("fs",), **more).denied(allowed, "read_1")
    assert denied == f"mcp tool denied by {who}"
    more["allowed"] = allowed


def test_who_denies_first():
    access = Access(True, ("fs",), ("x",), ("*",), TaskPolicy(allowlist=("y",), denylist=("*",)))
    assert access.denied((), "t").endswith("server policy")
    assert access.denied(("*",), "t").endswith("task allowlist")
    assert access.denied(("*",), "y").endswith("task denylist")


def test_texts_of_names():
    for access, name, text in (
        (Access(False, ("fs",)), "mcp.fs.x", "mcp not enabled"),
        (Access(True, ("fs",)), "mcp.fs", "invalid mcp tool name"),
        (Access(True, ("fs",)), "mcp.git.x", "unknown mcp server"),
    ):
        with pytest.raises(McpFailed) as failed:
            named(access, name, {})
        assert str(failed.value) == text


def test_an_offered_name_needs_no_decoding():
    assert named(Access(True, ("fs",)), "mcp__anything", {"mcp__anything": ("fs", "t")}) == ("fs", "t")


def definition(entry):
    [tool] = read_listing("fs", [entry]).tools
    return json.loads(tool.definition)


def test_a_definition():
    schema = {"type": "object", "properties": {"path": {"type": "string"}}}
    assert definition({"name": "read_file", "description": "Reads.", "inputSchema": schema}) == {
        "type": "function",
        "function": {"name": "mcp__ZnM__cmVhZF9maWxl", "description": "Reads.", "parameters": schema},
    }
    assert definition({"name": "x", "input_schema": schema})["function"]["parameters"] == schema
    assert definition({"name": "x", "description": 5})["function"] == {
        "name": "mcp__ZnM__eA",
        "description": "",
        "parameters": {"type": "object"},
    }


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ("x", "is no object"),
        ({}, "has no name"),
        ({"name": ""}, "has no name"),
        ({"name": "x" * 300}, "its name has more than 256 bytes"),
        ({"name": "x", "inputSchema": "string"}, "its schema is no object"),
        ({"name": "x", "inputSchema": []}, "its schema is no object"),
        ({"name": "x", "inputSchema": {"type": "string"}}, 'its schema is not of type "object"'),
        ({"name": "x", "inputSchema": {"properties": []}}, "its schema has properties that are no object"),
        ({"name": "x", "inputSchema": {"required": "a"}}, "its schema has a `required` that is no list of names"),
        ({"name": "x", "description": "d" * MAX_TOOL_BYTES}, f"it has more than {MAX_TOOL_BYTES} bytes"),
    ],
)
def test_what_is_no_tool_is_left_out_and_the_others_stay(entry, why):
    listing = read_listing("fs", [{"name": "good"}, entry, {"name": "fine"}])
    assert [tool.name for tool in listing.tools] == ["good", "fine"]
    assert listing.left_out == (f"number 1: {why}",)


def test_equal_names_and_too_many():
    assert read_listing("s", [{"name": "a"}, {"name": "a"}]).left_out == ("number 1: its name is there twice",)
    listing = read_listing("s", [{"name": f"t{n}"} for n in range(MAX_TOOLS + 5)])
    assert len(listing.tools) == MAX_TOOLS
    assert len(listing.left_out) == 1


@pytest.mark.parametrize("what", [b"[],", b"1,", b'{"a":1},'])
def test_a_message_of_very_many_values_is_not_read(what):
    with pytest.raises(ConnectionLost, match="more than 500000 values"):
        read_message(b'{"jsonrpc":"2.0","id":1,"result":[' + what * 2_000_000 + b"1]}")


def test_what_stands_in_a_text_is_no_value():
    text = '[],"\\{,' * 300_000
    found = read_message(json.dumps({"jsonrpc": "2.0", "id": 1, "result": text}).encode())
    assert found == Answer(1, text)


def test_a_list_of_nothing_but_rubbish_is_not_read_to_its_end():
    reader = ListingReader("s")
    for _ in range(3):
        reader.add([1] * 1_000_000)
        assert reader.full
        assert len(reader.listing.left_out) <= MAX_ENTRIES + 3
    assert "from number 2048 on" in reader.listing.left_out[-1]


@FEW
@given(st.lists(JSON, max_size=5))
def test_any_list_is_read(entries):
    for tool in read_listing("s", entries).tools:
        assert json.loads(tool.definition)["function"]["name"] == tool.full_name


@FEW
@given(JSON)
def test_any_value_is_a_message(value):
    message = read_message(json.dumps({"jsonrpc": "2.0", **value} if isinstance(value, dict) else value).encode())
    assert isinstance(message, Answer | Question | Notice | Garbage)
    if isinstance(message, Question):
        assert json.loads(reply(message))["id"] == message.id


@FEW
@given(st.binary(max_size=40))
def test_any_bytes_are_a_message(data):
    assert isinstance(read_message(data), Answer | Question | Notice | Garbage)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"jsonrpc":"2.0","id":1,"result":{}}', Answer(1, {})),
        ('{"jsonrpc":"2.0","id":1,"result":null}', Answer(1, None)),
        ('{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"no\\n such"}}', Answer(1, error="no such")),
        ('{"jsonrpc":"2.0","id":1,"error":"x"}', Answer(1, error="an error without a message")),
        ('{"jsonrpc":"2.0","id":1}', Answer(1, error="an answer that is neither a result nor an error")),
        ('{"jsonrpc":"2.0","id":"1","result":{}}', Garbage("an answer to no request of ours")),
        ('{"jsonrpc":"2.0","id":true,"result":{}}', Garbage("an answer to no request of ours")),
        ('{"jsonrpc":"2.0","id":7,"method":"ping"}', Question(7, "ping")),
        ('{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}', Notice("notifications/tools/list_changed")),
        ('{"id":1,"result":{}}', Garbage("no JSON-RPC 2.0 message")),
        ("[]", Garbage("no JSON-RPC 2.0 message")),
    ],
)
def test_messages(text, message):
    assert read_message(text.encode()) == message


def test_a_ping_is_answered_and_nothing_else_is_offered():
    assert json.loads(reply(Question("a", "ping"))) == {"jsonrpc": "2.0", "id": "a", "result": {}}
    assert json.loads(reply(Question(1, "sampling/createMessage")))["error"]["code"] == -32601


@FEW
@given(st.lists(st.binary(max_size=6).map(lambda b: b.replace(b"\n", b"x")), max_size=6), st.data())
def test_lines_do_not_depend_on_how_they_come(lines, data):
    whole = b"".join(line + b"\n" for line in lines)
    cut = data.draw(st.integers(0, len(whole)))
    reader = Lines()
    assert [*reader.feed(whole[:cut]), *reader.feed(whole[cut:])] == [line.strip() for line in lines if line.strip()]


def test_a_line_without_end():
    lines = Lines(most=10)
    lines.feed(b"1234567890")
    with pytest.raises(ConnectionLost, match="more than 10 bytes"):
        lines.feed(b"1")


def test_a_flood_and_a_trickle():
    unasked = Unasked(0.0)
    for second in range(1000):
        unasked.add(UNASKED_BYTES_PER_S, float(second))
    with pytest.raises(ConnectionLost, match="floods"):
        unasked.add(MAX_UNASKED_BYTES + 1, 1000.0)


def test_contents_are_cut_at_a_character():
    result = {"content": [{"type": "text", "text": "é" * 10}]}
    whole = content_of(result, 1000)
    assert json.loads(whole) == result
    for most in range(len(whole.encode())):
        cut = content_of(result, most)
        assert whole.startswith(cut)
        assert most - 1 <= len(cut.encode()) <= most


@pytest.mark.parametrize(
    ("wanted", "server", "bytes_"),
    [(None, 0, 65_536), (10, 0, 10), (10, 5, 5), (0, 5, 0), ("x", 0, 65_536), (True, 0, 65_536), (2**40, 0, 10_485_760),
     (None, 2**20, 65_536)],
)  # fmt: skip
def test_output_caps(wanted, server, bytes_):
    assert output_bytes(wanted, server) == bytes_


def test_timeouts():
    assert timeout_s(0, 8000, 120_000) == pytest.approx(8)
    assert timeout_s(1, 8000, 120_000) == pytest.approx(0.1)
    assert timeout_s(10**9, 8000, 120_000) == pytest.approx(120)


@pytest.mark.parametrize(("text", "value"), [('{"a":1}', {"a": 1}), ("[1]", None), ("", None), ("{", None)])
def test_arguments(text, value):
    assert arguments_of(text) == value
