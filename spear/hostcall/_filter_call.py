"""Asking a guest that is a routing filter: a fresh instance, two exports, bytes in and bytes out.

    spear_router_filter(in_ptr, in_len, out_ptr, out_len_ptr) -> i32     the conventions of a tool
    spear_alloc(size) -> pointer, 0 where there is no room

The question is followed by a NUL that is not counted. `*out_len_ptr` is the room, then the length of the answer; -28
asks once more with as much room as is stored there. A filter decides from what it is given: it can import neither
chats nor anything else that waits for somebody, and its instance is thrown away after the call.
"""

from __future__ import annotations

import time
from typing import Final

import trio

from spear.hostcall import _binding as native
from spear.hostcall._call import Trapped
from spear.hostcall._chat_port import ChatReply, ChatSnapshot, Emit
from spear.hostcall._endings import Exited, Stopped
from spear.hostcall._errno import ENOSPC
from spear.hostcall._errors import LinkError
from spear.hostcall._guest import Guest
from spear.hostcall._memory import BadRange
from spear.hostcall._module import Entry, Module
from spear.hostcall._table import SPEAR, WASI

FILTER: Final = "spear_router_filter"
ALLOC: Final = "spear_alloc"
ROOM: Final = 16_384
"""For an answer, the first time."""
_INITIALIZE: Final = "_initialize"
_I32: Final = native.KIND_I32
_ALLOWED: Final = frozenset({"time_now_ms", "wall_time_s", "random_i64", "log"})


class FilterCallFailed(Exception):
    """The guest gave no answer; the text says why."""


class NoChat:
    """The chat port of a filter."""

    async def __call__(self, session: ChatSnapshot) -> ChatReply:
        raise AssertionError("unreachable: such an import is refused")

    async def stream(self, session: ChatSnapshot, emit: Emit) -> ChatReply:
        raise AssertionError("unreachable: such an import is refused")


def check_filter(module: Module) -> None:
    """Raise `LinkError` unless it is a filter and nothing but that."""
    beyond = sorted(f"{space}.{name}" for space, name in module.imports if not _may_import(space, name))
    if beyond:
        allowed = ", ".join(sorted(_ALLOWED))
        raise LinkError(
            f"{module.name} imports {', '.join(beyond)}; a filter may import {SPEAR}: {allowed}; and {WASI}"
        )
    for name, params, shape in ((FILTER, 4, "(i32, i32, i32, i32) -> i32"), (ALLOC, 1, "(i32) -> i32")):
        found = module.functions.get(name)
        if found is None or found.kinds != (_I32,) * params or found.results != (_I32,):
            raise LinkError(f"{module.name} does not export {name}{shape}, which a filter needs")


def _may_import(space: str, name: str) -> bool:
    return space != SPEAR or name in _ALLOWED


async def call_filter(guest: Guest, module: Module, question: bytes, max_answer: int, timeout_s: float) -> bytes:
    """The guest's answer. Cancellation unwinds it. Closes the guest. Raises `FilterCallFailed`."""
    guest.deadline = time.perf_counter() + timeout_s  # for a guest that never gives way
    try:
        await trio.lowlevel.checkpoint_if_cancelled()
        instance = await guest.fiber.instantiate(module.prepared)
        guest.attach(instance, None)
        if _INITIALIZE in module.functions:
            await _call(guest, instance, module.functions[_INITIALIZE], ())
        return await _ask(guest, instance, module, question, max_answer)
    except Trapped as trap:
        raise FilterCallFailed(str(trap)) from None
    except Stopped:
        raise FilterCallFailed("held the event loop too long") from None
    except Exited as exited:
        raise FilterCallFailed(f"exited with {exited.code}") from None
    except BadRange:
        raise FilterCallFailed("gave a pointer outside its memory") from None
    finally:
        guest.close()


async def _ask(guest: Guest, instance: native.Instance, module: Module, question: bytes, max_answer: int) -> bytes:
    room = min(ROOM, max_answer)
    in_ptr = await _room_for(guest, instance, module, len(question) + 1)
    guest.memory.write(in_ptr, question + b"\0")
    length_ptr = await _room_for(guest, instance, module, 4)
    for _ in range(2):
        out_ptr = await _room_for(guest, instance, module, room)
        guest.memory.write_u32(length_ptr, room)
        code = await _call(guest, instance, module.functions[FILTER], (in_ptr, len(question), out_ptr, length_ptr))
        size = guest.memory.read_u32(length_ptr)
        if code == 0:
            if size > room:
                raise FilterCallFailed("says that its answer is longer than its room")
            return guest.memory.read(out_ptr, size)
        if code != ENOSPC:
            raise FilterCallFailed(f"gave {code}")
        if size > max_answer:
            raise FilterCallFailed(f"wants more than {max_answer} bytes for its answer")
        room = size
    raise FilterCallFailed("asked for more room twice")


async def _room_for(guest: Guest, instance: native.Instance, module: Module, size: int) -> int:
    pointer = await _call(guest, instance, module.functions[ALLOC], (size,))
    if pointer == 0:
        raise FilterCallFailed(f"has no room for {size} bytes")
    guest.memory.check(pointer, size)
    return pointer


async def _call(guest: Guest, instance: native.Instance, entry: Entry, arguments: tuple[int, ...]) -> int:
    found = guest.export(instance, entry.name)
    assert found is not None
    result = await guest.fiber.call(found.of.func, arguments, len(entry.results))
    value: int = 0 if result is None else result.of.i32
    return value
