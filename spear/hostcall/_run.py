"""One execution: a fresh guest, its entry function, and the account of what happened."""

from __future__ import annotations

import time
from dataclasses import dataclass

import trio

from spear.hostcall import _binding as native
from spear.hostcall._call import Trapped
from spear.hostcall._endings import Exited, Stopped
from spear.hostcall._execution import Execution, Status
from spear.hostcall._guest import TIMEOUT, Guest
from spear.hostcall._module import Entry, Module
from spear.hostcall._termination import Termination

DEFAULT_ENTRY = "__spear_default_entry__"
START = "_start"
MAIN = "main"
INITIALIZE = "_initialize"


class NoEntry(Exception):
    """The module has no function that could be run under the wanted name."""


@dataclass(frozen=True, slots=True)
class Outcome:
    status: Status
    exit_code: int | None = None
    output: str = ""
    error_message: str | None = None


async def execute(
    guest: Guest, module: Module, entry: str, timeout_s: float | None, handle: Termination, execution_id: str
) -> Execution:
    """Run to the end, however it comes. Cancellation from outside unwinds the guest and passes on. Closes the guest."""
    begin = time.perf_counter()
    try:
        limit = timeout_s if timeout_s else float("inf")
        with trio.CancelScope(deadline=trio.current_time() + limit) as scope:
            guest.deadline = begin + limit
            handle.attach(guest, scope)
            async with guest.requests.opened():
                outcome = await _attempt(guest, module, entry, handle, limit)
        if scope.cancelled_caught:
            guest.interrupt(TIMEOUT)
            guest.stopped()
            outcome = _stopped(guest, handle, limit)
    finally:
        guest.close()
    return Execution(
        status=outcome.status,
        exit_code=outcome.exit_code,
        output=outcome.output,
        error_message=outcome.error_message,
        execution_id=execution_id,
        duration_ms=(time.perf_counter() - begin) * 1000,
        logs=guest.log.read(),
        logs_dropped=guest.log.dropped,
        stdout=guest.stdout.text(),
        stderr=guest.stderr.text(),
        stdout_dropped=guest.stdout.dropped,
        stderr_dropped=guest.stderr.dropped,
        usage=guest.usage,
    )


def _stopped(guest: Guest, handle: Termination, limit: float) -> Outcome:
    if handle.requested:
        return Outcome("terminated", error_message=handle.message or "terminated")
    if guest.overrun == TIMEOUT:
        return Outcome("timeout", error_message=f"timeout after {limit:g} s")
    return Outcome("failed", error_message=guest.overrun)


async def _attempt(guest: Guest, module: Module, entry: str, handle: Termination, limit: float) -> Outcome:
    try:
        output = await _enter(guest, module, find_entry(module, entry))
    except NoEntry as error:
        return Outcome("failed", error_message=str(error))
    except Trapped as trap:
        return Outcome("failed", error_message=str(trap))
    except Stopped:
        return _stopped(guest, handle, limit)
    except Exited as exit_:
        code = exit_.code
        return Outcome("failed", code, error_message=f"exit code {code}") if code else Outcome("completed", 0)
    return Outcome("completed", 0, output)


def find_entry(module: Module, wanted: str) -> Entry:
    """The function to run. Raises `NoEntry`."""
    if wanted in {"", DEFAULT_ENTRY}:
        entry = module.functions.get(START) or module.functions.get(MAIN)
        if entry is None:
            raise NoEntry(f"{module.name} exports neither {START} nor {MAIN}; name the function to run")
    else:
        entry = module.functions.get(wanted)
        if entry is None:
            raise NoEntry(f"{module.name} exports no function {wanted!r}")
    if entry.params or len(entry.results) > 1:
        raise NoEntry(
            f"{entry.name!r} takes {entry.params} arguments and gives {len(entry.results)} results; an entry takes "
            "none and gives at most one"
        )
    if entry.results and entry.results[0] not in _TEXT:
        raise NoEntry(f"{entry.name!r} gives a vector or reference; an entry gives a number or nothing")
    return entry


async def _enter(guest: Guest, module: Module, entry: Entry) -> str:
    await trio.lowlevel.checkpoint_if_cancelled()
    instance = await guest.fiber.instantiate(module.prepared)
    guest.attach(instance, module.table_name)
    if entry.name != START and INITIALIZE in module.functions:
        await _initialize(guest, instance, module.functions[INITIALIZE])
    result = await _call(guest, instance, entry)
    return _TEXT[entry.results[0]](result) if result is not None else ""


async def _initialize(guest: Guest, instance: native.Instance, entry: Entry) -> None:
    if entry.params or entry.results:
        raise NoEntry(
            f"{entry.name!r} takes {entry.params} arguments and gives {len(entry.results)} results; it must have none"
        )
    await _call(guest, instance, entry)


async def _call(guest: Guest, instance: native.Instance, entry: Entry) -> native.Val | None:
    found = guest.export(instance, entry.name)
    assert found is not None
    return await guest.fiber.call(found.of.func, (), len(entry.results))


def _i32(value: native.Val) -> str:
    return str(value.of.i32)


def _i64(value: native.Val) -> str:
    return str(value.of.i64)


def _f32(value: native.Val) -> str:
    return str(value.of.f32)


def _f64(value: native.Val) -> str:
    return str(value.of.f64)


_TEXT = {native.KIND_I32: _i32, native.KIND_I64: _i64, native.KIND_F32: _f32, native.KIND_F64: _f64}
