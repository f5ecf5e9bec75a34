"""What a message costs: actors against raw trio memory channels, pykka beside them. One core.

python -m benchmarks.bench_actors [--rounds 25] [--json]
"""

from __future__ import annotations

import gc
import statistics
import sys
import tracemalloc
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter

import pykka
import trio
import trio.testing

sys.path.insert(0, str(Path(__file__).parent.parent))
from actors import Actor, Context, Request, Sink, Spec, StreamRequest, open_supervisor
from benchmarks._measure import Row, arguments, pin_to_one_core, ping_pong, report, rounds, row

N = 4_000


@dataclass(frozen=True, slots=True)
class Ping(Request[int]):
    number: int


@dataclass(frozen=True, slots=True)
class Note:
    number: int


@dataclass(frozen=True, slots=True)
class Count(StreamRequest[int]):
    number: int


class Echo(Actor[Ping | Note | Count]):
    async def handle(self, msg: Ping | Note | Count, ctx: Context[Ping | Note | Count]) -> object:
        return msg.number

    async def handle_stream(self, msg: Ping | Note | Count, out: Sink[int], ctx: Context[Ping | Note | Count]) -> None:
        for number in range(msg.number):
            await out.send(number)


class PykkaEcho(pykka.ThreadingActor):
    def on_receive(self, message: int) -> int:
        return message


async def ask() -> float:
    async with open_supervisor() as sup:
        ref = await sup.start(Spec(name="echo", factory=Echo))
        start = perf_counter()
        for number in range(N):
            await ref.ask(Ping(number))
        return (perf_counter() - start) / N
    raise AssertionError


async def ask_concurrent_actor() -> float:
    async with open_supervisor() as sup:
        ref = await sup.start(Spec(name="echo", factory=Echo, concurrency=64))
        start = perf_counter()
        for number in range(N):
            await ref.ask(Ping(number))
        return (perf_counter() - start) / N
    raise AssertionError


async def ask_32_askers() -> float:
    async with open_supervisor() as sup:
        ref = await sup.start(Spec(name="echo", factory=Echo))

        async def asker() -> None:
            for number in range(N // 32):
                await ref.ask(Ping(number))

        start = perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(32):
                nursery.start_soon(asker)
        return (perf_counter() - start) / N
    raise AssertionError


async def tell() -> float:
    async with open_supervisor() as sup:
        ref = await sup.start(Spec(name="echo", factory=Echo))
        start = perf_counter()
        for number in range(N):
            await ref.tell(Note(number))
        await ref.ask(Ping(0))
        return (perf_counter() - start) / N
    raise AssertionError


async def tell_nowait() -> float:
    """Bursts of 64, until all are handled."""
    async with open_supervisor() as sup:
        ref = await sup.start(Spec(name="echo", factory=Echo, mailbox=64))
        start = perf_counter()
        for _ in range(N // 64):
            for number in range(64):
                ref.tell_nowait(Note(number))
            while ref.queued:
                await trio.lowlevel.checkpoint()
        await ref.ask(Ping(0))
        return (perf_counter() - start) / (N // 64 * 64)
    raise AssertionError


async def stream_item() -> float:
    async with open_supervisor() as sup:
        ref = await sup.start(Spec(name="echo", factory=Echo))
        start = perf_counter()
        async with ref.stream(Count(N), buffer=1) as items:
            async for _ in items:
                pass
        return (perf_counter() - start) / N
    raise AssertionError


def pykka_ask() -> float:
    ref = PykkaEcho.start()
    try:
        start = perf_counter()
        for number in range(N // 4):
            ref.ask(number)
        return (perf_counter() - start) / (N // 4)
    finally:
        ref.stop()


def _on_trio(case: Callable[[], Awaitable[float]]) -> Callable[[], float]:
    async def main() -> float:
        return await case()

    return lambda: trio.run(main)


async def child_start() -> float:
    """Start 1 000 temporary children at once and stop them together."""
    count = 1_000
    async with open_supervisor(stop="together") as sup:
        specs = [Spec(name=f"c{i}", factory=Echo, restart="temporary") for i in range(count)]
        begin = perf_counter()
        async with trio.open_nursery() as nursery:
            for spec in specs:
                nursery.start_soon(sup.start, spec)
        started = perf_counter() - begin
    return started / count


async def _bytes_per_child(count: int) -> float:
    async with open_supervisor(stop="together") as sup:
        specs = [Spec(name=f"c{i}", factory=Echo, restart="temporary") for i in range(count)]
        gc.collect()
        tracemalloc.start()
        for spec in specs:
            await sup.start(spec)
        gc.collect()
        used, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return used / count


async def _bytes_per_task(count: int) -> float:
    """A bare Trio task that sleeps: the least a child could cost."""
    async with trio.open_nursery() as nursery:
        gc.collect()
        tracemalloc.start()
        for _ in range(count):
            nursery.start_soon(trio.sleep_forever)
        await trio.testing.wait_all_tasks_blocked()
        gc.collect()
        used, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        nursery.cancel_scope.cancel()
    return used / count


def main() -> None:
    args = arguments(__doc__, 25)
    pin_to_one_core()
    raw, pykka_name = "raw trio ping-pong", "pykka ask"
    cases: dict[str, Callable[[], float]] = {
        raw: _on_trio(partial(ping_pong, perf_counter, N)),
        "ask": _on_trio(ask),
        "ask, concurrency=64": _on_trio(ask_concurrent_actor),
        "ask, 32 askers at once, each": _on_trio(ask_32_askers),
        "tell": _on_trio(tell),
        "tell_nowait, handled": _on_trio(tell_nowait),
        "stream item, buffer=1": _on_trio(stream_item),
        pykka_name: pykka_ask,
        "start of a child": _on_trio(child_start),
    }
    figures = rounds(cases, args.rounds)
    rows = [
        row(figures, raw),
        row(figures, "ask", raw, 1.0),
        row(figures, "ask", pykka_name, 0.8),
        row(figures, "ask, concurrency=64", raw),
        row(figures, "ask, 32 askers at once, each", raw),
        row(figures, "tell", raw),
        row(figures, "tell_nowait, handled", raw, 0.1),
        row(figures, "stream item, buffer=1", raw),
        row(figures, pykka_name, raw),
        row(figures, "start of a child", raw),
    ]
    child = statistics.median(trio.run(_bytes_per_child, 1_000) for _ in range(3))
    task = statistics.median(trio.run(_bytes_per_task, 1_000) for _ in range(3))
    rows.append(Row("memory of a sleeping task", task, "B"))
    rows.append(Row("memory of an idle child", child, "B", "memory of a sleeping task", child / task))
    report("actors: cost per message, one core", rows, as_json=args.json)


if __name__ == "__main__":
    main()
