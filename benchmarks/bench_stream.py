"""CPU per event of a streamed chat, through all layers to the caller, against reading the same stream with httpx.

Both read the same event streams from the same server (a process of its own on the other core), 16 at a time:
`runtime.stream(...)` with events of the IR, and `httpx.AsyncClient().stream(...)` with `aiter_lines` and `json.loads`
of each data line. In the paced stream each event comes in a chunk and a segment of its own, as from a model that
thinks; in the burst everything comes at once, chunk by chunk, as from a proxy that is behind; in the block it is one
chunk, as from a cache. The figure is the CPU time of this process.

Then memory: what the resident set grows by with 1 000 open streams, each after its first event, and with 100.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import httpx
import trio
from _measure import Row, pin_to_one_core, report, rounds, row
from _server import serve

import spear
from spear.ir import ChatMessage, ChatRequest, Completed, Operation, RequestEnvelope

IN_FLIGHT = 16
EVENTS = 200
PACE_S = 0.002
FEW, MANY = 100, 1000
KIB_EACH = 60
TEXT = "Count to two hundred."
BODY = {"model": "m", "messages": [{"role": "user", "content": TEXT}], "stream": True}
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"

Once = Callable[[], Awaitable[int]]


# --- the server


def _event(delta: str, finish: str = "null") -> bytes:
    choice = f'{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{finish}}}'
    return (
        'data: {"id":"chatcmpl-123456789","object":"chat.completion.chunk","created":1700000000,"model":"m",'
        f'"system_fingerprint":"fp_44709d6fcb","choices":[{choice}]}}\n\n'
    ).encode()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


DELTAS = [
    _event('{"role":"assistant","content":""}'),
    *(_event(f'{{"content":" word{number}"}}') for number in range(EVENTS)),
]
LAST = [
    _event("{}", '"stop"'),
    b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":200,"total_tokens":209}}\n\n',
    b"data: [DONE]\n\n",
]
LINES = len(DELTAS) + len(LAST)


async def paced(stream: trio.SocketStream) -> None:
    stream.setsockopt(6, 1, 1)  # TCP_NODELAY
    await stream.send_all(_HEAD)
    for event in DELTAS:
        await stream.send_all(_chunk(event))
        await trio.sleep(PACE_S)
    await stream.send_all(b"".join(map(_chunk, LAST)) + b"0\r\n\r\n")


async def burst(stream: trio.SocketStream) -> None:
    await stream.send_all(_HEAD + b"".join(map(_chunk, [*DELTAS, *LAST])) + b"0\r\n\r\n")


async def block(stream: trio.SocketStream) -> None:
    await stream.send_all(_HEAD + _chunk(b"".join([*DELTAS, *LAST])) + b"0\r\n\r\n")


async def held(stream: trio.SocketStream) -> None:
    """The first events, and then nothing until the client leaves."""
    await stream.send_all(_HEAD + b"".join(map(_chunk, DELTAS[:3])))
    await stream.receive_some(1)


ANSWERS = {"paced": paced, "burst": burst, "block": block, "held": held}


# --- the clients


@asynccontextmanager
async def through_spear(port: int):
    async with spear.open_runtime(_config(port)) as runtime:

        async def once() -> int:
            count, last = 0, None
            async with runtime.stream(_request()) as events:
                async for event in events:
                    count += 1
                    last = event
            assert isinstance(last, Completed), last
            assert count > EVENTS, count
            return LINES

        yield once


@asynccontextmanager
async def bare_httpx(port: int):
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    async with httpx.AsyncClient() as client:

        async def once() -> int:
            count = 0
            async with client.stream("POST", url, json=BODY) as response:
                async for line in response.aiter_lines():
                    if line.startswith("data: "):
                        count += 1
                        if line != "data: [DONE]":
                            json.loads(line[6:])
            assert count == LINES, count
            return count

        yield once


def _config(port: int) -> dict[str, object]:
    backend: dict[str, object] = {"name": "b", "kind": "openai_chat", "hosting": "local", "model": "m"}
    backend |= {"base_url": f"http://127.0.0.1:{port}/v1", "limits": {"max_inflight": 2 * MANY}}
    return {"spear": {"backends": [backend]}}


def _request() -> RequestEnvelope:
    payload = ChatRequest(messages=(ChatMessage(role="user", content=TEXT),))
    return RequestEnvelope(operation=Operation.CHAT_COMPLETIONS, payload=payload)


async def cpu_per_event(client, times: int) -> float:
    events = 0

    async def repeat(once: Once, times: int) -> None:
        nonlocal events
        for _ in range(times):
            seen = await once()
            events += seen

    async def all_of_them(once: Once, times: int) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(IN_FLIGHT):
                nursery.start_soon(repeat, once, times)

    async with client as once:
        await all_of_them(once, 1)
        events = 0
        before = time.process_time()
        await all_of_them(once, times)
        return (time.process_time() - before) / events


# --- memory


def _resident_kib() -> float:
    gc.collect()
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024


async def memory(port: int) -> tuple[float, float]:
    """KiB for each of 100 open streams more, and for each of 1 000 more, beyond the first 100: these mostly find room
    that the start of the program has left."""
    async with spear.open_runtime(_config(port)) as runtime:

        async def hold(task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
            async with runtime.stream(_request()) as events:
                await anext(events)
                await anext(events)
                task_status.started()
                await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            for _ in range(FEW):
                await nursery.start(hold)
            before = _resident_kib()
            for _ in range(FEW):
                await nursery.start(hold)
            few = (_resident_kib() - before) / FEW
            for _ in range(MANY - FEW):
                await nursery.start(hold)
            many = (_resident_kib() - before) / MANY
            nursery.cancel_scope.cancel()
    return few, many


def _serving(mode: str, core: int) -> subprocess.Popen[str]:
    other = min(os.sched_getaffinity(os.getppid()) - {core} or {core})
    command = [sys.executable, __file__, "--serve", mode, str(other)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _port(server: subprocess.Popen[str]) -> int:
    assert server.stdout is not None
    return int(server.stdout.readline())


def _cpu_rows(mode: str, times: int, count: int, core: int) -> list[Row]:
    with _serving(mode, core) as server:
        port = _port(server)
        ours, bare = f"runtime.stream, {mode}", f"httpx stream, {mode}"
        cases = {
            ours: lambda: trio.run(cpu_per_event, through_spear(port), times),
            bare: lambda: trio.run(cpu_per_event, bare_httpx(port), times),
        }
        figures = rounds(cases, count)
        server.stdin.close()
    reach = None if mode == "block" else 2.0  # for information: no model's server writes so
    return [row(figures, bare), row(figures, ours, bare, reach)]


def _memory_rows(core: int) -> list[Row]:
    with _serving("held", core) as server:
        few, many = trio.run(memory, _port(server))
        server.stdin.close()
    return [
        Row(f"memory of each of {count} open streams", each, "KiB", f"{KIB_EACH} KiB", each / KIB_EACH, 1)
        for count, each in ((FEW, few), (MANY, many))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--only", choices=list(ANSWERS))
    options = parser.parse_args()
    core = pin_to_one_core()
    rows: list[Row] = []
    for mode, times in ("paced", 1), ("burst", 4), ("block", 4):
        if options.only in (None, mode):
            rows += _cpu_rows(mode, times, options.rounds, core)
    if options.only in (None, "held"):
        rows += _memory_rows(core)
    report("Streamed chat", rows, as_json=options.json)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        trio.run(partial(serve, ANSWERS[sys.argv[2]], int(sys.argv[3])))
    else:
        main()
