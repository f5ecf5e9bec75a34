"""WASI preview1 poll_oneoff: the only call with which a WASI program sleeps. It suspends the guest, never the loop."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from spear.hostcall._wasi_errno import BADF, INVAL, SUCCESS
from spear.hostcall._wasi_process import check_clock, now_ns

if TYPE_CHECKING:
    from spear.hostcall._guest import Guest

SUBSCRIPTION_BYTES: Final = 48
EVENT_BYTES: Final = 32
CLOCK: Final = 0
FD_READ: Final = 1
FD_WRITE: Final = 2
ABSOLUTE: Final = 1
HANGUP: Final = 1
BATCH: Final = 512  # subscriptions looked at between two checkpoints
MAX_SUBSCRIPTIONS: Final = 4096  # INVAL beyond; what one call makes the host hold, and sort through at its end


@dataclass(frozen=True, slots=True)
class Event:
    userdata: int
    errno: int
    kind: int
    size: int = 0
    flags: int = 0

    def encode(self) -> bytes:
        return struct.pack("<QHBxxxxxQHxxxxxx", self.userdata, self.errno, self.kind, self.size, self.flags)


@dataclass(frozen=True, slots=True)
class Timer:
    userdata: int
    clock: int
    due_ns: int  # on its own clock


async def poll_oneoff(guest: Guest, in_ptr: int, out_ptr: int, count: int, events_ptr: int) -> int:
    """Wait until at least one subscription has an event. A cancellation point in any case."""
    if count <= 0:
        return INVAL
    memory = guest.memory
    memory.check(in_ptr, count * SUBSCRIPTION_BYTES)
    memory.check(out_ptr, count * EVENT_BYTES)
    memory.check(events_ptr, 4)
    if count > MAX_SUBSCRIPTIONS:
        return INVAL
    events: list[Event] = []
    timers: list[Timer] = []
    for i in range(count):
        if i % BATCH == 0:
            await trio.lowlevel.checkpoint()
        found = _subscription(guest, memory.read(in_ptr + i * SUBSCRIPTION_BYTES, SUBSCRIPTION_BYTES))
        if isinstance(found, Timer):
            timers.append(found)
        elif found is not None:
            events.append(found)
        else:
            return INVAL
    if not events:
        first = min(timers, key=_left_ns)
        await trio.sleep(max(0, _left_ns(first)) / 1_000_000_000)
        # Their clocks are not the loop's: the one that was waited for counts as due even if it is a little early.
        events.append(Event(first.userdata, SUCCESS, CLOCK))
        timers.remove(first)
    events += [Event(timer.userdata, SUCCESS, CLOCK) for timer in timers if _left_ns(timer) <= 0]
    memory.write(out_ptr, b"".join(event.encode() for event in events))
    memory.write_u32(events_ptr, len(events))
    return SUCCESS


def _left_ns(timer: Timer) -> int:
    return timer.due_ns - now_ns(timer.clock)


def _subscription(guest: Guest, raw: bytes) -> Event | Timer | None:
    """An event that is there already, a timer to wait for, or None for a kind that does not exist."""
    userdata, kind = struct.unpack_from("<QB", raw)
    if kind == CLOCK:
        clock, timeout, _precision, flags = struct.unpack_from("<IxxxxQQH", raw, 16)
        problem = check_clock(clock)
        if problem != SUCCESS or flags & ~ABSOLUTE:
            return Event(userdata, problem or INVAL, CLOCK)
        return Timer(userdata, clock, timeout if flags & ABSOLUTE else now_ns(clock) + timeout)
    (fd,) = struct.unpack_from("<I", raw, 16)
    if kind == FD_READ:
        # Standard input is at its end: readable at once, nothing in it, other side gone.
        at_end = guest.stdio.is_input(fd)
        return Event(userdata, SUCCESS, kind, 0, HANGUP) if at_end else Event(userdata, BADF, kind)
    if kind == FD_WRITE:
        writable = guest.stdio.output(fd) is not None
        return Event(userdata, SUCCESS, kind, 1) if writable else Event(userdata, BADF, kind)
    return None
