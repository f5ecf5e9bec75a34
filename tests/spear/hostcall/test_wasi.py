"""WASI preview1: the numbers wasmtime's own implementation gives, captured output, and sleeping without blocking."""

from __future__ import annotations

import struct
import sys
import time
from collections.abc import Iterator

import pytest
import trio
import wasmtime
from hypothesis import given
from hypothesis import strategies as st

from spear.hostcall import Limits
from spear.hostcall._capture import Capture
from spear.hostcall._endings import Exited
from spear.hostcall._table import TABLE, WASI
from tests.spear.hostcall.probe import PAGE, RELAXED, Probe, open_probe, thunk_module

END = 2 * PAGE
WASI_CALLS = tuple(call for call in TABLE if call.module == WASI)
STDIO = (0, 1, 2, 3, 99, -1)


class Reference:
    """The same guest under wasmtime's own WASI: no arguments, no environment, no directories, output to files."""

    def __init__(self, folder: str) -> None:
        engine = wasmtime.Engine()
        self._linker = wasmtime.Linker(engine)
        self._linker.define_wasi()
        self._module = wasmtime.Module(engine, thunk_module(table=WASI_CALLS))
        self._engine = engine
        self._folder = folder

    def call(self, name: str, *arguments: int) -> int | None:
        """The errno, or None where that implementation traps."""
        store = wasmtime.Store(self._engine)
        config = wasmtime.WasiConfig()
        config.stdout_file, config.stderr_file = f"{self._folder}/out", f"{self._folder}/err"
        store.set_wasi(config)
        function = self._linker.instantiate(store, self._module).exports(store)[name]
        assert isinstance(function, wasmtime.Func)
        try:
            return int(function(store, *arguments))
        except (wasmtime.WasmtimeError, wasmtime.Trap):
            return None


def errno_cases() -> Iterator[tuple[str, tuple[int, ...]]]:
    plain = {call.name: len(call.params) for call in WASI_CALLS if call.name.startswith(("fd_", "sock_", "path_"))}
    for name, count in plain.items():
        for fd in STDIO:
            yield name, (fd, *[0] * (count - 1))
            yield name, (fd, *[64 + 8 * i for i in range(count - 1)])
    for fd in STDIO:
        for other in STDIO:
            yield "fd_renumber", (fd, other)
        for whence in range(-1, 5):
            yield "fd_seek", (fd, 0, whence, 64)
        for flags in (-1, 1, 5, 6, 16, 31, 32, 64):
            yield "fd_advise", (fd, 0, 0, flags)
            yield "fd_fdstat_set_flags", (fd, flags)
            yield "fd_filestat_set_times", (fd, 0, 0, flags)
            yield "sock_shutdown", (fd, flags)
            yield "sock_recv", (fd, 0, 0, flags, 64, 72)
            yield "sock_accept", (fd, flags, 64)
    for clock in range(-1, 6):
        yield "clock_res_get", (clock, 64)
        yield "clock_time_get", (clock, 0, 64)
    for name in ("args_get", "args_sizes_get", "environ_get", "environ_sizes_get"):
        yield name, (64, 72)
    for signal in (-1, 0, 1, 30, 31, 99):
        yield "proc_raise", (signal,)
    yield "sched_yield", ()
    yield "random_get", (64, 16)
    yield "random_get", (64, 0)
    yield "random_get", (-8, 16)
    yield "random_get", (END - 8, 16)
    yield "clock_time_get", (0, 0, END - 4)
    yield "fd_fdstat_get", (1, END - 4)
    yield "fd_filestat_get", (1, -8)
    yield "poll_oneoff", (64, 256, 0, 1024)
    yield "poll_oneoff", (64, 256, 1, 1024)


FAULT, INVAL = 21, 28


