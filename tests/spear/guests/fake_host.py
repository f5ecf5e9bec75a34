"""A small, synchronous stand-in for the runtime: just enough of the ABI to see what a guest asks and does.

It is no reference: no limits, no check orders, no cancellation. Chat answers come from `body_of`; tools run once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import wasmtime

I32, I64 = wasmtime.ValType.i32, wasmtime.ValType.i64
EBADF, EAGAIN, EINVAL, ENOSPC = -9, -11, -22, -28
IN, HUP = 0x1, 0x10
ENGINE = wasmtime.Engine()
_MODULES: dict[Path, wasmtime.Module] = {}


def load(path: Path) -> wasmtime.Module:
    if path not in _MODULES:
        _MODULES[path] = wasmtime.Module.from_file(ENGINE, str(path))
    return _MODULES[path]


def compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False)


def completion(text: str | None, **message: Any) -> dict[str, Any]:
    choice = {"finish_reason": "stop", "index": 0, "message": {"role": "assistant", "content": text, **message}}
    return {"_spear": {"backend": "fake", "model": ""}, "choices": [choice], "object": "chat.completion"}


@dataclass
class Session:
    messages: list[dict[str, Any]] = field(default_factory=list)
    tools: list[tuple[int, str]] = field(default_factory=list)
    params: dict[str, Any] = field(default_factory=dict)


@dataclass
class FakeHost:
    """`run` gives the exit code (or what the entry returned); stdout, stderr and logs are here afterwards."""

    body_of: Callable[[Session], bytes] = lambda session: compact(completion("fine")).encode()
    logs: list[tuple[int, str]] = field(default_factory=list)
    sessions: list[Session] = field(default_factory=list)
    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    reads: int = 0

    def __post_init__(self) -> None:
        self.objects: dict[int, Any] = {}
        self.closed: set[int] = set()

    # --- running

    def run(self, path: Path, entry: str = "_start") -> int | None:
        store = wasmtime.Store(ENGINE)
        config = wasmtime.WasiConfig()
        config.stdout_custom = lambda data: self._take(self.stdout, data)
        config.stderr_custom = lambda data: self._take(self.stderr, data)
        store.set_wasi(config)
        linker = wasmtime.Linker(ENGINE)
        linker.define_wasi()
        for name, (params, result, function) in self._imports().items():
            kind = wasmtime.FuncType([I32() if p == "i" else I64() for p in params], result)
            linker.define_func("spear", name, kind, function, access_caller=True)
        instance = linker.instantiate(store, load(path))
        try:
            result = instance.exports(store)[entry](store)
        except wasmtime.ExitTrap as end:
            return end.code
        return 0 if result is None and entry == "_start" else result

    @staticmethod
    def _take(into: bytearray, data: bytes) -> int:
        into += data
        return len(data)

    def _imports(self) -> dict[str, tuple[str, list[Any], Callable[..., Any]]]:
        number, long, nothing = [I32()], [I64()], []
        return {
            "time_now_ms": ("", long, lambda caller: time.time_ns() // 1_000_000),
            "wall_time_s": ("", long, lambda caller: int(time.time())),
            "sleep_ms": ("i", nothing, lambda caller, ms: time.sleep(max(ms, 0) / 1000)),
            "log": ("iii", number, self.log),
            "cchat_create": ("", number, lambda caller: self.new(Session())),
            "cchat_write_msg": ("iiiii", number, self.write_msg),
            "cchat_write_fn": ("iiii", number, self.write_fn),
            "cchat_ctl": ("iiii", number, self.ctl),
            "cchat_send": ("ii", number, self.send),
            "cchat_recv": ("iii", number, self.recv),
            "cchat_close": ("i", number, self.close),
            "spear_epoll_create": ("", number, lambda caller: self.new({})),
            "spear_epoll_ctl": ("iiii", number, self.epoll_ctl),
            "spear_epoll_wait": ("iiii", number, self.epoll_wait),
            "spear_epoll_close": ("i", number, self.close),
        }

    # --- memory

    @staticmethod
    def read(caller: wasmtime.Caller, at: int, size: int) -> bytes:
        memory = caller["memory"]
        assert 0 <= at <= at + size <= memory.data_len(caller), "the guest points outside its memory"
        return bytes(memory.read(caller, at, at + size))

    @staticmethod
    def write(caller: wasmtime.Caller, at: int, data: bytes) -> None:
        caller["memory"].write(caller, data, at)

    def word(self, caller: wasmtime.Caller, at: int) -> int:
        return int.from_bytes(self.read(caller, at, 4), "little")

    def outbuf(self, caller: wasmtime.Caller, data: bytes, out: int, out_len: int) -> int:
        capacity = self.word(caller, out_len)
        self.write(caller, out_len, len(data).to_bytes(4, "little"))
        if capacity < len(data):
            return ENOSPC
        self.write(caller, out, data)
        return len(data)

    # --- hostcalls

    def new(self, thing: Any) -> int:
        fd = 1000 + len(self.objects)
        self.objects[fd] = thing
        if isinstance(thing, Session):
            self.sessions.append(thing)
        return fd

    def open(self, fd: int, kind: type) -> Any:
        thing = self.objects.get(fd)
        return thing if isinstance(thing, kind) and fd not in self.closed else None

    def log(self, caller: wasmtime.Caller, level: int, at: int, size: int) -> int:
        if not 0 <= size <= 16_384:
            return EINVAL
        self.logs.append((level, self.read(caller, at, size).decode()))
        return 0

    def write_msg(self, caller: wasmtime.Caller, fd: int, role: int, role_len: int, at: int, size: int) -> int:
        message = {
            "role": self.read(caller, role, role_len).decode(),
            "content": self.read(caller, at, size).decode(),
        }
        session = self.open(fd, Session)
        if session is None:
            return EBADF
        session.messages.append(message)
        return 0

    def write_fn(self, caller: wasmtime.Caller, fd: int, index: int, at: int, size: int) -> int:
        session = self.open(fd, Session)
        if session is None:
            return EBADF
        session.tools.append((index, self.read(caller, at, size).decode()))
        return 0

    def ctl(self, caller: wasmtime.Caller, fd: int, command: int, arg: int, arg_len: int) -> int:
        if command == 1:
            session = self.open(fd, Session)
            param = json.loads(self.read(caller, arg, self.word(caller, arg_len)).decode("utf-8", "replace"))
            session.params[param["key"]] = param["value"]
            return 0
        usage = compact({"completion_tokens": 1, "prompt_tokens": 2, "total_tokens": 3}).encode()
        return self.outbuf(caller, usage, arg, arg_len)

    def send(self, caller: wasmtime.Caller, fd: int, flags: int) -> int:
        session = self.open(fd, Session)
        if session is None:
            return EBADF
        if flags & 2 and session.tools:
            self.call_tool(caller, session)
        return self.new(self.body_of(session))

    def call_tool(self, caller: wasmtime.Caller, session: Session) -> None:
        """One call of the first tool with the arena's layout, its output appended as a tool message."""
        args, base = b'{"a":20,"b":22}', session.params["tool_arena_ptr"]
        out = base + (len(args) + 8) // 8 * 8
        capacity = min(session.params["tool_arena_len"] - (out - base) - 8, 65_536)
        out_len = out + (capacity + 7) // 8 * 8
        self.write(caller, base, args + b"\0")
        self.write(caller, out_len, capacity.to_bytes(4, "little"))
        tool = caller["__indirect_function_table"].get(caller, session.tools[0][0])
        result = tool(caller, base, len(args), out, out_len)
        content = self.read(caller, out, self.word(caller, out_len)).decode() if result == 0 else f"rc {result}"
        session.messages.append({"role": "tool", "content": content})

    def recv(self, caller: wasmtime.Caller, fd: int, out: int, out_len: int) -> int:
        self.reads += 1
        body = self.open(fd, bytes)
        return EBADF if body is None else self.outbuf(caller, body, out, out_len)

    def close(self, caller: wasmtime.Caller, fd: int) -> int:
        if fd not in self.objects:
            return EBADF
        self.closed.add(fd)
        return 0

    def epoll_ctl(self, caller: wasmtime.Caller, epfd: int, op: int, fd: int, events: int) -> int:
        interest = self.open(epfd, dict)
        if interest is None or fd not in self.objects:
            return EBADF
        if op == 3:
            interest.pop(fd, None)
        else:
            interest[fd] = events
        return 0

    def epoll_wait(self, caller: wasmtime.Caller, epfd: int, out: int, out_len: int, timeout_ms: int) -> int:
        capacity = self.word(caller, out_len)
        if capacity < 8:
            self.write(caller, out_len, (8).to_bytes(4, "little"))
            return ENOSPC
        interest = self.open(epfd, dict)
        if interest is None:
            return EBADF
        records = []
        for fd, wanted in sorted(interest.items()):
            ready = HUP if fd in self.closed else IN if isinstance(self.objects[fd], bytes) else 0
            if ready & wanted:
                records.append(fd.to_bytes(4, "little") + (ready & wanted).to_bytes(4, "little"))
        if not records:
            assert timeout_ms >= 0, "the guest waits for ever for what never comes"
            time.sleep(timeout_ms / 1000)
        data = b"".join(records[: capacity // 8])
        self.write(caller, out_len, len(data).to_bytes(4, "little"))
        self.write(caller, out, data)
        return len(data) // 8
