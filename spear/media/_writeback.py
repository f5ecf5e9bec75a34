"""A hint to the kernel: begin to write to the disk what will have to be there soon.

So that a sync at the end of a large object finds most of it done. Where the C library has no such call, nothing
happens.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any, Final

EVERY_BYTES: Final = 4 * 1024 * 1024
_WRITE: Final = 2
"""SYNC_FILE_RANGE_WRITE: begin, and do not wait."""


def begin_writeback(descriptor: int, start: int, size: int) -> None:
    call = _call()
    if call is not None:
        call(descriptor, start, size, _WRITE)


@cache
def _call() -> Any:
    call = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if call is not None:
        call.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
        call.restype = ctypes.c_int
    return call
