"""The frozen virtual errno values of the guest ABI. They are not the platform's and not WASI's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from spear.ir import CanonicalError

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
    """Raised by a hostcall anywhere inside, given to the guest as its negative result. `cause` says more of it to
    `spear_last_error` than the number can."""

    def __init__(self, errno: int, cause: CanonicalError | None = None) -> None:
        super().__init__(errno)
        self.errno = errno
        self.cause = cause
