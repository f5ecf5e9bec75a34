"""The actor around one configured instance: its bulkhead, its lifetime, and a wall against its adapter's bugs.

A turn, streaming included, holds one of the instance's `max_inflight` slots to its end; `max_queue` more wait in the
mailbox, and one more than that is refused at once by `ask_nowait` and `stream_nowait`. The adapter is opened when the
actor starts and closed when it stops. An adapter that raises anything but a `SpearError` has a bug: the asker gets
`internal` with an incident id, the log has the traceback, and the other turns go on. No exception leaves with the
adapter's frames or with those before it: among their local variables may be a key in clear.
"""

from __future__ import annotations

import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from typing import Any, Final, Protocol, get_args
from uuid import uuid4

import trio

from actors import Actor, Context, Request, Sink, Spec, StreamRequest
from spear.config import InstanceConfig
from spear.ir import (
    ErrorCode,
    InternalError,
    Limits,
    RequestEnvelope,
    ResultPayload,
    SpearError,
    StoredMedia,
    Usage,
    make_error,
)
from spear.secrets import Redactor
from spear.telemetry import get_logger

from ._protocol import Adapter, Answer, Call, Finished, Host, Kind, StreamItem
from ._several import cut_for, invoke_all, splits, stream_all
from ._turn_media import MAKING, TurnMedia, hand_over

_log = get_logger("spear.backends")
_NO_LIMITS: Final = Limits()
_SLASH: Final = "\u2215"
"""In the name of an actor, for the slash that has a meaning there: one that no other backend has in its name."""
_PAYLOADS: Final = get_args(get_args(ResultPayload)[0])


@dataclass(frozen=True, slots=True)
class Invoke(Request[Answer]):
    """Ask for one answer. Rejected with the adapter's `BackendError` or `CallerError`, or with `InternalError`."""

    request: RequestEnvelope
    call: Call


@dataclass(frozen=True, slots=True)
class OpenStream(StreamRequest[StreamItem]):
    """Ask for the items of a stream; `Finished` is the last of a complete one. Rejected like `Invoke`, at any
    point."""

    request: RequestEnvelope
    call: Call


BackendMessage = Invoke | OpenStream


class BackendActor(Actor[BackendMessage]):
    rejects = (SpearError,)

    def __init__(self, kind: Kind, instance: InstanceConfig, host: Host, limits: Limits = _NO_LIMITS) -> None:
        self._kind = kind
        self._instance = instance
        self._media = TurnMedia(host.media)
        self._host = replace(host, media=self._media)
        self._limits = limits if splits(limits) else None
        self._adapter: Adapter | None = None
        self._inflight = 0
        self._answered = 0
        self._failed = 0

    @asynccontextmanager
    async def lifespan(self, ctx: Context[BackendMessage]) -> AsyncGenerator[None, None]:
        async with self._kind.open(self._instance, self._host) as self._adapter:
            yield

    async def handle(self, msg: BackendMessage, ctx: Context[BackendMessage]) -> Answer:
        self._inflight += 1
        try:
            if msg.request.operation in MAKING:
                answer = await self._made(msg)
            else:
                answer = _checked(await self._answer(msg), "invoke() gave")
            self._answered += 1
            return answer
        except BaseException as error:  # noqa: BLE001 - goes on below, where no frame of the adapter is added
            failed = self._failure(error)
        finally:
            self._inflight -= 1
        try:
            raise failed
        finally:
            del failed  # it holds this frame

    async def handle_stream(self, msg: BackendMessage, out: Sink[StreamItem], ctx: Context[BackendMessage]) -> None:
        self._inflight += 1
        try:
            if msg.request.operation in MAKING:
                await self._make_stream(msg, out)
            else:
                await self._answer_stream(msg, out)
            self._answered += 1
            return
        except BaseException as error:  # noqa: BLE001 - as above
            failed = self._failure(error)
        finally:
            self._inflight -= 1
        try:
            raise failed
        finally:
            del failed

    async def _made(self, msg: BackendMessage) -> Answer:
        async with self._media.turn() as made:
            answer = _checked(await self._answer(msg), "invoke() gave")
            if trio.current_effective_deadline() != -inf:  # else nobody waits for it any more
                hand_over(made, answer)
            return answer

    async def _make_stream(self, msg: BackendMessage, out: Sink[StreamItem]) -> None:
        async with self._media.turn() as made:
            await self._answer_stream(msg, _Handing(out, made))

    async def _answer(self, msg: BackendMessage) -> Answer:
        assert self._adapter is not None  # lifespan is entered before the first turn
        if self._limits is not None:
            cut = await cut_for(msg.request, self._limits, self._host.media)
            if cut is not None:
                return await invoke_all(self._adapter, msg.request, cut, msg.call)
        return await self._adapter.invoke(msg.request, msg.call)

    async def _answer_stream(self, msg: BackendMessage, out: _Out) -> None:
        assert self._adapter is not None
        if self._limits is not None:
            cut = await cut_for(msg.request, self._limits, self._host.media)
            if cut is not None:
                await stream_all(self._adapter, cut, msg.call, out.send)
                return
        async with self._adapter.stream(msg.request, msg.call) as items:
            await _pass_on(items, out)

    def observe(self) -> Mapping[str, object]:
        return {
            "kind": self._kind.name,
            "model": self._instance.model or "",
            "inflight": self._inflight,
            "answered": self._answered,
            "failed": self._failed,
        }

    def _failure(self, error: BaseException) -> BaseException:
        """What a turn ends with: whatever a bug raised, one bad request must not end the others."""
        if isinstance(error, Exception):
            self._failed += 1
            if not isinstance(error, SpearError):
                error = self._incident(error)
        return _bare(error)

    def _incident(self, error: Exception) -> InternalError:
        incident = uuid4().hex[:16]
        text = "".join(traceback.format_exception(error))
        _log.error(
            "adapter_bug",
            incident=incident,
            backend=self._instance.name,
            kind=self._kind.name,
            error=type(error).__name__,
            traceback=Redactor(self._host.redact)(text),
        )
        message = f"the adapter of backend {self._instance.name} failed, incident {incident}"
        return InternalError(make_error(ErrorCode.INTERNAL, message, incident=incident))


