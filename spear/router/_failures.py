"""What follows from a failure, by class: one table for everything that reacts to one.

The attempt loop reads `another_instance`, `free_retry` and `same_instance`, policies and breakers `counts`; `key` is
what a key pool goes by. Nothing anywhere else decides by class.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from actors import ActorCrashed, ActorStopped
from spear.ir import (
    BackendError,
    CanonicalError,
    Clock,
    ErrorCode,
    Failure,
    InternalError,
    SpearError,
    make_error,
)


class Rule(NamedTuple):
    """`counts`: the failure is the instance's own and lowers its standing with policies and breakers.
    `free_retry`: nothing was sent, so that one more try at the same instance costs nothing."""

    another_instance: bool
    counts: bool
    free_retry: bool = False
    same_instance: Literal["no", "backoff", "retry_after"] = "no"
    key: Literal["keep", "cool", "kill"] = "keep"
    another_class: bool = False
    """The model class that the route declares for it, if it does, may take the request."""

    @property
    def breaker(self) -> Literal["fail", "neutral"]:
        return "fail" if self.counts else "neutral"


RULES: Final[dict[Failure, Rule]] = {
    Failure.CONNECT: Rule(another_instance=True, counts=True, free_retry=True),
    Failure.SERVER: Rule(another_instance=True, counts=True, same_instance="backoff"),
    Failure.RATE_LIMIT: Rule(another_instance=True, counts=False, same_instance="retry_after", key="cool"),
    Failure.AUTH: Rule(another_instance=True, counts=False, key="kill"),
    Failure.REQUEST: Rule(another_instance=False, counts=False),
    Failure.CONTEXT_WINDOW: Rule(another_instance=False, counts=False, another_class=True),
    Failure.REFUSED: Rule(another_instance=False, counts=False),
    Failure.OVERLOAD: Rule(another_instance=True, counts=False),
    Failure.INTERNAL: Rule(another_instance=True, counts=True),
}


class Fault(NamedTuple):
    error: CanonicalError
    failure: Failure
    actor_gone: bool = False
    """The instance's actor stopped or restarts: the request may have been sent, and there is nobody to ask again."""

    @property
    def rule(self) -> Rule:
        return RULES[self.failure]


def fault_of(error: SpearError | ActorStopped | ActorCrashed, backend: str) -> Fault:
    match error:
        case BackendError():
            return Fault(error.error, error.failure)
        case InternalError():
            return Fault(error.error, Failure.INTERNAL)
        case SpearError():  # the adapter says that the request is wrong, or not for it
            return Fault(error.error, Failure.REQUEST)
        case _:
            message = f"backend {backend} stopped or restarted before it had answered"
            return Fault(make_error(ErrorCode.BACKEND_UNAVAILABLE, message), Failure.CONNECT, actor_gone=True)


def truncated(backend: str) -> Fault:
    message = f"the stream of backend {backend} ended without an end"
    return Fault(make_error(ErrorCode.STREAM_TRUNCATED, message), Failure.SERVER)


def timed_out(backend: str, clock: Clock) -> Fault:
    message = f"backend {backend} took too long ({clock})"
    return Fault(make_error(ErrorCode.TIMEOUT, message, clock=clock), Failure.SERVER)
