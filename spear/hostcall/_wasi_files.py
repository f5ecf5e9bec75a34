"""WASI preview1: descriptors and paths. There are three descriptors (stdin at its end, stdout, stderr) and no
directory, so most calls only have to say so in the right words. The error numbers are those that wasmtime's own
WASI gives in the same situation; where that traps (a bad pointer, an unknown flag), this one returns FAULT or INVAL.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from spear.hostcall._capture import Capture
from spear.hostcall._limits import MIB
from spear.hostcall._wasi_errno import BADF, INVAL, NOTDIR, NOTSOCK, SPIPE, SUCCESS

if TYPE_CHECKING:
    from spear.hostcall._guest import Guest

STDIN: Final = 0
MAX_IOVECS: Final = 1024
MAX_WRITE: Final = MIB  # one call moves at most this much; a short count is legal and keeps the loop moving
CHARACTER_DEVICE: Final = 2
RIGHT_FD_READ: Final = 1 << 1
RIGHT_FD_WRITE: Final = 1 << 6


class StdFds:
    """Which of descriptors 0 to 2 are open, and what they lead to. Numbers can be closed and renumbered."""

    __slots__ = ("_open",)

    def __init__(self, stdout: Capture, stderr: Capture) -> None:
        self._open: dict[int, Capture | None] = {0: None, 1: stdout, 2: stderr}

    def __contains__(self, fd: int) -> bool:
        return fd in self._open

    def is_input(self, fd: int) -> bool:
        return fd in self._open and self._open[fd] is None

    def output(self, fd: int) -> Capture | None:
        return self._open.get(fd)

    def close(self, fd: int) -> bool:
        return self._open.pop(fd, self) is not self

    def move(self, source: int, target: int) -> None:
        self._open[target] = self._open[source] if source == target else self._open.pop(source)


def fd_close(guest: Guest, fd: int) -> int:
    return SUCCESS if guest.stdio.close(fd) else BADF


def fd_renumber(guest: Guest, source: int, target: int) -> int:
    if source not in guest.stdio or target not in guest.stdio:
        return BADF
    guest.stdio.move(source, target)
    return SUCCESS


def fd_write(guest: Guest, fd: int, iovs: int, count: int, written_ptr: int) -> int:
    output = guest.stdio.output(fd)
    if output is None:
        return BADF
    if count < 0:
        return INVAL
    data = _gather(guest, iovs, count)
    guest.memory.check(written_ptr, 4)
    output.write(data)
    guest.memory.write_u32(written_ptr, len(data))
    return SUCCESS


def _gather(guest: Guest, iovs: int, count: int) -> bytes:
    parts: list[bytes] = []
    room = MAX_WRITE
    for i in range(min(count, MAX_IOVECS)):
        pointer, length = struct.unpack("<II", guest.memory.read(iovs + 8 * i, 8))
        guest.memory.check(pointer, length)
        part = guest.memory.read(pointer, min(length, room))
        parts.append(part)
        room -= len(part)
        if room == 0:
            break
    return b"".join(parts)


def fd_read(guest: Guest, fd: int, iovs: int, count: int, read_ptr: int) -> int:
    if not guest.stdio.is_input(fd):
        return BADF
    guest.memory.write_u32(read_ptr, 0)
    return SUCCESS


def fd_pread(guest: Guest, fd: int, iovs: int, count: int, offset: int, read_ptr: int) -> int:
    return SPIPE if guest.stdio.is_input(fd) else BADF


def fd_pwrite(guest: Guest, fd: int, iovs: int, count: int, offset: int, written_ptr: int) -> int:
    return SPIPE if guest.stdio.output(fd) is not None else BADF


def fd_seek(guest: Guest, fd: int, offset: int, whence: int, result_ptr: int) -> int:
    if not 0 <= whence <= 2:
        return INVAL
    return SPIPE if fd in guest.stdio else BADF


def fd_tell(guest: Guest, fd: int, result_ptr: int) -> int:
    return SPIPE if fd in guest.stdio else BADF


def fd_fdstat_get(guest: Guest, fd: int, stat_ptr: int) -> int:
    if fd not in guest.stdio:
        return BADF
    rights = RIGHT_FD_READ if guest.stdio.is_input(fd) else RIGHT_FD_WRITE
    # A character device without the right to seek is what C libraries take for a terminal: they flush at every line.
    guest.memory.write(stat_ptr, struct.pack("<BxHxxxxQQ", CHARACTER_DEVICE, 0, rights, rights))
    return SUCCESS


def fd_filestat_get(guest: Guest, fd: int, stat_ptr: int) -> int:
    if fd not in guest.stdio:
        return BADF
    guest.memory.write(stat_ptr, struct.pack("<QQBxxxxxxxQQQQQ", 0, 0, CHARACTER_DEVICE, 0, 0, 0, 0, 0))
    return SUCCESS


def fd_prestat_get(guest: Guest, fd: int, prestat_ptr: int) -> int:
    return BADF


def fd_prestat_dir_name(guest: Guest, fd: int, path_ptr: int, path_len: int) -> int:
    return NOTDIR if fd in guest.stdio else BADF


def fd_advise(guest: Guest, fd: int, offset: int, length: int, advice: int) -> int:
    return BADF if 0 <= advice <= 5 else INVAL


def fd_fdstat_set_flags(guest: Guest, fd: int, flags: int) -> int:
    return BADF if 0 <= flags < 32 else INVAL


def fd_filestat_set_times(guest: Guest, fd: int, accessed: int, modified: int, flags: int) -> int:
    return BADF if 0 <= flags < 16 else INVAL


def not_a_file(guest: Guest, *arguments: int) -> int:
    """What needs a regular file or a directory: none of the three descriptors is one."""
    return BADF


def sock_accept(guest: Guest, fd: int, flags: int, fd_ptr: int) -> int:
    return _no_socket(guest, fd) if 0 <= flags < 32 else INVAL


def sock_recv(guest: Guest, fd: int, iovs: int, count: int, flags: int, size_ptr: int, flags_ptr: int) -> int:
    return _no_socket(guest, fd) if 0 <= flags < 4 else INVAL


def sock_send(guest: Guest, fd: int, iovs: int, count: int, flags: int, size_ptr: int) -> int:
    return _no_socket(guest, fd)


def sock_shutdown(guest: Guest, fd: int, how: int) -> int:
    return _no_socket(guest, fd) if 0 <= how < 4 else INVAL


def _no_socket(guest: Guest, fd: int) -> int:
    return NOTSOCK if fd in guest.stdio else BADF
