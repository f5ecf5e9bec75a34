"""What the whole-program tests share: configurations, guests, and the count of what a runtime must give back."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import trio
import wasmtime

import spear
from spear.guests import path as sample
from spear.ir import ChatMessage, ChatRequest, Operation, RequestEnvelope
from tests.servers.fault_server import FaultServer

GUESTS = Path(__file__).with_name("system_guests.wasm")
TOOL_FAULTS = Path(__file__).parents[1] / "spear" / "guests" / "tool_faults.wasm"
CHAT, CHAT_TOOL, HELLO = sample("chat"), sample("chat_tool"), sample("hello")
SPIN = bytes(wasmtime.wat2wasm('(module (memory (export "memory") 1) (func (export "_start") (loop (br 0))))'))
NOTHING = bytes(wasmtime.wat2wasm('(module (memory (export "memory") 1) (func (export "_start")))'))


def backend(server: FaultServer, name: str = "", **more):
    """A configured instance that is that server."""
    return {
        "name": name or server.name,
        "kind": "openai_chat",
        "hosting": "local",
        "base_url": server.base_url,
        "model": "small",
        **more,
    }


def stub(name: str = "stub", **more):
    return {"name": name, "kind": "stub", "hosting": "local", **more}


def config(*backends, **more):
    return {"spear": {"backends": list(backends), "guests": {"module_cache": False}, **more}}


def prefer(first: FaultServer, second: FaultServer):
    """`first` as long as it can, then `second`."""
    return config(
        backend(first, priority=0),
        backend(second, priority=1),
        routes=[{"match": {"operation": "chat_completions"}, "policy": "priority"}],
    )


def chat(text: str = "hello there", model: str = "small", **fields) -> RequestEnvelope:
    payload = ChatRequest(model=model, messages=(ChatMessage(role="user", content=text),))
    return RequestEnvelope(operation=Operation.CHAT_COMPLETIONS, payload=payload, **fields)


def open_fds() -> dict[int, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # the descriptor of the listing itself
    return found


def tasks() -> Counter[str]:
    """The names of all tasks of this Trio run but for Trio's own."""
    root = trio.lowlevel.current_root_task()
    assert root is not None
    found, waiting = [], [root]
    while waiting:
        task = waiting.pop()
        found.append(task.name)
        for nursery in task.child_nurseries:
            waiting += nursery.child_tasks
    return Counter(found)


def threads() -> Counter[str]:
    """Trio keeps idle worker threads for ten seconds: they are its cache, not ours."""
    return Counter(each.name for each in threading.enumerate() if not each.name.startswith("Trio thread"))


@asynccontextmanager
async def nothing_left(limit: float = 3.0) -> AsyncIterator[None]:
    """After the block there are the tasks, threads and descriptors that were there before."""
    before = tasks(), threads(), open_fds()
    yield  # noqa: RUF075 - a test that failed has said enough
    ends = time.monotonic() + limit
    while True:
        gc.collect()  # compiled modules are files in memory, and live as long as a traceback refers to them
        after = tasks(), threads(), open_fds()
        if after[0] <= before[0] and after[1] <= before[1] and after[2].keys() <= before[2].keys():
            return
        if time.monotonic() > ends:
            new = {fd: what for fd, what in after[2].items() if fd not in before[2]}
            raise AssertionError(f"left: tasks {after[0] - before[0]}, threads {after[1] - before[1]}, fds {new}")
        await trio.sleep(0.02)


async def until_true(condition: Callable[[], object], limit: float = 5.0) -> None:
    """Polls, because what is waited for happens in another process or thread, or is only to be seen."""
    with trio.fail_after(limit):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.005)


@asynccontextmanager
async def warm_runtime(source, **options) -> AsyncIterator[spear.Runtime]:
    """A runtime whose engine has run a guest."""
    async with spear.open_runtime(source, **options) as runtime:
        await runtime.run_guest(NOTHING)
        yield runtime


@contextmanager
def environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
