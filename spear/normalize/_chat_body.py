"""A response to what a guest reads: the body, an error object, the metrics."""

from __future__ import annotations

from typing import Final

from pydantic import JsonValue

from spear.dialects.openai_chat import body_from_result, fill_usage, one_line
from spear.ir import CanonicalError, ChatRequest, ChatResult, ErrorCode, RequestEnvelope, ResponseEnvelope

Body = dict[str, JsonValue]

_NOT_SUPPORTED: Final = frozenset(
    {ErrorCode.BACKEND_NOT_ENABLED, ErrorCode.NO_CANDIDATE_BACKEND, ErrorCode.MISSING_CAPABILITIES}
)
_CALLERS: Final = frozenset({ErrorCode.INVALID_REQUEST, ErrorCode.PAYLOAD_MISMATCH, ErrorCode.UNSUPPORTED_VERSION})
_CODED: Final = frozenset(
    {
        ErrorCode.BUDGET_EXCEEDED,
        ErrorCode.CONTENT_REFUSED,
        ErrorCode.CREDENTIALS_EXHAUSTED,
        ErrorCode.MEDIA_NOT_FOUND,
        ErrorCode.MEDIA_NOT_ALLOWED,
        ErrorCode.MEDIA_TOO_LARGE,
        ErrorCode.TOOL_CALL_LIMIT,
    }
)


def body_from_response(response: ResponseEnvelope, request: RequestEnvelope) -> Body:
    """The backend's body with `_spear` beside it, or an error body, which has no `_spear`."""
    error = response.result.error
    if error is not None:
        return body_from_error(error, from_backend=response.backend is not None)
    result = _chat_result(response)
    body = body_from_result(result, response.usage)
    model: JsonValue = request.payload.model
    if not request.model:
        own = result.extra.get("model")
        model = own if isinstance(own, str) else ""
    told: Body = {"backend": response.backend.name if response.backend is not None else "", "model": model}
    if response.backend is not None and response.backend.degraded:
        told["degraded"] = list(response.backend.degraded)
    body["_spear"] = told
    return body


def body_from_error(error: CanonicalError, *, from_backend: bool = False) -> Body:
    """Whoever was tried, the guest reads one line of at most 512 bytes, after its prefix.

    An invalid_request is the guest's own ("Invalid request") only where no backend was asked: what an adapter or a
    provider refuses is a "Runtime error"."""
    text = one_line(error.message)
    if error.code in _CODED:
        return {"error": {"code": error.code.value, "message": text}}
    if error.code in _NOT_SUPPORTED:
        prefix = "Operation not supported"
    elif error.code in _CALLERS and not error.attempts and not from_backend:
        prefix = "Invalid request"
    else:
        prefix = "Runtime error"
    return {"error": {"message": f"{prefix}: {text}"}}


def metrics_from_response(response: ResponseEnvelope, request: RequestEnvelope) -> dict[str, int]:
    """The provider's counts; where it gave none, a quarter of the characters, rounded up. Empty for an error."""
    if response.result.error is not None or not isinstance(request.payload, ChatRequest):
        return {}
    usage = fill_usage(response.usage, request.payload, _chat_result(response))
    received, sent = usage.input_tokens or 0, usage.output_tokens or 0
    total = usage.extra.get("total_tokens")
    return {
        "completion_tokens": sent,
        "prompt_tokens": received,
        "total_tokens": total if type(total) is int and total >= 0 else received + sent,
    }


def _chat_result(response: ResponseEnvelope) -> ChatResult:
    payload = response.result.payload
    if not isinstance(payload, ChatResult):
        raise TypeError(f"a chat request was answered with {type(payload).__name__}")
    return payload
