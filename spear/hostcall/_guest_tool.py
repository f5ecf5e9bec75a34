"""Calling a tool in the guest: a function of its table, with arguments and room for the output in an arena of its
memory. The arena's arithmetic is pure; the call runs nested on the guest's stack of calls.
"""

from __future__ import annotations

from ctypes import byref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from spear.hostcall import _binding as native
from spear.hostcall._call import Trapped
from spear.hostcall._errno import EFAULT, EIO, ENOSPC
from spear.hostcall._memory import BadRange
from spear.hostcall._tool_plan import LoopLimits

if TYPE_CHECKING:
    from spear.hostcall._guest import Guest

TOOL_PARAMS: Final = (native.KIND_I32,) * 4
TOOL_RESULTS: Final = (native.KIND_I32,)


class ToolFailed(Exception):
    """The tool did not deliver; `rc` is its result, or ours where it could not even be called."""

    def __init__(self, rc: int) -> None:
        super().__init__(rc)
        self.rc = rc


@dataclass(frozen=True, slots=True)
class Arena:
    args_ptr: int
    out_ptr: int
    out_cap: int
    out_len_ptr: int


def plan_arena(base: int, length: int, args_len: int, max_output: int) -> Arena:
    """Where the arguments, the output and its length go. Raises `ToolFailed`."""
    if base <= 0 or length <= 0:
        raise ToolFailed(EFAULT)
    out_ptr = base + _up8(args_len + 1)
    out_cap = min(max(length - (out_ptr - base) - 8, 0), max_output)
    out_len_ptr = out_ptr + _up8(out_cap)
    if out_cap == 0 or out_len_ptr + 4 > base + length:
        raise ToolFailed(ENOSPC)
    return Arena(base, out_ptr, out_cap, out_len_ptr)


def _up8(value: int) -> int:
    return (value + 7) & ~7


async def call_guest_tool(guest: Guest, index: int, arguments: str, limits: LoopLimits) -> str:
    """The tool's output. Raises `ToolFailed`; what ends the whole guest passes through."""
    if guest.tool_depth >= guest.limits.tool_nesting:
        raise ToolFailed(EIO)
    func = _resolve(guest, index)
    args = arguments.encode("utf-8", "replace")
    arena = plan_arena(limits.arena_ptr, limits.arena_len, len(args), limits.max_tool_output_bytes)
    guest.tool_depth += 1
    try:
        guest.memory.check(arena.args_ptr, arena.out_len_ptr + 4 - arena.args_ptr)
        guest.memory.write(arena.args_ptr, args + b"\0")
        return await _call(guest, func, arena, len(args), limits)
    except BadRange:
        raise ToolFailed(EFAULT) from None
    finally:
        guest.tool_depth -= 1


async def _call(guest: Guest, func: native.Func, arena: Arena, args_len: int, limits: LoopLimits) -> str:
    capacity = arena.out_cap
    for _ in range(2):
        guest.memory.write_u32(arena.out_len_ptr, capacity)
        rc = await _run(guest, func, (arena.args_ptr, args_len, arena.out_ptr, arena.out_len_ptr))
        size = guest.memory.read_u32(arena.out_len_ptr)
        if rc == 0:
            if size > capacity:
                raise ToolFailed(EIO)
            try:
                return guest.memory.read(arena.out_ptr, size).decode()
            except UnicodeDecodeError:
                raise ToolFailed(EIO) from None
        if rc != ENOSPC:
            raise ToolFailed(rc)
        room = limits.arena_len - (arena.out_ptr - arena.args_ptr) - 8
        if size > limits.max_tool_output_bytes or size > room:
            raise ToolFailed(ENOSPC)
        capacity = size
    raise ToolFailed(EIO)


async def _run(guest: Guest, func: native.Func, arguments: tuple[int, ...]) -> int:
    try:
        result = await guest.fiber.call(func, arguments, 1)
    except Trapped:
        raise ToolFailed(EIO) from None
    assert result is not None
    rc: int = result.of.i32
    return rc


def _resolve(guest: Guest, index: int) -> native.Func:
    table = guest.table
    if table is None:
        raise ToolFailed(EIO)
    if index < 0:
        raise ToolFailed(EFAULT)
    slot = native.Val()
    if not native.table_get(guest.fiber.context, byref(table), index, byref(slot)):
        raise ToolFailed(EIO)
    func = native.Func.from_buffer_copy(slot.of.func)
    if slot.kind != native.KIND_FUNCREF or not func.store_id:
        raise ToolFailed(EIO)
    if native.signature(guest.fiber.context, func) != (TOOL_PARAMS, TOOL_RESULTS):
        raise ToolFailed(EIO)
    return func
