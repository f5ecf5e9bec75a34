"""A real guest with one exported function per import, so that a test can make any single hostcall through real wasm.

State (descriptors, memory, log) lives as long as the probe. i64 parameters are widened from i32 by the guest.
"""

from __future__ import annotations

import json
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import trio
import wasmtime
from hypothesis import HealthCheck, settings

from spear.hostcall import ChatReply, ChatSnapshot, Emit, GuestEngine, GuestTask, Limits, NoOperations, OperationPort
from spear.hostcall import _binding as native
from spear.hostcall._capture import Capture
from spear.hostcall._guest import Guest
from spear.hostcall._log import LogRing
from spear.hostcall._mcp import NO_MCP, GuestMcp
from spear.hostcall._table import TABLE, Hostcall

# Time says nothing about correctness on a machine that is shared.
RELAXED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])

PAGE = 65536
TASK = GuestTask("probe")
_TYPES = {"i": "i32", "I": "i64"}


def thunk_module(pages: int = 2, *, memory: bool = True, extra: str = "", table: tuple[Hostcall, ...] = TABLE) -> bytes:
    """The module: every import, and under the same name an export that calls it with i32 arguments."""
    lines = ["(module"]
    for call in table:
        params = " ".join(_TYPES[one] for one in call.params)
        result = f"(result {_TYPES[call.result]})" if call.result else ""
        lines.append(f'(import "{call.module}" "{call.name}" (func ${call.name} (param {params}) {result}))')
    if memory:
        lines.append(f'(memory (export "memory") {pages} 64)')
    for call in table:
        params = " ".join("i32" for _ in call.params)
        result = f"(result {_TYPES[call.result]})" if call.result else ""
        arguments = " ".join(
            f"(i64.extend_i32_s (local.get {i}))" if one == "I" else f"(local.get {i})"
            for i, one in enumerate(call.params)
        )
        lines.append(f'(func (export "{call.name}") (param {params}) {result} (call ${call.name} {arguments}))')
    return bytes(wasmtime.wat2wasm("\n".join([*lines, extra, ")"])))


Answer = Callable[[ChatSnapshot], ChatReply]


def success(text: str | None = "ok", **message: Any) -> ChatReply:
    choice = {"finish_reason": "stop", "index": 0, "message": {"role": "assistant", "content": text, **message}}
    body = {"_spear": {"backend": "b", "model": "m"}, "choices": [choice], "object": "chat.completion"}
    return ChatReply(body, {"input_tokens": 3, "output_tokens": 2})


def wants(*calls: tuple[str, str, str]) -> ChatReply:
    """An answer that asks for tools: (id, name, arguments)."""
    return success(
        None,
        tool_calls=[
            {"id": identifier, "type": "function", "function": {"name": name, "arguments": arguments}}
            for identifier, name, arguments in calls
        ],
    )


class Scripted:
    """A chat port that gives prepared replies in order and keeps what it was asked. It is no backend."""

    def __init__(self, *replies: ChatReply) -> None:
        self.replies = list(replies)
        self.asked: list[ChatSnapshot] = []

    async def __call__(self, session: ChatSnapshot) -> ChatReply:
        self.asked.append(session)
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]


class Streaming:
    """A chat port whose rounds are scripted event by event: each is a list of events, a float among them a pause in
    seconds and an `Event` something to wait for, with its reply last. It is no backend. `ended` counts the rounds that
    came to their end, `left` those that were cancelled before."""

    def __init__(self, *rounds: list[Any]) -> None:
        self.rounds = list(rounds)
        self.asked: list[ChatSnapshot] = []
        self.emitted = self.ended = self.left = 0

    async def __call__(self, session: ChatSnapshot) -> ChatReply:
        return await self._answer(session, None)

    async def stream(self, session: ChatSnapshot, emit: Emit) -> ChatReply:
        return await self._answer(session, emit)

    async def _answer(self, session: ChatSnapshot, emit: Emit | None) -> ChatReply:
        self.asked.append(session)
        *steps, reply = self.rounds.pop(0) if len(self.rounds) > 1 else self.rounds[0]
        assert isinstance(reply, ChatReply)
        try:
            await self._steps(steps, emit)
        except BaseException:
            self.left += 1
            raise
        self.ended += 1
        return reply

    async def _steps(self, steps: list[Any], emit: Emit | None) -> None:
        await trio.lowlevel.checkpoint()
        for step in steps:
            if isinstance(step, float):
                await trio.sleep(step)
            elif isinstance(step, trio.Event):
                await step.wait()
            elif emit is not None:
                await emit(step)
                self.emitted += 1


