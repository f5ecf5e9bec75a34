"""Guests as tasks: the price of a hostcall, of a start, of waiting, and what spinning guests cost the others.

Each claim is measured beside what it is compared with, in this process (memory: in fresh processes of its own).
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import trio
import wasmtime

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks._measure import Row, arguments, report, rounds, row
from spear.hostcall import ChatReply, ChatSnapshot, GuestEngine, GuestTask
from spear.hostcall import _engine as engine_module
from spear.hostcall import _module as module_module
from spear.hostcall._guest import Guest
from spear.hostcall._table import TABLE, Hostcall

CALLS = 20_000
STARTS = 200
PINGS = 5_000
TASKS = 10_000
THREADS = 1_000
SPIN_SECONDS = 5.0
GUESTS = Path(__file__).resolve().parent.parent / "spear" / "guests"

READ64 = f"""(module (import "bench" "read64" (func $read (param i32) (result i32)))
 (memory (export "memory") 1)
 (func (export "_start") (local $n i32) (local.set $n (i32.const {CALLS}))
  (loop $l (drop (call $read (i32.const 128)))
    (local.set $n (i32.sub (local.get $n) (i32.const 1))) (br_if $l (local.get $n)))))"""
SPIN = '(module (func (export "_start") (loop $l (br $l))))'
WAIT = """(module
 (import "spear" "cchat_create" (func $create (result i32)))
 (import "spear" "cchat_send" (func $send (param i32 i32) (result i32)))
 (memory (export "memory") 1)
 (func (export "_start") (drop (call $send (call $create) (i32.const 0)))))"""


async def no_chat(session: ChatSnapshot) -> ChatReply:
    await trio.lowlevel.checkpoint()
    raise AssertionError("only the waiting guests chat")


def read64(guest: Guest, pointer: int) -> int:
    return len(guest.memory.read(pointer, 64))


@contextmanager
def one_hostcall_more() -> Iterator[None]:
    """Engines opened inside know bench.read64."""
    real = engine_module.TABLE
    engine_module.TABLE = (*TABLE, Hostcall("bench", "read64", "i", "i", read64))  # type: ignore[misc]
    module_module._SIGNATURES["bench", "read64"] = ("i", "i")
    try:
        yield
    finally:
        engine_module.TABLE = real  # type: ignore[misc]
        del module_module._SIGNATURES["bench", "read64"]


def our_hostcall() -> float:
    async def main() -> float:
        async with GuestEngine(cache_directory=None) as engine:
            module = await engine.load(bytes(wasmtime.wat2wasm(READ64)))
            begin = time.perf_counter()
            done = await engine.run(module, task=GuestTask("bench"), chat=no_chat)
            assert done.status == "completed", done.error_message
            return (time.perf_counter() - begin) / CALLS

    with one_hostcall_more():
        return trio.run(main)


def their_hostcall() -> float:
    engine = wasmtime.Engine()
    linker = wasmtime.Linker(engine)

    def read(caller: wasmtime.Caller, pointer: int) -> int:
        return len(caller["memory"].read(caller, pointer, pointer + 64))  # type: ignore[union-attr]

    kind = wasmtime.FuncType([wasmtime.ValType.i32()], [wasmtime.ValType.i32()])
    linker.define_func("bench", "read64", kind, read, access_caller=True)
    store = wasmtime.Store(engine)
    instance = linker.instantiate(store, wasmtime.Module(engine, READ64))
    begin = time.perf_counter()
    instance.exports(store)["_start"](store)  # type: ignore[operator]
    return (time.perf_counter() - begin) / CALLS


def sample() -> bytes:
    """The C guest `hello` of the package, unchanged: its first hostcall is a log."""
    return (GUESTS / "hello.wasm").read_bytes()


def our_start() -> float:
    wasm = sample()

    async def main() -> float:
        total = 0.0
        async with GuestEngine(cache_directory=None) as engine:
            module = await engine.load(wasm)
            for i in range(STARTS + 20):
                noted: list[float] = []
                begin = time.perf_counter()
                await engine.run(
                    module,
                    task=GuestTask("bench"),
                    chat=no_chat,
                    on_log=lambda record, noted=noted: noted.append(time.perf_counter()),
                )
                if i >= 20:
                    total += noted[0] - begin
        return total / STARTS

    return trio.run(main)


def their_start() -> float:
    """Compile, link and start the same guest with plain wasmtime-py."""
    wasm = sample()
    return sum(plain_start(wasm) for _ in range(5)) / 5


def plain_start(wasm: bytes) -> float:
    noted: list[float] = []

    def note(*arguments: int) -> int:
        noted.append(time.perf_counter())
        return 0

    begin = time.perf_counter()
    engine = wasmtime.Engine()
    module = wasmtime.Module(engine, wasm)
    linker = wasmtime.Linker(engine)
    linker.define_wasi()
    for one in module.imports:
        if one.module == "spear":
            assert isinstance(one.type, wasmtime.FuncType)
            linker.define_func("spear", one.name or "", one.type, note)
    store = wasmtime.Store(engine)
    store.set_wasi(wasmtime.WasiConfig())
    exports = linker.instantiate(store, module).exports(store)
    with suppress(wasmtime.ExitTrap):
        exports["_start"](store)  # type: ignore[operator]
    return noted[0] - begin


def ping_pong() -> float:
    async def main() -> float:
        there_send, there_receive = trio.open_memory_channel[int](0)
        back_send, back_receive = trio.open_memory_channel[int](0)

        async def echo() -> None:
            async with there_receive, back_send:
                async for value in there_receive:
                    await back_send.send(value)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(echo)
            async with there_send:
                begin = time.perf_counter()
                for i in range(PINGS):
                    await there_send.send(i)
                    await back_receive.receive()
                took = time.perf_counter() - begin
        return took / PINGS

    return trio.run(main)


def resident() -> int:
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return int(text.partition("VmRSS:")[2].split()[0]) * 1024


def waiting_tasks() -> dict[str, float]:
    """Resident bytes per guest while all wait for an answer to their chat; all of them finish afterwards."""
    completed = arrived = 0

    async def main() -> int:
        release, all_there = trio.Event(), trio.Event()

        async def chat(session: ChatSnapshot) -> ChatReply:
            nonlocal arrived
            arrived += 1
            if arrived == TASKS:
                all_there.set()
            await release.wait()
            return ChatReply({"_spear": {}})

        async with GuestEngine(cache_directory=None) as engine:
            module = await engine.load(bytes(wasmtime.wat2wasm(WAIT)))

            async def one() -> None:
                nonlocal completed
                done = await engine.run(module, task=GuestTask("bench"), chat=chat, timeout_s=None)
                completed += done.status == "completed"

            before = resident()
            async with trio.open_nursery() as nursery:
                for _ in range(TASKS):
                    nursery.start_soon(one)
                await all_there.wait()
                after = resident()
                release.set()
        return after - before

    used = trio.run(main)
    return {"per_guest": used / TASKS, "completed": completed}


def waiting_threads() -> dict[str, float]:
    """The same with a thread per guest and plain wasmtime-py."""
    release = threading.Event()
    arrived = threading.Semaphore(0)
    completed = 0
    engine = wasmtime.Engine()
    module = wasmtime.Module(engine, WAIT)
    lock = threading.Lock()
    i32 = wasmtime.ValType.i32()

    def send(fd: int, flags: int) -> int:
        arrived.release()
        release.wait()
        return 1001

    def one() -> None:
        nonlocal completed
        linker = wasmtime.Linker(engine)
        linker.define_func("spear", "cchat_create", wasmtime.FuncType([], [i32]), lambda: 1000)
        linker.define_func("spear", "cchat_send", wasmtime.FuncType([i32, i32], [i32]), send)
        store = wasmtime.Store(engine)
        linker.instantiate(store, module).exports(store)["_start"](store)  # type: ignore[operator]
        with lock:
            completed += 1

    before = resident()
    threads = [threading.Thread(target=one) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for _ in threads:
        arrived.acquire()
    after = resident()
    release.set()
    for thread in threads:
        thread.join()
    return {"per_guest": (after - before) / THREADS, "completed": completed}


def in_fresh_process(which: str) -> float:
    done = subprocess.run([sys.executable, __file__, which], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    figures = json.loads(done.stdout)
    expected = TASKS if which == "waiting-tasks" else THREADS
    if figures["completed"] != expected:
        raise RuntimeError(f"{which}: {figures['completed']} of {expected} guests finished")
    return float(figures["per_guest"])


def gaps(spinners: int) -> list[float]:
    """How late a 10 ms ticker comes beside so many spinning guests, in seconds, sorted."""
    late: list[float] = []

    async def main() -> None:
        async with GuestEngine(cache_directory=None) as engine:
            module = await engine.load(bytes(wasmtime.wat2wasm(SPIN)))
            with trio.move_on_after(SPIN_SECONDS):
                async with trio.open_nursery() as nursery:
                    for _ in range(spinners):
                        nursery.start_soon(lambda: engine.run(module, task=GuestTask("bench"), chat=no_chat))
                    last = time.perf_counter()
                    while True:
                        await trio.sleep(0.01)
                        now = time.perf_counter()
                        late.append(now - last)
                        last = now

    trio.run(main)
    return sorted(late)


def ticker_rows() -> list[Row]:
    """The ticker alone tells how much of the rest is the machine's."""
    found = []
    for spinners in (0, 1, 20):
        late = gaps(spinners)
        p99 = late[int(len(late) * 0.99)]
        what = f"gap of a 10 ms ticker, {spinners} spinning, p99"
        judged = ("25 ms", p99 / 0.025, 1.0) if spinners else (None, None, None)
        found.append(Row(what, p99 * 1e3, "ms", *judged))
        found.append(Row(f"  the largest of {len(late)}", late[-1] * 1e3, "ms"))
    return found


