"""Errors, in one file.

    SpearError                 carries a CanonicalError as `.error`; everything below is one
    ├── CallerError            the caller broke the contract: change the request
    ├── RoutingError           nobody may or can take the request now: change the configuration, or wait
    ├── BackendError           a backend was asked and failed; `.failure` says how, for the router
    ├── ConfigError            the configuration is wrong; `.problems` has file, line and key of each
    ├── GuestError             a guest cannot be loaded or started
    └── InternalError          a bug of ours; `.error.incident` is also in the log

`InvalidRequest`, the error of `CallerError` with code invalid_request, names the field that is wrong and what would
be right. A message never contains a key, a header, a base URL or a provider's body verbatim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import Field

from ._model import Model, Operation


class ErrorCode(StrEnum):
    INVALID_REQUEST = "invalid_request"
    PAYLOAD_MISMATCH = "payload_mismatch"
    UNSUPPORTED_VERSION = "unsupported_version"
    BACKEND_NOT_ENABLED = "backend_not_enabled"
    NO_CANDIDATE_BACKEND = "no_candidate_backend"
    MISSING_CAPABILITIES = "missing_capabilities"
    RATE_LIMITED = "rate_limited"
    OVERLOADED = "overloaded"
    BUDGET_EXCEEDED = "budget_exceeded"
    TIMEOUT = "timeout"
    BACKEND_ERROR = "backend_error"
    BACKEND_UNAVAILABLE = "backend_unavailable"
    STREAM_TRUNCATED = "stream_truncated"
    CREDENTIALS_EXHAUSTED = "credentials_exhausted"
    CONTENT_REFUSED = "content_refused"
    MEDIA_NOT_FOUND = "media_not_found"
    MEDIA_NOT_ALLOWED = "media_not_allowed"
    MEDIA_TOO_LARGE = "media_too_large"
    TOOL_CALL_LIMIT = "tool_call_limit"
    SESSION_LIMIT = "session_limit"
    SESSION_EXPIRED = "session_expired"
    CANCELLED = "cancelled"
    INTERNAL = "internal"


_CALLER = frozenset({ErrorCode.INVALID_REQUEST, ErrorCode.PAYLOAD_MISMATCH, ErrorCode.UNSUPPORTED_VERSION})
_ROUTING = frozenset(
    {
        ErrorCode.BACKEND_NOT_ENABLED,
        ErrorCode.NO_CANDIDATE_BACKEND,
        ErrorCode.MISSING_CAPABILITIES,
        ErrorCode.OVERLOADED,
        ErrorCode.BUDGET_EXCEEDED,
    }
)
RETRYABLE: Final = frozenset(
    {
        ErrorCode.RATE_LIMITED,
        ErrorCode.OVERLOADED,
        ErrorCode.TIMEOUT,
        ErrorCode.BACKEND_ERROR,
        ErrorCode.BACKEND_UNAVAILABLE,
        ErrorCode.STREAM_TRUNCATED,
        ErrorCode.SESSION_LIMIT,
    }
)
Clock = Literal["queue", "connect", "first_event", "idle", "total"]


class Attempt(Model):
    """One try at one backend. `key_id` names a key's slot, never the key. Times in milliseconds; `started_ms` counts
    from the arrival of the request."""

    backend: str
    key_id: str | None = None
    reason: str
    """Why this backend was tried: `chosen` by the policy, `fallback` after a failure, `connect_retry`, `another_key` at
    the same backend after a refused one, `retry` after a backoff, `panic` where nobody was well, `hedge` because
    another one took long, `continued` for the rest of a stream that broke off."""
    outcome: Literal["ok", "failed", "refused", "superseded", "cancelled"]
    started_ms: Annotated[float, Field(ge=0)]
    elapsed_ms: Annotated[float, Field(ge=0)]
    error_code: ErrorCode | None = None


class CanonicalError(Model):
    code: ErrorCode
    message: str
    retryable: bool
    operation: Operation | None = None
    required: tuple[str, ...] = ()
    candidates_checked: tuple[str, ...] = ()
    rejected_reasons: dict[str, str] = Field(default_factory=dict)
    retry_after_ms: Annotated[int, Field(ge=0)] | None = None
    attempts: tuple[Attempt, ...] = ()
    clock: Clock | None = None
    """Which clock ran out, where the code is `timeout`."""
    incident: str | None = None
    """Where the code is `internal`: the id under which the host's log has the cause."""


class SpearError(Exception):
    """Base of all errors that Spear raises on purpose. `str()` is the message; `.error` has everything."""

    def __init__(self, error: CanonicalError) -> None:
        super().__init__(error)
        self.error = error

    def __str__(self) -> str:
        return f"{self.error.code.value}: {self.error.message}"

    @property
    def code(self) -> ErrorCode:
        return self.error.code


class CallerError(SpearError):
    """The request itself is wrong; sending it again cannot help."""


class RoutingError(SpearError):
    """No backend may or can take the request; `.error.rejected_reasons` tells why, for each."""


