"""CPU of embedding 1 000 inputs in batches of 250, against four bare httpx calls with the same bodies.

Both ask the same server (a process of its own on the other core) for vectors of 1 536 numbers, written as providers
write them. `runtime.embed` is given all inputs at once and cuts them by the backend's `max_batch`; the other side posts
four batches and parses the answers with httpx's `response.json()`, and with orjson for information. The figure is the
CPU time of this process.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from functools import partial

import httpx
import orjson
import trio
from _measure import arguments, pin_to_one_core, report, rounds, row
from _server import serve

import spear

BATCH, BATCHES, DIMENSIONS = 250, 4, 1536
INPUTS = [f"Sentence {number} of a text that somebody will want to find again." for number in range(BATCH * BATCHES)]
TIMES = 3


def _answer() -> bytes:
    numbers = random.Random(1)
    data = [
        {"object": "embedding", "index": index, "embedding": [numbers.gauss(0, 0.025) for _ in range(DIMENSIONS)]}
        for index in range(BATCH)
    ]
    usage = {"prompt_tokens": 3500, "total_tokens": 3500}
    body = json.dumps({"object": "list", "data": data, "model": "m", "usage": usage}).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body


async def answer(whole: bytes, stream: trio.SocketStream) -> None:
    await stream.send_all(whole)


@asynccontextmanager
async def through_spear(port: int):
    backend: dict[str, object] = {"name": "b", "kind": "openai", "hosting": "local", "model": "m"}
    backend |= {"base_url": f"http://127.0.0.1:{port}/v1", "limits": {"max_batch": BATCH}}
    async with spear.open_runtime({"spear": {"backends": [backend]}}) as runtime:

        async def once() -> None:
            reply = await runtime.embed(INPUTS)
            assert len(reply.vectors) == len(INPUTS)

        yield once


@asynccontextmanager
async def bare_httpx(port: int, parse=httpx.Response.json):
    url = f"http://127.0.0.1:{port}/v1/embeddings"
    async with httpx.AsyncClient() as client:

        async def once() -> None:
            vectors = []
            for first in range(0, len(INPUTS), BATCH):
                body = {"model": "m", "input": INPUTS[first : first + BATCH]}
                response = await client.post(url, json=body)
                vectors += [each["embedding"] for each in parse(response)["data"]]
            assert len(vectors) == len(INPUTS)

        yield once


async def cpu(client) -> float:
    async with client as once:
        await once()
        before = time.process_time()
        for _ in range(TIMES):
            await once()
        return (time.process_time() - before) / TIMES


def main() -> None:
    options = arguments(__doc__, default_rounds=7)
    core = pin_to_one_core()
    command = [sys.executable, __file__, "--serve", str(min(os.sched_getaffinity(os.getppid()) - {core} or {core}))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        port = int(server.stdout.readline())
        ours, bare, fast = "runtime.embed, 1 000 inputs", "four httpx calls", "four httpx calls, parsed with orjson"
        cases = {
            ours: lambda: trio.run(cpu, through_spear(port)),
            bare: lambda: trio.run(cpu, bare_httpx(port)),
            fast: lambda: trio.run(cpu, bare_httpx(port, lambda response: orjson.loads(response.content))),
        }
        figures = rounds(cases, options.rounds)
        server.stdin.close()
    to_ms = {"scale": 1e3, "unit": "ms"}
    rows = [
        row(figures, bare, **to_ms),
        row(figures, ours, bare, 1.3, **to_ms),
        row(figures, fast, bare, **to_ms),
    ]
    report("CPU of 1 000 embeddings of 1 536 numbers", rows, as_json=options.json)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        trio.run(partial(serve, partial(answer, _answer()), int(sys.argv[2])))
    else:
        main()