def main() -> None:
    options = arguments(__doc__, 7)
    ours, theirs = "hostcall that reads 64 bytes", "the same by Linker.define_func"
    start, plain, ping = "start to first hostcall, cached", "compile and start, wasmtime-py", "trio ping-pong"
    figures = rounds(
        {ours: our_hostcall, theirs: their_hostcall, start: our_start, plain: their_start, ping: ping_pong},
        options.rounds,
    )
    tasks, threads = f"{TASKS} guests waiting, one thread", f"{THREADS} guests on as many threads"
    memory = rounds(
        {tasks: lambda: in_fresh_process("waiting-tasks"), threads: lambda: in_fresh_process("waiting-threads")},
        max(1, options.rounds // 3),
    )
    report(
        "Guests and hostcalls",
        [
            row(figures, ours, theirs, 0.1),
            row(figures, theirs),
            row(figures, start, plain, 0.05),
            row(figures, start, ping, 10),
            row(figures, plain),
            row(figures, ping),
            row(memory, tasks, threads, 0.75, scale=1 / 1024, unit="KiB"),
            row(memory, threads, scale=1 / 1024, unit="KiB"),
            *ticker_rows(),
        ],
        as_json=options.json,
    )


if __name__ == "__main__":
    if sys.argv[1:] == ["waiting-tasks"]:
        print(json.dumps(waiting_tasks()))
    elif sys.argv[1:] == ["waiting-threads"]:
        print(json.dumps(waiting_threads()))
    else:
        main()