class _Out(Protocol):
    def send_nowait(self, item: StreamItem, /) -> bool: ...

    async def send(self, item: StreamItem, /) -> None: ...


class _Handing:
    """A sink, by which what was made becomes the caller's with the answer that names it."""

    def __init__(self, out: Sink[StreamItem], made: list[StoredMedia]) -> None:
        self._out = out
        self._made = made

    def send_nowait(self, item: StreamItem, /) -> bool:
        sent = self._out.send_nowait(item)
        if sent and isinstance(item, Finished):
            hand_over(self._made, item.answer)
        return sent

    async def send(self, item: StreamItem, /) -> None:
        await self._out.send(item)
        if isinstance(item, Finished):
            hand_over(self._made, item.answer)


async def _pass_on(items: AsyncIterator[StreamItem], out: _Out) -> None:
    async for item in items:
        if isinstance(item, Finished):
            _checked(item.answer, "Finished has")
        if not out.send_nowait(item):
            await out.send(item)


def _checked(answer: object, said: str) -> Answer:
    """The kind may be anybody's, and unchecked; from here on all of this is relied upon."""
    if not isinstance(answer, Answer):
        raise TypeError(f"{said} {type(answer).__name__}; an Answer is needed")
    given: Any = answer
    if not isinstance(given.payload, _PAYLOADS):
        wrong, found = "payload", type(given.payload)
    elif not isinstance(given.usage, Usage):
        wrong, found = "usage", type(given.usage)
    elif not isinstance(given.model, str):
        wrong, found = "model", type(given.model)
    elif not isinstance(given.degraded, tuple):
        wrong, found = "degraded", type(given.degraded)
    elif given.degraded and not all(isinstance(step, str) for step in given.degraded):
        raise TypeError(f"{said} an Answer whose degraded has something that is no str")
    else:
        return answer
    raise TypeError(f"{said} an Answer whose {wrong} is of type {found.__name__}")


def _bare(error: BaseException) -> BaseException:
    """The same exception, without traceback, cause and context; of a group, each in it too."""
    error.__traceback__ = error.__cause__ = error.__context__ = None
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            _bare(inner)
    return error


def backend_spec(
    kind: Kind,
    instance: InstanceConfig,
    host: Host,
    *,
    max_inflight: int,
    max_queue: int,
    limits: Limits = _NO_LIMITS,
    drain: float = 0.0,
) -> Spec[BackendMessage]:
    """How a supervisor starts this instance: `max_inflight` turns at once, `max_queue` (0 = none) waiting. `drain` is
    how many seconds an orderly stop leaves to what is queued. What is larger than `limits` allow in one call is sent in
    several."""
    return Spec(
        name=instance.name.replace("/", _SLASH),
        factory=partial(BackendActor, kind, instance, host, limits),
        mailbox=max_queue,
        concurrency=max_inflight,
        drain=drain,
    )
