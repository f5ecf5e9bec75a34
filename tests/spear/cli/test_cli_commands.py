"""Each command: what it prints, where, and the code it exits with; some in a process of their own."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from tests.spear.cli.command import (
    COMMAND,
    RUN_KEYS,
    USAGE_KEYS,
    environment,
    openai_backend,
    spear,
    spear_process,
    toml,
)
from tests.system.kit import CHAT_TOOL, GUESTS, HELLO

STUB = '[[spear.backends]]\nname = "stub"\nkind = "stub"\nhosting = "local"'


@pytest.fixture
def here(tmp_path):
    (tmp_path / "spear.toml").write_text(toml(STUB))
    return tmp_path


# --- run


def test_run_prints_what_the_guest_prints_where_it_belongs(here):
    done = spear_process("run", GUESTS, "--entry", "logs", cwd=here)
    assert (done.code, done.out) == (0, "out\n0\n")
    assert done.err == "[info] first\nerr\n[error] last\n"


def test_run_json_is_one_line(here):
    done = spear_process("run", CHAT_TOOL, "--json", cwd=here)
    assert (done.code, done.err) == (0, "")
    told = done.json
    assert set(told) == RUN_KEYS
    assert set(told["usage"]) == USAGE_KEYS
    assert (told["status"], told["exit_code"], told["error_message"]) == ("completed", 0, None)
    assert [set(record) for record in told["logs"]] == [{"seq", "ts_ms", "level", "message"}]
    assert told["usage"]["requests"] == 2
    assert "stub chat completion after tool" in told["stdout"]


@pytest.mark.parametrize(
    ("entry", "code", "status", "exit_code"),
    [
        ("exit_0", 0, "completed", 0),
        ("exit_1", 1, "failed", 1),
        ("exit_7", 7, "failed", 7),
        ("exit_256", 1, "failed", 256),
        ("exit_300", 44, "failed", 300),
        ("exit_minus_1", 255, "failed", None),
        ("trap", 125, "failed", None),
        ("no_such_entry", 125, "failed", None),
    ],
)
def test_run_exit_codes(here, entry, code, status, exit_code):
    done = spear("run", GUESTS, "--entry", entry, "--json", cwd=here)
    assert done.code == code
    told = done.json
    assert told["status"] == status
    if entry == "exit_minus_1":
        assert told["exit_code"] in {-1, 0xFFFFFFFF}
    else:
        assert told["exit_code"] == exit_code
    assert bool(told["error_message"]) == (code != 0)


def test_run_output_of_an_entry(here):
    assert spear("run", GUESTS, "--entry", "seven", cwd=here).out == "7\n"


def test_run_timeout(here):
    done = spear("run", GUESTS, "--entry", "sleep_an_hour", "--timeout", "0.3", cwd=here)
    assert done.code == 124
    assert done.err == "[info] here\n[warn] Terminate execution: timeout\nspear: timeout: timeout after 0.3 s\n"
    assert spear("run", GUESTS, "--entry", "spin", "--timeout", "0.3", "--json", cwd=here).json["status"] == "timeout"


def test_run_timeout_0_is_none(here):
    assert spear("run", GUESTS, "--entry", "sleep_a_little", "--timeout", "0", cwd=here).code == 0


@pytest.mark.parametrize("given", ["-1", "nan", "soon", "inf", "1e300"])
def test_run_refuses_other_timeouts(here, given):
    done = spear("run", HELLO, "--timeout", given, cwd=here)
    assert done.code == 2
    assert "--timeout" in done.err


@pytest.mark.parametrize("as_json", [False, True])
def test_run_not_a_module(here, as_json):
    guest = here / "notes.txt"
    guest.write_text("hello")
    done = spear("run", guest, *(["--json"] if as_json else []), cwd=here)
    assert done.code == 126
    if as_json:
        assert set(done.json) == RUN_KEYS
        assert done.json["status"] == "failed"
        assert "not WebAssembly" in done.json["error_message"]
    else:
        assert done.out == ""
        assert done.err.startswith("spear: notes.txt is not WebAssembly")
        assert done.err.count("\n") == 1


def test_run_a_module_that_cannot_be_linked(here):
    guest = here / "odd.wat"
    guest.write_text('(module (import "spear" "nix" (func)) (memory (export "memory") 1) (func (export "_start")))')
    done = spear("run", guest, cwd=here)
    assert done.code == 125
    assert "nix" in done.err
    assert "odd.wat" in done.err


@pytest.mark.parametrize("guest", ["missing.wasm", "."])
def test_run_without_a_file(here, guest):
    done = spear("run", guest, cwd=here)
    assert done.code == 2
    assert guest in done.err


def test_run_as_a_task(here):
    (here / "spear.toml").write_text(
        toml(STUB, '[[spear.tasks]]\nid = "tame"\nallow_operations = ["embeddings"]\nallow_backends = ["stub"]')
    )
    free = spear("run", GUESTS, "--entry", "chat_any", cwd=here)
    tame = spear("run", GUESTS, "--entry", "chat_any", "--task", "tame", cwd=here)
    assert "stub chat completion" in free.out
    assert json.loads(tame.out.splitlines()[0].removesuffix("0"))["error"]["message"] == (
        "Operation not supported: task 'tame' may not use chat_completions"
    )
    refused = spear("run", GUESTS, "--task", "x" * 129, cwd=here)
    assert (refused.code, "128" in refused.err) == (2, True)


def test_a_guest_with_a_long_name_runs(here):
    guest = here / f"{'g' * 200}.wasm"
    guest.write_bytes(HELLO.read_bytes())
    assert spear("run", guest, cwd=here).code == 0


# --- chat


def test_chat(here):
    done = spear("chat", "good day", cwd=here)
    assert (done.code, done.out, done.err) == (0, "stub chat completion: good day\n", "")
    assert spear_process("chat", "good day", cwd=here) == done
    assert spear("chat", "-", stdin="grüß dich".encode(), cwd=here).out == "stub chat completion: grüß dich\n"


def test_chat_stream(here):
    done = spear("chat", "good day", "--stream", "-v", cwd=here)
    assert (done.code, done.out) == (0, "stub chat completion: good day\n")
    assert done.err.startswith("— stub (stub, stub) · ")


def test_chat_json(here):
    told = spear("chat", "good day", "--json", cwd=here).json
    assert told["result"]["payload"]["choices"][0]["message"]["content"] == "stub chat completion: good day"
    lines = spear("chat", "good day", "--json", "--stream", cwd=here).out.splitlines()
    events = [json.loads(line)["type"] for line in lines]
    assert (events[0], events[-1]) == ("started", "completed")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("as_json", [False, True])
def test_chat_that_fails(here, as_json, stream):
    flags = [*(["--json"] if as_json else []), *(["--stream"] if stream else [])]
    done = spear("chat", "hi", "--backend", "nobody", *flags, cwd=here)
    assert done.code == 1
    if as_json:
        error = done.json["error"] if stream else done.json["result"]["error"]
        assert error["code"] == "backend_not_enabled"
    else:
        assert (done.out, done.err) == ("", "spear: backend_not_enabled: the named backend is not configured\n")


@pytest.mark.parametrize("given", ["nan", "inf", "0", "-1"])
def test_chat_refuses_other_timeouts(here, given):
    done = spear("chat", "hi", "--timeout", given, cwd=here)
    assert done.code == 2
    assert "--timeout" in done.err


def test_chat_with_bytes_that_are_no_text(here):
    done = spear("chat", "-", stdin=b"\xff\xfe", cwd=here)
    assert done.code == 2
    assert "PROMPT is not valid UTF-8" in done.err


# --- looking


def test_backends_and_capabilities(here):
    (here / "spear.toml").write_text(
        toml(
            STUB,
            openai_backend("http://127.0.0.1:1/v1", credentials=["key"]),
            '[[spear.credentials]]\nname = "key"\nenv = "NOT_SET_ANYWHERE"',
        )
    )
    table = spear("backends", cwd=here)
    assert table.code == 0
    assert "missing_credential" in table.out
    assert "127.0.0.1" not in table.out
    rows = spear("backends", "--json", cwd=here).json["backends"]
    assert [(row["name"], row["state"]) for row in rows] == [("stub", "running"), ("home", "missing_credential")]
    told = spear("capabilities", "--json", cwd=here).json
    assert set(told) == {"features", "models", "operations"}
    assert told["operations"] == ["chat_completions"]
    assert "chat_completions" in spear("capabilities", cwd=here).out


def test_explain(here):
    asked = {"operation": "chat_completions", "payload": {"kind": "chat_completions", "messages": []}}
    asked["payload"]["messages"] = [{"role": "user", "content": "hi"}]
    done = spear("explain", "-", stdin=json.dumps(asked).encode(), cwd=here)
    assert done.code == 0
    assert "chosen" in done.out
    (here / "r.json").write_text(json.dumps(asked))
    told = spear("explain", "r.json", "--json", cwd=here).json
    assert told["chosen"] == "stub"
    asked["routing"] = {"backend": "nobody"}
    done = spear("explain", "-", "--json", stdin=json.dumps(asked).encode(), cwd=here)
    assert (done.code, done.json["chosen"]) == (1, None)


def test_looking_needs_no_functions_of_filters(here):
    route = '[[spear.routes]]\nfilter = "mine"\n[[spear.filters]]\nname = "mine"\nkind = "python"'
    (here / "spear.toml").write_text(toml(STUB, route))
    asked = {"operation": "chat_completions", "payload": {"kind": "chat_completions", "messages": []}}
    asked["payload"]["messages"] = [{"role": "user", "content": "hi"}]
    done = spear("explain", "-", stdin=json.dumps(asked).encode(), cwd=here)
    assert done.code == 0
    assert "filter mine not consulted" in done.out
    assert spear("backends", cwd=here).code == 0
    asking = spear("chat", "hi", cwd=here)
    assert (asking.code, "has no function" in asking.err) == (2, True)


def test_a_drained_backends_model_cannot_be_asked_for(here):
    (here / "spear.toml").write_text(toml(STUB, openai_backend("http://127.0.0.1:1/v1", weight=0)))
    assert spear("capabilities", "--json", cwd=here).json["models"] == {"chat_completions": []}


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"operation":"nix"}', b"\xff", b"[" * 5000])
def test_explain_says_what_is_wrong_with_a_request(here, data):
    (here / "r.json").write_bytes(data)
    done = spear("explain", "r.json", cwd=here)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("spear: r.json: ")
    assert len(done.err) < 2000


def test_schema_and_help_and_version(here):
    assert "RequestEnvelope" in spear("schema", cwd=here).out
    assert spear("schema", "--json", cwd=here).json
    assert "Exit codes" in spear("--help", cwd=here).out
    assert spear("--version", cwd=here).out.startswith("spear-runtime, version ")
    for command in ("run", "chat", "backends", "capabilities", "explain", "schema", "config", "guest", "demo"):
        assert f"  {command} " in spear("--help", cwd=here).out
    assert spear("nix", cwd=here).code == 2
    assert spear(cwd=here).code in {0, 2}


# --- configuration

BAD = """\
[[spear.backends]]
name = "a"
kind = "stub"
hosting = "lokal"
wieght = 3

