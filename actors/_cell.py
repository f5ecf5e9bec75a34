"""One child across its incarnations: mailbox, counters, and the task that runs its turns.

    launch()    starts the task of one incarnation
    live()      is that task: factory, lifespan, loops; at its end the supervisor hears what it died of
    cancel(), close(), finish()     end an incarnation, or the whole

Rule: a cell never decides about restarts; it reports to its supervisor and does what it is told.
"""

from __future__ import annotations

import contextvars
import math
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import trio

from ._actor import Actor, Context, Request, Spec, StreamRequest
from ._errors import ActorStopped
from ._failures import merge
from ._loop import Loop
from ._mailbox import NOTHING, Mailbox
from ._ref import Ref
from ._reply import Ask, StreamAsk
from ._snapshot import Exit, Node, Reason, Status, describe

if TYPE_CHECKING:
    from ._supervisor import Supervisor
    from ._watch import Watcher

__all__ = ["Cell", "current_cell"]

M = TypeVar("M")

current_cell: ContextVar[Cell[Any] | None] = ContextVar("actors.current_cell", default=None)


class Cell(Generic[M]):
    __slots__ = (
        "_exit_event", "_gone_event", "actor", "alive", "askable", "cancelled_at", "cancelled_turns", "context",
        "crash", "crashed", "discarded", "exit", "failures", "fatal", "final", "handled", "hard", "incarnation",
        "last_error", "leaving", "loops", "mailbox", "nursery", "owner", "path", "ref", "rejected", "rejects",
        "restarting", "restarts", "scope", "skipped", "spec", "start_error", "started_at", "started_event", "status",
        "streamable", "supervisors", "task", "tellable", "was_started", "watchers",
    )  # fmt: skip

    def __init__(self, spec: Spec[M], path: str, owner: Supervisor) -> None:
        self.spec = spec
        self.path = path
        self.owner = owner
        self.mailbox = Mailbox(spec.mailbox, self._grow)
        self.ref: Ref[M] = Ref(self)
        self.tellable: tuple[type, ...] = (object,)
        self.askable: tuple[type, ...] = (Request,)
        self.streamable: tuple[type, ...] = (StreamRequest,)
        self.rejects: tuple[type[Exception], ...] = ()
        # counters: they only grow (accepted is the mailbox's)
        self.handled = self.skipped = self.rejected = self.crashed = self.cancelled_turns = self.discarded = 0
        self.restarts = 0
        # across incarnations
        self.status: Status = "starting"
        self.incarnation = -1
        self.failures = 0  # in a row, for the backoff
        self.last_error: str | None = None  # text only: an exception keeps frames, and these keep messages
        self.final: Reason | None = None  # set once it is to end for good
        self.exit: Exit | None = None
        self.restarting = False  # being stopped so that a repair can start it again
        self.start_error: Exception | None = None  # of the very first start
        self.watchers: list[Watcher[Any]] | None = None
        self.supervisors: list[Supervisor] | None = None  # opened in its lifespan or turns
        self._exit_event: trio.Event | None = None
        self._gone_event: trio.Event | None = None
        self.started_event: trio.Event | None = None
        # of the incarnation
        self.alive = False
        self.task: trio.lowlevel.Task | None = None
        self.actor: Any = None  # an Actor[M] while there is one
        self.scope: trio.CancelScope | None = None
        self.nursery: trio.Nursery | None = None
        self.context: contextvars.Context | None = None
        self.loops: list[Loop] = []
        self.crash: Exception | None = None
        self.fatal: BaseException | None = None  # a KeyboardInterrupt or so that ended a turn
        self.started_at = math.nan
        self.cancelled_at = math.inf
        self.was_started = False  # its lifespan has been entered
        self.leaving = False  # the loops are over, the lifespan is being left
        self.hard = False  # the lifespan was cancelled, too

    # --- one incarnation -------------------------------------------------------------------------------

    def launch(self, nursery: trio.Nursery) -> None:
        self.incarnation += 1
        self.status = "starting"
        self.alive = True
        self.crash = self.fatal = None
        self.was_started = self.leaving = self.hard = False
        self.cancelled_at = math.inf
        self.scope = trio.CancelScope(shield=True)
        self.started_event = trio.Event()
        # a fresh context: what the starter has in its context variables is none of the child's business
        contextvars.Context().run(lambda: nursery.start_soon(self.live, name=self.path))

    async def live(self) -> None:
        current_cell.set(self)
        self.task = trio.lowlevel.current_task()
        error: Exception | None = None
        assert self.scope is not None
        try:
            with self.scope:
                if not self.hard:
                    self.actor = self._make()
                    # one frame less for each of thousands of children that have no resources
                    await (self._serve() if self._plain() else self._serve_in_lifespan())
        except Exception as exc:  # noqa: BLE001 -- judged by the supervisor
            error = exc
        except BaseException:
            self._gone()
            self.owner._passed_through(self)
            raise
        self._gone()
        if self.fatal is not None:
            # The lifespan's exit was cancelled on its way out, and its Cancelled took the place of this.
            self.owner._passed_through(self)
            raise self.fatal
        self.owner._ended(self, merge(self.crash, error))

    def _make(self) -> Actor[M]:
        actor = self.spec.factory()
        kind = type(actor)
        self.rejects = kind.rejects
        self.tellable, self.askable, self.streamable = kind._doors
        return actor

    def _plain(self) -> bool:
        return type(self.actor).lifespan is Actor.lifespan

    async def _serve_in_lifespan(self) -> None:
        async with self.actor.lifespan(Context(self)):
            await self._serve()
            if self.crash is not None:
                raise self.crash

    async def _serve(self) -> None:
        if self.hard:
            return
        assert self.started_event is not None
        self.status = "running"
        self.started_at = trio.current_time()
        self.was_started = True
        self.started_event.set()
        if self.owner._hooks.started:
            self.owner._hooks.fire("started", self.path, self.incarnation)
        try:
            if self.spec.concurrency == 1:
                self.mailbox.resume(spare=0)
                await Loop(self).serve(NOTHING)
            else:
                self.context = contextvars.copy_context()
                await self._serve_many()
        finally:
            self._leave()

    async def _serve_many(self) -> None:
        try:
            async with trio.open_nursery() as self.nursery:
                self.mailbox.resume(spare=self.spec.concurrency - 1)
                await Loop(self).serve(NOTHING)
        except BaseExceptionGroup as group:  # loops keep their exceptions, so this is a KeyboardInterrupt or so
            if len(group.exceptions) == 1:
                raise group.exceptions[0] from group.exceptions[0].__cause__
            raise

    def _leave(self) -> None:
        """The loops are over: from here the lifespan's exit has its own time."""
        self.mailbox.halt()
        self.leaving = True
        if self.status == "running":
            self.status = "stopping"
        assert self.scope is not None
        if not self.hard and not self._plain():
            self.scope.deadline = trio.current_time() + self.leave_time()
            if self.final in (None, "finished") and not self.restarting:  # nobody else waits for it
                self.owner._left_alone(self)

    def _gone(self) -> None:
        self.mailbox.halt()
        self.alive = False
        self.task = self.actor = self.scope = self.nursery = self.context = None
        if self._gone_event is not None:
            self._gone_event.set()

    # --- loops and turns ------------------------------------------------------------------------------

    def _grow(self, item: object) -> None:
        assert self.nursery is not None
        assert self.context is not None
        nursery = self.nursery
        try:
            self.context.run(lambda: nursery.start_soon(Loop(self).serve, item, name=self.path))
        except RuntimeError:  # closed: the lifespan failed by itself, its last loop has ended, `_leave` is about to run
            self.mailbox.halt()
            self.hand_back(item)

    def hand_back(self, item: Any) -> None:
        """It was given to a loop that may not start it any more: back to the head of the queue, if it can be."""
        self.mailbox.in_hand -= 1
        if not self.mailbox.give_back(item):
            self._discard(item)

    def _discard(self, item: Any) -> None:
        kind = type(item)
        if kind is Ask or kind is StreamAsk:
            if not item.begin(None):
                self.skipped += 1
                return
            item.fail(self.stopped())
        self.discarded += 1

    def crashed_by(self, exc: Exception) -> None:
        if self.crash is None:
            self.crash = exc
        self.cancel_turns()

    # --- what the supervisor (and the actor itself) may tell it ------------------------------------------

    def cancel_turns(self) -> None:
        """Loops end now; running turns see Cancelled. The lifespan is then left in peace."""
        self.mailbox.halt()
        self.cancelled_at = min(self.cancelled_at, trio.current_time())
        for loop in self.loops:
            loop.cancel()

    def cancel(self, *, hard: bool) -> None:
        """Stop this incarnation: its turns, and if it is starting or this is hard, its lifespan, too."""
        if not self.alive:
            return
        self.cancel_turns()
        if (hard or not self.was_started) and not self.hard:
            self.hard = True
            self.cancelled_at = trio.current_time()
            assert self.scope is not None
            self.scope.cancel()

    def close(self, reason: Reason) -> None:
        """For good: no new messages from here on."""
        if self.final is None:
            self.final = reason
            self.mailbox.close(self.stopped)

    def finish(self) -> None:
        self.close("finished")
        self._clear()

    def _clear(self) -> None:
        for item in self.mailbox.clear():
            self._discard(item)

    def ended_for_good(self, reason: Reason, error: Exception | None) -> Exit:
        self.close(reason)
        self._clear()
        self.status = "exited"
        self.exit = Exit(self.path, reason, error)
        if error is not None:
            self.last_error = describe(error)
        if self._exit_event is not None:
            self._exit_event.set()
        return self.exit

    def leave_time(self) -> float:
        """Its own grace, and what the supervisors it opened need for their children."""
        return self.spec.grace + sum(sup._leave_time() for sup in self.supervisors or ())

    def hung_at(self) -> float:
        """When its cancellation will have been ignored for too long, as things stand."""
        patience = max(self.leave_time(), 0.1)
        if self.leaving and not self.hard:
            assert self.scope is not None
            return self.scope.deadline + patience
        return self.cancelled_at + patience

    def stopped(self) -> ActorStopped:
        why = {None: "", "finished": " by itself", "stopped": "", "cancelled": "", "crashed": " by a crash"}[self.final]
        return ActorStopped(f"{self.path} was ended{why}" if self.final else f"{self.path} crashed or is restarting")

    # --- waiting and looking -----------------------------------------------------------------------------

    async def wait_gone(self) -> None:
        """Until this incarnation is over."""
        if self.alive:
            if self._gone_event is None or self._gone_event.is_set():
                self._gone_event = trio.Event()
            await self._gone_event.wait()

    async def wait_exit(self) -> Exit:
        if self.exit is None:
            if self._exit_event is None:
                self._exit_event = trio.Event()
            await self._exit_event.wait()
        else:
            await trio.lowlevel.checkpoint()
        assert self.exit is not None
        return self.exit

    def snapshot(self) -> Node:
        mailbox = self.mailbox
        busy = next((loop.busy for loop in self.loops if loop.busy is not NOTHING), NOTHING)
        return Node(
            path=self.path,
            kind="actor",
            status=self.status,
            mailbox_used=len(mailbox),
            mailbox_capacity=mailbox.capacity,
            senders_waiting=len(mailbox.parked or ()),
            accepted=mailbox.accepted,
            handled=self.handled,
            skipped=self.skipped,
            rejected=self.rejected,
            crashed=self.crashed,
            cancelled=self.cancelled_turns,
            discarded=self.discarded,
            running=mailbox.in_hand,
            restarts=self.restarts,
            last_error=self.last_error,
            uptime=trio.current_time() - self.started_at if self.status in ("running", "stopping", "hung") else 0.0,
            busy_with=None if busy is NOTHING else type(busy).__name__,
            state=self._observe(),
            children=tuple(sup.snapshot() for sup in self.supervisors or ()),
        )

    def _observe(self) -> dict[str, object]:
        if self.actor is None:
            return {}
        try:
            return dict(self.actor.observe())
        except Exception as exc:  # noqa: BLE001 -- looking must not break what is looked at; the state says it
            return {"observe() failed": type(exc).__name__}
