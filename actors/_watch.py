"""A monitor: when one actor has ended for good, another is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from ._errors import ActorStopped, MailboxFull
from ._ref import Ref
from ._snapshot import Exit

if TYPE_CHECKING:
    from ._supervisor import Supervisor

__all__ = ["Watcher"]

M = TypeVar("M")


@dataclass(frozen=True, slots=True)
class Watcher(Generic[M]):
    supervisor: Supervisor
    to: Ref[M]
    make: Callable[[Exit], M]

    @property
    def moot(self) -> bool:
        return self.supervisor._over or self.to._cell.exit is not None

    def notify(self, ended: Exit) -> None:
        if self.moot:
            return
        message = self.make(ended)
        try:
            self.to.tell_nowait(message)
        except ActorStopped:
            return
        except MailboxFull:
            self.supervisor._nursery.start_soon(_tell, self.to, message, name=f"notice of {ended.path}")


async def _tell(to: Ref[M], message: M) -> None:
    try:
        await to.tell(message)
    except ActorStopped:
        return  # a notice for one who has gone
