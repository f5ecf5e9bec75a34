"""What can go wrong with an object, in the caller's words. No path of the host appears in any of them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from spear.ir import CallerError, ErrorCode, InternalError, RoutingError, SpearError, make_error

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NO_DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE})


def not_found() -> CallerError:
    """The same for what is not there and for what this task may not read."""
    return CallerError(make_error(ErrorCode.MEDIA_NOT_FOUND, "there is no such object, or this task may not read it"))


def damaged() -> CallerError:
    message = "the object is damaged: its bytes do not agree with its checksum"
    return CallerError(make_error(ErrorCode.MEDIA_NOT_FOUND, message))


def too_large(message: str) -> CallerError:
    return CallerError(make_error(ErrorCode.MEDIA_TOO_LARGE, message))


def not_allowed(message: str) -> CallerError:
    return CallerError(make_error(ErrorCode.MEDIA_NOT_ALLOWED, message))


def overloaded(message: str) -> RoutingError:
    return RoutingError(make_error(ErrorCode.OVERLOADED, message))


@contextmanager
def disk_errors() -> Iterator[None]:
    """An OSError leaves as what it means."""
    try:
        yield
    except OSError as error:
        raise of_disk(error) from None


def of_disk(error: OSError) -> SpearError:
    """What an error of the file system means. A full disk is a limit like the others, so it has their code."""
    if error.errno in _FULL:
        return too_large("the disk of the media store is full")
    if error.errno in _NO_DESCRIPTORS:
        return overloaded("this process has too many open files for one more object")
    why = os.strerror(error.errno).lower() if error.errno else type(error).__name__
    return InternalError(make_error(ErrorCode.INTERNAL, f"the media store cannot use its disk: {why}"))