async def test_error_numbers_are_those_of_wasmtime(tmp_path_factory: pytest.TempPathFactory):
    reference = Reference(str(tmp_path_factory.mktemp("wasi")))
    checked = 0
    async with open_probe() as probe:
        for name, arguments in errno_cases():
            probe.guest.stdio = type(probe.guest.stdio)(probe.guest.stdout, probe.guest.stderr)
            probe.guest.memory.write(0, bytes(4096))
            expected = reference.call(name, *arguments)
            with trio.fail_after(5):
                got = await probe.call(name, *arguments)
            if expected is None and name.startswith("path_"):
                assert got == 8, (name, arguments)  # it looks at flags first and traps; ours at the descriptor
            elif expected is None:
                assert got in {FAULT, INVAL}, (name, arguments, got)  # where that one traps
            else:
                assert got == expected, (name, arguments)
            checked += 1
    assert checked > 600


async def write(probe: Probe, fd: int, *parts: bytes) -> tuple[int, int]:
    offset, vectors = 8192, b""
    for part in parts:
        probe.put(offset, part)
        vectors += struct.pack("<II", offset, len(part))
        offset += len(part)
    probe.put(4096, vectors)
    return await probe.call("fd_write", fd, 4096, len(parts), 64), probe.u32(64)


async def test_output_is_captured():
    async with open_probe() as probe:
        assert await write(probe, 1, b"hello ", b"", b"world\n") == (0, 12)
        assert await write(probe, 2, b"oops\xff") == (0, 5)
        assert (await write(probe, 0, b"x"))[0] == 8
        assert (await write(probe, 1))[0] == 0
        assert probe.guest.stdout.text() == "hello world\n"
        assert probe.guest.stderr.text() == "oops\ufffd"
        assert await probe.call("fd_close", 1) == 0
        assert await probe.call("fd_close", 1) == 8
        assert (await write(probe, 1, b"x"))[0] == 8
        assert await probe.call("fd_renumber", 2, 0) == 0
        assert await write(probe, 0, b"!") == (0, 1)
        assert (await write(probe, 2, b"x"))[0] == 8
        assert probe.guest.stderr.text() == "oops\ufffd!"


async def test_bad_vectors_write_nothing():
    async with open_probe() as probe:
        for vectors, count in (
            (struct.pack("<IIII", 0, 4, 0xFFFF_FFFF, 4), 2),
            (struct.pack("<II", END - 3, 4), 1),
            (struct.pack("<II", 0, 0xFFFF_FFFF), 1),
        ):
            probe.put(4096, vectors)
            assert await probe.call("fd_write", 1, 4096, count, 64) == FAULT
        assert await probe.call("fd_write", 1, END - 7, 1, 64) == FAULT
        assert await probe.call("fd_write", 1, 4096, -1, 64) == INVAL
        probe.put(4096, struct.pack("<II", 0, 4))
        assert await probe.call("fd_write", 1, 4096, 1, END - 3) == FAULT
        assert probe.guest.stdout.text() == ""


async def test_a_huge_write_is_cut_short_not_refused():
    async with open_probe(pages=64) as probe:
        probe.put(4096, struct.pack("<II", 8192, 3 << 20))
        assert await probe.call("fd_write", 1, 4096, 1, 64) == 0
        assert probe.u32(64) == 1 << 20
        probe.put(4096, struct.pack("<II", 8192, 1) * 2000)
        assert await probe.call("fd_write", 1, 4096, 2000, 64) == 0
        assert probe.u32(64) == 1024


@RELAXED
@given(st.integers(1, 50), st.lists(st.binary(max_size=30), max_size=40))
def test_capture_keeps_the_newest_bytes(cap: int, pieces: list[bytes]):
    seen: list[bytes] = []
    capture = Capture(cap, seen.append)
    for piece in pieces:
        capture.write(piece)
    everything = b"".join(pieces)
    assert b"".join(seen) == everything
    kept = everything[-cap:]
    assert capture.text() == kept.decode("utf-8", "replace")
    assert capture.dropped == len(everything) - len(kept)


