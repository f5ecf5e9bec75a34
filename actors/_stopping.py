"""How children are stopped: close, drain, cancel, wait, and report who does not leave.

orderly     turns are cancelled after the drain; then the lifespan is left in peace, within the grace
not orderly turns and lifespan are cancelled at once
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import trio

from ._cell import Cell
from ._snapshot import Reason

__all__ = ["begin_stop", "end_stop", "stop_cells", "wait_gone_or_hung"]


async def stop_cells(cells: Iterable[Cell[Any]], *, orderly: bool, reason: Reason | None) -> None:
    """Stop these at once, under one deadline; return when they have gone or are hung.

    With a reason it is for good; without one their mailboxes stay open and the caller will start them again.
    Cancelled, it cancels them outright and does not wait.
    """
    await end_stop([cell for cell in cells if begin_stop(cell, reason)], orderly=orderly)


async def end_stop(cells: Sequence[Cell[Any]], *, orderly: bool, drain: float | None = None) -> None:
    """The waiting half of `stop_cells`; a `drain` given holds instead of those of the specs."""
    try:
        if orderly:
            await _drain(cells, drain)
        for cell in cells:
            cell.cancel(hard=not orderly)
        for cell in cells:
            await wait_gone_or_hung(cell)
    except trio.Cancelled:
        for cell in cells:
            cell.cancel(hard=True)
        raise


def begin_stop(cell: Cell[Any], reason: Reason | None) -> bool:
    """The half that is done at once: no new messages. False if nothing of it is alive."""
    if cell.exit is not None:
        return False
    if reason is None:
        cell.restarting = True
    else:
        cell.close(reason)
    if not cell.alive:
        if reason is not None:
            cell.owner._end(cell, reason, None)
        return False
    if cell.status != "hung":
        cell.status = "stopping"
    return True


async def _drain(cells: Sequence[Cell[Any]], given: float | None) -> None:
    """Those that do not drain are cancelled now; the others get the longest drain time of them all."""
    draining: list[Cell[Any]] = []
    times = {cell: cell.spec.drain if given is None else given for cell in cells}
    for cell in cells:
        if times[cell] > 0 and cell.was_started and cell.final is not None:
            draining.append(cell)
        else:
            cell.cancel(hard=False)
    with trio.move_on_after(max((times[cell] for cell in draining), default=0.0)):
        for cell in draining:
            await cell.wait_gone()


async def wait_gone_or_hung(cell: Cell[Any]) -> None:
    incarnation = cell.incarnation
    while cell.alive and cell.incarnation == incarnation and cell.status != "hung":
        limit = cell.hung_at()
        if trio.current_time() >= limit:
            cell.status = "hung"
            if cell.owner._hooks.hung:
                cell.owner._hooks.fire("hung", cell.path, trio.current_time() - cell.cancelled_at)
            return
        with trio.move_on_at(limit):
            await cell.wait_gone()
