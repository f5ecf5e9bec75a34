"""Memory after 200 000 streamed requests over HTTP, against 20 000: nothing may stay behind.

The streams go to a server process on the other core, 32 at a time, each with a role event, eight deltas, usage and
`[DONE]`. The figure is the resident set of this process after a full garbage collection. One decision in ten is
recorded, so that the ring in memory, which keeps a thousand, is full before the first measurement. `--requests` scales
both.
"""

from __future__ import annotations

import argparse
import gc
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import trio
from _measure import Row, pin_to_one_core, report
from _server import serve

import spear
from spear.ir import ChatMessage, ChatRequest, Completed, Operation, RequestEnvelope

IN_FLIGHT = 32
FIRST, ALL = 20_000, 200_000
REACH = 1.03  # pages that the allocator keeps come and go: noise of this measure


def _chunk(delta: str, finish: str = "null") -> bytes:
    choice = f'{{"index":0,"delta":{delta},"finish_reason":{finish}}}'
    return f'data: {{"id":"c","object":"chat.completion.chunk","model":"m","choices":[{choice}]}}\n\n'.encode()


EVENTS = b"".join(
    [
        _chunk('{"role":"assistant","content":""}'),
        *(_chunk(f'{{"content":"word{number} "}}') for number in range(8)),
        _chunk("{}", '"stop"'),
        b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":8,"total_tokens":17}}\n\n',
        b"data: [DONE]\n\n",
    ]
)
ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    + b"%x\r\n%b\r\n0\r\n\r\n" % (len(EVENTS), EVENTS)
)


async def answer(stream: trio.SocketStream) -> None:
    await stream.send_all(ANSWER)


def resident() -> float:
    gc.collect()
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


async def measure(port: int, first: int, total: int) -> tuple[float, float]:
    backend = {"name": "b", "kind": "openai_chat", "hosting": "local", "base_url": f"http://127.0.0.1:{port}/v1"}
    payload = ChatRequest(messages=(ChatMessage(role="user", content="Count to eight."),))
    done = 0

    async def repeat(times: int) -> None:
        nonlocal done
        for _ in range(times):
            request = RequestEnvelope(operation=Operation.CHAT_COMPLETIONS, payload=payload)
            async with runtime.stream(request) as events:
                last = None
                async for event in events:
                    last = event
            assert isinstance(last, Completed)
            done += 1

    async def so_many(count: int) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(IN_FLIGHT):
                nursery.start_soon(repeat, count // IN_FLIGHT)

    config = {"spear": {"backends": [{**backend, "model": "m"}], "decisions": {"sample": 0.1}}}
    async with spear.open_runtime(config) as runtime:
        await so_many(first)
        before = resident()
        await so_many(total - first)
        assert done == first // IN_FLIGHT * IN_FLIGHT + (total - first) // IN_FLIGHT * IN_FLIGHT
        return before, resident()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=ALL)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    total = options.requests
    first = total * FIRST // ALL
    core = pin_to_one_core()
    command = [sys.executable, __file__, "--serve", str(min(os.sched_getaffinity(os.getppid()) - {core} or {core}))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        before, after = trio.run(measure, int(server.stdout.readline()), first, total)
        server.stdin.close()
    base = f"after {first} streamed requests"
    rows = [Row(base, before, "MiB"), Row(f"after {total}", after, "MiB", base, after / before, REACH)]
    report("Memory of streamed requests", rows, as_json=options.json)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        trio.run(partial(serve, answer, int(sys.argv[2])))
    else:
        main()
