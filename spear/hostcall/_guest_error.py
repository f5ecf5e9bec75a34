"""An error as a guest reads it: what it can act on, and nothing of who was asked, where, or with what key."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from spear.dialects.openai_chat import one_line
from spear.ir import CanonicalError

MESSAGE_BYTES: Final = 1024
LIST_ENTRIES: Final = 16
NAME_BYTES: Final = 64


def guest_error(error: CanonicalError) -> dict[str, Any]:
    """Backends are counted by the reason for which they were rejected; their names stay with the host."""
    reasons = Counter(one_line(reason, NAME_BYTES) for reason in error.rejected_reasons.values())
    return {
        "attempts": len(error.attempts),
        "code": error.code.value,
        "message": one_line(error.message, MESSAGE_BYTES),
        "operation": error.operation.value if error.operation is not None else None,
        "rejected": dict(reasons.most_common(LIST_ENTRIES)),
        "required": [one_line(name, NAME_BYTES) for name in error.required[:LIST_ENTRIES]],
        "retry_after_ms": error.retry_after_ms,
        "retryable": error.retryable,
    }
