"""A bounded queue that knows the loops which serve it.

Rule: an offer is accepted by an idle loop, else by a loop that may still be started (`spare`), else by the
queue, else not at all. So "full" means exactly: `concurrency` turns in flight and `capacity` messages queued.
A memory channel cannot say that, because it does not know how many receivers might still come.

Invariants: an idle loop or a spare one implies an empty queue; a parked sender implies a full queue. Both
keep the order of acceptance.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import outcome
import trio
from trio.lowlevel import Abort, RaiseCancelT, Task, current_task, reschedule, wait_task_rescheduled

__all__ = ["END", "NOTHING", "Mailbox", "Waiting", "deliver"]


class _Sentinel:
    __slots__ = ()


NOTHING: Final = _Sentinel()  # take(): nothing now
END: Final = _Sentinel()  # take(), wait(): the loop is to end


class Waiting(Protocol):
    """A sender that found no room."""

    def admit(self) -> object: ...  # there is room now: the item to queue
    def refuse(self, error: Exception) -> None: ...


class Server(Protocol):
    """A loop that takes items, and how to forget that it is idle."""

    task: Task | None

    def abort(self, raise_cancel: RaiseCancelT, /) -> Abort: ...


class Mailbox:
    __slots__ = ("_grow", "accepted", "capacity", "closed", "halted", "idle", "in_hand", "parked", "queue", "spare")

    def __init__(self, capacity: int, grow: Callable[[object], None]) -> None:
        self.capacity = capacity
        self.accepted = 0
        self.in_hand = 0  # given to a loop and not done: the loop's owner counts it down
        self.closed = False  # no new messages; loops end when the queue is empty
        self.halted = True  # loops end now; new messages are queued
        self.spare = 0  # loops that may still be started, by `grow(item)`
        self.idle: list[Server] = []
        self.queue: deque[object] | None = None  # made when first needed: most children never queue
        self.parked: dict[Waiting, None] | None = None
        self._grow = grow

    def __len__(self) -> int:
        return len(self.queue) if self.queue else 0

    def offer(self, item: object) -> bool:
        """Accept the item now, or say that there is no room. The caller has checked `closed`."""
        if self.idle:
            self.accepted += 1
            self.in_hand += 1
            _wake(self.idle.pop(), item)
            return True
        if self.spare:
            self.accepted += 1
            self.in_hand += 1
            self.spare -= 1
            self._grow(item)
            return True
        if self.queue is None:
            if self.capacity == 0:
                return False
            self.queue = deque()
        elif len(self.queue) >= self.capacity:
            return False
        self.accepted += 1
        self.queue.append(item)
        return True

    def park(self, sender: Waiting) -> None:
        if self.parked is None:
            self.parked = {}
        self.parked[sender] = None

    def unpark(self, sender: Waiting) -> bool:
        """True if the sender was still waiting: its item was never accepted and never will be."""
        if self.parked and sender in self.parked:
            del self.parked[sender]
            return True
        return False

    def take(self) -> object:
        """The next item for a loop, NOTHING, or END."""
        if self.halted:
            return END
        queue = self.queue
        if queue:
            item = queue.popleft()
            self.in_hand += 1
            if self.parked:
                queue.append(self._admit())
            return item
        if self.parked:  # capacity 0
            self.in_hand += 1
            return self._admit()
        return END if self.closed else NOTHING

    def _admit(self) -> object:
        assert self.parked
        sender = next(iter(self.parked))
        del self.parked[sender]
        self.accepted += 1
        return sender.admit()

    def wait(self, loop: Server) -> Awaitable[object]:
        """Park an idle loop until there is an item or END. Only right after take() said NOTHING."""
        self.idle.append(loop)
        return wait_task_rescheduled(loop.abort)  # noqa: ASYNC105 -- the caller awaits it; a frame less per idle loop

    def give_back(self, item: object) -> bool:
        """An item was handed to a loop that must not start it. False if it cannot stay."""
        if self.closed or len(self) >= self.capacity:
            return False
        if self.queue is None:
            self.queue = deque()
        self.queue.appendleft(item)
        return True

    def resume(self, spare: int) -> None:
        """Loops may take again. One loop is the caller; `spare` more may be started."""
        self.halted = False
        self.spare = spare
        while self.spare:
            item = self.take()
            if item is NOTHING or item is END:
                return
            self.spare -= 1
            self._grow(item)

    def halt(self) -> None:
        """Idle loops end now, busy ones after (or with) their turn; the queue stays."""
        self.halted = True
        self.spare = 0
        self._end_idle()

    def close(self, error: Callable[[], Exception]) -> None:
        """No new messages; loops end once the queue is empty."""
        self.closed = True
        self.spare = 0
        self._end_idle()
        parked, self.parked = self.parked, None
        for sender in parked or ():
            sender.refuse(error())

    def _end_idle(self) -> None:
        idle, self.idle = self.idle, []
        for loop in idle:
            _wake(loop, END)

    def clear(self) -> list[object]:
        items = list(self.queue or ())
        self.queue = None
        return items


def _wake(loop: Server, item: object) -> None:
    assert loop.task is not None
    reschedule(loop.task, outcome.Value(item))


class ParkedSender:
    """A task that waits until its item is accepted."""

    __slots__ = ("item", "mailbox", "task")

    def __init__(self, mailbox: Mailbox, item: object) -> None:
        self.mailbox = mailbox
        self.item = item

    async def wait(self) -> None:
        self.task = current_task()
        self.mailbox.park(self)

        def abort(_: RaiseCancelT) -> Abort:
            self.mailbox.unpark(self)
            return Abort.SUCCEEDED

        await wait_task_rescheduled(abort)

    def admit(self) -> object:
        reschedule(self.task)
        return self.item

    def refuse(self, error: Exception) -> None:
        reschedule(self.task, outcome.Error(error))


async def deliver(mailbox: Mailbox, item: object) -> None:
    """Wait for room; cancelled = not accepted. The caller has checked `closed`."""
    await trio.lowlevel.checkpoint_if_cancelled()
    if mailbox.offer(item):
        await trio.lowlevel.cancel_shielded_checkpoint()
    else:
        await ParkedSender(mailbox, item).wait()