class InternalError(SpearError):
    """A bug of ours; the log has the traceback under `.error.incident`."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in a configuration. `line` counts from 1; 0 = not known."""

    file: str
    line: int
    key: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file or "configuration"
        return f"{place}: {self.key}: {self.message}" if self.key else f"{place}: {self.message}"


class ConfigError(SpearError):
    """Nothing was started: the configuration has at least one problem, all of which are listed."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(make_error(ErrorCode.INVALID_REQUEST, "\n".join(map(str, problems))))
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return self.error.message

    def __reduce__(self) -> tuple[object, ...]:
        return ConfigError, (self.problems,)


class GuestError(SpearError):
    """A guest cannot be loaded or started: it is no module, imports what is not there, or this platform cannot run
    it."""


class Failure(StrEnum):
    """How an attempt failed: the classes of the router's table (retry, another instance, breaker, key pool)."""

    CONNECT = "connect"
    """Nothing was sent: refused, unresolved, reset before the send, the actor gone."""
    SERVER = "server"
    """5xx, timeout, broken or unusable answer."""
    RATE_LIMIT = "rate_limit"
    AUTH = "auth"
    REQUEST = "request"
    """The backend says that the request is wrong (400, 404, 413, 422): another instance would say so too."""
    CONTEXT_WINDOW = "context_window"
    """The request is longer than this model reads: another model may take it."""
    REFUSED = "refused"
    """The backend's own content policy refused."""
    OVERLOAD = "overload"
    """Our own bulkhead is full: in-flight and queue limits of the instance."""
    INTERNAL = "internal"


class BackendError(SpearError):
    """A backend failed at a request. `status` is the HTTP status, where there was one."""

    def __init__(self, error: CanonicalError, failure: Failure, *, status: int | None = None) -> None:
        super().__init__(error)
        self.failure = failure
        self.status = status

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_backend_error, (self.error, self.failure, self.status)


def _rebuild_backend_error(error: CanonicalError, failure: Failure, status: int | None) -> BackendError:
    return BackendError(error, failure, status=status)


def make_error(code: ErrorCode, message: str, **fields: object) -> CanonicalError:
    """A CanonicalError whose `retryable` is that of the code; `fields` are further fields of it."""
    return CanonicalError.model_validate({"code": code, "message": message, "retryable": code in RETRYABLE, **fields})


def invalid_request(field: str, problem: str) -> CallerError:
    """The caller's fault: `field` is what is wrong, `problem` says what it is and what would be right."""
    return CallerError(make_error(ErrorCode.INVALID_REQUEST, f"{field}: {problem}"))


def error_to_exception(error: CanonicalError) -> SpearError:
    """The exception that stands for `error` where a response is unwrapped."""
    if error.code in _CALLER:
        return CallerError(error)
    if error.code in _ROUTING:
        return RoutingError(error)
    if error.code is ErrorCode.INTERNAL:
        return InternalError(error)
    return BackendError(error, _FAILURE_OF.get(error.code, Failure.SERVER))


_FAILURE_OF = {
    ErrorCode.RATE_LIMITED: Failure.RATE_LIMIT,
    ErrorCode.CREDENTIALS_EXHAUSTED: Failure.AUTH,
    ErrorCode.CONTENT_REFUSED: Failure.REFUSED,
    ErrorCode.BACKEND_UNAVAILABLE: Failure.CONNECT,
}

HTTP_STATUS: Final[dict[ErrorCode, int]] = {
    ErrorCode.INVALID_REQUEST: 400,
    ErrorCode.PAYLOAD_MISMATCH: 400,
    ErrorCode.UNSUPPORTED_VERSION: 400,
    ErrorCode.BACKEND_NOT_ENABLED: 404,
    ErrorCode.NO_CANDIDATE_BACKEND: 404,
    ErrorCode.MISSING_CAPABILITIES: 400,
    ErrorCode.RATE_LIMITED: 429,
    ErrorCode.OVERLOADED: 503,
    ErrorCode.BUDGET_EXCEEDED: 402,
    ErrorCode.TIMEOUT: 504,
    ErrorCode.BACKEND_ERROR: 502,
    ErrorCode.BACKEND_UNAVAILABLE: 503,
    ErrorCode.STREAM_TRUNCATED: 502,
    ErrorCode.CREDENTIALS_EXHAUSTED: 502,
    ErrorCode.CONTENT_REFUSED: 400,
    ErrorCode.MEDIA_NOT_FOUND: 404,
    ErrorCode.MEDIA_NOT_ALLOWED: 403,
    ErrorCode.MEDIA_TOO_LARGE: 413,
    ErrorCode.TOOL_CALL_LIMIT: 400,
    ErrorCode.SESSION_LIMIT: 429,
    ErrorCode.SESSION_EXPIRED: 410,
    ErrorCode.CANCELLED: 499,
    ErrorCode.INTERNAL: 500,
}
