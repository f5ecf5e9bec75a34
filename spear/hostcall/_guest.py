"""The state of one running guest: everything a hostcall can see of it."""

from __future__ import annotations

from ctypes import byref
from typing import Final

from spear.hostcall import _binding as native
from spear.hostcall._capture import Capture
from spear.hostcall._chat_port import ChatPort
from spear.hostcall._endings import Stopped
from spear.hostcall._fds import FdTable
from spear.hostcall._fiber import Fiber, Runtime
from spear.hostcall._holdings import Holdings
from spear.hostcall._last_error import LastError
from spear.hostcall._limits import Limits
from spear.hostcall._log import LogRing
from spear.hostcall._mcp import NO_MCP, GuestMcp
from spear.hostcall._memory import GuestMemory
from spear.hostcall._offer import NOTHING, Offering
from spear.hostcall._operation_port import NO_OPERATIONS, OperationPort
from spear.hostcall._requests import Requests
from spear.hostcall._usage import Usage
from spear.hostcall._wasi_files import StdFds

TIMEOUT: Final = "timeout"
HELD: Final = "the guest held the event loop too long without a loop or a function call"


class Guest:
    """Made for one execution and thrown away with it. `close` frees the store."""

    __slots__ = (
        "audio_holdings",
        "chat",
        "deadline",
        "fds",
        "fiber",
        "holdings",
        "last_error",
        "limits",
        "log",
        "mcp",
        "memory",
        "offer",
        "operations",
        "overrun",
        "requests",
        "stderr",
        "stdio",
        "stdout",
        "stop_text",
        "table",
        "tool_depth",
        "usage",
    )

    def __init__(
        self,
        runtime: Runtime,
        engine_address: int,
        limits: Limits,
        log: LogRing,
        stdout: Capture,
        stderr: Capture,
        chat: ChatPort,
        operations: OperationPort = NO_OPERATIONS,
        mcp: GuestMcp = NO_MCP,
        offer: Offering = NOTHING,
    ) -> None:
        self.limits = limits
        self.log = log
        self.stdout = stdout
        self.stderr = stderr
        self.chat = chat
        self.operations = operations
        self.mcp = mcp
        self.offer = offer
        self.memory = GuestMemory()
        self.table: native.Table | None = None
        self.fds = FdTable(limits.open_fds, limits.watches)
        self.holdings = Holdings(limits.held_bytes)
        self.audio_holdings = Holdings(limits.audio_held_bytes)
        self.last_error = LastError()
        self.requests = Requests(self.holdings, self.fds.touch, self.last_error, limits.in_flight)
        self.stdio = StdFds(stdout, stderr)
        self.tool_depth = 0
        self.usage = Usage()
        self.deadline = float("inf")  # as time.perf_counter has it
        self.overrun: str | None = None  # TIMEOUT or HELD, once `interrupt` was called
        self.stop_text: str | None = None  # set from outside: the next hostcall logs it and traps
        self.fiber = Fiber(runtime, self, engine_address, limits)

    def export(self, instance: native.Instance, name: str) -> native.Extern | None:
        raw = name.encode()
        found = native.Extern()
        if native.export_get(self.fiber.context, byref(instance), raw, len(raw), byref(found)):
            return found
        return None

    def attach(self, instance: native.Instance, table_name: str | None) -> None:
        """Take hold of the instance's memory and function table, as far as it exports them."""
        memory = self.export(instance, "memory")
        if memory is not None and memory.kind == native.EXTERN_MEMORY:
            self.memory.attach(self.fiber.context, native.Memory.from_buffer_copy(memory.of.memory))
        table = self.export(instance, table_name) if table_name is not None else None
        if table is not None:
            self.table = native.Table.from_buffer_copy(table.of.table)

    def interrupt(self, reason: str) -> None:
        """Let the next hostcall trap because of a limit. Call from any thread; the first reason to stop counts."""
        if self.stop_text is None:
            self.overrun = reason
            self.stop_text = f"Terminate execution: {reason}"

    def stopped(self) -> Stopped:
        """The reason to end with when a hostcall, or the run itself, finds that the guest was told to stop."""
        text = self.stop_text or ""
        self.log.add("warn", text)
        return Stopped(text)

    def close(self) -> None:
        self.fds.close_all()
        self.requests.close()
        self.memory.detach()
        self.fiber.close()