[[spear.backends]]
name = "a"
kind = "stub"
hosting = "local"
weight = -1

[[spear.routes]]
policy = "nix"
"""


def test_a_bad_configuration_shows_all_problems_with_their_lines(tmp_path):
    (tmp_path / "bad.toml").write_text(BAD)
    assert spear_process("chat", "x", "-c", "bad.toml", cwd=tmp_path).code == 2
    for command in ["backends"], ["chat", "x"], ["run", HELLO], ["capabilities"], ["config", "check"]:
        done = spear(*command, cwd=tmp_path, SPEAR_CONFIG="bad.toml")
        assert (done.code, done.out) == (2, "")
        for place in (
            "bad.toml:4: spear.backends[0].hosting",
            "bad.toml:5: spear.backends[0].wieght",
            "bad.toml:8: spear.backends[1].name",
            "bad.toml:11: spear.backends[1].weight",
            "bad.toml:14: spear.routes[0].policy",
        ):
            assert place in done.err, done.err
    told = spear("config", "check", "bad.toml", "--json", cwd=tmp_path)
    assert (told.code, told.json["valid"]) == (2, False)
    assert {problem["line"] for problem in told.json["problems"]} == {4, 5, 8, 11, 14}


def test_config_init_and_check(tmp_path):
    assert spear("config", "init", cwd=tmp_path).code == 0
    checked = spear("config", "check", cwd=tmp_path)
    assert checked.code == 0
    assert str(tmp_path / "spear.toml") in checked.out
    assert spear("config", "check", "--json", cwd=tmp_path).json["valid"] is True
    assert spear("chat", "hello", cwd=tmp_path).code == 0
    again = spear("config", "init", cwd=tmp_path)
    assert again.code == 2
    assert "--force" in again.err
    assert spear("config", "init", "--force", cwd=tmp_path).code == 0


def test_the_order_of_configurations(tmp_path):
    for name in ("a", "b", "spear"):
        (tmp_path / f"{name}.toml").write_text(toml(STUB.replace('"stub"', f'"{name}"', 1)))

    def first(*arguments, **variables):
        return spear("backends", "--json", *arguments, cwd=tmp_path, **variables).json["backends"][0]["name"]

    assert first("-c", "a.toml", SPEAR_CONFIG="b.toml") == "a"
    assert first(SPEAR_CONFIG="b.toml") == "b"
    assert first() == "spear"
    (tmp_path / "spear.toml").unlink()
    fallback = spear("backends", cwd=tmp_path)
    assert "stub" in fallback.out
    assert "no configuration found" in fallback.err
    assert spear("chat", "x", cwd=tmp_path, SPEAR_CONFIG="nix.toml").code == 2


# --- pipes


@pytest.mark.parametrize(
    "arguments",
    [("run", GUESTS, "--entry", "prints"), ("schema",), ("backends",), ("run", HELLO, "--json"), ("chat", "x")],
    ids=lambda arguments: "-".join(str(each).rsplit("/", maxsplit=1)[-1] for each in arguments),
)
def test_a_reader_that_leaves(here, arguments):
    """No traceback, and an end: a guest that prints for ever is stopped by the pipe that nobody reads."""
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)], cwd=here, env=environment(), stdout=writer, stderr=subprocess.PIPE
    )
    os.close(writer)
    if "prints" in arguments:
        assert os.read(reader, 10)
    os.close(reader)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert b"Traceback" not in err
    assert b"Exception" not in err


@pytest.mark.parametrize("arguments", [("schema",), ("run", HELLO), ("chat", "x", "--json")])
@pytest.mark.parametrize(("to", "code"), [(">/dev/full", 1), (">&-", 0)], ids=["full", "closed"])
def test_a_stdout_that_takes_nothing(here, arguments, to, code):
    line = " ".join([*COMMAND, *map(str, arguments), to])
    done = subprocess.run(["sh", "-c", line], cwd=here, env=environment(), capture_output=True, timeout=30, check=False)
    assert done.returncode == code
    assert b"Traceback" not in done.stderr
    assert (b"spear: cannot write: No space left on device" in done.stderr) == (code == 1)


# --- guest build


def test_guest_build(here):
    (here / "g.c").write_text('#include "spear.h"\nint main(void) { printf("built\\n"); return 3; }\n')
    built = spear("guest", "build", "g.c", cwd=here)
    assert built.code == 0, built.err
    assert spear("run", "g.wasm", cwd=here).code == 3
    (here / "bad.c").write_text("int main(void) { return nix; }")
    failed = spear("guest", "build", "bad.c", cwd=here)
    assert failed.code == 1
    assert "bad.c:1:" in failed.err
    assert not (here / "bad.wasm").exists()
    assert spear("guest", "build", "g.c", "-o", "no/such/folder/g.wasm", cwd=here).code == 1
