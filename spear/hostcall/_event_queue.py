"""The events of one streaming response, on their way from a backend to a guest.

Bounded in number and bytes, and with all else that the guest has the host hold. When it is full the producer waits, and
so the backend's connection is not read on: nothing is dropped. The guest peeks, and pops only what it has copied.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

import trio

from spear.hostcall import _json
from spear.hostcall._holdings import Holdings
from spear.hostcall._limits import MAX_EVENT_BYTES, MAX_EVENTS

EVENT_BYTES: Final = 128
"""What an event costs the host besides its text."""


class EventQueue:
    """One producer, one consumer. `seq` of the events counts from 1 in the order in which they are queued."""

    __slots__ = (
        "_bytes",
        "_changed",
        "_events",
        "_holdings",
        "_max_bytes",
        "_max_events",
        "_room",
        "closed",
        "ended",
        "seq",
    )

    def __init__(
        self,
        holdings: Holdings,
        changed: Callable[[], None],
        max_events: int = MAX_EVENTS,
        max_bytes: int = MAX_EVENT_BYTES,
    ) -> None:
        self._holdings = holdings
        self._changed = changed
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._events: deque[bytes] = deque()
        self._bytes = 0
        self._room = trio.lowlevel.ParkingLot()
        self.seq = 0
        self.ended = False  # the terminal event is queued, or was
        self.closed = False

    def __len__(self) -> int:
        return len(self._events)

    @property
    def drained(self) -> bool:
        """The guest has read everything there will ever be."""
        return self.ended and not self._events

    async def put(self, event: dict[str, Any], *, last: bool = False) -> None:
        """Queue an event, which gets its `seq`; waits while there is no room for it. `last` marks the terminal one.

        A single event larger than the queue goes into an empty one. Raises `Refused` (-12) where it does not fit into
        what the guest may have the host hold though the queue is empty, and ValueError for what JSON cannot say.
        Cancelled while waiting, nothing was queued. After the terminal event and after `close` it queues nothing.
        """
        event["seq"] = self.seq + 1
        data = _json.dump(event)
        size = len(data)
        while self._events and not self._fits(size):
            await self._room.park()
        if not self.closed and not self.ended:
            self._holdings.take(size + EVENT_BYTES)
            self._append(data, last)

    def _fits(self, size: int) -> bool:
        return (
            len(self._events) < self._max_events
            and self._bytes + size <= self._max_bytes
            and self._holdings.fits(size + EVENT_BYTES)
        )

    def end(self, event: dict[str, Any]) -> None:
        """Queue a small terminal event at once, full or not: there can be only one. No effect after the terminal one.

        For an end that must not wait for the guest, such as a deadline.
        """
        if self.ended or self.closed:
            return
        event["seq"] = self.seq + 1
        data = _json.dump(event)
        self._holdings.force(len(data) + EVENT_BYTES)
        self._append(data, last=True)

    def _append(self, data: bytes, last: bool) -> None:
        self.seq += 1
        self._events.append(data)
        self._bytes += len(data)
        self.ended = self.ended or last
        if len(self._events) == 1:
            self._changed()

    def peek(self) -> bytes | None:
        """The oldest event, as JSON text."""
        return self._events[0] if self._events else None

    def pop(self) -> None:
        """Forget the oldest event, which the guest has."""
        size = len(self._events.popleft())
        self._bytes -= size
        self._holdings.take(-size - EVENT_BYTES)
        self._room.unpark_all()

    def close(self) -> None:
        """Give back what is held; a waiting producer goes on and queues nothing."""
        self.closed = True
        self._holdings.take(-self._bytes - EVENT_BYTES * len(self._events))
        self._events.clear()
        self._bytes = 0
        self._room.unpark_all()
