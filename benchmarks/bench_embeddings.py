"""CPU of embedding 1 000 texts in four batches of 250, through all layers, against four bare httpx calls.

Both post the same four bodies to the same server (a process of its own on the other core) and end with 1 000 lists of
1 536 numbers: `runtime.embed` with vectors that are checked (how many, how long, finite), and `httpx.AsyncClient()`
with `response.json()`. For information also with vectors that travel as base64. The figure is the CPU time of this
process.
"""

from __future__ import annotations

import base64
import os
import random
import struct
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

BATCH, BATCHES, SIZE = 250, 4, 1536
TEXTS = [[f"text number {batch * BATCH + at} of a collection" for at in range(BATCH)] for batch in range(BATCHES)]


def answer_body(packed: bool) -> bytes:
    numbers = random.Random(7)
    data = []
    for at in range(BATCH):
        # As servers send them: 32-bit numbers in their shortest decimal form or so.
        vector = [round(numbers.uniform(-0.1, 0.1), 9) for _ in range(SIZE)]
        said = base64.b64encode(struct.pack(f"<{SIZE}f", *vector)).decode() if packed else vector
        data.append({"object": "embedding", "index": at, "embedding": said})
    usage = {"prompt_tokens": 2000, "total_tokens": 2000}
    return orjson.dumps({"object": "list", "data": data, "model": "m", "usage": usage})


@asynccontextmanager
async def through_spear(port: int, encoding: str):
    backend = {"name": "b", "kind": "openai", "hosting": "local", "model": "m"}
    backend |= {"base_url": f"http://127.0.0.1:{port}/v1", "options": {"embeddings_encoding": encoding}}
    async with spear.open_runtime({"spear": {"backends": [backend]}}) as runtime:

        async def once(texts: list[str]) -> int:
            reply = await runtime.embed(texts)
            return sum(map(len, reply.vectors))

        yield once


@asynccontextmanager
async def bare_httpx(port: int):
    async with httpx.AsyncClient() as client:

        async def once(texts: list[str]) -> int:
            response = await client.post(f"http://127.0.0.1:{port}/v1/embeddings", json={"model": "m", "input": texts})
            return sum(len(item["embedding"]) for item in response.json()["data"])

        yield once


async def cpu(client) -> float:
    async with client as once:
        await once(TEXTS[0])
        before = time.process_time()
        for texts in TEXTS:
            assert await once(texts) == BATCH * SIZE
        return time.process_time() - before


async def answer(body: bytes, stream: trio.SocketStream) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    await stream.send_all(head + body)


def serving(mode: str, core: int) -> subprocess.Popen[str]:
    other = min(os.sched_getaffinity(os.getppid()) - {core} or {core})
    command = [sys.executable, __file__, "--serve", mode, str(other)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def main() -> None:
    options = arguments(__doc__, default_rounds=5)
    core = pin_to_one_core()
    with serving("float", core) as plain, serving("base64", core) as packed:
        ports = [int(server.stdout.readline()) for server in (plain, packed)]
        ours, bare, small = "runtime.embed, 4 × 250", "httpx, 4 × 250", "runtime.embed, 4 × 250, base64"
        cases = {
            ours: lambda: trio.run(cpu, through_spear(ports[0], "float")),
            bare: lambda: trio.run(cpu, bare_httpx(ports[0])),
            small: lambda: trio.run(cpu, through_spear(ports[1], "base64")),
        }
        figures = rounds(cases, options.rounds)
        plain.stdin.close()
        packed.stdin.close()
    rows = [
        row(figures, bare, scale=1e3, unit="ms"),
        row(figures, ours, bare, 1.3, scale=1e3, unit="ms"),
        row(figures, small, bare, scale=1e3, unit="ms"),
    ]
    report("Embeddings", rows, as_json=options.json)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        trio.run(partial(serve, partial(answer, answer_body(sys.argv[2] == "base64")), int(sys.argv[3])))
    else:
        main()
