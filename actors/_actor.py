"""What a user writes: messages, an actor, and the spec of a child."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from ._accepts import accepted_types
from ._backoff import Backoff
from ._plan import Restart

if TYPE_CHECKING:
    from ._cell import Cell
    from ._ref import Ref

__all__ = ["Actor", "Context", "Request", "Sink", "Spec", "StreamRequest"]

M = TypeVar("M")
_BACKOFF = Backoff()
R_co = TypeVar("R_co", covariant=True)
T_contra = TypeVar("T_contra", contravariant=True)


class Request(Generic[R_co]):
    """Base of a message that is answered once, with an R."""

    __slots__ = ()


class StreamRequest(Generic[R_co]):
    """Base of a message that is answered by many R."""

    __slots__ = ()


class Sink(Protocol[T_contra]):
    """Where a streaming turn puts its items."""

    async def send(self, item: T_contra, /) -> None:
        """Wait while the consumer is behind by `buffer` items. Cancelled when the consumer leaves."""

    def send_nowait(self, item: T_contra, /) -> bool:
        """Put it now and return True; where there is no room, or the consumer has left, do nothing and return False:
        then it is for `send`. For a producer that has several at once: each of them costs a tenth of a `send`."""


class Context(Generic[M]):
    """What an actor knows of itself. Each loop and the lifespan have their own."""

    __slots__ = ("_cell", "deadline")

    def __init__(self, cell: Cell[M]) -> None:
        self._cell = cell
        self.deadline = math.inf
        """The asker's effective deadline on Trio's clock, inf if there is none: pass it upstream."""

    @property
    def ref(self) -> Ref[M]:
        return self._cell.ref

    @property
    def path(self) -> str:
        return self._cell.path

    @property
    def incarnation(self) -> int:
        """0, then one more per restart."""
        return self._cell.incarnation

    def finish(self) -> None:
        """End this actor for good, whatever its restart type, once the turns in flight are over.

        From now on sends raise ActorStopped, and what is queued is answered so. The exit's reason is "finished".
        """
        self._cell.finish()


class Actor(Generic[M]):
    """Subclass it with the union of its messages: `class Quota(Actor[Reserve | Refill])`."""

    rejects: ClassVar[tuple[type[Exception], ...]] = ()
    """Raised from a turn these are an answer to the asker, not a crash."""

    accepts: ClassVar[tuple[type, ...]] = (object,)
    """The classes of M; found from the class header. Set it yourself where M is a type variable."""

    _doors: ClassVar[tuple[tuple[type, ...], tuple[type, ...], tuple[type, ...]]] = (
        (object,),
        (Request,),
        (StreamRequest,),
    )  # of `accepts`: what may be told, asked, streamed

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "accepts" not in vars(cls):
            found = accepted_types(cls, Actor)
            if found != (object,):
                cls.accepts = found
        if cls.accepts != (object,):
            asked = tuple(t for t in cls.accepts if issubclass(t, Request))
            streamed = tuple(t for t in cls.accepts if issubclass(t, StreamRequest))
            cls._doors = (tuple(t for t in cls.accepts if t in asked or t not in streamed), asked, streamed)

    @asynccontextmanager
    async def lifespan(self, ctx: Context[M]) -> AsyncIterator[None]:
        """Open resources before `yield`, close them after it. Entered before the actor counts as started.

        In an orderly stop the exit runs uncancelled for up to `Spec.grace` seconds. After a crash the exception
        is raised at the `yield`.
        """
        yield

    async def handle(self, msg: M, ctx: Context[M]) -> object:
        """One turn. The value answers `ask`; for `tell` it is dropped."""
        raise NotImplementedError(f"{type(self).__name__} has no handle() for {type(msg).__name__}")

    async def handle_stream(self, msg: M, out: Sink[Any], ctx: Context[M]) -> None:
        """One streaming turn. What goes into `out` reaches the consumer in order."""
        raise NotImplementedError(f"{type(self).__name__} has no handle_stream() for {type(msg).__name__}")

    def observe(self) -> Mapping[str, object]:
        """State for snapshots: cheap, synchronous, read-only. Also called while a turn is suspended."""
        return {}


if TYPE_CHECKING:
    _: Callable[[Actor[int], Context[int]], AbstractAsyncContextManager[None]] = Actor[int].lifespan


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec(Generic[M]):
    """How to start a child, and how to treat it."""

    name: str
    factory: Callable[[], Actor[M]]
    """Called for every incarnation."""
    restart: Restart = "permanent"
    """permanent and transient children are restarted when they crash, temporary ones never."""
    mailbox: int = 64
    """Messages queued at most, beside those in flight. 0 = none wait in the queue."""
    concurrency: int = 1
    """Turns in flight at most. With more than 1, turns share `self` and interleave at checkpoints."""
    drain: float = 0.0
    """An orderly stop handles what is queued for this many seconds before it cancels."""
    grace: float = 5.0
    """Seconds to leave once cancelled, before the child is reported as hung. What supervisors opened in its
    lifespan need for their own children is added."""
    backoff: Backoff = _BACKOFF

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name:
            raise ValueError(f"Spec.name is not empty and has no '/'; got {self.name!r}")
        if self.restart not in ("permanent", "transient", "temporary"):
            raise ValueError(f"Spec.restart is permanent, transient or temporary; got {self.restart!r}")
        for name, least in (("mailbox", 0), ("concurrency", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ValueError(f"Spec.{name} is a whole number, {least} or more; got {value!r}")
        for name in ("drain", "grace"):
            value = getattr(self, name)
            if not (0 <= value < math.inf):
                raise ValueError(f"Spec.{name} is a finite number of seconds, 0 or more; got {value!r}")
