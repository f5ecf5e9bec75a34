"""What travels with a message that somebody waits for.

An asker parks once, in `wait_task_rescheduled`, from before acceptance until its answer. Its abort function runs
synchronously when it gives up, so that the happy path pays nothing for it. States of an Ask:

    parked ──admit──> queued ──begin──> running ──settle──> answered
      └─ never accepted   └─ skipped        └─ the turn's scope is cancelled      (when the asker gives up)

A joined asker that gives up stays parked until its turn has ended, and only then sees its cancellation.
"""

from __future__ import annotations

from typing import Protocol

import outcome
import trio
from trio.lowlevel import Abort, RaiseCancelT, Task, current_task, reschedule, wait_task_rescheduled

from ._mailbox import Mailbox

__all__ = ["Ask", "StreamAsk"]


class Turn(Protocol):
    def cancel(self) -> None: ...


class Ask:
    """One message and the task that waits for its answer."""

    __slots__ = ("deadline", "gave_up", "joined", "mailbox", "msg", "task", "turn")

    def __init__(self, mailbox: Mailbox, msg: object, deadline: float, joined: bool = False) -> None:
        self.mailbox = mailbox
        self.msg = msg
        self.joined = joined
        self.gave_up: RaiseCancelT | None = None  # joined, and waits for the end of the turn
        self.task: Task | None = current_task()  # None: answered, or given up
        self.turn: Turn | None = None
        self.deadline = deadline

    async def answer(self) -> object:
        return await wait_task_rescheduled(self._abort)

    def _abort(self, raise_cancel: RaiseCancelT) -> Abort:
        if self.turn is None:
            self.mailbox.unpark(self)
        else:
            self.turn.cancel()
            if self.joined:
                self.gave_up = raise_cancel
                return Abort.FAILED
        self.task = None
        return Abort.SUCCEEDED

    def begin(self, turn: Turn | None) -> bool:
        """False if the asker has gone: the turn must not start."""
        if self.task is None:
            return False
        self.turn = turn
        return True

    def reply(self, value: object) -> None:
        self.turn = None
        task, self.task = self.task, None
        if task is not None:
            reschedule(task, outcome.Value(value))

    def fail(self, error: Exception) -> None:
        self.turn = None
        task, self.task = self.task, None
        if task is not None:
            reschedule(task, outcome.Error(error) if self.gave_up is None else outcome.capture(self.gave_up))

    def admit(self) -> object:
        return self

    refuse = fail


class StreamAsk:
    """One message and the channel its answers go through. Also the producer's Sink."""

    __slots__ = ("_ended", "_items", "deadline", "error", "given_up", "items", "msg", "turn")

    def __init__(self, msg: object, buffer: int) -> None:
        self.msg = msg
        self.turn: Turn | None = None
        self.deadline = trio.current_effective_deadline()
        self.given_up = False
        self.error: Exception | None = None
        self._ended: trio.Event | None = None  # somebody waits for the end of the turn
        self._items, self.items = trio.open_memory_channel[object](buffer)

    async def send(self, item: object) -> None:
        """Wait while `buffer` items are unread. Once the consumer has left, items go nowhere."""
        try:
            await self._items.send(item)
        except trio.BrokenResourceError:
            # the consumer left, so this turn is cancelled: let a producer that is not shielded see just that
            await trio.lowlevel.checkpoint()

    def send_nowait(self, item: object) -> bool:
        """False for one who has left, too: `send` then has the checkpoint where its cancellation is seen."""
        try:
            self._items.send_nowait(item)
        except (trio.WouldBlock, trio.BrokenResourceError):
            return False
        return True

    def give_up(self) -> None:
        """The consumer leaves: cancel the turn, or keep it from starting."""
        self.given_up = True
        self.items.close()
        if self.turn is not None:
            self.turn.cancel()

    async def join(self) -> None:
        """After `give_up`: until the turn has ended, cancelled or not."""
        if self.turn is not None:
            self._ended = trio.Event()
            with trio.CancelScope(shield=True):
                await self._ended.wait()

    def begin(self, turn: Turn | None) -> bool:
        if self.given_up:
            return False
        self.turn = turn
        return True

    def reply(self, value: object) -> None:
        self._end()

    def fail(self, error: Exception) -> None:
        self.error = error
        self._end()

    def _end(self) -> None:
        self.turn = None
        self._items.close()
        if self._ended is not None:
            self._ended.set()
