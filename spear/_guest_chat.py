"""What a guest's chat sends go through: session → request → router → body."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from .ir import (
    ErrorCode,
    Operation,
    RequestEnvelope,
    ResponseEnvelope,
    RoutingError,
    SpearError,
    Usage,
    make_error,
)
from .normalize import ChatSession, body_from_error, body_from_response, metrics_from_response, request_from_session

if TYPE_CHECKING:
    from .config import TaskConfig
    from .hostcall import ChatReply, ChatSnapshot

Invoke = Callable[[RequestEnvelope], Awaitable[ResponseEnvelope]]


class GuestChat:
    """The chat port of one execution. Whatever goes wrong is an error body; only a cancellation passes through."""

    def __init__(self, invoke: Invoke, task: TaskConfig, execution_id: str | None = None) -> None:
        self._invoke = invoke
        self._task = task
        self._execution_id = execution_id

    async def __call__(self, session: ChatSnapshot) -> ChatReply:
        from .hostcall import ChatReply

        try:
            request = self._request(session)
        except SpearError as error:
            return ChatReply(body=body_from_error(error.error), error=error.error)
        response = await self._invoke(request)
        body, usage = body_from_response(response, request), _usage(response, request)
        return ChatReply(body, usage, response.result.error)

    def _request(self, session: ChatSnapshot) -> RequestEnvelope:
        request = request_from_session(
            ChatSession(session.fd, session.messages, [text for _, text in session.tools], session.params),
            task_id=self._task.id,
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


def _usage(response: ResponseEnvelope, request: RequestEnvelope) -> dict[str, object] | None:
    if response.result.error is not None:
        return None
    usage: Usage = response.usage
    return {**metrics_from_response(response, request), "cost": usage.cost or 0.0, "estimated": usage.estimated}
