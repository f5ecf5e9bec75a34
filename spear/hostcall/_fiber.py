"""A guest on a wasmtime fiber, awaited from one Trio task.

`Fiber.call` starts a call in the guest and polls its future from the calling task. A poll ends in one of three ways:
the call is done; the epoch deadline passed (then the task gives way and polls again); or the guest made a suspending
hostcall. Such a hostcall is an `async def` that runs in the guest's own task *between* polls, on the ordinary stack;
when it returns, its result is written into the suspended frame and the next poll resumes the guest.

A hostcall that need not wait this time is answered at once: its frame is done before the guest is suspended.

A suspended hostcall may call back into the guest (`Fiber.call` again, from inside it). The nested call needs the
store while the outer call is suspended in the middle of it, so it is polled on the outer fiber: the task always polls
the outermost future, wasmtime asks the suspended hostcall's continuation, and that polls the nested future. Frames
form a stack, `_frames`; level n is the n-th suspended hostcall counted from the outside.

Lifetimes. The rules that keep this sound, in one place:

- A `Call` owns the arrays that hold arguments, results, trap and error. wasmtime writes to them until the future is
  deleted; the `Call` is referenced by the Python frame that awaits it (outermost) or by its `_Frame` (nested).
- A future is deleted exactly once: right after the poll that completed it, or by `Call.drop`. Deleting a suspended
  future unwinds its fiber, on that fiber. A nested future must go before the one it is nested in, and while the outer
  fiber is current; so it is deleted by the finalizer of the continuation that polls it, which wasmtime runs when it
  unwinds the outer fiber. Hence `_frames` is popped only by the finalizer.
- The result, trap and continuation addresses given to a suspending callback live in the future of that hostcall: from
  the callback until its finalizer ran. They are written only in between (`_Frame.finish`).
- `Runtime.current` names the guest whose code runs. It is set around every poll and every delete, and nothing in
  between awaits, so callbacks never see another guest.
- The store outlives all its futures; `close` deletes it last. Callback objects belong to the engine's linker, and a
  fiber holds the engine.

Python runs on fiber stacks only inside callbacks, and every callback returns before its fiber is suspended, so no
Python frame is ever switched out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from ctypes import c_int32, c_uint8, c_void_p
from typing import TYPE_CHECKING, Final

from trio.lowlevel import enable_ki_protection

from spear.hostcall import _binding as native
from spear.hostcall._call import Call
from spear.hostcall._errno import Refused
from spear.hostcall._limits import Limits
from spear.hostcall._slices import Slices

if TYPE_CHECKING:
    from spear.hostcall._guest import Guest


Suspending = Callable[..., Awaitable[int | None]]
"""The function behind a suspending hostcall: takes the guest and ints, gives the result if it has one."""


class Runtime:
    """What all guests of one engine share: whose code runs now, and the order of resuming.

    It owns the two callbacks through which wasmtime asks suspended hostcalls, so it outlives every fiber. `stretches`
    is odd while a poll runs guest code and never the same in two polls; another thread may read it.
    """

    __slots__ = ("continuation", "current", "finalizer", "slices", "stretches")

    current: Guest

    def __init__(self) -> None:
        self.slices: Final = Slices()
        self.stretches = 0

        def resume(level: int) -> bool:
            fiber = self.current.fiber
            try:
                return fiber.resume(level)
            except BaseException as error:  # noqa: BLE001  (raised again by the poll that led here)
                fiber.end_with(error)
                return False

        def finalize(level: int) -> None:
            fiber = self.current.fiber
            try:
                fiber.finalize(level)
            except BaseException as error:  # noqa: BLE001  (as above)
                fiber.end_with(error)

        self.continuation: Final = native.CONTINUE(resume)
        self.finalizer: Final = native.FINALIZE(finalize)

    def forget(self, guest: Guest) -> None:
        """Do not keep a guest that has ended."""
        if getattr(self, "current", None) is guest:
            del self.current


class _Frame:
    """One suspended hostcall."""

    __slots__ = ("_results", "arguments", "done", "nested", "run")

    def __init__(
        self, run: Callable[..., Awaitable[int | None]] | None, arguments: tuple[int, ...], results: int
    ) -> None:
        self.run = run
        self.arguments = arguments
        self._results = results
        self.nested: Call | None = None
        self.done = False

    def finish(self, result: int | None) -> None:
        if result is not None:
            c_uint8.from_address(self._results).value = native.KIND_I32
            c_int32.from_address(self._results + native.VAL_PAYLOAD).value = result
        self.done = True


class Fiber:
    """The store of one guest and the calls that run in it. One task uses it; calls nest, they do not overlap."""

    __slots__ = ("_frames", "_guest", "_root", "_runtime", "_store", "_waiting", "context", "ending")

    def __init__(self, runtime: Runtime, guest: Guest, engine_address: int, limits: Limits) -> None:
        self._runtime = runtime
        self._guest = guest
        self._store: int | None = native.store_new(engine_address, None, None)
        self.context: int = native.store_context(self._store)
        native.store_limiter(
            self._store, limits.memory_bytes, limits.table_elements, limits.instances, limits.tables, limits.memories
        )
        # In this order: the yield is what happens at a deadline that must already exist.
        native.set_epoch_deadline(self.context, 1)
        native.epoch_yield(self.context, 1)
        self._frames: list[_Frame] = []
        self._waiting: _Frame | None = None
        self._root: Call | None = None
        self.ending: BaseException | None = None

    @property
    def depth(self) -> int:
        """How many hostcalls are suspended inside each other now."""
        return len(self._frames)

    async def instantiate(self, pre: int) -> native.Instance:
        """Make the instance and run its start function. Raises `Trapped`; cancellation unwinds the guest."""
        call = Call(0)
        call.start_instance(self.context, pre)
        await self._outermost(call)
        return call.instance

    async def call(self, func: native.Func, arguments: tuple[int, ...], result_count: int) -> native.Val | None:
        """Call a guest function and give its (first) result.

        May be awaited from within a suspending hostcall; then it runs nested. Cancellation unwinds the guest with all
        calls nested in it: a hostcall must not swallow `Cancelled`. Raises `Trapped` when this call trapped, or
        `ending` when something in it ended the whole guest.
        """
        call = Call(result_count)
        if self._root is None:
            call.start(self.context, func, arguments)
            await self._outermost(call)
        else:
            frame = self._frames[-1]
            # A nested future may be created here, but is polled only by the continuation of `frame`.
            call.start(self.context, func, arguments)
            frame.nested = call
            await self._drive(call)
            frame.nested = None
            call.raise_failure()
        return call.results[0] if result_count else None

    def close(self) -> None:
        """Free the store with the guest's memory. The fiber is unusable then."""
        store, self._store = self._store, None
        if store is not None:
            native.store_delete(store)
            self._runtime.forget(self._guest)
            del self._guest  # they refer to each other

    async def _outermost(self, call: Call) -> None:
        self._root = call
        try:
            await self._drive(call)
            call.raise_failure()
        finally:
            self._unwind(call)
            self._root = None

    async def _drive(self, call: Call) -> None:
        """Poll until `call` is done, serving the hostcalls it makes. Several of these are active when calls nest."""
        slices = self._runtime.slices
        if slices.spent:
            await slices.stand_back()
        self._poll()
        while call.future is not None:
            frame = self._waiting
            if frame is None:
                slices.use_up()
                async with slices.token:
                    self._poll()
                continue
            self._waiting = None
            assert frame.run is not None
            try:
                result = await frame.run(self._guest, *frame.arguments)
            except Refused as refused:
                result = refused.errno
            frame.finish(result)
            if slices.spent:
                await slices.stand_back()
            self._poll()

    @enable_ki_protection
    def _poll(self) -> None:
        assert self._root is not None
        runtime = self._runtime
        runtime.current = self._guest
        native.set_epoch_deadline(self.context, 1)
        runtime.stretches += 1
        try:
            self._root.poll()
        finally:
            runtime.stretches += 1
        if self.ending is not None:
            raise self.ending

    @enable_ki_protection
    def _unwind(self, call: Call) -> None:
        self._runtime.current = self._guest
        call.drop()
        self._waiting = None
        if self._frames:
            raise RuntimeError(f"{len(self._frames)} hostcalls are left over after their guest was unwound")

    # What the callbacks of the linker and of wasmtime use. They run on a fiber's stack, inside a poll or a delete.

    def end(self, reason: BaseException) -> int:
        """End the guest with `reason`, raised from the outermost call. Gives the trap to return from a hostcall."""
        self.end_with(reason)
        text = b"ended by the host"
        trap: int = native.trap_new(text, len(text))
        return trap

    def end_with(self, reason: BaseException) -> None:
        """Let the poll that is under way raise `reason`. The first reason stays."""
        if self.ending is None:
            self.ending = reason

    def suspend(self, run: Suspending, arguments: tuple[int, ...], results: int, continuation: int) -> None:
        frame = _Frame(run, arguments, results)
        self._frames.append(frame)
        self._waiting = frame
        self._continue_with(continuation)

    def answer(self, result: int, results: int, continuation: int) -> None:
        """Answer a suspending hostcall that need not wait: a frame that is done at once."""
        frame = _Frame(None, (), results)
        frame.finish(result)
        self._frames.append(frame)
        self._continue_with(continuation)

    def refuse(self, reason: BaseException, trap_out: int, continuation: int) -> None:
        """End the guest from a suspending hostcall: a frame that is done at once, with a trap."""
        c_void_p.from_address(trap_out).value = self.end(reason)
        frame = _Frame(None, (), 0)
        frame.done = True
        self._frames.append(frame)
        self._continue_with(continuation)

    def _continue_with(self, continuation: int) -> None:
        slot = native.Continuation.from_address(continuation)
        slot.callback = self._runtime.continuation
        slot.env = len(self._frames)
        slot.finalizer = self._runtime.finalizer

    def resume(self, level: int) -> bool:
        frame = self._frames[level - 1]
        if frame.done:
            return True
        nested = frame.nested
        if nested is not None and nested.future is not None:
            nested.poll()
        return False

    def finalize(self, level: int) -> None:
        nested = self._frames[level - 1].nested
        if nested is not None:
            nested.drop()  # its own suspended hostcalls, if any, are finalized inside this
        self._frames.pop()
        assert len(self._frames) == level - 1
