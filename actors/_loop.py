"""One loop: takes messages from the mailbox and runs their turns.

A loop has one cancel scope for a run of turns, not one per turn (a scope costs a third of an ask). An asker that gives
up cancels it, and the loop goes on in a new one. So two rules:

1. look at `spent` after each turn, before the next message is taken: its scope must not hit a neighbour's turn;
2. settle the answer in `except BaseException`: whatever ends a turn, its asker is told.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import trio
from trio.lowlevel import Abort, RaiseCancelT, Task, current_task

from ._actor import Context
from ._errors import ActorCrashed
from ._mailbox import END, NOTHING
from ._reply import Ask, StreamAsk

if TYPE_CHECKING:
    from ._cell import Cell

__all__ = ["Loop"]

BATCH = 32  # turns without a checkpoint of the loop itself


class Loop:
    __slots__ = ("busy", "cell", "ctx", "mailbox", "scope", "spent", "task")

    def __init__(self, cell: Cell[Any]) -> None:
        self.cell = cell
        self.ctx: Context[Any] = Context(cell)
        self.mailbox = cell.mailbox
        self.task: Task | None = None
        self.scope: trio.CancelScope | None = None
        self.busy: object = NOTHING  # the message, during a turn
        self.spent = False  # its scope was cancelled. (CancelScope.cancel_called would ask the clock each time.)

    def abort(self, _: RaiseCancelT) -> Abort:
        """It was cancelled while idle."""
        self.mailbox.idle.remove(self)
        return Abort.SUCCEEDED

    def cancel(self) -> None:
        """Cancel the turn it is in, if any."""
        if self.busy is not NOTHING and self.scope is not None:
            self.spent = True
            self.scope.cancel()

    async def serve(self, item: object) -> None:
        """Until END. `item` is the first message, or NOTHING."""
        mailbox = self.mailbox
        self.task = current_task()
        self.cell.loops.append(self)
        try:  # noqa: PLW0717 -- a crash may come from anywhere in a loop
            while True:
                if item is NOTHING:
                    item = mailbox.take()
                    if item is NOTHING:
                        item = await mailbox.wait(self)
                if item is END:
                    return
                first, item = item, NOTHING
                self.spent = False
                with trio.CancelScope() as self.scope:
                    item = await self._run(first)
        except Exception as exc:  # noqa: BLE001 -- what was left of a group once its cancellations were taken out
            self.cell.crashed_by(exc)
        finally:
            self.cell.loops.remove(self)

    async def _run(self, item: object) -> object:
        """Turns in one scope. END, or NOTHING once the scope is spent."""
        mailbox = self.mailbox
        turns = 0
        while item is not END:
            if mailbox.halted:
                self.cell.hand_back(item)
                return END
            await self._turn(item)
            if self.spent:
                return NOTHING
            turns += 1
            if turns == BATCH:
                turns = 0
                await trio.lowlevel.checkpoint()
            item = mailbox.take()
            if item is NOTHING:
                turns = 0
                item = await mailbox.wait(self)
        return END

    async def _turn(self, item: Any) -> None:
        cell = self.cell
        kind = type(item)
        if kind is Ask or kind is StreamAsk:
            if not item.begin(self):
                cell.skipped += 1
                self.mailbox.in_hand -= 1
                return
            self.ctx.deadline = item.deadline
            msg, ask = item.msg, item
        else:
            self.ctx.deadline = math.inf
            msg, ask = item, None
        self.busy = msg
        hooks = cell.owner._hooks
        if hooks.turn_started:
            hooks.fire("turn_started", cell.path, msg)
        error: BaseException | None = None
        try:
            if kind is StreamAsk:
                value: object = await cell.actor.handle_stream(msg, item, self.ctx)
            else:
                value = await cell.actor.handle(msg, self.ctx)
        except BaseException as exc:
            error = exc
            self._failed(ask, exc)
            if not isinstance(exc, Exception):
                raise
        else:
            cell.handled += 1
            if ask is not None:
                ask.reply(value)
        finally:
            self.mailbox.in_hand -= 1
            self.busy = NOTHING
            if hooks.turn_finished:
                hooks.fire("turn_finished", cell.path, msg, error)
            del error  # it holds this frame

    def _failed(self, ask: Ask | StreamAsk | None, exc: BaseException) -> None:
        cell = self.cell
        answer: Exception
        if isinstance(exc, cell.rejects):
            cell.rejected += 1
            answer = exc
        elif isinstance(exc, Exception):
            cell.crashed += 1
            answer = ActorCrashed(f"{cell.path} crashed: {type(exc).__name__}")
            answer.__cause__ = exc
            cell.crashed_by(exc)
        else:
            cell.cancelled_turns += 1
            answer = cell.stopped()
            if _is_fatal(exc):
                # KeyboardInterrupt and the like: cancel the block before the asker, who may stand in it, is told
                cell.fatal = exc
                cell.owner._nursery.cancel_scope.cancel()
        if ask is not None:
            ask.fail(answer)


def _is_fatal(exc: BaseException) -> bool:
    """Whether there is more in it than cancellations and errors."""
    if isinstance(exc, BaseExceptionGroup):
        return any(_is_fatal(inner) for inner in exc.exceptions)
    return not isinstance(exc, (trio.Cancelled, Exception))
