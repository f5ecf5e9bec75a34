"""The table of virtual file descriptors of one guest.

Numbers start at 1000 and are never used again. A closed entry stays as a tombstone that shows HUP, so that an epoll
can report it; of the tombstones nobody watches the newest 65 536 are kept, and those that are watched are bounded by
the cap on watches. Readiness is always computed from state.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final, TypeVar

import trio

from spear.hostcall._errno import EBADF, ENOMEM, Refused
from spear.hostcall._limits import CLOSED_FDS_KEPT, WATCHES

FIRST_FD: Final = 1000
IN: Final = 0x001
OUT: Final = 0x004
ERR: Final = 0x008
HUP: Final = 0x010
ALL_BITS: Final = IN | OUT | ERR | HUP


class Entry:
    """One descriptor. Subclasses are the kinds; they add state and say what it makes ready."""

    kind: str
    __slots__ = ("closed", "fd", "nonblock", "watchers")

    def __init__(self) -> None:
        self.fd = -1
        self.closed = False
        self.nonblock = False
        self.watchers: set[int] = set()  # fds of the epolls that watch this one

    def ready(self) -> int:
        """Bits while open; HUP is added by closing."""
        return 0

    def release(self) -> None:
        """Free what the entry holds; called once, when it is closed."""

    def metrics(self) -> dict[str, Any]:
        return {}

    def mask(self) -> int:
        return HUP if self.closed else self.ready()


E = TypeVar("E", bound=Entry)


class FdTable:
    """`changes` counts changes of readiness: take it before a scan, then `wait_change` cannot miss one."""

    def __init__(self, max_open: int, max_watches: int = WATCHES) -> None:
        self._entries: dict[int, Entry] = {}
        self._next = FIRST_FD
        self._open = 0
        self._max_open = max_open
        self._max_watches = max_watches
        self._tombstones: OrderedDict[int, None] = OrderedDict()  # closed and unwatched, oldest first
        self._watches = 0
        self._changed = trio.lowlevel.ParkingLot()
        self.changes = 0

    @property
    def open_count(self) -> int:
        return self._open

    def add(self, entry: Entry) -> int:
        if self._open >= self._max_open:
            raise Refused(ENOMEM)
        entry.fd = self._next
        self._next += 1
        self._open += 1
        self._entries[entry.fd] = entry
        return entry.fd

    def get(self, fd: int) -> Entry:
        """The entry, open or closed. Raises `Refused` (-9) for a number that is not known."""
        entry = self._entries.get(fd)
        if entry is None:
            raise Refused(EBADF)
        return entry

    def open(self, fd: int, kind: type[E]) -> E:
        """The open entry of that kind, else `Refused` (-9)."""
        entry = self._entries.get(fd)
        if entry is None or entry.closed or not isinstance(entry, kind):
            raise Refused(EBADF)
        return entry

    def close(self, fd: int) -> int:
        """The one generic close: 0, also when repeated."""
        entry = self.get(fd)
        if entry.closed:
            return 0
        entry.closed = True
        self._open -= 1
        entry.release()
        if not entry.watchers:
            self._bury(fd)
        self.touch()
        return 0

    def close_all(self) -> None:
        # Only what is open: closing may push old tombstones out of the table.
        for fd in [entry.fd for entry in self._entries.values() if not entry.closed]:
            self.close(fd)

    def watch(self, entry: Entry, epfd: int) -> None:
        """Note that the epoll watches the entry. Raises `Refused` (-12) beyond the cap over all epolls."""
        if epfd not in entry.watchers:
            if self._watches >= self._max_watches:
                raise Refused(ENOMEM)
            self._watches += 1
            entry.watchers.add(epfd)
        self._tombstones.pop(entry.fd, None)

    def unwatch(self, entry: Entry, epfd: int) -> None:
        """Undo a `watch`."""
        entry.watchers.remove(epfd)
        self._watches -= 1
        if entry.closed and not entry.watchers:
            self._bury(entry.fd)

    def _bury(self, fd: int) -> None:
        self._tombstones[fd] = None
        if len(self._tombstones) > CLOSED_FDS_KEPT:
            oldest, _ = self._tombstones.popitem(last=False)  # the first of a plain dict would be a search
            del self._entries[oldest]

    def touch(self) -> None:
        """Something became ready or stopped being so: let the waiting epolls look again."""
        self.changes += 1
        self._changed.unpark_all()

    async def wait_change(self, seen: int) -> None:
        """Return once `changes` is not `seen`. Waits only if it still is; then a cancellation point."""
        if self.changes == seen:
            await self._changed.park()
