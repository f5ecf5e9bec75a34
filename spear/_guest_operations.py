"""What a guest's embeddings, images, transcriptions and speech go through: snapshot → request → router → reply."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from typing import TYPE_CHECKING

import trio

from ._guest_chat import allowed_for
from ._guest_media import GuestMedia
from .dialects.wav import wav_header
from .ir import (
    BackendInfo,
    CanonicalError,
    Completed,
    ErrorCode,
    ErrorEvent,
    MediaRef,
    RequestEnvelope,
    ResponseEnvelope,
    SpearError,
    StreamEvent,
    Usage,
    make_error,
)
from .normalize import (
    MIME_OF_FORMAT,
    OPERATION_OF_FAMILY,
    FamilyInputs,
    Unusable,
    family_body,
    family_events,
    family_metrics,
    request_from_family,
)

if TYPE_CHECKING:
    from .config import TaskConfig
    from .hostcall import FamilyEvent, FamilyName, FamilyReply, FamilySnapshot, MediaPort

Invoke = Callable[[RequestEnvelope], Awaitable[ResponseEnvelope]]
Stream = Callable[[RequestEnvelope], AbstractAsyncContextManager[AsyncIterator[StreamEvent]]]


class GuestOperations:
    """The operation port of one execution. Whatever goes wrong is an error reply; only a cancellation passes."""

    def __init__(
        self,
        invoke: Invoke,
        stream: Stream,
        task: TaskConfig,
        *,
        families: Iterable[str],
        media: GuestMedia,
        execution_id: str | None = None,
    ) -> None:
        self.families = frozenset(families)
        self.media: MediaPort = media
        self._media = media
        self._invoke = invoke
        self._stream = stream
        self._task = task
        self._execution_id = execution_id

    def allows(self, family: FamilyName) -> bool:
        ops = self._task.allow_operations
        return ops is None or OPERATION_OF_FAMILY[family] in ops

    async def invoke(self, request: FamilySnapshot) -> FamilyReply:
        try:
            async with self._asked(request, stream=False) as envelope:
                return _reply(await self._invoke(envelope), envelope)
        except SpearError as error:
            return _failed(error.error)

    @asynccontextmanager
    async def stream(self, request: FamilySnapshot) -> AsyncIterator[AsyncIterator[FamilyEvent]]:
        async with AsyncExitStack() as stack:
            try:
                envelope = await stack.enter_async_context(self._asked(request, stream=True))
                events = await stack.enter_async_context(self._stream(envelope))
            except SpearError as error:
                told = _only(_failed(error.error))
            else:
                told = _told(events, envelope)
            async with aclosing(told):
                yield told

    @asynccontextmanager
    async def _asked(self, snapshot: FamilySnapshot, *, stream: bool) -> AsyncGenerator[RequestEnvelope, None]:
        """The request, and what was written for it as an object, for as long as the block lasts."""
        if not snapshot.audio:
            yield self._request(snapshot, snapshot.params.get("audio"), stream)
            return
        sound, rate = snapshot.params.get("format", "wav"), snapshot.params.get("sample_rate_hz", 0)
        pieces = snapshot.audio
        if sound == "pcm16":
            size = sum(map(len, pieces))
            pieces = (wav_header(rate, size), *pieces, bytes(size % 2))
        async with self._media.kept(pieces, MIME_OF_FORMAT[sound]) as audio:
            yield self._request(snapshot, audio, stream)

    def _request(self, snapshot: FamilySnapshot, audio: MediaRef | None, stream: bool) -> RequestEnvelope:
        inputs = FamilyInputs(snapshot.family, snapshot.fd, snapshot.params, snapshot.texts, audio)
        envelope = request_from_family(inputs, task_id=self._task.id, stream=stream)
        if self._execution_id is not None:
            meta = envelope.meta.model_copy(update={"execution_id": self._execution_id})
            envelope = envelope.model_copy(update={"meta": meta})
        return allowed_for(self._task, envelope)


async def _told(events: AsyncIterator[StreamEvent], request: RequestEnvelope) -> AsyncGenerator[FamilyEvent, None]:
    from .hostcall import FamilyEvent

    async for event in events:
        if isinstance(event, Completed):
            yield FamilyEvent(reply=_reply(event.response, request))
        elif isinstance(event, ErrorEvent):
            yield FamilyEvent(reply=_failed(event.error, usage=event.usage))
        else:
            for body in family_events(event):
                yield FamilyEvent(body)


async def _only(reply: FamilyReply) -> AsyncGenerator[FamilyEvent, None]:
    from .hostcall import FamilyEvent

    await trio.lowlevel.checkpoint()
    yield FamilyEvent(reply=reply)


def _reply(response: ResponseEnvelope, request: RequestEnvelope) -> FamilyReply:
    from .hostcall import FamilyReply

    if response.result.error is not None:
        return _failed(response.result.error, response.backend, response.usage)
    try:
        body = family_body(response, request)
    except Unusable as unusable:
        error = make_error(ErrorCode.BACKEND_ERROR, f"{unusable}", operation=request.operation)
        return _failed(error, response.backend, response.usage)
    usage = response.usage
    return FamilyReply(
        body,
        backend=body["_spear"]["backend"],
        metrics=family_metrics(usage),
        tokens=(usage.input_tokens or 0, usage.output_tokens or 0),
        cost=usage.cost or 0.0,
        estimated=usage.estimated,
    )


def _failed(error: CanonicalError, backend: BackendInfo | None = None, usage: Usage | None = None) -> FamilyReply:
    from .hostcall import FamilyReply

    used = Usage() if usage is None else usage
    return FamilyReply(
        error=error,
        backend=None if backend is None else backend.name,
        tokens=(used.input_tokens or 0, used.output_tokens or 0),
        cost=used.cost or 0.0,
        estimated=used.estimated,
    )
