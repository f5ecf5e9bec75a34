"""Helpers for tests of actors, and of programs made of them.

RecordingInstrument   remembers what happened, in order
fake_ref(handler)     a Ref without an actor or a supervisor
assert_quiet(sup)     nothing is running or waiting anywhere in the tree
deterministic(seed)   the same jitter in every run
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any, Literal, TypeVar, cast

import trio

from ._actor import Request, Spec, StreamRequest
from ._cell import Cell
from ._errors import ActorError
from ._instrument import Instrument
from ._ref import Ref, Stream
from ._reply import StreamAsk
from ._snapshot import Exit
from ._supervisor import Supervisor, default_rng

__all__ = ["Event", "RecordingInstrument", "assert_quiet", "deterministic", "fake_ref"]

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Event:
    """One call of an instrument, and when it came on Trio's clock."""

    hook: Literal["turn_started", "turn_finished", "started", "restarting", "exited", "hung"]
    path: str
    time: float
    detail: object = None  # msg | (msg, error) | incarnation | (error, delay) | Exit | waited


class RecordingInstrument(Instrument):
    """`events` holds everything in order; `of(hook)` what one hook saw."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def of(self, hook: str, path: str | None = None) -> list[Event]:
        return [e for e in self.events if e.hook == hook and path in (None, e.path)]

    def turn_started(self, path: str, msg: object) -> None:
        self.events.append(Event("turn_started", path, trio.current_time(), msg))

    def turn_finished(self, path: str, msg: object, error: BaseException | None) -> None:
        self.events.append(Event("turn_finished", path, trio.current_time(), (msg, error)))

    def started(self, path: str, incarnation: int) -> None:
        self.events.append(Event("started", path, trio.current_time(), incarnation))

    def restarting(self, path: str, error: Exception, delay: float) -> None:
        self.events.append(Event("restarting", path, trio.current_time(), (error, delay)))

    def exited(self, exit: Exit) -> None:  # noqa: A002 -- as in Instrument
        self.events.append(Event("exited", exit.path, trio.current_time(), exit))

    def hung(self, path: str, waited: float) -> None:
        self.events.append(Event("hung", path, trio.current_time(), waited))


def fake_ref(handler: Callable[[Any], object], *, path: str = "fake") -> Ref[Any]:
    """A Ref whose messages go straight to `handler`, in the sender's task. It takes every message.

    The handler may be sync or async; what it returns answers `ask`, what it raises reaches the asker as it is. For
    `stream` it returns (or yields) the items. A tell_nowait needs a sync handler.
    """
    return _FakeRef(handler, path)


class _FakeRef(Ref[Any]):
    __slots__ = ("_handler",)

    def __init__(self, handler: Callable[[Any], object], path: str) -> None:
        super().__init__(Cell(_NOWHERE, path, cast("Supervisor", None)))
        self._cell.status = "running"
        self._handler = handler

    async def tell(self, msg: Any) -> None:
        await self._call(msg)

    def tell_nowait(self, msg: Any) -> None:
        result = self._handler(msg)
        if inspect.iscoroutine(result):
            result.close()
            raise TypeError("tell_nowait on a fake_ref needs a handler that is not async")

    async def ask(self, msg: Request[R]) -> R:
        return cast("R", await self._call(msg))

    async def ask_nowait(self, msg: Request[R], *, deadline: float | None = None, joined: bool = False) -> R:
        return cast("R", await self._call(msg))

    async def _call(self, msg: object) -> object:
        await trio.lowlevel.checkpoint()
        result = self._handler(msg)
        return await result if inspect.isawaitable(result) else result

    def stream(self, msg: StreamRequest[R], *, buffer: int = 1) -> Stream[R]:
        return _FakeStream(self._handler, msg)

    def stream_nowait(self, msg: StreamRequest[R], *, buffer: int = 1, joined: bool = False) -> Stream[R]:
        return _FakeStream(self._handler, msg)

    async def _open_stream(self, msg: object, buffer: int, wait: bool) -> StreamAsk:
        raise AssertionError("a fake stream opens nothing")

    async def wait_exit(self) -> Exit:
        await trio.sleep_forever()
        raise AssertionError


class _FakeStream(Stream[R]):
    __slots__ = ("_handler", "_items")

    def __init__(self, handler: Callable[[Any], object], msg: StreamRequest[R]) -> None:
        self._handler = handler
        self._msg = msg
        self._items: AsyncIterator[R] | None = None

    async def __aenter__(self) -> Stream[R]:
        await trio.lowlevel.checkpoint()
        result = self._handler(self._msg)
        if inspect.isawaitable(result):
            result = await result
        if isinstance(result, AsyncIterable):
            self._items = aiter(cast("AsyncIterable[R]", result))
        else:
            self._items = _iterate(cast("Iterable[R]", result))
        return self

    def next_nowait(self) -> R:
        raise trio.WouldBlock

    async def __anext__(self) -> R:
        if self._items is None:
            raise RuntimeError("iterate inside the block: async with ref.stream(...) as items")
        return await anext(self._items)

    async def __aexit__(self, *_: object) -> None:
        if self._items is not None and hasattr(self._items, "aclose"):
            await self._items.aclose()


async def _iterate(items: Iterable[R]) -> AsyncIterator[R]:
    for item in items:
        await trio.lowlevel.checkpoint()
        yield item


def _unused() -> Any:
    raise ActorError("a fake_ref has no actor")


_NOWHERE: Spec[Any] = Spec(name="fake", factory=_unused)


def assert_quiet(supervisor: Supervisor) -> None:
    """No turn is running, no message or sender is waiting and no child is starting, ending or backing off.

    Once the supervisor's block is over: no child is left at all.
    """
    root = supervisor.snapshot()
    busy = [
        f"{node.path}: {node.status}, {node.running} running, {node.mailbox_used} queued, "
        f"{node.senders_waiting} senders waiting"
        for node in root.walk()
        if node.running or node.mailbox_used or node.senders_waiting or node.status != "running"
    ]
    if supervisor._over:
        busy = [f"{node.path} is left: {node.status}" for node in root.walk() if node.kind == "actor"]
    assert not busy, "not quiet:\n  " + "\n  ".join(busy)


@contextmanager
def deterministic(seed: int) -> Iterator[Random]:
    """Supervisors opened inside draw their jitter from this seed.

    Trio shuffles the order of runnable tasks, so tests must still assert invariants, not one interleaving.
    """
    rng = Random(seed)
    token = default_rng.set(rng)
    try:
        yield rng
    finally:
        default_rng.reset(token)
