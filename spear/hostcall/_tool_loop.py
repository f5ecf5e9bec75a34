"""Automatic tool calling: ask the backend, run the tools it wants, append the results, ask again.

Every end of the loop is a reply: the final answer, an error body of the backend, or a limit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from spear.hostcall._chat_port import ChatReply
from spear.hostcall._guest_tool import ToolFailed, call_guest_tool
from spear.hostcall._mcp import NO_OFFER, call_mcp_tool, offer_tools
from spear.hostcall._session import ChatSession, SessionTooLarge
from spear.hostcall._tool_plan import (
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


async def run_loop(guest: Guest, session: ChatSession) -> tuple[ChatReply, Tokens]:
    """Run to the end. Waits for backends and tools; cancellation ends whichever is under way."""
    rounds = _Rounds(guest, session)
    try:
        reply = await rounds.run()
    except SessionTooLarge:
        reply = ChatReply(SESSION_TOO_LARGE)
    return reply, rounds.tokens


class _Rounds:
    def __init__(self, guest: Guest, session: ChatSession) -> None:
        self._guest = guest
        self._session = session
        self._calls = 0
        self._offer = NO_OFFER
        self.tokens = Tokens()

    async def run(self) -> ChatReply:
        iteration = 0
        while True:
            limits = loop_limits(self._session.params)
            if iteration >= limits.max_iterations:
                return ChatReply(TOO_MANY_ITERATIONS)
            snapshot = self._session.snapshot()
            self._offer = await offer_tools(self._guest, self._session.mcp)
            snapshot = self._offer.into(snapshot)
            reply = await self._guest.chat(snapshot)
            tokens, used = measure(snapshot, reply)
            self.tokens += tokens
            self._guest.usage += used
            if reply.failed:
                return reply
            ended = await self._round(reply, limits)
            if ended is not None:
                return ended
            iteration += 1

    async def _round(self, reply: ChatReply, limits: LoopLimits) -> ChatReply | None:
        """Handle one answer. A reply ends the loop."""
        message = answer_message(reply.body)
        calls = requested_calls(reply.body)
        if message is not None:
            self._session.append(assistant_message(message, calls))
        if not calls:
            return reply
        for position, call in enumerate(calls):
            if self._calls >= limits.max_total_tool_calls:
                for unanswered in calls[position:]:
                    self._session.append(tool_message(unanswered, NOT_EXECUTED))
                return ChatReply(TOO_MANY_CALLS)
            self._calls += 1
            content = await self._execute(call, limits)
            if self._session.closed:  # by the tool
                return ChatReply(SESSION_CLOSED)
            self._session.append(tool_message(call, content))
        return None

    async def _execute(self, call: ToolCall, limits: LoopLimits) -> str:
        index = self._session.names.get(call.name)
        if index is not None:
            try:
                return await call_guest_tool(self._guest, index, call.arguments, limits)
            except ToolFailed as failed:
                return tool_failed(failed.rc)
        if is_mcp_name(call.name):
            wanted = self._session.params.get("max_tool_output_bytes")
            return await call_mcp_tool(self._guest, self._session.mcp, self._offer.names, call, wanted)
        return unknown_tool(call.name)
