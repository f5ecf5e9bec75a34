"""Building guests: clear errors for what is missing or wrong, and nothing half-made left behind."""

from __future__ import annotations

import importlib.util
import json
import shutil

import pytest
from click.testing import CliRunner

import spear.guests
from spear.guests import rebuild
from spear.ir import GuestError

GOOD = '#include "spear.h"\nint main(void) { return spear_log_text(SPEAR_LOG_INFO, "hi"); }\n'


@pytest.fixture(scope="module")
def compiler():
    found = spear.guests.find_compilers()
    if not found:
        pytest.skip("no compiler for wasm32-wasi is installed")
    return found[0]


@pytest.fixture
def no_compilers(monkeypatch, tmp_path):
    """A machine with an empty PATH, no WASI SDK and no ziglang; returns the folder on the PATH."""
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.delenv("WASI_SDK_PATH", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    return programs


def test_a_guest_is_built_next_to_its_source(compiler, tmp_path):
    source = tmp_path / "mine.c"
    source.write_text(GOOD, encoding="ascii")
    assert spear.guests.build(source) == tmp_path / "mine.wasm"
    assert "spear.log (i32 i32 i32) -> (i32)" in rebuild.surface(tmp_path / "mine.wasm")["imports"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["mine.c", "mine.wasm"]


def test_flags_of_ones_own(compiler, tmp_path):
    made = spear.guests.build(
        spear.guests.path("chat.c"), tmp_path / "chat.wasm", compiler=compiler, extra=['-DMODEL="tiny-model"']
    )
    assert b"tiny-model" in made.read_bytes()


def test_the_header_is_strict_c99(compiler, tmp_path):
    strict = ["-pedantic", "-Werror", "-Wconversion", "-Wno-sign-conversion", "-Wshadow", "-Wstrict-prototypes"]
    spear.guests.build(spear.guests.path("chat_tool.c"), tmp_path / "strict.wasm", compiler=compiler, extra=strict)


def test_a_mistake_in_the_source_is_shown_and_the_old_module_stays(compiler, tmp_path):
    source, module = tmp_path / "mine.c", tmp_path / "mine.wasm"
    source.write_text("int main(void) { return spear; }\n", encoding="ascii")
    module.write_bytes(b"old")
    with pytest.raises(GuestError, match=r"mine\.c does not compile[\s\S]*mine\.c:1:\d+: error: use of undeclared"):
        spear.guests.build(source, compiler=compiler)
    assert module.read_bytes() == b"old"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["mine.c", "mine.wasm"]


@pytest.mark.parametrize(
    ("source", "output", "says"),
    [
        ("absent.c", None, "no such file"),
        ("mine.cpp", None, "a C file is needed"),
        ("mine.c", "nowhere/mine.wasm", "no such folder"),
    ],
)
def test_wrong_arguments_are_named(tmp_path, source, output, says, compiler):
    for name in ("mine.c", "mine.cpp"):
        (tmp_path / name).write_text(GOOD, encoding="ascii")
    with pytest.raises(GuestError, match=says):
        spear.guests.build(tmp_path / source, output and tmp_path / output, compiler=compiler)


def test_without_a_compiler_the_error_says_what_to_install(no_compilers):
    assert spear.guests.find_compilers() == []
    with pytest.raises(GuestError) as caught:
        spear.guests.find_compiler()
    for hint in ("apt-get install clang lld wasi-libc", "pip install ziglang", "WASI_SDK_PATH"):
        assert hint in str(caught.value)


def test_a_compiler_that_lacks_its_libc_is_passed_over_with_its_own_words(no_compilers):
    fake = no_compilers / "clang"
    fake.write_text("#!/bin/sh\necho 'fatal error: stdio.h file not found' >&2\nexit 1\n", encoding="ascii")
    fake.chmod(0o755)
    with pytest.raises(GuestError, match=r"clang: fatal error: stdio\.h file not found"):
        spear.guests.find_compiler()


def test_a_sdk_path_that_leads_nowhere_is_shown(no_compilers, monkeypatch):
    monkeypatch.setenv("WASI_SDK_PATH", "/nowhere")
    with pytest.raises(GuestError, match=r"/nowhere/bin/clang: .*No such file"):
        spear.guests.find_compiler()


@pytest.fixture
def copies(tmp_path):
    """A folder with one guest and its record."""
    for name in ("hello.c", "hello.wasm"):
        shutil.copy(spear.guests.path(name), tmp_path / name)
    record = json.loads((spear.guests.include_dir() / "BUILD.json").read_text(encoding="utf-8"))
    record["guests"] = {"hello": record["guests"]["hello"]}
    (tmp_path / "BUILD.json").write_text(json.dumps(record), encoding="utf-8")
    return tmp_path


def check(folder):
    result = CliRunner().invoke(rebuild.main, ["--check", str(folder)])
    return result.exit_code, result.output


def test_check_is_content_with_what_is_as_recorded(copies, compiler):
    assert check(copies)[0] == 0, check(copies)[1]


def test_check_names_a_changed_source_a_changed_module_and_strangers(copies):
    with (copies / "hello.c").open("a", encoding="ascii") as source:
        source.write("\n")
    (copies / "hello.wasm").write_bytes(spear.guests.path("chat").read_bytes())
    (copies / "stranger.c").write_text(GOOD, encoding="ascii")
    problems = rebuild.check_record(copies)
    assert problems == [
        "hello.c is not the recorded one",
        "hello.wasm is not the recorded one",
        "stranger: not in BUILD.json",
    ]


def test_check_compares_the_surface_with_a_new_build(copies, compiler):
    shutil.copy(spear.guests.path("chat"), copies / "hello.wasm")
    problems = rebuild.check_compiler(copies, compiler)
    assert any(problem.startswith("hello: imports differ") and "spear.cchat_send" in problem for problem in problems)
    assert any(problem.startswith("hello: exports differ") and "answer" in problem for problem in problems)


def test_check_compares_bytes_only_with_the_recorded_compiler(copies, compiler):
    record = json.loads((copies / "BUILD.json").read_text(encoding="utf-8"))
    module = copies / "hello.wasm"
    module.write_bytes(module.read_bytes() + b"\x00\x02\x01x")  # a custom section, harmless
    record["compiler"] = compiler.identity
    record["flags"] = list(compiler.flags)
    (copies / "BUILD.json").write_text(json.dumps(record), encoding="utf-8")
    assert rebuild.check_compiler(copies, compiler) == ["hello: other bytes than the committed module"]
    record["compiler"] = "another"
    (copies / "BUILD.json").write_text(json.dumps(record), encoding="utf-8")
    assert rebuild.check_compiler(copies, compiler) == []


def test_check_fails_where_nothing_could_be_compared(copies, no_compilers):
    code, output = check(copies)
    assert (code, "nothing was compared" in output) == (1, True)


def test_rebuild_writes_a_record_that_check_accepts(copies, compiler):
    (copies / "BUILD.json").unlink()
    assert CliRunner().invoke(rebuild.main, [str(copies)]).exit_code == 0
    assert check(copies)[0] == 0
