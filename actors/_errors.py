"""Every error this library raises.

ActorError
├── MailboxFull             tell_nowait, ask_nowait, stream_nowait: no room now; nothing was queued
├── ActorStopped            will never be handled: the mailbox is closed, or the actor went mid-turn
├── ActorCrashed            the turn raised; __cause__ is what it raised
├── UnknownMessage          (also TypeError) not part of the actor's protocol; raised in the sender
├── SelfAsk                 (also RuntimeError) an actor with concurrency=1 asked itself
├── SelfStop                (also RuntimeError) stop() was called from inside what it would stop
├── NameTaken               (also ValueError) a living sibling has this name
├── StartFailed             the first start failed; __cause__ says why; nothing was kept
├── SupervisorClosed        start() after the supervisor's block began to end
├── LifespanEnded           a permanent actor's lifespan ended its block without being asked to
└── RestartLimitExceeded    more restarts than `intensity` within `period`; leaves the supervisor's block
"""

from __future__ import annotations

__all__ = [
    "ActorCrashed",
    "ActorError",
    "ActorStopped",
    "LifespanEnded",
    "MailboxFull",
    "NameTaken",
    "RestartLimitExceeded",
    "SelfAsk",
    "SelfStop",
    "StartFailed",
    "SupervisorClosed",
    "UnknownMessage",
]


class ActorError(Exception):
    """Base of every error of this library; never raised itself."""


class MailboxFull(ActorError):
    """The mailbox has no room now. Nothing was queued: wait (`ask`, `tell`) or go elsewhere."""


class ActorStopped(ActorError):
    """The message will never be handled (to its end): the mailbox is closed or the actor went mid-turn."""


class ActorCrashed(ActorError):
    """The turn raised something that is not one of `rejects`; `__cause__` is that exception."""


class UnknownMessage(ActorError, TypeError):
    """The message is not part of the actor's protocol. Raised in the sender; nothing was queued."""


class SelfAsk(ActorError, RuntimeError):
    """An actor with concurrency=1 asked itself and would have waited for ever."""


class SelfStop(ActorError, RuntimeError):
    """`Supervisor.stop` was called from inside the child it would stop; use `ctx.finish()` there."""


class NameTaken(ActorError, ValueError):
    """A living child of this supervisor already has this name."""


class StartFailed(ActorError):
    """The factory or the lifespan's entry raised at the first start; `__cause__` is that exception."""


class SupervisorClosed(ActorError):
    """The supervisor's block is ending or over; it starts nothing any more."""


class LifespanEnded(ActorError):
    """The lifespan of a permanent actor ended its own block without an error; it counts as a failure."""


class RestartLimitExceeded(ActorError):
    """A supervisor gave up; `failures` are the errors inside the last `period`, oldest first."""

    def __init__(self, message: str, failures: tuple[Exception, ...]) -> None:
        super().__init__(message, failures)
        self.failures = failures

    def __str__(self) -> str:
        return str(self.args[0])
