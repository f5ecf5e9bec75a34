"""What an observer sees: frozen copies, nothing live."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Exit", "Node", "Reason", "Status", "describe"]

Reason = Literal["stopped", "finished", "crashed", "cancelled"]
Status = Literal["starting", "running", "backing_off", "stopping", "hung", "exited"]


@dataclass(frozen=True, slots=True)
class Exit:
    """How an actor ended for good.

    stopped = by `Supervisor.stop` or the normal end of the block; finished = by itself; crashed = by `error`, and
    not restarted; cancelled = its supervisor's block was left by an error or a cancellation. An `error` beside
    stopped, finished or cancelled came from the lifespan's exit.
    """

    path: str
    reason: Reason
    error: Exception | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One actor or supervisor at one moment. For actors always:

    accepted = handled + skipped + rejected + crashed + cancelled + discarded + mailbox_used + running
    """

    path: str
    kind: Literal["actor", "supervisor"]
    status: Status
    mailbox_used: int = 0  # queued
    mailbox_capacity: int = 0
    senders_waiting: int = 0  # not accepted yet
    accepted: int = 0
    handled: int = 0
    skipped: int = 0  # given up by the asker while queued
    rejected: int = 0  # answered with one of `rejects`
    crashed: int = 0
    cancelled: int = 0  # turns that were cancelled: the asker gave up, or the actor was stopped
    discarded: int = 0  # queued when the actor ended
    running: int = 0
    restarts: int = 0
    last_error: str | None = None
    uptime: float = 0.0  # seconds since this incarnation started
    busy_with: str | None = None  # type name of a message being handled
    state: Mapping[str, object] = field(default_factory=dict)
    children: tuple[Node, ...] = ()

    def walk(self) -> Iterator[Node]:
        """This node and all beneath it, parents first."""
        yield self
        for child in self.children:
            yield from child.walk()


def describe(error: BaseException) -> str:
    """One line, at most 200 characters."""
    text = f"{type(error).__name__}: {error}".splitlines()[0] if str(error) else type(error).__name__
    return text if len(text) <= 200 else text[:199] + "…"
