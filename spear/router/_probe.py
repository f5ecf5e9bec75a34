"""What a probe asks: the least that an operation can be asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from spear.ir import (
    ChatMessage,
    ChatRequest,
    EmbeddingsRequest,
    Generation,
    Meta,
    Operation,
    RequestEnvelope,
    RequestPayload,
)

PROBED: Final = (Operation.CHAT_COMPLETIONS, Operation.EMBEDDINGS)
"""An image, speech or a session would cost too much to be asked for nothing."""
_TEXT: Final = "ping"


def why_no_probe(ops: Iterable[Operation], model: str, max_inflight: int) -> str | None:
    """What is wrong with probing such an instance; None = nothing."""
    done = [operation.value for operation in ops]
    if not any(operation.value in done for operation in PROBED):
        known = " and ".join(operation.value for operation in PROBED)
        return f"only {known} can be probed; this backend does {', '.join(done)}"
    if not model:
        return "a probe has to name a model; give this backend a `model`"
    if max_inflight < 2:
        return "a probe never takes the last place, and there is but one: expected limits.max_inflight of at least 2"
    return None


def question(operation: Operation, model: str) -> RequestEnvelope:
    payload: RequestPayload
    if operation is Operation.CHAT_COMPLETIONS:
        message = ChatMessage(role="user", content=_TEXT)
        payload = ChatRequest(model=model, messages=(message,), generation=Generation(max_tokens=1))
    elif operation is Operation.EMBEDDINGS:
        payload = EmbeddingsRequest(model=model, input=(_TEXT,))
    else:
        raise AssertionError(f"{operation.value} is not probed")
    return RequestEnvelope(operation=operation, payload=payload, meta=Meta(source="probe"))
