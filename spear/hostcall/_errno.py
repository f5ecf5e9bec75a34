"""The frozen virtual errno values of the guest ABI. They are not the platform's and not WASI's."""

from __future__ import annotations

from typing import Final

EIO: Final = -5
EBADF: Final = -9
EAGAIN: Final = -11
ENOMEM: Final = -12
EACCES: Final = -13
EFAULT: Final = -14
EINVAL: Final = -22
ENOSPC: Final = -28
ENOSYS: Final = -38


class Refused(Exception):
    """Raised by a hostcall anywhere inside, given to the guest as its negative result."""

    def __init__(self, errno: int) -> None:
        super().__init__(errno)
        self.errno = errno
