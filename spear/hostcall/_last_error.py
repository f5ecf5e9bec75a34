"""The latest failure of a guest, for `spear_last_error`.

Two things set it: a call that returned a negative number other than -11 and -28, and a request or session that ended
in an error, when the guest can first see that. Success leaves it.
"""

from __future__ import annotations

from typing import Any, Final

from spear.hostcall._errno import EACCES, EAGAIN, EBADF, EFAULT, EINVAL, EIO, ENOMEM, ENOSPC, ENOSYS
from spear.hostcall._guest_error import guest_error
from spear.ir import CanonicalError, ErrorCode, make_error

UNREMARKABLE: Final = frozenset({EAGAIN, ENOSPC})
EPIPE: Final = -32
ENOTCONN: Final = -107

_MEANING: Final[dict[int, tuple[ErrorCode, str]]] = {
    EBADF: (ErrorCode.INVALID_REQUEST, "the descriptor is unknown, closed or of another kind"),
    EFAULT: (ErrorCode.INVALID_REQUEST, "a range is not wholly inside the memory"),
    EINVAL: (ErrorCode.INVALID_REQUEST, "a value, a command or the size of an argument is not allowed"),
    ENOTCONN: (ErrorCode.INVALID_REQUEST, "not connected"),
    ENOMEM: (ErrorCode.OVERLOADED, "a limit on a count or a total is reached"),
    EACCES: (ErrorCode.INVALID_REQUEST, "the task may not do this"),
    EPIPE: (ErrorCode.SESSION_EXPIRED, "the session is closed"),
    ENOSYS: (ErrorCode.BACKEND_NOT_ENABLED, "this family is switched off on this host"),
}
_INTERNAL: Final = (ErrorCode.INTERNAL, "the call failed")
_BAD_PARAM: Final = (ErrorCode.INVALID_REQUEST, "the parameter is no JSON object with a key")


class LastError:
    """`value` is what the guest reads; empty until something failed."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: dict[str, Any] = {}

    def refused(self, call: str, errno: int, fd: int | None, cause: CanonicalError | None = None) -> None:
        """A call returned a negative number; `cause` is what it knows better than its errno."""
        if errno not in UNREMARKABLE:
            self._set(call, errno, fd, cause if cause is not None else _meaning(call, errno))

    def ended(self, call: str, fd: int, error: CanonicalError) -> None:
        """A request or session ended in an error that is a body, an event or a state."""
        self._set(call, 0, fd, error)

    def _set(self, call: str, errno: int, fd: int | None, error: CanonicalError) -> None:
        self.value = {**guest_error(error), "call": call, "errno": errno, "fd": fd}


def _meaning(call: str, errno: int) -> CanonicalError:
    if errno == EIO:
        code, text = _BAD_PARAM if call == "cchat_ctl" else _INTERNAL
    else:
        code, text = _MEANING.get(errno, _INTERNAL)
        if errno == EACCES and call.startswith("media_"):
            code = ErrorCode.MEDIA_NOT_ALLOWED
    return make_error(code, text)
