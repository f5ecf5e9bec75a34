"""WASI preview1: arguments, environment, clocks, random, exit. Argument list and environment are empty."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final

import trio

from spear.hostcall._endings import Exited
from spear.hostcall._wasi_errno import BADF, INVAL, NOTSUP, SUCCESS

if TYPE_CHECKING:
    from spear.hostcall._guest import Guest

REALTIME: Final = 0
MONOTONIC: Final = 1
LAST_CLOCK: Final = 3
LAST_SIGNAL: Final = 30
RANDOM_CHUNK: Final = 256 * 1024


def list_get(guest: Guest, pointers_ptr: int, bytes_ptr: int) -> int:
    return SUCCESS


def list_sizes_get(guest: Guest, count_ptr: int, size_ptr: int) -> int:
    guest.memory.check(count_ptr, 4)
    guest.memory.write_u32(size_ptr, 0)
    guest.memory.write_u32(count_ptr, 0)
    return SUCCESS


def now_ns(clock: int) -> int:
    return time.time_ns() if clock == REALTIME else time.monotonic_ns()


def check_clock(clock: int) -> int:
    if clock in {REALTIME, MONOTONIC}:
        return SUCCESS
    return BADF if 0 <= clock <= LAST_CLOCK else INVAL


def clock_time_get(guest: Guest, clock: int, precision: int, time_ptr: int) -> int:
    problem = check_clock(clock)
    if problem == SUCCESS:
        guest.memory.write_u64(time_ptr, now_ns(clock))
    return problem


def clock_res_get(guest: Guest, clock: int, resolution_ptr: int) -> int:
    problem = check_clock(clock)
    if problem == SUCCESS:
        name = time.CLOCK_REALTIME if clock == REALTIME else time.CLOCK_MONOTONIC
        guest.memory.write_u64(resolution_ptr, max(1, round(time.clock_getres(name) * 1_000_000_000)))
    return problem


async def random_get(guest: Guest, buffer_ptr: int, length: int) -> int:
    """In pieces with a checkpoint after each, so that a huge buffer does not hold the loop."""
    guest.memory.check(buffer_ptr, length)
    for offset in range(0, length, RANDOM_CHUNK):
        guest.memory.write(buffer_ptr + offset, os.urandom(min(RANDOM_CHUNK, length - offset)))
        await trio.lowlevel.checkpoint()
    return SUCCESS


async def sched_yield(guest: Guest) -> int:
    await trio.lowlevel.checkpoint()
    return SUCCESS


def proc_exit(guest: Guest, code: int) -> int:
    raise Exited(code & 0xFFFF_FFFF)


def proc_raise(guest: Guest, signal: int) -> int:
    return NOTSUP if 0 <= signal <= LAST_SIGNAL else INVAL
