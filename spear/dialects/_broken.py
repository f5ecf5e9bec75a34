"""An answer that cannot be used, of any operation."""

from __future__ import annotations

from spear.ir import BackendError, ErrorCode, Failure, Operation, make_error


def unusable(operation: Operation, message: str) -> BackendError:
    """The backend answered, and what it said is not what the operation answers."""
    return BackendError(make_error(ErrorCode.BACKEND_ERROR, message, operation=operation), Failure.SERVER)