class Probe:
    def __init__(self, guest: Guest, instance: native.Instance, results: Mapping[str, str]) -> None:
        self.guest = guest
        self._instance = instance
        self._results = results

    async def call(self, name: str, *arguments: int) -> int:
        found = self.guest.export(self._instance, name)
        assert found is not None, name
        kind = self._results.get(name, "i")
        value = await self.guest.fiber.call(found.of.func, arguments, 1 if kind else 0)
        if value is None:
            return 0
        return int(value.of.i64 if kind == "I" else value.of.i32)

    def put(self, offset: int, data: bytes | str) -> tuple[int, int]:
        """Write into the guest's memory; gives (offset, length)."""
        raw = data.encode() if isinstance(data, str) else data
        self.guest.memory.write(offset, raw)
        return offset, len(raw)

    def put_u32(self, offset: int, value: int) -> int:
        self.guest.memory.write_u32(offset, value)
        return offset

    def u32(self, offset: int) -> int:
        return self.guest.memory.read_u32(offset)

    def read(self, offset: int, length: int) -> bytes:
        return self.guest.memory.read(offset, length)

    async def out(self, name: str, *arguments: int, at: int = 4096, capacity: int = 65536) -> bytes | int:
        """A call that ends in (out_ptr, out_len_ptr): its bytes, or its negative result."""
        self.put_u32(8, capacity)
        count = await self.call(name, *arguments, at, 8)
        if count < 0:
            return count
        assert self.u32(8) == count
        return self.read(at, count)

    async def param(self, fd: int, key: str, value: Any) -> int:
        return await self.raw_param(fd, json.dumps({"key": key, "value": value}))

    async def raw_param(self, fd: int, text: str | bytes) -> int:
        pointer, length = self.put(20_000, text)
        self.put_u32(8, length)
        return await self.call("cchat_ctl", fd, 1, pointer, 8)

    async def say(self, fd: int, content: str, role: str = "user") -> int:
        return await self.call("cchat_write_msg", fd, *self.put(256, role), *self.put(1024, content))

    async def tool(self, fd: int, index: int, text: str) -> int:
        return await self.call("cchat_write_fn", fd, index, *self.put(1024, text))

    async def body(self, fd: int) -> Any:
        raw = await self.out("cchat_recv", fd)
        assert isinstance(raw, bytes), raw
        return json.loads(raw)

    async def watch(self, epfd: int, fd: int, events: int, op: int = 1) -> int:
        return await self.call("spear_epoll_ctl", epfd, op, fd, events)

    async def wait(self, epfd: int, timeout_ms: int = 0, capacity: int = 80) -> list[tuple[int, int]] | int:
        self.put_u32(8, capacity)
        count = await self.call("spear_epoll_wait", epfd, 4096, 8, timeout_ms)
        if count < 0:
            return count
        assert self.u32(8) == 8 * count
        return [struct.unpack("<ii", self.read(4096 + 8 * i, 8)) for i in range(count)]  # type: ignore[misc]


@asynccontextmanager
async def open_probe(
    chat: Any = None,
    *,
    limits: Limits | None = None,
    wasm: bytes | None = None,
    operations: OperationPort | None = None,
    mcp: GuestMcp = NO_MCP,
    **module: Any,
) -> AsyncIterator[Probe]:
    async with (
        GuestEngine(cache_directory=None, limits=limits) as engine,
        probe_in(engine, chat, wasm or thunk_module(**module), operations=operations, mcp=mcp) as probe,
    ):
        yield probe


@asynccontextmanager
async def probe_in(
    engine: GuestEngine,
    chat: Any,
    wasm: bytes,
    *,
    operations: OperationPort | None = None,
    mcp: GuestMcp = NO_MCP,
) -> AsyncIterator[Probe]:
    loaded = await engine.load(wasm)
    engine._ticker.enter()
    limits = engine.limits
    guest = Guest(
        engine._runtime,
        engine._address,
        limits,
        LogRing("exec-1", TASK.id, "inst-1"),
        Capture(limits.stdio_bytes),
        Capture(limits.stdio_bytes),
        chat or Scripted(success()),
        operations or NoOperations(),
        mcp,
    )
    try:
        async with guest.requests.opened():
            instance = await guest.fiber.instantiate(loaded.prepared)
            guest.attach(instance, loaded.table_name)
            yield Probe(guest, instance, {call.name: call.result for call in TABLE})
    finally:
        guest.close()
        engine._ticker.leave()
