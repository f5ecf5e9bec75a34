"""OUTBUF: how a hostcall hands bytes to the guest. The capacity comes in through the length pointer, the size goes
back through it, and too small a buffer is told apart by -28 with the size that is needed.
"""

from __future__ import annotations

from spear.hostcall._errno import ENOSPC
from spear.hostcall._memory import GuestMemory


def put_out(memory: GuestMemory, payload: bytes, out_ptr: int, out_len_ptr: int) -> int:
    """The byte count, or -28. Raises `BadRange`. A caller that pops a queue does so only after this returned >= 0."""
    size = len(payload)
    if memory.read_u32(out_len_ptr) < size:
        memory.write_u32(out_len_ptr, size)
        return ENOSPC
    memory.write(out_ptr, payload)
    memory.write_u32(out_len_ptr, size)
    return size
