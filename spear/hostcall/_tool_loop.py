"""Automatic tool calling: ask the backend, run the tools it wants, append the results, ask again.

Every end of the loop is a reply: the final answer, an error body of the backend, or a limit. A loop runs inside a send
that blocks, or in the background; what differs is in its `Way`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Protocol

from spear.hostcall._chat_port import ChatReply, ChatSnapshot
from spear.hostcall._guest_tool import ToolFailed, call_guest_tool
from spear.hostcall._mcp import NO_OFFER, call_mcp_tool, offer_tools
from spear.hostcall._session import ChatSession, SessionTooLarge
from spear.hostcall._tool_plan import (
    CANCELLED,
    MCP_FAILED,
    NOT_EXECUTED,
    SESSION_CLOSED,
    SESSION_TOO_LARGE,
    TOO_MANY_CALLS,
    TOO_MANY_ITERATIONS,
    LoopLimits,
    ToolCall,
    answer_message,
    assistant_message,
    loop_limits,
    requested_calls,
    tool_failed,
    tool_message,
    unknown_tool,
)
from spear.hostcall._usage import Tokens, measure
from spear.mcp import is_mcp_name

if TYPE_CHECKING:
    from spear.hostcall._guest import Guest


class Way(Protocol):
    """How a loop asks, has tools of the guest run, and tells what it does."""

    async def ask(self, session: ChatSnapshot) -> ChatReply: ...

    async def run_guest_tool(
        self, index: int, call: ToolCall, limits: LoopLimits, answer: Callable[[str], None]
    ) -> None:
        """Run it, give its content to `answer`, and tell the result."""

    async def tell_tokens(self, tokens: Tokens) -> None: ...

    async def tell_call(self, call: ToolCall) -> None: ...

    async def tell_result(self, call: ToolCall, content: str, is_error: bool) -> None: ...

    def next_round(self) -> None: ...


class Blocking:
    """The guest waits in its send: its tools run nested in that, and there is nobody to tell."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest

    async def ask(self, session: ChatSnapshot) -> ChatReply:
        return await self._guest.chat(session)

    async def run_guest_tool(
        self, index: int, call: ToolCall, limits: LoopLimits, answer: Callable[[str], None]
    ) -> None:
        try:
            content = await call_guest_tool(self._guest, index, call.arguments, limits)
        except ToolFailed as failed:
            content = tool_failed(failed.rc)
        answer(content)

    async def tell_tokens(self, tokens: Tokens) -> None:
        pass

    async def tell_call(self, call: ToolCall) -> None:
        pass

    async def tell_result(self, call: ToolCall, content: str, is_error: bool) -> None:
        pass

    def next_round(self) -> None:
        pass


class ToolLoop:
    """One loop. `run` waits for backends and tools; cancellation ends whichever is under way."""

    def __init__(self, guest: Guest, session: ChatSession, way: Way) -> None:
        self._guest = guest
        self._session = session
        self._way = way
        self._calls = 0
        self._unanswered: list[ToolCall] = []
        self._over = False
        self._too_large = False
        self._offer = NO_OFFER
        self.tokens = Tokens()

    async def run(self) -> ChatReply:
        try:
            return await self._rounds()
        except SessionTooLarge:
            return ChatReply(SESSION_TOO_LARGE)

    def leave(self) -> None:
        """The loop is over, however it came: calls without an answer get one, and the session is nobody's again. May
        be called while `run` still unwinds, and again."""
        if self._over:
            return
        with suppress(SessionTooLarge):
            for call in self._unanswered:
                self._session.append(tool_message(call, CANCELLED))
        self._over = True
        if self._session.loop is self:
            self._session.loop = None

    async def _rounds(self) -> ChatReply:
        iteration = 0
        while True:
            limits = loop_limits(self._session.params)
            if iteration >= limits.max_iterations:
                return ChatReply(TOO_MANY_ITERATIONS)
            snapshot = self._session.snapshot()
            self._offer = await offer_tools(self._guest, self._session.mcp)
            snapshot = self._offer.into(snapshot)
            reply = await self._way.ask(snapshot)
            tokens, used = measure(snapshot, reply)
            self.tokens += tokens
            self._guest.usage += used
            if reply.failed:
                return reply
            await self._way.tell_tokens(tokens)
            ended = await self._round(reply, limits)
            if ended is not None:
                return ended
            iteration += 1
            self._way.next_round()

    async def _round(self, reply: ChatReply, limits: LoopLimits) -> ChatReply | None:
        """Handle one answer. A reply ends the loop."""
        message = answer_message(reply.body)
        calls = requested_calls(reply.body)
        if message is not None:
            self._append(assistant_message(message, calls))
        if not calls:
            return reply
        self._unanswered = list(calls)
        for position, call in enumerate(calls):
            if self._calls >= limits.max_total_tool_calls:
                for unanswered in calls[position:]:
                    self._answer(unanswered, NOT_EXECUTED)
                return ChatReply(TOO_MANY_CALLS)
            self._calls += 1
            await self._way.tell_call(call)
            await self._execute(call, limits)
            if self._unanswered and self._unanswered[0] is call:
                return ChatReply(SESSION_CLOSED)
        return None

    async def _execute(self, call: ToolCall, limits: LoopLimits) -> None:
        """Run the tool and append what it says: one of the guest, else of an MCP server, else there is none."""
        index = self._session.names.get(call.name)
        if index is not None:
            await self._way.run_guest_tool(index, call, limits, partial(self._answer_from_guest, call))
            if self._too_large:
                raise SessionTooLarge
            return
        content, is_error = await self._elsewhere(call)
        self._answer(call, content)
        await self._way.tell_result(call, content, is_error)

    async def _elsewhere(self, call: ToolCall) -> tuple[str, bool]:
        """The content of a call that is none of the guest's own tools, and whether it failed."""
        if is_mcp_name(call.name):
            wanted = self._session.params.get("max_tool_output_bytes")
            content = await call_mcp_tool(self._guest, self._session.mcp, self._offer.names, call, wanted)
            return content, content.startswith(MCP_FAILED)
        return unknown_tool(call.name), True

    def _answer(self, call: ToolCall, content: str) -> None:
        """Append the tool message; not where the session was closed and nobody keeps it."""
        if self._session.closed and self._session.loop is not self:
            return
        self._append(tool_message(call, content))
        if self._unanswered and self._unanswered[0] is call:
            del self._unanswered[0]

    def _answer_from_guest(self, call: ToolCall, content: str) -> None:
        """What goes wrong here is the loop's, in whose task this may not be."""
        try:
            self._answer(call, content)
        except SessionTooLarge:
            self._too_large = True

    def _append(self, message: dict[str, object]) -> None:
        if not self._over:
            self._session.append(message)
