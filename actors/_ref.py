"""The address of an actor: all that others hold of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import trio
from trio.lowlevel import current_task, enable_ki_protection

from ._actor import Request, StreamRequest
from ._errors import MailboxFull, SelfAsk, UnknownMessage
from ._mailbox import deliver
from ._reply import Ask, StreamAsk
from ._snapshot import Exit, Status

if TYPE_CHECKING:
    from ._cell import Cell

__all__ = ["Ref", "Stream"]

M_contra = TypeVar("M_contra", contravariant=True)
R = TypeVar("R")


class Ref(Generic[M_contra]):
    """Stays valid across restarts. Use it from the Trio thread of its supervisor only."""

    # Protected from KeyboardInterrupt, which would otherwise tear a hand-over in two. It costs nothing per call.

    __slots__ = ("__weakref__", "_cell", "path")

    def __init__(self, cell: Cell[Any]) -> None:
        self._cell = cell
        self.path = cell.path

    def __repr__(self) -> str:
        return f"<Ref {self.path} {self.status}>"

    @property
    def status(self) -> Status:
        return self._cell.status

    @property
    def running(self) -> int:
        """Turns in flight now, counted from acceptance: it changes before a `*_nowait` returns."""
        return self._cell.mailbox.in_hand

    @property
    def queued(self) -> int:
        """Messages in the mailbox now."""
        return len(self._cell.mailbox)

    @enable_ki_protection
    async def tell(self, msg: M_contra) -> None:
        """Wait for room; return once queued. Cancelled before that, the message is never delivered.

        Raises ActorStopped, UnknownMessage.
        """
        cell = self._cell
        if not isinstance(msg, cell.tellable):
            raise unknown(self.path, msg, "tell", cell.tellable)
        if cell.mailbox.closed:
            raise cell.stopped()
        await deliver(cell.mailbox, msg)

    @enable_ki_protection
    def tell_nowait(self, msg: M_contra) -> None:
        """Queue it now or raise MailboxFull. Raises ActorStopped, UnknownMessage."""
        cell = self._cell
        if not isinstance(msg, cell.tellable):
            raise unknown(self.path, msg, "tell", cell.tellable)
        mailbox = cell.mailbox
        if mailbox.closed:
            raise cell.stopped()
        if not mailbox.offer(msg):
            raise full(self.path)

    @enable_ki_protection
    async def ask(self, msg: Request[R]) -> R:
        """Wait for room, then for the answer. Timeouts belong to the caller's cancel scope.

        Cancelled while queued, the turn never starts; cancelled during the turn, the turn is cancelled, and its
        cleanup is not waited for. Raises what the actor rejects with, ActorCrashed, ActorStopped, UnknownMessage,
        SelfAsk.
        """
        ask = self._ask(msg)
        if not ask.mailbox.offer(ask):
            ask.mailbox.park(ask)
        return cast("R", await ask.answer())

    @enable_ki_protection
    async def ask_nowait(self, msg: Request[R], *, deadline: float | None = None, joined: bool = False) -> R:
        """Like `ask`, but raise MailboxFull at once where `ask` would wait for room. `deadline` is for an asker that
        knows when its cancel scopes end its waiting; it saves looking that up.

        `joined`: cancelled during the turn, wait until the turn has ended, its cleanup included, however long that
        takes. A turn that answers in spite of it gives its answer.
        """
        ask = self._ask(msg, deadline, joined)
        if not ask.mailbox.offer(ask):
            raise full(self.path)
        return cast("R", await ask.answer())

    def _ask(self, msg: object, deadline: float | None = None, joined: bool = False) -> Ask:
        cell = self._cell
        if not isinstance(msg, cell.askable):
            raise unknown(self.path, msg, "ask", cell.askable)
        self._check_open(cell)
        return Ask(cell.mailbox, msg, trio.current_effective_deadline() if deadline is None else deadline, joined)

    def _check_open(self, cell: Cell[Any]) -> None:
        if cell.mailbox.closed:
            raise cell.stopped()
        if cell.task is current_task() and cell.spec.concurrency == 1:
            raise SelfAsk(f"{self.path} has one turn at a time and is in it: it cannot wait for its own answer")

    def stream(self, msg: StreamRequest[R], *, buffer: int = 1) -> Stream[R]:
        """`async with ref.stream(msg) as items: async for item in items: ...`

        Entering waits for room. At most `buffer` items are unread and one more is held by the waiting producer.
        Leaving the block cancels the producer's turn. Items already sent come before the error, which is
        what the actor rejects with, ActorCrashed or ActorStopped.
        """
        return Stream(self, msg, buffer, wait=True)

    def stream_nowait(self, msg: StreamRequest[R], *, buffer: int = 1, joined: bool = False) -> Stream[R]:
        """Like `stream`, but entering raises MailboxFull at once where `stream` would wait for room.

        `joined`: leaving the block waits until the turn has ended, its cleanup included, however long that takes.
        """
        return Stream(self, msg, buffer, wait=False, joined=joined)

    @enable_ki_protection
    async def _open_stream(self, msg: object, buffer: int, wait: bool) -> StreamAsk:
        cell = self._cell
        if not isinstance(msg, cell.streamable):
            raise unknown(self.path, msg, "stream", cell.streamable)
        self._check_open(cell)
        if wait:
            ask = StreamAsk(msg, buffer)
            await deliver(cell.mailbox, ask)
            return ask
        await trio.lowlevel.checkpoint_if_cancelled()
        ask = StreamAsk(msg, buffer)
        if not cell.mailbox.offer(ask):
            raise full(self.path)
        await trio.lowlevel.cancel_shielded_checkpoint()
        return ask

    async def wait_exit(self) -> Exit:
        """Wait for the final exit; a restart is none. At once (with a checkpoint) if it is gone already."""
        return await self._cell.wait_exit()


class Stream(Generic[R]):
    """The block of `Ref.stream`; also the iterator over its items, for one task at a time."""

    __slots__ = ("_ask", "_buffer", "_iterating", "_joined", "_msg", "_ref", "_wait")

    def __init__(self, ref: Ref[Any], msg: StreamRequest[R], buffer: int, *, wait: bool, joined: bool = False) -> None:
        self._ref = ref
        self._msg = msg
        self._buffer = buffer
        self._wait = wait
        self._joined = joined
        self._ask: StreamAsk | None = None
        self._iterating = False

    async def __aenter__(self) -> Stream[R]:
        if self._ask is not None:
            raise RuntimeError("a stream can be entered once; call ref.stream() again")
        self._ask = await self._ref._open_stream(self._msg, self._buffer, self._wait)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._ask is not None
        self._ask.give_up()
        if self._joined:
            await self._ask.join()

    def __aiter__(self) -> AsyncIterator[R]:
        return self

    def next_nowait(self) -> R:
        """The next item, if it is there already; raises trio.WouldBlock where `anext` has to wait, or to tell of the
        end. For a consumer that takes several at a time. No checkpoint: with `buffer` items the next one waits."""
        ask = self._ask
        if ask is None or self._iterating:
            raise trio.WouldBlock
        try:
            return cast("R", ask.items.receive_nowait())
        except (trio.EndOfChannel, trio.ClosedResourceError):
            raise trio.WouldBlock from None

    async def __anext__(self) -> R:
        ask = self._ask
        if ask is None:
            raise RuntimeError("iterate inside the block: async with ref.stream(...) as items")
        if self._iterating:
            raise trio.BusyResourceError("another task is iterating over this stream")
        self._iterating = True
        try:
            return cast("R", await ask.items.receive())
        except trio.EndOfChannel:
            error, ask.error = ask.error, None
            if error is not None:
                raise error from error.__cause__
            raise StopAsyncIteration from None
        except trio.ClosedResourceError:
            raise RuntimeError("the block of this stream is over") from None
        finally:
            self._iterating = False


def full(path: str) -> MailboxFull:
    return MailboxFull(f"the mailbox of {path} is full")


def unknown(path: str, msg: object, verb: str, known: tuple[type, ...]) -> UnknownMessage:
    names = ", ".join(t.__qualname__ for t in known if t not in (Request, StreamRequest)) or "nothing"
    if known in ((Request,), (StreamRequest,)):
        names = f"any {known[0].__name__}"
    return UnknownMessage(f"{verb}: {path} does not take {type(msg).__qualname__}; it takes {names}")