def test_capture_of_many_small_writes_is_quick_and_small():
    capture = Capture(1 << 20)
    capture.write(bytes(1 << 20))
    begin = time.monotonic()
    for _ in range(20_000):
        capture.write(b"ab")
    assert time.monotonic() - begin < 2  # not 20 000 times a mebibyte
    assert capture.text() == "\0" * ((1 << 20) - 40_000) + "ab" * 20_000
    assert sys.getsizeof(capture._kept) < 4 << 20


async def test_stats_say_terminal_without_seek():
    async with open_probe() as probe:
        for fd, rights in ((0, 2), (1, 64), (2, 64)):
            assert await probe.call("fd_fdstat_get", fd, 64) == 0
            assert struct.unpack("<BxHxxxxQQ", probe.read(64, 24)) == (2, 0, rights, rights)
        assert await probe.call("fd_filestat_get", 1, 64) == 0
        assert probe.read(64, 64) == bytes(16) + b"\2" + bytes(47)
        assert await probe.call("fd_read", 0, 64, 1, 128) == 0
        assert probe.u32(128) == 0


async def test_clocks():
    async with open_probe() as probe:
        assert await probe.call("clock_time_get", 0, 0, 64) == 0
        assert abs(struct.unpack("<Q", probe.read(64, 8))[0] - time.time_ns()) < 2_000_000_000
        assert await probe.call("clock_time_get", 1, 0, 64) == 0
        (first,) = struct.unpack("<Q", probe.read(64, 8))
        assert await probe.call("clock_time_get", 1, 0, 64) == 0
        assert struct.unpack("<Q", probe.read(64, 8))[0] >= first
        assert await probe.call("clock_res_get", 1, 64) == 0
        assert 0 < struct.unpack("<Q", probe.read(64, 8))[0] < 100_000_000


async def test_random_fills_exactly():
    async with open_probe() as probe:
        assert await probe.call("random_get", 64, 32) == 0
        assert probe.read(64, 32) != bytes(32)
        assert probe.read(96, 64) == bytes(64)


async def test_a_huge_random_buffer_lets_the_loop_run():
    passes = 0

    async def count() -> None:
        nonlocal passes
        while True:
            await trio.lowlevel.checkpoint()
            passes += 1

    grow = '(func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))'
    wasm = wasmtime.wat2wasm(
        '(module (import "wasi_snapshot_preview1" "random_get" (func $r (param i32 i32) (result i32)))'
        f'(memory (export "memory") 1) {grow}'
        '(func (export "random_get") (param i32 i32) (result i32) (call $r (local.get 0) (local.get 1))))'
    )
    async with open_probe(wasm=bytes(wasm)) as probe, trio.open_nursery() as nursery:
        assert await probe.call("grow", 1600) == 1  # 100 MiB
        nursery.start_soon(count)
        assert await probe.call("random_get", 0, 100 << 20) == 0
        nursery.cancel_scope.cancel()
    assert passes >= 100  # of 400 pieces


def clock_subscription(userdata: int, ns: int, *, clock: int = 1, flags: int = 0) -> bytes:
    return struct.pack("<QBxxxxxxxIxxxxQQHxxxxxx", userdata, 0, clock, ns, 0, flags)


def fd_subscription(userdata: int, kind: int, fd: int) -> bytes:
    return struct.pack("<QBxxxxxxxI", userdata, kind, fd).ljust(48, b"\0")


async def poll(probe: Probe, *subscriptions: bytes) -> list[tuple[int, int, int, int, int]] | int:
    probe.put(4096, b"".join(subscriptions))
    result = await probe.call("poll_oneoff", 4096, 16384, len(subscriptions), 64)
    if result:
        return result
    return [
        struct.unpack("<QHBxxxxxQHxxxxxx", probe.read(16384 + 32 * i, 32))  # type: ignore[misc]
        for i in range(probe.u32(64))
    ]


