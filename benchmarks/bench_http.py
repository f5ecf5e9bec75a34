"""CPU per request of the HTTP backend, 64 in flight, against `httpx.AsyncClient()` as it comes.

Both post the same chat request to the same server (a process of its own on the other core, which answers after 5 ms)
and parse the same answer; the backend builds the body from the IR and makes an IR answer of it besides. The figure is
the CPU time of this process, so that the waiting does not count.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

import httpx
import trio
from _measure import arguments, pin_to_one_core, report, rounds, row
from _server import serve

from spear.backends import Call, Host, Key, find_kind
from spear.config import InstanceConfig
from spear.ir import ChatMessage, ChatRequest, Hosting, Operation, RequestEnvelope
from spear.secrets import Secret

IN_FLIGHT = 64
REQUESTS = 20  # each of the 64 makes so many
ANSWER_AFTER_S = 0.005
KEY = "sk-benchmark-no-secret"
TEXT = "What is the capital of the country whose flag is a red disc on white? " * 4
BODY = {"model": "bench", "messages": [{"role": "user", "content": TEXT}], "temperature": 0.5}
ANSWER = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"bench","system_fingerprint":"fp",'
    b'"choices":[{"index":0,"message":{"role":"assistant","content":"Tokyo is the capital of Japan."},'
    b'"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":60,"completion_tokens":7,"total_tokens":67}}'
)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(ANSWER)

Once = Callable[[], Awaitable[object]]


# --- the server


async def answer(stream: trio.SocketStream) -> None:
    await trio.sleep(ANSWER_AFTER_S)
    await stream.send_all(HEAD + ANSWER)


# --- the clients


@asynccontextmanager
async def backend(port: int):
    base_url = Secret(f"http://127.0.0.1:{port}/v1")
    instance = InstanceConfig(name="b", kind="openai_chat", hosting=Hosting.LOCAL, base_url=base_url, model="bench")
    request = RequestEnvelope(
        operation=Operation.CHAT_COMPLETIONS,
        payload=ChatRequest.model_validate(
            {"messages": (ChatMessage(role="user", content=TEXT),), "generation": {"temperature": 0.5}}
        ),
    )
    call = Call(deadline=math.inf, connect=3, first_event=60, idle=30, key=Key("k", Secret(KEY)))
    async with find_kind("openai_chat").open(instance, Host()) as adapter:
        yield lambda: adapter.invoke(request, call)


@asynccontextmanager
async def stock_httpx(port: int):
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    async with httpx.AsyncClient() as client:

        async def once() -> object:
            response = await client.post(url, json=BODY, headers={"authorization": f"Bearer {KEY}"})
            response.raise_for_status()
            return response.json()

        yield once


async def cpu_per_request(client: AbstractAsyncContextManager[Once]) -> float:
    async def repeat(once: Once, times: int) -> None:
        for _ in range(times):
            await once()

    async def all_of_them(once: Once, times: int) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(IN_FLIGHT):
                nursery.start_soon(repeat, once, times)

    async with client as once:
        await all_of_them(once, 2)  # connections are open after this
        before = time.process_time()
        await all_of_them(once, REQUESTS)
        return (time.process_time() - before) / (IN_FLIGHT * REQUESTS)


def main() -> None:
    options = arguments(__doc__, default_rounds=7)
    core = pin_to_one_core()
    command = [sys.executable, __file__, "--serve", str(min(os.sched_getaffinity(os.getppid()) - {core} or {core}))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        port = int(server.stdout.readline())
        cases = {
            "openai_chat backend, 64 in flight": lambda: trio.run(cpu_per_request, backend(port)),
            "httpx.AsyncClient(), 64 in flight": lambda: trio.run(cpu_per_request, stock_httpx(port)),
        }
        figures = rounds(cases, options.rounds)
        server.stdin.close()
    ours, stock = cases
    report(
        "CPU per chat request over HTTP",
        [row(figures, stock), row(figures, ours, stock, 0.6)],
        as_json=options.json,
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        trio.run(partial(serve, answer, int(sys.argv[2])))
    else:
        main()
