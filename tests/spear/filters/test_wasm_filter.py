"""A filter that is a guest, on the real engine: good, trapping, spinning, with pointers and lengths that are none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio
import wasmtime

import spear
from spear.guests import path as sample
from spear.ir import ConfigError
from tests.spear.filters.filter_kit import filtered, question, why
from tests.system.kit import nothing_left, stub, until_true

SAMPLE = sample("local_filter")
SIGNATURE = "(param $in i32) (param $in_len i32) (param $out i32) (param $out_len i32) (result i32)"
BUMP = "(global.get $at) (global.set $at (i32.add (global.get $at) (local.get $size)))"


def guest(body: str, *, alloc: str = BUMP, more: str = "", data: str = "{}", pages: int = 4) -> str:
    """The text of a module whose filter does `body`; `data` lies at 16."""
    escaped = "".join(f"\\{byte:02x}" for byte in data.encode())
    return f"""(module {more}
        (memory (export "memory") {pages})
        (global $at (mut i32) (i32.const 1024))
        (data (i32.const 16) "{escaped}")
        (func (export "spear_alloc") (param $size i32) (result i32) {alloc})
        (func (export "spear_router_filter") {SIGNATURE} {body}))"""


def say(text: str) -> str:
    """Answers with the `data` at 16, which is `text`."""
    size = len(text.encode())
    return f"""(memory.copy (local.get $out) (i32.const 16) (i32.const {size}))
        (i32.store (local.get $out_len) (i32.const {size})) (i32.const 0)"""


def saying(text: str, **more) -> str:
    return guest(say(text), data=text, **more)


@pytest.fixture
def at(tmp_path: Path):
    """Where the text of a module was written to."""

    def write(text: str, name: str = "filter.wat") -> str:
        file = tmp_path / name
        file.write_text(text)
        return str(file)

    return write


async def ask_once(file: str, text: str = "hi", **more):
    with trio.fail_after(20):
        async with spear.open_runtime(filtered("wasm", path=file, **more)) as runtime:
            return await runtime.invoke(question(text))


async def test_the_sample_keeps_long_requests_here():
    remote = stub('far \\ "away"') | {"hosting": "remote"}
    async with nothing_left(), spear.open_runtime(filtered("wasm", remote, stub("here"), path=str(SAMPLE))) as runtime:
        assert {(await runtime.invoke(question())).backend.name for _ in range(4)} == {"here", remote["name"]}
        names = {(await runtime.invoke(question("x" * 9000))).backend.name for _ in range(4)}
        assert names == {"here"}


async def test_what_it_says_is_done(at):
    for said, expected in (('{"drop":["a"]}', "b"), ('{"force":"b"}', "b"), ('{"weights":{"a":0}}', "b")):
        assert (await ask_once(at(saying(said)))).backend.name == expected
    rejected = await ask_once(at(saying('{"reject":{"message":"never"}}')))
    assert rejected.result.error.message == "refused by the filter f: never"


async def test_it_gets_the_question_with_its_keys_sorted_and_a_nul(at, monkeypatch):
    """It gives its input back, and so the answer is one with unknown keys; here we read what that was."""
    seen = []
    monkeypatch.setattr("spear.filters._wasm.parse_answer", lambda data: seen.append(data) or {})
    body = """(if (i32.load8_u (i32.add (local.get $in) (local.get $in_len))) (then unreachable))
        (memory.copy (local.get $out) (local.get $in) (local.get $in_len))
        (i32.store (local.get $out_len) (local.get $in_len)) (i32.const 0)"""
    assert (await ask_once(at(guest(body)))).backend is not None
    asked = json.loads(seen[0])
    assert list(asked) == sorted(asked)
    assert [each["name"] for each in asked["candidates"]] == ["a", "b"]


async def test_an_answer_that_needs_more_room_gets_it_once(at):
    text = '{"drop":["a"],"weights":{' + ",".join(f'"n{n}":1' for n in range(3000)) + "}}"
    size = len(text)
    assert size > 16_384
    body = f"""(if (result i32) (i32.lt_u (i32.load (local.get $out_len)) (i32.const {size}))
        (then (i32.store (local.get $out_len) (i32.const {size})) (i32.const -28))
        (else {say(text)}))"""
    module = guest(body, data=text, alloc=BUMP.replace("$at)", "$at)", 1), more="").replace("const 1024", "const 70000")
    assert (await ask_once(at(module))).backend.name == "b"


SPIN = "(loop (br 0)) unreachable"
TOO_LONG = "(i32.store (local.get $out_len) (i32.const {})) (i32.const {})"
FAILING = [
    ("unreachable", {}, "wasm trap: "),
    ("(i32.div_u (i32.const 1) (i32.const 0))", {}, "wasm trap: "),
    ("(i32.load (i32.const -4))", {}, "wasm trap: "),
    (SPIN, {}, "timeout after 0.3 s"),
    ("(i32.const 0)", {"alloc": SPIN}, "timeout after 0.3 s"),
    ("(i32.const 0)", {"alloc": "(i32.const 0)"}, "has no room for "),
    ("(i32.const 0)", {"alloc": "(i32.const -8)"}, "gave a pointer outside its memory"),
    ("(i32.const 0)", {"alloc": "(i32.const 0x7ffffff0)"}, "gave a pointer outside its memory"),
    ("(i32.const 0)", {"alloc": "(i32.const 262143)"}, "gave a pointer outside its memory"),
    (TOO_LONG.format(-1, 0), {}, "says that its answer is longer than its room"),
    (TOO_LONG.format(16_385, 0), {}, "says that its answer is longer than its room"),
    (TOO_LONG.format(-1, -28), {}, "wants more than 262144 bytes for its answer"),
    (TOO_LONG.format(20_000, -28), {}, "asked for more room twice"),
    (TOO_LONG.format(0, 0), {}, "its answer is no JSON"),
    ("(i32.const -5)", {}, "gave -5"),
    ("(i32.const 7)", {}, "gave 7"),
    (say("maybe"), {"data": "maybe"}, "its answer is no JSON"),
    (say('{"drop":1}'), {"data": '{"drop":1}'}, "its answer has a `drop` that is no list of names"),
    ("(call $exit (i32.const 3)) (i32.const 0)",
     {"more": '(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))'}, "exited with 3"),
    ("(i32.const 0)", {"pages": 257}, "wasm error: "),
]  # fmt: skip


@pytest.mark.parametrize(("body", "more", "reason"), FAILING)
async def test_each_way_to_fail_is_named_and_poisons_nothing(at, body, more, reason):
    file = at(guest(body, **more))
    async with spear.open_runtime(filtered("wasm", path=file, timeout="300ms")) as runtime:
        for _ in range(2):
            with trio.fail_after(10):
                response = await runtime.invoke(question())
            assert why(response).startswith(reason)
        assert (await runtime.reload(filtered("wasm", path=at(saying('{"drop":["a"]}'), "good.wat")))).ok
        assert (await runtime.invoke(question())).backend.name == "b"
    assert (await ask_once(file, on_error="open", timeout="300ms")).backend is not None


async def test_memory_is_bounded(at):
    body = """(if (i32.ne (memory.grow (i32.const 253)) (i32.const -1)) (then unreachable)) """ + say("{}")
    assert (await ask_once(at(guest(body)))).backend is not None


async def test_every_call_has_a_fresh_instance(at):
    """It would trap in its second call."""
    once = "(if (i32.load (i32.const 8)) (then unreachable)) (i32.store (i32.const 8) (i32.const 1))"
    async with spear.open_runtime(filtered("wasm", path=at(guest(once + say("{}"))))) as runtime:
        for _ in range(3):
            assert (await runtime.invoke(question())).backend is not None


async def test_spinners_do_not_stop_the_others(at):
    source = filtered("wasm", path=at(guest(SPIN)), timeout="500ms", on_error="open")
    async with spear.open_runtime(source) as runtime, trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(runtime.invoke, question())
        longest = last = 0.0
        end = trio.current_time() + 0.4
        last = trio.current_time()
        while trio.current_time() < end:
            await trio.sleep(0.001)
            now = trio.current_time()
            longest, last = max(longest, now - last), now
        assert longest < 0.2


async def test_a_caller_that_leaves_unwinds_it(at):
    source = filtered("wasm", path=at(guest(SPIN)), timeout="30s")
    async with nothing_left(), spear.open_runtime(source) as runtime:
        with trio.move_on_after(0.2):
            await runtime.invoke(question())

        def calls():
            node = next(each for each in runtime.snapshot().children if each.path.endswith("/filters"))
            return node.state["f"]["inflight"]

        await until_true(lambda: calls() == 0)


REFUSED = [
    ("(module)", "does not export spear_router_filter(i32, i32, i32, i32) -> i32"),
    (f'(module (func (export "spear_router_filter") {SIGNATURE} (i32.const 0)))', "does not export spear_alloc"),
    (guest("(i32.const 0)").replace("(param $in i32)", "(param $in i64)"), "does not export spear_router_filter"),
    (guest("(i32.const 0)", more='(import "spear" "cchat_create" (func (result i32)))'), "imports spear.cchat_create;"),
    (guest("(i32.const 0)", more='(import "spear" "sleep_ms" (func (param i32)))'), "imports spear.sleep_ms;"),
    (guest("(i32.const 0)", more='(import "env" "x" (func))'), "imports what this host does not have: env.x"),
    ("nonsense", "is not valid WebAssembly text"),
]


@pytest.mark.parametrize(("text", "problem"), REFUSED)
async def test_what_is_no_filter_is_an_error_of_the_configuration(at, text, problem):
    with pytest.raises(ConfigError) as caught:
        await ask_once(at(text))
    (found,) = caught.value.problems
    assert found.key == "spear.filters[0].path"
    assert problem in found.message


async def test_a_file_that_is_missing(tmp_path):
    with pytest.raises(ConfigError, match=r"spear\.filters\[0\]\.path: cannot be read: No such file"):
        await ask_once(str(tmp_path / "none.wasm"))


async def test_a_changed_module_is_seen_by_a_reload(at, tmp_path):
    file = at(saying('{"drop":["a"]}'))
    source = filtered("wasm", path=file)
    async with spear.open_runtime(source) as runtime:
        assert (await runtime.invoke(question())).backend.name == "b"
        at(saying('{"drop":["b"]}'))
        assert (await runtime.reload(source)).ok
        assert (await runtime.invoke(question())).backend.name == "a"


def test_the_texts_are_modules():
    wasmtime.wat2wasm(saying("{}"))
