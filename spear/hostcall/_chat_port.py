"""What the runtime gives to the guest side: an async callable that takes a chat session and answers it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from spear.ir import CanonicalError, ErrorCode, StreamEvent, make_error


@dataclass(frozen=True, slots=True)
class ChatSnapshot:
    """A session at the moment of one backend call. Read it, do not change it.

    `messages` are dicts with role and content, or content_parts as in the IR, and tool_calls, tool_call_id, name where
    they are set. `tools` holds (table index, tool JSON text as the guest wrote it). `params` is the whole parameter
    map, host keys included.
    """

    fd: int
    messages: tuple[Mapping[str, Any], ...]
    tools: tuple[tuple[int, str], ...]
    params: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ChatReply:
    """The body a guest shall read, as a JSON object: a success has the key `_spear`, an error body has not.

    `usage` has input_tokens and output_tokens (or prompt_tokens and completion_tokens), and may have total_tokens, cost
    and estimated. None on a success lets the guest side estimate. `error` is what an error body says, in full.
    """

    body: dict[str, Any]
    usage: Mapping[str, Any] | None = None
    error: CanonicalError | None = None

    @property
    def failed(self) -> bool:
        return "_spear" not in self.body

    @property
    def failure(self) -> CanonicalError | None:
        """None for a success."""
        if self.error is not None or not self.failed:
            return self.error
        told = self.body.get("error")
        told = told if isinstance(told, dict) else {}
        message, code = str(told.get("message")), told.get("code")
        if code in {each.value for each in ErrorCode}:
            return make_error(ErrorCode(code), message)
        if message.startswith(_INVALID):
            return make_error(ErrorCode.INVALID_REQUEST, message.removeprefix(_INVALID))
        return make_error(ErrorCode.INTERNAL, message)


_INVALID: Final = "Invalid request: "
Emit = Callable[[StreamEvent], Awaitable[None]]


class ChatPort(Protocol):
    """Answers one backend call. Failures of routing and backends come as a reply with an error body, not as exceptions.

    Cancelling the call must end everything it started. An exception ends the guest and is raised from `run`.
    """

    async def __call__(self, session: ChatSnapshot) -> ChatReply: ...

    async def stream(self, session: ChatSnapshot, emit: Emit) -> ChatReply:
        """The same, piece by piece: `emit` gets the events of the answer but for its end, which is the reply. While
        `emit` waits, the backend's connection is not read."""
