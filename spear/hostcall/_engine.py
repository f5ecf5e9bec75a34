"""`GuestEngine`: loads modules and runs guests. One per runtime; all of its guests are tasks of one event loop."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from contextlib import AbstractAsyncContextManager
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

import trio
import wasmtime

from spear.hostcall import _binding as native
from spear.hostcall._cache import DiskCache, default_directory
from spear.hostcall._capture import ByteSink, Capture
from spear.hostcall._chat_port import ChatPort
from spear.hostcall._epoch import EpochTicker
from spear.hostcall._errors import EngineClosed
from spear.hostcall._execution import Execution, GuestTask
from spear.hostcall._fiber import Runtime
from spear.hostcall._filter_call import NoChat, call_filter
from spear.hostcall._guest import Guest
from spear.hostcall._limits import Limits
from spear.hostcall._linker import Linker
from spear.hostcall._log import LogRing, LogSink
from spear.hostcall._mcp import guest_mcp
from spear.hostcall._module import Module, Source, compile_module, read_source
from spear.hostcall._offer import NOTHING, Offering
from spear.hostcall._operation_port import NO_OPERATIONS, OperationPort
from spear.hostcall._run import execute
from spear.hostcall._table import TABLE
from spear.hostcall._termination import Termination
from spear.hostcall._watchdog import Watchdog
from spear.mcp import McpPort

MODULES_IN_MEMORY: Final = 64
READING_THREADS: Final = 2
COMPILING_THREADS: Final = 2
SETTINGS: Final = "2"  # raise when `_config` changes, so that compiled modules of the old settings are not looked at


def _config() -> wasmtime.Config:
    config = wasmtime.Config()
    config.epoch_interruption = True
    config.memory_may_move = False  # `GuestMemory` relies on it
    config.wasm_threads = False  # no shared memory: one thread per guest
    config.shared_memory = False
    config.wasm_memory64 = False
    config.wasm_component_model = False
    # Objects of wasmtime's garbage-collected heap would come on top of the linear memory.
    config.wasm_gc = False
    return config


class GuestEngine(AbstractAsyncContextManager["GuestEngine"]):
    """Open with `async with`; every `run` must have ended when the block ends.

    Args:
        cache_directory: where compiled modules are kept between processes; None keeps them in memory only. The default
            is below the user's cache directory.
        limits: what each guest may use.
    """

    def __init__(
        self,
        *,
        cache_directory: Path | Literal["default"] | None = "default",
        limits: Limits | None = None,
    ) -> None:
        self._cache_directory = default_directory() if cache_directory == "default" else cache_directory
        self.limits = Limits() if limits is None else limits
        self._modules: OrderedDict[str, Module] = OrderedDict()
        self._loading: dict[str, trio.Event] = {}
        # Own limits, so that slow modules take no worker threads from others. A compile that was abandoned keeps its
        # place until it ends. Reading has places of its own: what is in memory does not wait for compiles.
        self._reading = trio.CapacityLimiter(READING_THREADS)
        self._compiling = trio.CapacityLimiter(COMPILING_THREADS)
        self._open = False

    async def __aenter__(self) -> Self:
        self._engine = wasmtime.Engine(_config())
        self._address = native.pointer_value(self._engine)
        self._runtime = Runtime()
        self._linker = Linker(self._engine, self._runtime, TABLE)
        loop_thread = time.pthread_getcpuclockid(threading.get_ident())
        self._ticker = EpochTicker(self._address, Watchdog(self._runtime, loop_thread).look)
        self._disk: DiskCache | None = None
        if self._cache_directory is not None:
            tag = f"wasmtime{metadata.version('wasmtime')}-{SETTINGS}"
            self._disk = await trio.to_thread.run_sync(DiskCache, self._cache_directory, tag)
        self._open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        if self._ticker.guests:
            raise RuntimeError(f"{self._ticker.guests} guests still run; their `run` calls must end before the engine")
        self._modules.clear()
        self._linker.close()
        self._ticker.close()

    @property
    def running(self) -> int:
        """Guests that are in `run` now."""
        return self._ticker.guests if self._open else 0

    @property
    def cache_problem(self) -> str | None:
        """Why compiled modules are not kept on disk, if they are not though a directory was given."""
        return self._disk.problem if self._disk is not None else None

    async def load(self, source: Path | bytes) -> Module:
        """A module ready to run: from memory, from disk, or compiled now.

        Reading and compiling happen in worker threads, two modules at a time each; further loads wait in line.
        Cancellation returns at once; a compile under way cannot be interrupted and ends in its thread, unused.
        Several loads of the same module share one compile.

        Raises:
            NotAModule, ModuleTooLarge, LinkError: see there.
            OSError: the file cannot be read.
        """
        self._check_open()
        found = await trio.to_thread.run_sync(read_source, source, abandon_on_cancel=True, limiter=self._reading)
        while True:
            module = self._modules.get(found.digest)
            if module is not None:
                self._modules.move_to_end(found.digest)
                return module
            loading = self._loading.get(found.digest)
            if loading is None:
                return await self._load(found)
            await loading.wait()

    async def _load(self, source: Source) -> Module:
        done = self._loading[source.digest] = trio.Event()
        try:
            compiled = await trio.to_thread.run_sync(
                self._obtain, source, abandon_on_cancel=True, limiter=self._compiling
            )
            self._check_open()
            module = Module(source.name, source.digest, compiled, self._linker)
        finally:
            del self._loading[source.digest]
            done.set()
        self._modules[source.digest] = module
        if len(self._modules) > MODULES_IN_MEMORY:
            self._modules.popitem(last=False)
        return module

    def _obtain(self, source: Source) -> wasmtime.Module:
        """In a worker thread: from disk, else compiled and put there."""
        disk = self._disk
        code = disk.load(source.digest) if disk is not None else None
        if code is not None and disk is not None:
            try:
                return wasmtime.Module.deserialize(self._engine, code)
            except wasmtime.WasmtimeError:
                disk.discard(source.digest)  # authentic, but of another build of wasmtime
        compiled = compile_module(self._engine, source)
        if disk is not None:
            disk.store(source.digest, bytes(compiled.serialize()))
        return compiled

    @trio.lowlevel.enable_ki_protection
    async def run(
        self,
        module: Module,
        *,
        task: GuestTask,
        chat: ChatPort,
        operations: OperationPort = NO_OPERATIONS,
        entry: str = "",
        timeout_s: float | None = 300.0,
        on_log: LogSink | None = None,
        on_stdout: ByteSink | None = None,
        on_stderr: ByteSink | None = None,
        handle: Termination | None = None,
        execution_id: str | None = None,
        mcp: McpPort | None = None,
        offer: Offering = NOTHING,
    ) -> Execution:
        """Run a fresh instance of the module to its end, in the calling task.

        Waits as long as the guest runs. Cancellation unwinds the guest, whether it is in a hostcall or in a loop, and
        frees all it had. What the guest does wrong is in the result, not an exception; what a port or a sink raises
        ends the guest and is raised here. Ctrl-C comes out of it only at a checkpoint, never between two steps of the
        bookkeeping.

        Args:
            task: whom the guest runs for.
            chat: answers its chat sends.
            operations: answers its other operations, and lends it the media store; without it they are switched off.
            entry: the exported function to run; "" means `_start`, else `main`.
            timeout_s: wall-clock limit in seconds; None or 0 is none.
            on_log, on_stdout, on_stderr: called with each record or piece of output as it comes; they must not block.
            handle: ends this run from elsewhere.
            execution_id: its id; a random one by default.
            offer: what the guest is told that it may ask for.
            mcp: the host's MCP servers; what of them is the guest's, its task says.

        Raises:
            EngineClosed: outside the engine's `async with` block.
        """
        self._check_open()
        execution_id = execution_id or f"exec-{secrets.token_hex(8)}"
        log = LogRing(execution_id, task.id, f"inst-{secrets.token_hex(8)}", on_log, self.limits.log_bytes)
        self._ticker.enter()
        try:
            guest = Guest(
                self._runtime,
                self._address,
                self.limits,
                log,
                Capture(self.limits.stdio_bytes, on_stdout),
                Capture(self.limits.stdio_bytes, on_stderr),
                chat,
                operations,
                guest_mcp(task.config, mcp),
                offer,
            )
            return await execute(guest, module, entry, timeout_s, handle or Termination(), execution_id)
        finally:
            self._ticker.leave()

    @trio.lowlevel.enable_ki_protection
    async def ask_filter(
        self, module: Module, question: bytes, *, max_answer: int, timeout_s: float, on_log: LogSink | None = None
    ) -> bytes:
        """Ask a routing filter (see `check_filter`), a fresh instance of it, and give its answer, of which there may be
        `max_answer` bytes.

        Waits as long as the guest runs: the clock is the caller's, and cancellation unwinds the guest. `timeout_s` ends
        one that never gives way. Raises `FilterCallFailed`, and EngineClosed outside the engine's block.
        """
        self._check_open()
        log = LogRing("filter", "", "", on_log, self.limits.log_bytes)
        self._ticker.enter()
        try:
            silent = Capture(0), Capture(0)
            guest = Guest(self._runtime, self._address, self.limits, log, *silent, NoChat())
            return await call_filter(guest, module, question, max_answer, timeout_s)
        finally:
            self._ticker.leave()

    def _check_open(self) -> None:
        if not self._open:
            raise EngineClosed("the guest engine is not open; use it inside `async with GuestEngine() as engine:`")
