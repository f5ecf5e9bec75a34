"""The block that owns children: starts, watches, restarts and stops them.

Children live in shielded scopes inside this block's nursery, so that a cancellation from outside reaches them
through the shutdown here: in order, each with its grace. Restarts are carried out by `_repair.Repair`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from functools import partial
from random import Random
from typing import Any, Literal, TypeVar, get_args

import trio

from ._actor import Spec
from ._cell import Cell, current_cell
from ._errors import (
    LifespanEnded,
    NameTaken,
    RestartLimitExceeded,
    SelfStop,
    StartFailed,
    SupervisorClosed,
)
from ._instrument import Hooks, Instrument
from ._plan import Child, Plan, Strategy, plan
from ._ref import Ref
from ._repair import Repair
from ._snapshot import Exit, Node, Reason, describe
from ._stopping import begin_stop, end_stop, stop_cells, wait_gone_or_hung
from ._watch import Watcher

__all__ = ["Supervisor", "default_rng", "open_supervisor"]

M = TypeVar("M")
Stop = Literal["reverse", "together"]

default_rng: ContextVar[Random | None] = ContextVar("actors.default_rng", default=None)


class Supervisor:
    """Made by `open_supervisor`. Its methods may be used from any task of the same Trio run."""

    def __init__(
        self,
        *,
        path: str,
        owner: Cell[Any] | None,
        nursery: trio.Nursery,
        strategy: Strategy,
        intensity: int,
        period: float,
        stop: Stop,
        rng: Random,
        hooks: Hooks,
    ) -> None:
        self.path = path
        self._hooks = hooks
        self._rng = rng
        self._owner = owner
        self._nursery = nursery
        self._strategy = strategy
        self._intensity = intensity
        self._period = period
        self._stop_mode = stop
        self._children: dict[str, Cell[Any]] = {}  # in start order; the living only
        self._restarts: deque[tuple[float, Exception]] = deque()
        self._restart_count = 0
        self._repair: Repair | None = None  # of a group strategy, while there is one
        self._closing = False  # the block is ending
        self._over = False  # it has ended
        self._failure: RestartLimitExceeded | None = None
        self._opened_at = trio.current_time()
        self._last_error: str | None = None

    def __repr__(self) -> str:
        return f"<Supervisor {self.path} of {len(self._children)}>"

    # --- public ---------------------------------------------------------------------------------------------

    async def start(self, spec: Spec[M]) -> Ref[M]:
        """Start a child; return once its lifespan is entered.

        Cancelled while waiting, the child is cancelled and nothing is kept. Raises StartFailed, NameTaken,
        SupervisorClosed.
        """
        if self._closing:
            raise SupervisorClosed(f"{self.path} is ending and starts nothing any more")
        if spec.name in self._children:
            raise NameTaken(f"{self.path} has a living child named {spec.name!r}")
        cell = Cell(spec, f"{self.path}/{spec.name}", self)
        self._children[spec.name] = cell
        cell.launch(self._nursery)
        event = cell.started_event
        assert event is not None
        try:
            await event.wait()
        except BaseException:
            with trio.CancelScope(shield=True):  # bounded by its grace; whoever starts something ends it
                await stop_cells([cell], orderly=False, reason="cancelled")
            raise
        if cell.started_event is event:
            cell.started_event = None
        if cell.incarnation == 0 and not cell.was_started:
            error, cell.start_error = cell.start_error, None
            why = describe(error) if error is not None else "it was stopped before its lifespan was entered"
            raise StartFailed(f"{cell.path} did not start: {why}") from error
        return cell.ref

    async def stop(self, ref: Ref[Any]) -> Exit:
        """Close the mailbox, drain, cancel, and wait until the child has gone, be it hung.

        Cancelled while waiting, the child is cancelled at once and goes on its own. A child that has gone already
        is fine. Raises SelfStop when called from inside that child, ValueError for a ref of another supervisor.
        """
        cell = ref._cell
        if cell.owner is not self:
            raise ValueError(f"{ref.path} is no child of {self.path}")
        inside: Cell[Any] | None = current_cell.get()
        while inside is not None:
            if inside is cell:
                raise SelfStop(f"{cell.path} cannot wait for its own end; use ctx.finish()")
            inside = inside.owner._owner
        if cell.exit is None:
            await stop_cells([cell], orderly=True, reason="stopped")
        return await cell.wait_exit()

    def stop_soon(self, ref: Ref[Any], *, drain: float | None = None) -> None:
        """Like `stop`, without waiting: the mailbox is closed now, the rest is this supervisor's to see to.

        `drain`: seconds for what is queued and in flight, instead of the spec's. At the end of the block the child is
        stopped like all others, with the spec's. Raises ValueError for a ref of another supervisor.
        """
        cell = ref._cell
        if cell.owner is not self:
            raise ValueError(f"{ref.path} is no child of {self.path}")
        if drain is not None and not 0 <= drain < math.inf:
            raise ValueError(f"drain is a finite number of seconds, 0 or more; got {drain!r}")
        if begin_stop(cell, "stopped"):
            self._nursery.start_soon(partial(end_stop, [cell], orderly=True, drain=drain), name=f"stop of {cell.path}")

    def watch(self, ref: Ref[Any], to: Ref[M], make: Callable[[Exit], M]) -> None:
        """When `ref` has ended for good, tell `to` what `make` makes of its exit; at once if it has ended.

        If the mailbox of `to` is full, the notice waits in this supervisor's nursery; it is dropped if `to` has
        stopped or this supervisor's block is over. An exception from `make` is not caught: it leaves the block.
        """
        watcher = Watcher(self, to, make)
        cell = ref._cell
        if cell.exit is not None:
            watcher.notify(cell.exit)
        else:
            # watchers come and go while what they watch lives on
            cell.watchers = [*(w for w in cell.watchers or () if not w.moot), watcher]

    def snapshot(self) -> Node:
        """The live tree, now. Synchronous; sends no message."""
        return Node(
            path=self.path,
            kind="supervisor",
            status="stopping" if self._closing else "running",
            restarts=self._restart_count,
            last_error=self._last_error,
            uptime=trio.current_time() - self._opened_at,
            children=tuple(cell.snapshot() for cell in self._children.values()),
        )

    # --- what cells report ----------------------------------------------------------------------------------

    def _ended(self, cell: Cell[Any], failures: tuple[Exception, ...]) -> None:
        """One incarnation is over. Decide what that means."""
        error = failures[-1] if failures else None
        if error is not None:
            cell.last_error = self._last_error = describe(error)
        if cell.final is not None:
            self._end(cell, "crashed" if cell.final == "finished" and error is not None else cell.final, error)
        elif cell.incarnation == 0 and not cell.was_started:
            cell.start_error = error or LifespanEnded(f"the lifespan of {cell.path} ended before it began")
            self._end(cell, "crashed", cell.start_error)
        elif error is None and cell.restarting:
            cell.status = "backing_off"
        elif error is None and cell.spec.restart != "permanent":
            self._end(cell, "finished", None)
        elif cell.spec.restart == "temporary" or self._closing or self._failure is not None:
            self._end(cell, "crashed" if error is not None else "finished", error)
        else:
            cell.status = "backing_off"
            if not failures:
                failures = (LifespanEnded(f"the lifespan of {cell.path} ended by itself"),)
            self._failed(cell, failures)
        if cell.started_event is not None:
            cell.started_event.set()

    def _passed_through(self, cell: Cell[Any]) -> None:
        """A BaseException that is no cancellation: it is on its way out through the nursery."""
        self._nursery.cancel_scope.cancel()  # before anybody who may stand in the block is told
        self._end(cell, cell.final or "cancelled", None)
        if cell.started_event is not None:
            cell.started_event.set()

    def _failed(self, cell: Cell[Any], failures: Sequence[Exception]) -> None:
        now = trio.current_time()
        if now - cell.started_at >= cell.spec.backoff.reset_after:
            cell.failures = 0
        decided: Plan | None = None
        for error in failures:
            cell.failures += 1
            delay = cell.spec.backoff.delay(cell.failures, self._rng)
            decided = self._decide(cell, error, now, delay)
            if decided.give_up:
                self._give_up(error, now)
                return
            self._restarts.append((now, error))
        assert decided is not None
        self._restart_count += 1
        if self._hooks.restarting:
            self._hooks.fire("restarting", cell.path, failures[-1], decided.delay)
        if cell.restarting:
            return  # a repair is stopping it anyway and will start it again
        if self._strategy == "one_for_one":
            Repair(self).add(decided)
        else:
            if self._repair is None:
                self._repair = Repair(self)
            self._repair.add(decided)

    def _decide(self, cell: Cell[Any], error: Exception, now: float, delay: float) -> Plan:
        while self._restarts and now - self._restarts[0][0] >= self._period:
            self._restarts.popleft()
        return plan(
            self._strategy,
            [Child(c.spec.name, c.spec.restart) for c in self._children.values()],
            cell.spec.name,
            history=[when for when, _ in self._restarts],
            now=now,
            intensity=self._intensity,
            period=self._period,
            delay=delay,
        )

    def _give_up(self, error: Exception, now: float) -> None:
        if self._failure is not None:
            return
        errors = (*(earlier for _, earlier in self._restarts), error)
        self._failure = RestartLimitExceeded(
            f"{self.path} gave up: more than {self._intensity} restarts within {self._period:g} s; "
            f"the last failure was {describe(error)}",
            errors,
        )
        self._failure.__cause__ = error
        self._nursery.cancel_scope.cancel()

    def _end(self, cell: Cell[Any], reason: Reason, error: Exception | None) -> None:
        ended = cell.ended_for_good(reason, error)
        del self._children[cell.spec.name]
        if self._hooks.exited:
            self._hooks.fire("exited", ended)
        watchers, cell.watchers = cell.watchers, None
        for watcher in watchers or ():
            watcher.notify(ended)

    def _left_alone(self, cell: Cell[Any]) -> None:
        """Its loops are over and nobody waits for its end: watch that it does end."""
        self._nursery.start_soon(wait_gone_or_hung, cell, name=f"exit of {cell.path}")

    # --- stopping ---------------------------------------------------------------------------------------------

    async def _shutdown(self, *, orderly: bool) -> None:
        self._closing = True
        if orderly:
            try:
                await self._stop_all("stopped", orderly=True)
            except trio.Cancelled:
                with trio.CancelScope(shield=True):
                    await self._stop_all("cancelled", orderly=False)
                raise
        else:
            with trio.CancelScope(shield=True):
                await self._stop_all("cancelled", orderly=False)

    async def _stop_all(self, reason: Reason, *, orderly: bool) -> None:
        cells = list(reversed(self._children.values()))
        if self._stop_mode == "together":
            await stop_cells(cells, orderly=orderly, reason=reason)
        else:
            for cell in cells:
                await stop_cells([cell], orderly=orderly, reason=reason)
        for cell in cells:  # the hung: Trio cannot kill a task and we do not abandon one
            await cell.wait_gone()

    def _leave_time(self) -> float:
        times = [cell.spec.drain + cell.leave_time() for cell in self._children.values()]
        return max(times, default=0.0) if self._stop_mode == "together" else math.fsum(times)


@asynccontextmanager
async def open_supervisor(
    *,
    name: str = "root",
    strategy: Strategy = "one_for_one",
    intensity: int = 3,
    period: float = 5.0,
    stop: Stop = "reverse",
    rng: Random | None = None,
    instruments: tuple[Instrument, ...] = (),
) -> AsyncIterator[Supervisor]:
    """A block that owns actors; when it is left, all of them have gone.

    Left normally, children are stopped in an orderly way: in reverse start order, one after another, or with
    stop="together" all at once under one deadline. Left by an error or a cancellation, the same without draining;
    leaving is then delayed by at most the sum of their graces, hung children apart. More than `intensity`
    restarts within `period` seconds: RestartLimitExceeded leaves the block. Any other error of the body comes
    out as it is.

    Opened inside an actor it appears beneath that actor in snapshots, and takes over instruments and rng.
    """
    _check(name, strategy, intensity, period, stop)
    owner = current_cell.get()
    parent = owner.owner if owner is not None else None
    if rng is None:
        rng = parent._rng if parent is not None else default_rng.get() or Random()
    supervisor: Supervisor | None = None
    body_error: BaseException | None = None
    try:  # noqa: PLW0717 -- the nursery is the block
        async with trio.open_nursery() as nursery:
            supervisor = Supervisor(
                path=name if owner is None else f"{owner.path}/{name}",
                owner=owner,
                nursery=nursery,
                strategy=strategy,
                intensity=intensity,
                period=period,
                stop=stop,
                rng=rng,
                hooks=Hooks((*(parent._hooks.instruments if parent is not None else ()), *instruments)),
            )
            if owner is not None:
                owner.supervisors = [*(owner.supervisors or ()), supervisor]
            orderly = False
            try:
                yield supervisor
                orderly = True
            finally:
                await supervisor._shutdown(orderly=orderly)
                supervisor._over = True
                nursery.cancel_scope.cancel()  # repairs and notices that still wait
    except BaseExceptionGroup as group:
        # the nursery wraps even a lone error of the body
        body_error = group.exceptions[0] if len(group.exceptions) == 1 else group
    finally:
        if owner is not None and supervisor is not None:
            owner.supervisors = [s for s in owner.supervisors or () if s is not supervisor] or None
    failure = supervisor._failure if supervisor is not None else None
    if body_error is not None and failure is not None:
        raise BaseExceptionGroup(f"{name} gave up, and its block failed", [failure, body_error])
    if failure is not None:
        raise failure
    if body_error is not None:
        try:
            raise body_error
        finally:
            del body_error  # no cycle through this frame


def _check(name: str, strategy: str, intensity: int, period: float, stop: str) -> None:
    if not name or "/" in name:
        raise ValueError(f"a supervisor's name is not empty and has no '/'; got {name!r}")
    if strategy not in get_args(Strategy):
        raise ValueError(f"strategy is one of {', '.join(get_args(Strategy))}; got {strategy!r}")
    if stop not in get_args(Stop):
        raise ValueError(f"stop is 'reverse' or 'together'; got {stop!r}")
    if intensity < 0 or intensity != int(intensity):
        raise ValueError(f"intensity is a whole number, 0 or more; got {intensity!r}")
    if not (0 < period < math.inf):
        raise ValueError(f"period is a finite number of seconds above 0; got {period!r}")
