"""spear_epoll_*: level-triggered, one record per fd in ascending order; and spear_fd_ctl."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import trio

from spear.hostcall import _json
from spear.hostcall._errno import EBADF, EINVAL, ENOMEM, ENOSPC, Refused
from spear.hostcall._fds import ALL_BITS, ERR, HUP, IN, OUT, Entry, FdTable
from spear.hostcall._outbuf import put_out

if TYPE_CHECKING:
    from spear.hostcall._guest import Guest

ADD: Final = 1
MOD: Final = 2
DEL: Final = 3
RECORD_BYTES: Final = 8

SET_FLAGS: Final = 1
GET_FLAGS: Final = 2
GET_KIND: Final = 3
GET_STATUS: Final = 4
GET_METRICS: Final = 5
NONBLOCK: Final = "O_NONBLOCK"
BIT_NAMES: Final = ((IN, "EPOLLIN"), (OUT, "EPOLLOUT"), (ERR, "EPOLLERR"), (HUP, "EPOLLHUP"))


class Epoll(Entry):
    kind = "Epoll"
    __slots__ = ("_table", "interest")

    def __init__(self, table: FdTable) -> None:
        super().__init__()
        self._table = table
        self.interest: dict[int, tuple[Entry, int]] = {}

    def set(self, entry: Entry, events: int) -> None:
        """Raises `Refused` (-12) when the guest has too many watches in all its epolls together."""
        self._table.watch(entry, self.fd)
        self.interest[entry.fd] = (entry, events & ALL_BITS)
        self._table.touch()

    def remove(self, fd: int) -> None:
        watched = self.interest.pop(fd, None)
        if watched is not None:
            self._table.unwatch(watched[0], self.fd)

    def release(self) -> None:
        for fd in list(self.interest):
            self.remove(fd)

    def scan(self, limit: int) -> list[tuple[int, int]]:
        """(fd, bits) of the lowest ready fds."""
        found: list[tuple[int, int]] = []
        for fd in sorted(self.interest):
            entry, wanted = self.interest[fd]
            bits = entry.mask() & wanted
            if bits:
                found.append((fd, bits))
                if len(found) == limit:
                    break
        return found


def create(guest: Guest) -> int:
    return guest.fds.add(Epoll(guest.fds))


def control(guest: Guest, epfd: int, op: int, fd: int, events: int) -> int:
    if epfd == fd:
        return EINVAL
    epoll, entry = guest.fds.get(epfd), guest.fds.get(fd)
    if epoll.closed or not isinstance(epoll, Epoll):
        return EBADF
    if isinstance(entry, Epoll):
        return EINVAL
    if op == DEL:
        epoll.remove(fd)
    elif op in {ADD, MOD}:
        if fd not in epoll.interest and len(epoll.interest) >= guest.limits.watched_fds:
            return ENOMEM
        epoll.set(entry, events)
    else:
        return EINVAL
    return 0


async def wait(guest: Guest, epfd: int, out_ptr: int, out_len_ptr: int, timeout_ms: int) -> int:
    capacity = guest.memory.read_u32(out_len_ptr)
    if capacity < RECORD_BYTES:
        guest.memory.write_u32(out_len_ptr, RECORD_BYTES)
        return ENOSPC
    epoll = guest.fds.open(epfd, Epoll)
    # A guest may poll something that is always ready: even then the loop gets its turn.
    await trio.lowlevel.checkpoint()
    found: list[tuple[int, int]] = []
    with trio.move_on_after(timeout_ms / 1000) if timeout_ms >= 0 else trio.CancelScope():
        while True:
            seen = guest.fds.changes
            if epoll.closed:
                raise Refused(EBADF)
            found = epoll.scan(capacity // RECORD_BYTES)
            if found or timeout_ms == 0:
                break
            await guest.fds.wait_change(seen)
    records = b"".join(struct.pack("<ii", fd, bits) for fd, bits in found)
    guest.memory.write(out_ptr, records)
    guest.memory.write_u32(out_len_ptr, len(records))
    return len(found)


def fd_control(guest: Guest, fd: int, cmd: int, arg_ptr: int, arg_len_ptr: int) -> int:
    if cmd == SET_FLAGS:
        return _set_flags(guest, fd, arg_ptr, arg_len_ptr)
    if cmd not in {GET_FLAGS, GET_KIND, GET_STATUS, GET_METRICS}:
        return EINVAL
    entry = guest.fds.get(fd)
    flags = [NONBLOCK] if entry.nonblock else []
    answer: dict[str, object]
    if cmd == GET_FLAGS:
        answer = {"flags": flags}
    elif cmd == GET_KIND:
        answer = {"kind": entry.kind}
    elif cmd == GET_STATUS:
        mask = entry.mask()
        names = [name for bit, name in BIT_NAMES if mask & bit]
        answer = {"closed": entry.closed, "flags": flags, "kind": entry.kind, "poll_mask": names}
    else:
        answer = {} if entry.closed else entry.metrics()
    return put_out(guest.memory, _json.dump(answer), arg_ptr, arg_len_ptr)


def _set_flags(guest: Guest, fd: int, arg_ptr: int, arg_len_ptr: int) -> int:
    length = guest.memory.read_i32(arg_len_ptr)
    guest.memory.check(arg_ptr, length)
    if length > guest.limits.param_bytes:
        return EINVAL
    text = guest.memory.read(arg_ptr, length)
    entry = guest.fds.get(fd)
    if _json.surely_over(text, guest.limits.session_json_values):
        return EINVAL
    try:
        wanted = _json.parse(text)
    except _json.Malformed:
        return EINVAL
    if isinstance(wanted, dict):
        if NONBLOCK in _names(wanted.get("set")):
            entry.nonblock = True
        if NONBLOCK in _names(wanted.get("clear")):
            entry.nonblock = False
    return 0


def _names(value: object) -> list[object]:
    return value if isinstance(value, list) else []
