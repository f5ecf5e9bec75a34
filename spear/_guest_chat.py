"""What a guest's chat sends go through: session → request → router → body."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from .ir import (
    Completed,
    ErrorCode,
    ErrorEvent,
    Operation,
    RequestEnvelope,
    ResponseEnvelope,
    RoutingError,
    SpearError,
    StreamEvent,
    Usage,
    make_error,
)
from .normalize import ChatSession, body_from_error, body_from_response, metrics_from_response, request_from_session

if TYPE_CHECKING:
    from .config import TaskConfig
    from .hostcall import ChatReply, ChatSnapshot, Emit

Invoke = Callable[[RequestEnvelope], Awaitable[ResponseEnvelope]]
Stream = Callable[[RequestEnvelope], AbstractAsyncContextManager[AsyncIterator[StreamEvent]]]


class GuestChat:
    """The chat port of one execution. Whatever goes wrong is an error body; only a cancellation passes through."""

    def __init__(self, invoke: Invoke, stream: Stream, task: TaskConfig, execution_id: str | None = None) -> None:
        self._invoke = invoke
        self._stream = stream
        self._task = task
        self._execution_id = execution_id

    async def __call__(self, session: ChatSnapshot) -> ChatReply:
        from .hostcall import ChatReply

        try:
            request = self._request(session)
        except SpearError as error:
            return ChatReply(body=body_from_error(error.error), error=error.error)
        return _reply(await self._invoke(request), request)

    async def stream(self, session: ChatSnapshot, emit: Emit) -> ChatReply:
        from .hostcall import ChatReply

        try:
            request = self._request(session, stream=True)
            async with self._stream(request) as events:
                return await _told(events, request, emit)
        except SpearError as error:
            return ChatReply(body=body_from_error(error.error), error=error.error)

    def _request(self, session: ChatSnapshot, *, stream: bool = False) -> RequestEnvelope:
        request = request_from_session(
            ChatSession(session.fd, session.messages, [text for _, text in session.tools], session.params),
            task_id=self._task.id,
            stream=stream,
        )
        if self._execution_id is not None:
            meta = request.meta.model_copy(update={"execution_id": self._execution_id})
            request = request.model_copy(update={"meta": meta})
        return allowed_for(self._task, request)


def allowed_for(task: TaskConfig, request: RequestEnvelope) -> RequestEnvelope:
    """The request held inside the task's rights; raises where they leave nothing."""
    ops, backends = task.allow_operations, task.allow_backends
    if ops is not None and request.operation not in ops:
        raise _forbidden(f"task {task.id!r} may not use {request.operation.value}", request.operation)
    if backends is None:
        return request
    wanted = request.routing.allowlist
    left = tuple(name for name in backends if not wanted or name in wanted)
    if not left:
        raise _forbidden(f"task {task.id!r} may use none of the backends asked for", request.operation)
    routing = request.routing.model_copy(update={"allowlist": left})
    return request.model_copy(update={"routing": routing})


def _forbidden(message: str, operation: Operation) -> SpearError:
    return RoutingError(make_error(ErrorCode.NO_CANDIDATE_BACKEND, message, operation=operation))


def _reply(response: ResponseEnvelope, request: RequestEnvelope) -> ChatReply:
    from .hostcall import ChatReply

    return ChatReply(body_from_response(response, request), _usage(response, request), response.result.error)


async def _told(events: AsyncIterator[StreamEvent], request: RequestEnvelope, emit: Emit) -> ChatReply:
    from .hostcall import ChatReply

    async for event in events:
        if isinstance(event, Completed):
            return _reply(event.response, request)
        if isinstance(event, ErrorEvent):
            return ChatReply(body_from_error(event.error, from_backend=True), error=event.error)
        await emit(event)
    raise AssertionError("a stream ended without its terminal event")


def _usage(response: ResponseEnvelope, request: RequestEnvelope) -> dict[str, object] | None:
    if response.result.error is not None:
        return None
    usage: Usage = response.usage
    return {**metrics_from_response(response, request), "cost": usage.cost or 0.0, "estimated": usage.estimated}