async def test_poll_oneoff_timers():
    async with open_probe() as probe:
        begin = time.monotonic()
        found = await poll(probe, clock_subscription(1, 10**12), clock_subscription(7, 20_000_000))
        assert found == [(7, 0, 0, 0, 0)]
        assert 0.02 <= time.monotonic() - begin < 5
        due = time.time_ns() + 20_000_000
        assert await poll(probe, clock_subscription(3, due, clock=0, flags=1)) == [(3, 0, 0, 0, 0)]
        assert time.time_ns() >= due - 1_000_000
        assert await poll(probe, clock_subscription(4, 5, clock=1, flags=1)) == [(4, 0, 0, 0, 0)]  # long ago
        assert await poll(probe, clock_subscription(5, 0), clock_subscription(6, 0, clock=0)) == [
            (5, 0, 0, 0, 0),
            (6, 0, 0, 0, 0),
        ]


async def test_poll_oneoff_descriptors():
    async with open_probe() as probe:
        hour = clock_subscription(9, 3600 * 10**9)
        assert await poll(probe, hour, fd_subscription(1, 1, 0)) == [(1, 0, 1, 0, 1)]  # at its end: hangup
        assert await poll(probe, hour, fd_subscription(2, 2, 1)) == [(2, 0, 2, 1, 0)]
        assert await poll(probe, hour, fd_subscription(3, 1, 1)) == [(3, 8, 1, 0, 0)]
        assert await poll(probe, hour, fd_subscription(4, 2, 55)) == [(4, 8, 2, 0, 0)]
        assert await poll(probe, hour, clock_subscription(5, 1, clock=9)) == [(5, 28, 0, 0, 0)]
        assert await poll(probe, hour, clock_subscription(5, 1, flags=2)) == [(5, 28, 0, 0, 0)]
        assert await poll(probe, hour, fd_subscription(6, 3, 0)) == INVAL
        assert await poll(probe, fd_subscription(1, 1, 0), clock_subscription(2, 0)) == [
            (1, 0, 1, 0, 1),
            (2, 0, 0, 0, 0),
        ]


async def test_poll_oneoff_ranges():
    async with open_probe() as probe:
        for arguments in ((-1, 64, 1, 64), (END - 47, 64, 1, 64), (64, END - 31, 1, 64), (64, 256, 1, END - 3)):
            assert await probe.call("poll_oneoff", *arguments) == FAULT
        assert await probe.call("poll_oneoff", 64, 64, 2**31 - 1, 64) == FAULT
        assert await probe.call("poll_oneoff", 64, 64, -1, 64) == INVAL


async def test_poll_oneoff_takes_4096_subscriptions_and_no_more():
    async with open_probe(pages=16) as probe:
        for i in range(4097):
            probe.put(4096 + 48 * i, fd_subscription(i, 2, 1))
        assert await probe.call("poll_oneoff", 4096, 300_000, 4096, 64) == 0
        assert probe.u32(64) == 4096
        probe.put_u32(64, 7)
        assert await probe.call("poll_oneoff", 4096, 300_000, 4097, 64) == INVAL
        assert probe.u32(64) == 7


async def test_an_hour_of_sleep_disturbs_nobody_and_ends_on_cancel():
    """wasmtime's own poll_oneoff holds the thread here; ours must not."""
    gaps: list[float] = []

    async def ticker() -> None:
        last = time.monotonic()
        while True:
            await trio.sleep(0.01)
            now = time.monotonic()
            gaps.append(now - last)
            last = now

    async with open_probe() as probe:
        with trio.move_on_after(0.3) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ticker)
                await poll(probe, clock_subscription(1, 3600 * 10**9))
        assert scope.cancelled_caught
        assert len(gaps) >= 15
        assert max(gaps) < 0.1
        assert await probe.call("time_now_ms") > 0


async def test_proc_exit():
    for code, expected in ((0, 0), (7, 7), (-1, 0xFFFF_FFFF)):
        async with open_probe() as probe:
            with pytest.raises(Exited) as ended:
                await probe.call("proc_exit", code)
            assert ended.value.code == expected


async def test_limits_of_capture_are_configurable():
    async with open_probe(limits=Limits(stdio_bytes=4)) as probe:
        assert await write(probe, 1, b"abcdef") == (0, 6)
        assert probe.guest.stdout.text() == "cdef"
        assert probe.guest.stdout.dropped == 2
