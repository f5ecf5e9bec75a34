"""Tail latency with and without hedging: two local servers, 2 % of whose answers take twenty times as long.

Open loop: requests arrive at random times, 150 a second, whether or not those before have been answered. The servers
(a process of their own) draw for each request how long it takes: 50 ms, a fifth more or less, or twenty times that.
They count what reaches them, so that the extra load is what they saw and not what the router believes. The figure is
the 99th percentile of what callers wait, the start of a fresh router included.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from functools import partial
from random import Random

import trio
from _measure import Row, arguments, report, rounds, row
from _server import answer_all

import spear
from spear.ir import ChatMessage, ChatRequest, Operation, RequestEnvelope

REQUESTS = 2_000
PER_S = 150
BASE_S = 0.050
SLOW = 0.02
TIMES = 20
EXTRA = 0.05
BODY = (
    b'{"id":"1","object":"chat.completion","created":1700000000,"model":"bench","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"Tokyo."},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":6,"completion_tokens":2,"total_tokens":8}}'
)
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY


# --- the servers


class Servers:
    def __init__(self) -> None:
        self.rng = Random(1)
        self.requests = 0

    async def answer(self, stream: trio.SocketStream) -> None:
        self.requests += 1
        await trio.sleep(self.takes())
        await stream.send_all(ANSWER)

    def takes(self) -> float:
        return BASE_S * self.rng.uniform(0.8, 1.2) * (TIMES if self.rng.random() < SLOW else 1)

    async def run(self) -> None:
        """Prints the ports, then for each line that comes in how many requests there were since the last."""
        async with trio.open_nursery() as nursery:
            ports = []
            for _ in range(2):
                (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
                ports.append(listener.socket.getsockname()[1])
                nursery.start_soon(trio.serve_listeners, partial(answer_all, self.answer), [listener])
            print(json.dumps(ports), flush=True)
            while await trio.to_thread.run_sync(sys.stdin.readline):
                print(self.requests, flush=True)
                self.requests = 0
            nursery.cancel_scope.cancel()


# --- the client


def configuration(ports: list[int], hedge: bool) -> dict:
    backends = [
        {
            "name": f"b{port}",
            "kind": "openai_chat",
            "hosting": "local",
            "base_url": f"http://127.0.0.1:{port}/v1",
            "model": "bench",
        }
        for port in ports
    ]
    route = {"policy": "round_robin"} | ({"hedge": {"max_extra_load": EXTRA}} if hedge else {})
    return {"spear": {"backends": backends, "routes": [route]}}


async def p99(ports: list[int], hedge: bool) -> float:
    message = ChatMessage(role="user", content="What is the capital of Japan?")
    request = RequestEnvelope(
        operation=Operation.CHAT_COMPLETIONS, payload=ChatRequest(model="bench", messages=(message,))
    )
    rng = Random(2)
    took: list[float] = []

    async def one(runtime: spear.Runtime) -> None:
        start = time.perf_counter()
        (await runtime.invoke(request)).unwrap()
        took.append(time.perf_counter() - start)

    async with spear.open_runtime(configuration(ports, hedge)) as runtime, trio.open_nursery() as nursery:
        at = trio.current_time()
        for _ in range(REQUESTS):
            at += rng.expovariate(PER_S)
            await trio.sleep_until(at)
            nursery.start_soon(one, runtime)
    took.sort()
    return took[int(0.99 * REQUESTS)]


def main() -> None:
    options = arguments(__doc__, default_rounds=3)
    seen: dict[bool, list[int]] = {False: [], True: []}
    command = [sys.executable, __file__, "--serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as servers:
        assert servers.stdin is not None
        assert servers.stdout is not None
        ports = json.loads(servers.stdout.readline())

        def case(hedge: bool) -> float:
            figure = trio.run(p99, ports, hedge)
            servers.stdin.write("\n")
            servers.stdin.flush()
            seen[hedge].append(int(servers.stdout.readline()))
            return figure

        without, with_hedges = "p99 without hedging", "p99 with hedging, 5 % extra load"
        figures = rounds({without: partial(case, False), with_hedges: partial(case, True)}, options.rounds)
        servers.stdin.close()
    if any(count != REQUESTS for count in seen[False]):
        raise RuntimeError(f"without hedging the servers saw {seen[False]} requests and not {REQUESTS}")
    extra = max(seen[True]) / REQUESTS - 1
    report(
        "Tail latency: 2 % of the answers take 20 times as long",
        [
            row(figures, without, scale=1e3, unit="ms"),
            row(figures, with_hedges, without, 0.35, scale=1e3, unit="ms"),
            Row("extra load, counted at the servers, the most", extra * 100, "%", "requests", extra, EXTRA),
        ],
        as_json=options.json,
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        trio.run(Servers().run)
    else:
        main()
