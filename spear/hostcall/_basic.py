"""Time, random, sleep and log."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import trio

from spear.hostcall._errno import EINVAL
from spear.hostcall._limits import LOG_MESSAGE_BYTES
from spear.hostcall._log import LEVELS

if TYPE_CHECKING:
    from spear.hostcall._guest import Guest


def time_now_ms(guest: Guest) -> int:
    return time.time_ns() // 1_000_000


def wall_time_s(guest: Guest) -> int:
    return time.time_ns() // 1_000_000_000


def random_i64(guest: Guest) -> int:
    return int.from_bytes(os.urandom(8), "little", signed=True)


async def sleep_ms(guest: Guest, ms: int) -> None:
    await trio.sleep(max(ms, 0) / 1000)


def log(guest: Guest, level: int, ptr: int, length: int) -> int:
    if not 0 <= length <= LOG_MESSAGE_BYTES:
        return EINVAL
    message = guest.memory.read(ptr, length).decode("utf-8", "replace")
    guest.log.add(LEVELS[level] if 0 <= level < len(LEVELS) else "info", message)
    return 0
