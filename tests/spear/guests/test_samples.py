"""The committed sample guests do what they say; every compiler's build of them does the same."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import spear.guests
from spear.guests.rebuild import check_compiler, check_record
from tests.spear.guests.fake_host import FakeHost, compact, completion

HERE = Path(__file__).parent
SAMPLES = spear.guests.include_dir()


def answer(session):
    tool = [message["content"] for message in session.messages if message["role"] == "tool"]
    return compact(
        completion(f"the tool says {tool[0]}" if tool else f"you said {session.messages[-1]['content']}")
    ).encode()


def transcript(module, entry="_start"):
    host = FakeHost(body_of=answer)
    code = host.run(module, entry)
    return code, host.stdout.decode(), host.stderr.decode(), host.logs, [vars(session) for session in host.sessions]


def test_hello():
    assert transcript(spear.guests.path("hello"))[:4] == (
        0,
        "hello, world\n",
        "and this is stderr\n",
        [(2, "hello from a guest")],
    )
    assert transcript(spear.guests.path("hello"), "answer")[0] == 42
    assert transcript(spear.guests.path("hello"), "fail")[0] == 7


def test_hello_in_text_form():
    assert transcript(spear.guests.path("hello.wat"))[3] == [(2, "hello from text")]


def test_chat():
    code, out, err, _, (session,) = transcript(spear.guests.path("chat"))
    assert (code, out, err) == (0, "you said In one sentence: what is an actor?\n", "")
    assert [message["role"] for message in session["messages"]] == ["system", "user"]
    assert session["params"] == {}


@pytest.mark.parametrize("name", ["chat", "chat_tool"])
def test_an_error_body_goes_to_stderr_and_the_exit_code(name):
    host = FakeHost(body_of=lambda session: b'{"error":{"message":"Runtime error: \\"down\\""}}')
    assert host.run(spear.guests.path(name)) == 1
    assert host.stderr.decode() == 'Runtime error: "down"\n'


def test_chat_tool():
    code, out, _, logs, (session,) = transcript(spear.guests.path("chat_tool"))
    assert code == 0
    assert out.splitlines()[0] == "the tool says 42"
    assert out.splitlines()[1].startswith("metrics: {")
    assert logs == [(2, "add(20, 22) = 42")]
    ((_, schema),) = session["tools"]
    assert json.loads(schema)["function"]["name"] == "add"
    assert session["params"]["tool_arena_ptr"] % 8 == 0
    assert session["params"]["tool_arena_len"] == 131_072


def test_epoll_loop():
    code, out, err, *_ = transcript(spear.guests.path("epoll_loop"))
    assert (code, err) == (0, "")
    assert out.count(" ok\n") == 23
    assert "WRONG" not in out


def test_an_epoll_that_misbehaves_is_noticed():
    class Lying(FakeHost):
        def close(self, caller, fd):
            return 0  # ... and nothing is closed

    host = Lying(body_of=answer)
    assert host.run(spear.guests.path("epoll_loop")) == 1
    assert b"a closed fd cannot be read" in host.stderr


@pytest.mark.parametrize("directory", [SAMPLES, HERE], ids=["samples", "tests"])
def test_sources_header_and_modules_are_those_of_the_record(directory):
    assert check_record(directory) == []


@pytest.fixture(scope="module")
def compilers():
    found = spear.guests.find_compilers()
    if not found:
        pytest.skip("no compiler for wasm32-wasi is installed")
    return found


@pytest.mark.parametrize("directory", [SAMPLES, HERE], ids=["samples", "tests"])
def test_every_compiler_makes_the_same_surface_and_the_recorded_one_the_same_bytes(compilers, directory):
    assert [problem for compiler in compilers for problem in check_compiler(directory, compiler)] == []


@pytest.mark.parametrize("name", ["hello", "chat", "chat_tool"])
def test_every_compiler_makes_the_same_behaviour(compilers, name, tmp_path):
    for at, compiler in enumerate(compilers):
        made = spear.guests.build(SAMPLES / f"{name}.c", tmp_path / f"{at}.wasm", compiler=compiler)
        *seen, sessions = transcript(made)
        *expected, expected_sessions = transcript(spear.guests.path(name))
        assert seen == expected, compiler.identity
        assert [session["messages"] for session in sessions] == [s["messages"] for s in expected_sessions]


def test_epoll_loop_of_every_compiler(compilers, tmp_path):
    for at, compiler in enumerate(compilers):
        made = spear.guests.build(SAMPLES / "epoll_loop.c", tmp_path / f"{at}.wasm", compiler=compiler)
        assert transcript(made)[0] == 0, compiler.identity


def test_paths_and_names():
    assert spear.guests.names() == [
        *("capabilities", "chat", "chat_stream", "chat_tool", "embed", "epoll_loop", "four_at_once", "hello", "image"),
        *("local_filter", "speech"),
    ]
    assert spear.guests.path("spear.h").parent == spear.guests.include_dir()
    for wrong in ("nothing", "../secrets", "__init__.py", ""):
        with pytest.raises(FileNotFoundError, match="there are: capabilities, chat, chat_stream"):
            spear.guests.path(wrong)


def test_the_examples_of_the_reference_page_build_and_run(compilers, tmp_path):
    page = (HERE.parents[2] / "docs" / "reference" / "guest-abi.md").read_text(encoding="utf-8")
    source = tmp_path / "first.c"
    source.write_text(re.findall(r"```c\n(.*?)```", page, re.DOTALL)[0], encoding="ascii")
    first = transcript(spear.guests.build(source, compiler=compilers[0]))
    assert first[:2] == (0, "you said In one sentence: what is an actor?\n")
    (text_form,) = re.findall(r"```wat\n(.*?)```", page, re.DOTALL)
    assert text_form in spear.guests.path("hello.wat").read_text(encoding="ascii")
