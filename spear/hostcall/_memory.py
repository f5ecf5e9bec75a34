"""A guest's linear memory, seen from outside, with every access checked.

The engine is configured so that a memory never moves, and a WebAssembly memory never shrinks. So the base address is
read once per instance, and a remembered size is a safe lower bound that is read again only when an access goes past
it. An instance without an exported memory has the size -1: every access fails the check, even one of no bytes.
"""

from __future__ import annotations

from ctypes import byref, c_uint32, c_uint64, memmove, string_at
from typing import Final

from spear.hostcall import _binding as native
from spear.hostcall._errno import EFAULT, Refused

_NO_MEMORY: Final = -1


class BadRange(Refused):
    """A pointer and length that do not lie wholly inside the memory."""

    def __init__(self, offset: int, length: int, size: int) -> None:
        super().__init__(EFAULT)
        self.offset, self.length, self.size = offset, length, size


class GuestMemory:
    """Raises `BadRange` where a range is not wholly inside; offsets are signed as the guest passed them."""

    __slots__ = ("_base", "_context", "_handle", "_size")

    def __init__(self) -> None:
        self._base = 0
        self._size = _NO_MEMORY
        self._context = 0
        self._handle: native.Memory | None = None

    def attach(self, context: int, handle: native.Memory) -> None:
        """Use this memory from now on; valid while the store is."""
        self._context, self._handle = context, handle
        self._base = native.memory_data(context, byref(handle)) or 0
        self._size = native.memory_size(context, byref(handle))

    def detach(self) -> None:
        """The store is going away: from now on every access is out of range."""
        self._handle = None
        self._base, self._size = 0, _NO_MEMORY

    def check(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or (offset + length > self._size and offset + length > self._grown()):
            raise BadRange(offset, length, self._size)

    def _grown(self) -> int:
        if self._handle is not None:
            self._size = native.memory_size(self._context, byref(self._handle))
        return self._size

    def read(self, offset: int, length: int) -> bytes:
        if offset < 0 or length < 0 or offset + length > self._size:
            self.check(offset, length)
        return string_at(self._base + offset, length)

    def write(self, offset: int, data: bytes) -> None:
        self.check(offset, len(data))
        memmove(self._base + offset, data, len(data))

    def read_u32(self, offset: int) -> int:
        self.check(offset, 4)
        return c_uint32.from_address(self._base + offset).value

    def read_i32(self, offset: int) -> int:
        value = self.read_u32(offset)
        return value - 0x1_0000_0000 if value & 0x8000_0000 else value

    def write_u32(self, offset: int, value: int) -> None:
        self.check(offset, 4)
        c_uint32.from_address(self._base + offset).value = value

    def write_u64(self, offset: int, value: int) -> None:
        self.check(offset, 8)
        c_uint64.from_address(self._base + offset).value = value
