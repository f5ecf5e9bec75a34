"""What a failure at the backend means, and how it is told. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

from pydantic import JsonValue

from spear.dialects.openai_chat import one_line, provider_error_text
from spear.ir import (
    BackendError,
    CanonicalError,
    Clock,
    ErrorCode,
    Failure,
    MalformedJson,
    make_error,
    parse_json,
)

Redact = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class _Class:
    code: ErrorCode
    failure: Failure
    retryable: bool


_SERVER: Final = _Class(ErrorCode.BACKEND_ERROR, Failure.SERVER, retryable=True)
_ODD: Final = _Class(ErrorCode.BACKEND_ERROR, Failure.SERVER, retryable=False)
_AUTH: Final = _Class(ErrorCode.BACKEND_ERROR, Failure.AUTH, retryable=False)
_LIMITED: Final = _Class(ErrorCode.RATE_LIMITED, Failure.RATE_LIMIT, retryable=True)
_REQUEST: Final = _Class(ErrorCode.BACKEND_ERROR, Failure.REQUEST, retryable=False)
_TOO_LONG: Final = _Class(ErrorCode.BACKEND_ERROR, Failure.CONTEXT_WINDOW, retryable=False)
_REFUSED: Final = _Class(ErrorCode.CONTENT_REFUSED, Failure.REFUSED, retryable=False)

# What a provider says in `error.code` or `error.type` is more exact than its status.
_BY_WORD: Final = {
    "content_filter": _REFUSED,
    "content_policy_violation": _REFUSED,
    "contentFilter": _REFUSED,  # Azure's, of images
    "ResponsibleAIPolicyViolation": _REFUSED,
    "moderation_blocked": _REFUSED,
    "insufficient_quota": _AUTH,  # a 429 that no waiting ends: the account is empty
    "invalid_api_key": _AUTH,  # some send it as a 400
    "context_length_exceeded": _TOO_LONG,
    "rate_limit_exceeded": _LIMITED,
}
_BY_STATUS: Final = {
    401: _AUTH,
    402: _AUTH,
    403: _AUTH,
    407: _ODD,
    408: _SERVER,
    409: _SERVER,
    425: _SERVER,
    429: _LIMITED,
}
_LONGEST_WAIT_S: Final = 30 * 24 * 3600.0
_MOST_TOLD: Final = 64 * 1024
"""Characters of an error that are looked at."""
_LONGEST_KEY: Final = 4096


def status_error(
    status: int, headers: Mapping[str, str], body: bytes, *, redact: Redact, now: float, part: bool = False
) -> BackendError:
    """The error of an answer whose status is not 200. `now` is Unix time, for a Retry-After that is a date. `part`:
    the body is incomplete, so it is not JSON and goes untold."""
    told = None if part else _parsed(body)
    found = _classify(status, told)
    text = provider_error_text(redacted(told, redact))
    message = one_line(f"upstream status: {status}: {text}" if text else f"upstream status: {status}")
    error = make_error(
        found.code,
        message,
        retryable=found.retryable,
        retry_after_ms=retry_after_ms(headers, now) if found.retryable else None,
    )
    return BackendError(error, found.failure, status=status)


def broken_answer(what: str) -> BackendError:
    """The backend answered, and its answer cannot be used."""
    return BackendError(_error(ErrorCode.BACKEND_ERROR, what), Failure.SERVER)


def unreachable(why: str) -> BackendError:
    """Nothing was sent."""
    return BackendError(_error(ErrorCode.BACKEND_UNAVAILABLE, f"cannot connect to the backend: {why}"), Failure.CONNECT)


def truncated(why: str) -> BackendError:
    return BackendError(_error(ErrorCode.STREAM_TRUNCATED, f"the backend's stream was cut off: {why}"), Failure.SERVER)


def timed_out(clock: Clock, seconds: float) -> BackendError:
    """Nothing was sent where it was the clock of the connection."""
    error = _error(ErrorCode.TIMEOUT, f"{_WAITED_FOR[clock]} within {seconds:g} s", clock=clock)
    return BackendError(error, Failure.CONNECT if clock == "connect" else Failure.SERVER)


_WAITED_FOR: Final[dict[Clock, str]] = {
    "connect": "the backend did not accept a connection",
    "first_event": "the backend did not begin its answer",
    "idle": "the backend sent nothing more",
}


def retry_after_ms(headers: Mapping[str, str], now: float) -> int | None:
    """From `retry-after-ms`, else `retry-after` as seconds or as a date; None where there is none that can be read.
    Never negative, at most thirty days."""
    seconds = _number(headers.get("retry-after-ms"))
    if seconds is not None:
        seconds /= 1000
    else:
        text = headers.get("retry-after")
        seconds = _number(text)
        if seconds is None and text is not None:
            seconds = _seconds_until(text, now)
    if seconds is None:
        return None
    return math.ceil(min(max(seconds, 0.0), _LONGEST_WAIT_S) * 1000)


def redacted(value: JsonValue, redact: Redact) -> JsonValue:
    """`value` with every text in it redacted. Before it is cut to length: half a key is a leak too. Of texts that are
    longer together than anybody is told, only the beginning is left: looking through megabytes takes seconds."""
    return _redacted(value, redact, [_MOST_TOLD])


def _redacted(value: JsonValue, redact: Redact, left: list[int]) -> JsonValue:
    if isinstance(value, str):
        if left[0] <= 0:
            return ""
        looked_at = left[0] + _LONGEST_KEY
        left[0] -= len(value) + 1
        if left[0] >= 0:
            return redact(value)
        return redact(value[:looked_at])[:-_LONGEST_KEY]  # a key that was cut in half stands at the end
    if isinstance(value, dict):
        return {key: _redacted(item, redact, left) for key, item in value.items()}
    if isinstance(value, list):
        return [_redacted(item, redact, left) for item in value]
    return value


def _error(code: ErrorCode, message: str, **fields: object) -> CanonicalError:
    return make_error(code, message, **fields)


def _classify(status: int, told: JsonValue) -> _Class:
    if 400 <= status < 500:
        for word in _words(told):
            if word in _BY_WORD:
                return _BY_WORD[word]
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if 400 <= status < 500:
        return _REQUEST
    return _SERVER if status >= 500 else _ODD


def _words(told: JsonValue) -> list[str]:
    error = told.get("error", told) if isinstance(told, dict) else None
    if not isinstance(error, dict):
        return []
    inner = error.get("innererror")  # where Azure says that its filter refused
    values = [error.get("code"), error.get("type"), inner.get("code") if isinstance(inner, dict) else None]
    return [value for value in values if isinstance(value, str)]


def _parsed(body: bytes) -> JsonValue:
    """None where it is no JSON: a proxy's error page tells a caller nothing."""
    try:
        return parse_json(body)
    except MalformedJson:
        return None


def _number(text: str | None) -> float | None:
    try:
        number = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _seconds_until(text: str, now: float) -> float | None:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now
