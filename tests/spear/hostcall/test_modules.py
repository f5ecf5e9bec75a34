"""From bytes to a module: what is refused and how, odd but valid modules, the caches, the platform check."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import trio
import wasmtime
from hypothesis import example, given, settings
from hypothesis import strategies as st

from spear.hostcall import (
    ChatReply,
    ChatSnapshot,
    GuestEngine,
    GuestTask,
    LinkError,
    ModuleTooLarge,
    NotAModule,
    PlatformUnsupported,
)
from spear.hostcall import _module as module_file
from spear.hostcall._cache import DiskCache, default_directory
from spear.hostcall._platform import check_platform
from tests.spear.hostcall.guests import ENTRIES
from tests.spear.hostcall.probe import RELAXED, Scripted, success, thunk_module, wants

TASK = GuestTask("t")
START = '(func (export "_start"))'


def wat(text: str) -> bytes:
    return bytes(wasmtime.wat2wasm(f"(module {text})"))


NOT_MODULES = [
    (b"", "begins with b''"),
    (b"\0as", "is not WebAssembly"),
    (b"#!/bin/sh\n", "is not WebAssembly"),
    (b"\x7fELF" + bytes(60), "is not WebAssembly"),
    (b"\0asm", "version"),
    (b"\0asm\2\0\0\0", "version"),
    (b"\0asm\x0d\0\1\0", "component"),
    (b"\0asm\1\0\0\0\xff", "not a valid module"),
    (ENTRIES[: len(ENTRIES) // 2], "not a valid module"),
    (wat('(memory (export "memory") 1 2 shared)'), "shared memory is not supported"),
    (wat('(memory (export "memory") i64 1)'), "memory64"),
    (wat("(type (array (mut i8))) (func (drop (array.new_default 0 (i32.const 1000000))))"), "not a valid module"),
    (wat("(type (struct (field i32))) (func (drop (struct.new_default 0)))"), "not a valid module"),
    (wat('(table (export "table") 3 anyref)'), "not a valid module"),
    (wat('(table (export "table") 1 i31ref (ref.i31 (i32.const 7)))'), "not a valid module"),
    (wat('(global (export "g") anyref (ref.null any))'), "not a valid module"),
]


@pytest.mark.parametrize(("data", "message"), NOT_MODULES)
async def test_not_a_module(data: bytes, message: str):
    async with GuestEngine(cache_directory=None) as engine:
        with pytest.raises(NotAModule, match=message):
            await engine.load(data)


async def test_too_large(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(module_file, "MODULE_BYTES", 1000)
    path = tmp_path / "big.wasm"
    path.write_bytes(b"\0asm\1\0\0\0" + bytes(1000))
    async with GuestEngine(cache_directory=None) as engine:
        for source in (path, path.read_bytes()):
            with pytest.raises(ModuleTooLarge, match="1008 bytes"):
                await engine.load(source)


async def test_files(tmp_path: Path):
    async with GuestEngine(cache_directory=None) as engine:
        (tmp_path / "a.wat").write_text(f"(module {START})")
        (tmp_path / "b.wasm").write_bytes(wat(START))
        (tmp_path / "bad.wat").write_text("(module (")
        first, second = await engine.load(tmp_path / "a.wat"), await engine.load(tmp_path / "b.wasm")
        assert first is second  # the same bytes
        with pytest.raises(NotAModule, match=r"bad\.wat is not valid WebAssembly text"):
            await engine.load(tmp_path / "bad.wat")
        with pytest.raises(FileNotFoundError):
            await engine.load(tmp_path / "none.wasm")
        with pytest.raises(IsADirectoryError):
            await engine.load(tmp_path)


async def test_unknown_imports_are_all_listed():
    text = """(import "spear" "rt_create" (func (result i32))) (import "env" "abort" (func))
        (import "spear" "log" (func (param i32))) (import "env" "memory" (memory 1))
        (import "spear" "sleep_ms" (func (param v128)))
        (import "spear" "time_now_ms" (func (result i64)))"""
    async with GuestEngine(cache_directory=None) as engine:
        with pytest.raises(LinkError) as refused:
            await engine.load(wat(text))
    message = str(refused.value)
    for part in (
        *("spear.rt_create,", "env.abort,", "spear.log (with another signature)", "env.memory (only functions"),
        "spear.sleep_ms (with another signature)",
    ):
        assert part in message
    assert "time_now_ms" not in message


async def test_every_import_links():
    async with GuestEngine(cache_directory=None) as engine:
        await engine.load(thunk_module())


# Valid modules with types that C interfaces tend to forget; several of them ended the process before they were tested.
ODD = {
    "a tag": f'(tag (export "t") (param i32)) {START}',
    "a typed reference": f'(type $f (func)) (func (export "f") (result (ref null $f)) ref.null $f) {START}',
    "an exception reference": f'(func (export "f") (result exnref) (ref.null exn)) {START}',
    "a vector": f'(func (export "f") (param v128) (result v128) (local.get 0)) {START}',
    "a vector global": f'(global (export "g") v128 (v128.const i64x2 0 0)) {START}',
    "an extern global": f'(global (export "g") externref (ref.null extern)) {START}',
    "a table of exceptions": f'(table (export "table") 3 exnref) {START}',
    "a memory that is a global": f'(global (export "memory") i32 (i32.const 0)) {START}',
    "two tables": f'(table (export "a") 1 externref) (table (export "table") 1 funcref) {START}',
}


@pytest.mark.parametrize("name", ODD)
async def test_odd_modules_run(name: str):
    async with GuestEngine(cache_directory=None) as engine:
        loaded = await engine.load(wat(ODD[name]))
        done = await engine.run(loaded, task=TASK, chat=Scripted(success()))
        assert (done.status, done.error_message) == ("completed", None)


SENDS = """
 (import "spear" "cchat_create" (func $create (result i32)))
 (import "spear" "cchat_send" (func $send (param i32 i32) (result i32)))
 (import "spear" "cchat_write_fn" (func $tool (param i32 i32 i32 i32) (result i32)))
 (import "spear" "cchat_ctl" (func $ctl (param i32 i32 i32 i32) (result i32)))
 (memory (export "memory") 3) (data (i32.const 0) "{\\22name\\22:\\22t\\22}")
 (func (export "_start")
  (drop (call $tool (call $create) (i32.const 0) (i32.const 0) (i32.const 12)))
  (drop (call $send (i32.const 1000) (i32.const 2))))"""
ODD_TABLES = {
    "vector function": """(func $v (param v128 externref) (result v128) (local.get 0))
        (table (export "table") 1 funcref) (elem (i32.const 0) $v)""",
    "extern table": '(table (export "table") 1 externref)',
    "exception table": '(table (export "table") 1 exnref)',
    "typed table": """(type $f (func (param externref))) (func $v (type $f))
        (table (export "table") 1 (ref null $f)) (elem (table 0) (i32.const 0) (ref null $f) (ref.func $v))""",
}


@pytest.mark.parametrize("name", ODD_TABLES)
async def test_odd_tables_are_no_tools(name: str):
    asked: list[ChatSnapshot] = []

    async def chat(session: ChatSnapshot) -> ChatReply:
        await trio.lowlevel.checkpoint()
        asked.append(session)
        return wants(("c", "t", "{}")) if len(asked) == 1 else success("done")

    async with GuestEngine(cache_directory=None) as engine:
        loaded = await engine.load(wat(SENDS + ODD_TABLES[name]))
        done = await engine.run(loaded, task=TASK, chat=chat)
    assert done.status == "completed", done.error_message
    assert asked[1].messages[-1]["content"] == '{"error":{"code":"tool_exec_failed","message":"tool rc: -5"}}'


@settings(RELAXED, max_examples=150)
@example(at=8, byte=0, cut=0)
@given(at=st.integers(8, len(ENTRIES) - 1), byte=st.integers(0, 255), cut=st.integers(0, 40))
def test_damaged_modules_are_refused_or_run(at: int, byte: int, cut: int):
    """One byte changed, the end cut off: an error or an execution, nothing else."""

    async def check() -> None:
        data = bytearray(ENTRIES)
        data[at] = byte
        damaged = bytes(data[: len(data) - cut])
        async with GuestEngine(cache_directory=None) as engine:
            try:
                loaded = await engine.load(damaged)
            except (NotAModule, LinkError):
                return
            done = await engine.run(loaded, task=TASK, chat=Scripted(success()), timeout_s=0.2)
            assert done.status in {"completed", "failed", "timeout"}

    trio.run(check)


async def test_several_loads_share_one_compile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    compiled = 0
    real = module_file.compile_module

    def counting(engine: wasmtime.Engine, source: module_file.Source) -> wasmtime.Module:
        nonlocal compiled
        compiled += 1
        return real(engine, source)

    monkeypatch.setattr("spear.hostcall._engine.compile_module", counting)
    modules = []
    async with GuestEngine(cache_directory=tmp_path / "cache") as engine, trio.open_nursery() as nursery:

        async def load() -> None:
            modules.append(await engine.load(ENTRIES))

        for _ in range(20):
            nursery.start_soon(load)
    assert compiled == 1
    assert len(set(map(id, modules))) == 1
    async with GuestEngine(cache_directory=tmp_path / "cache") as engine:
        assert engine.cache_problem is None
        loaded = await engine.load(ENTRIES)
        assert (await engine.run(loaded, task=TASK, chat=Scripted(success()))).status == "completed"
    assert compiled == 1  # from disk


async def test_abandoned_compiles_take_no_more_than_two_threads(monkeypatch: pytest.MonkeyPatch):
    from spear.hostcall import _engine as engine_file

    go_on = threading.Event()
    lock = threading.Lock()
    begun: list[str] = []
    at_once = most = 0
    compile_module = engine_file.compile_module

    def slow(engine: wasmtime.Engine, source: module_file.Source) -> wasmtime.Module:
        nonlocal at_once, most
        with lock:
            begun.append(source.digest)
            at_once += 1
            most = max(most, at_once)
        go_on.wait(20)
        with lock:
            at_once -= 1
        return compile_module(engine, source)

    with trio.fail_after(30):
        async with GuestEngine(cache_directory=None) as engine:
            known = wat(START)
            await engine.load(known)
            monkeypatch.setattr(engine_file, "compile_module", slow)
            try:
                async with trio.open_nursery() as nursery:
                    for i in range(8):
                        nursery.start_soon(engine.load, wat(f'{START} (func (export "f{i}"))'))
                    while len(begun) < 2:  # noqa: ASYNC110  (written by threads)
                        await trio.sleep(0.01)
                    await trio.sleep(0.05)  # the others would begin now if they could
                    await engine.load(known)  # needs no compile, and does not wait for any
                    nursery.cancel_scope.cancel()
                assert len(begun) == 2
                assert engine._compiling.borrowed_tokens == 2  # nobody waits for them, but they still run
            finally:
                go_on.set()
            await engine.load(wat(f'{START} (func (export "last"))'))
    assert (len(begun), most) == (3, 2)


async def test_a_failed_load_is_tried_again_by_the_next():
    async with GuestEngine(cache_directory=None) as engine, trio.open_nursery() as nursery:
        failures = []

        async def load() -> None:
            try:
                await engine.load(b"\0asm\1\0\0\0\xff")
            except NotAModule as error:
                failures.append(error)

        for _ in range(5):
            nursery.start_soon(load)
    assert len(failures) == 5


def cached(folder: Path) -> Path:
    (path,) = folder.glob("*.cwasm")
    return path


@pytest.mark.parametrize("damage", ["flip code", "flip mac", "cut", "empty", "foreign", "writable", "symlink"])
async def test_a_cache_file_that_does_not_check_out_is_compiled_again(tmp_path: Path, damage: str):
    folder = tmp_path / "cache"
    async with GuestEngine(cache_directory=folder) as engine:
        await engine.load(ENTRIES)
    path = cached(folder)
    spoil(path, damage)
    async with GuestEngine(cache_directory=folder) as engine:
        loaded = await engine.load(ENTRIES)
        assert (await engine.run(loaded, task=TASK, chat=Scripted(success()))).status == "completed"
    renewed = cached(folder)
    assert not renewed.is_symlink()
    assert stat.S_IMODE(renewed.stat().st_mode) == 0o600
    assert DiskCache(folder, tag_of(path)).load(path.name.partition("-")[0])


def tag_of(path: Path) -> str:
    return path.name.partition("-")[2].removesuffix(".cwasm")


def spoil(path: Path, damage: str) -> None:
    folder = path.parent
    good = path.read_bytes()
    if damage == "flip code":
        path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    elif damage == "flip mac":
        path.write_bytes(bytes([good[0] ^ 1]) + good[1:])
    elif damage == "cut":
        path.write_bytes(good[:100])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "foreign":  # authentic, but no code of this engine
        disk = DiskCache(folder, tag_of(path))
        disk.store(path.name.partition("-")[0], b"\x7fELF but not ours")
    elif damage == "writable":
        path.chmod(0o666)
    else:
        path.rename(folder.parent / "elsewhere")
        path.symlink_to(folder.parent / "elsewhere")


def files_below(folder: Path) -> list[Path]:
    return list(folder.glob("*/*"))


def unusable(folder: Path) -> Path:
    if folder.name == "open":
        folder.mkdir()
        folder.chmod(0o755)
    elif folder.name == "link":
        (folder.parent / "target").mkdir(mode=0o700)
        folder.symlink_to(folder.parent / "target")
    else:
        folder.touch()
    return folder


@pytest.mark.parametrize("problem", ["open", "link", "file"])
async def test_a_place_that_is_not_private_is_not_used(tmp_path: Path, problem: str):
    folder = unusable(tmp_path / problem)
    async with GuestEngine(cache_directory=folder) as engine:
        assert engine.cache_problem is not None
        assert str(folder) in engine.cache_problem
        await engine.load(ENTRIES)
    assert not files_below(tmp_path)


def test_the_oldest_files_are_pruned(tmp_path: Path):
    disk = DiskCache(tmp_path / "c", "tag", max_bytes=1000)
    for name in ("a", "b", "c"):
        disk.store(name, bytes(300))
        os.utime(disk._path(name), (1_000_000 + ord(name), 1_000_000 + ord(name)))
    assert disk.load("a") == bytes(300)  # used: now the youngest
    disk.store("d", bytes(300))
    assert disk.load("b") is None
    assert disk.load("a") is not None
    assert disk.load("c") is not None
    disk.store("huge", bytes(2000))
    assert disk.load("huge") is None
    assert disk.load("a") is not None


def test_keys_differ_and_tags_are_covered(tmp_path: Path):
    first, second = DiskCache(tmp_path / "1", "tag"), DiskCache(tmp_path / "2", "tag")
    first.store("d", b"code")
    second._path("d").write_bytes(first._path("d").read_bytes())
    second._path("d").chmod(0o600)
    assert second.load("d") is None  # signed with another key
    other_tag = DiskCache(tmp_path / "1", "other")
    other_tag._path("d").write_bytes(first._path("d").read_bytes())
    other_tag._path("d").chmod(0o600)
    assert other_tag.load("d") is None
    assert first.load("d") == b"code"


def test_a_damaged_key(tmp_path: Path):
    DiskCache(tmp_path / "c", "tag")
    (tmp_path / "c" / "key").write_bytes(b"short")
    disk = DiskCache(tmp_path / "c", "tag")
    assert disk.problem is not None
    assert "delete it" in disk.problem


def test_default_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_directory() == tmp_path / "spear" / "modules"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_directory().parts[-3:] == (".cache", "spear", "modules")


@pytest.mark.parametrize(
    ("platform", "version", "part"),
    [
        ("darwin", "50.0.1", "Linux only, this is 'darwin'"),
        ("win32", "50.0.1", "Linux only"),
        ("linux", "49.9.9", "wasmtime 49.9.9 is installed"),
        ("linux", "51.0.0", "needs release 50"),
    ],
)
def test_other_platforms_and_versions(platform: str, version: str, part: str):
    with pytest.raises(PlatformUnsupported, match=part):
        check_platform(platform, version)


def test_a_python_that_was_not_tried_is_refused():
    with pytest.raises(PlatformUnsupported, match=r"Python 3\.14; use 3\.11 to 3\.13"):
        check_platform("linux", "50.0.1", (3, 14))
    check_platform("linux", "50.0.1", (3, 13))


def test_the_platform_is_checked_before_anything_is_loaded():
    program = """
import importlib.metadata, sys
real = importlib.metadata.version
importlib.metadata.version = lambda name: "49.0.0" if name == "wasmtime" else real(name)
try:
    import spear.hostcall
except Exception as error:
    print(type(error).__name__, "wasmtime._ffi" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "PlatformUnsupported False", done.stderr
