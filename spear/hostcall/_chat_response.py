"""The response to a chat send: a body, or the events of a stream, and the guest's own tool that is due.

A loop in the background cannot run a tool of the guest: that needs the guest's thread, which comes by in a recv. So the
loop leaves the tool here and waits; the next recv runs it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import trio

from spear.hostcall._chat_events import tool_result_event
from spear.hostcall._errno import EBADF, ENOMEM, Refused
from spear.hostcall._fds import IN
from spear.hostcall._guest_tool import ToolFailed, call_guest_tool
from spear.hostcall._requests import Requests
from spear.hostcall._response import Response
from spear.hostcall._tool_plan import LoopLimits, ToolCall, tool_failed
from spear.ir import CanonicalError
from spear.normalize import body_from_error

if TYPE_CHECKING:
    from spear.hostcall._guest import Guest


@dataclass(slots=True)
class DueTool:
    """`answer` puts the content into the session."""

    index: int
    call: ToolCall
    limits: LoopLimits
    answer: Callable[[str], None]
    running: bool = False
    done: trio.Event = field(default_factory=trio.Event)


class ChatResponse(Response):
    kind = "ChatResponse"
    __slots__ = ("due", "on_closed", "round")

    def __init__(self, requests: Requests, *, stream: bool = False) -> None:
        super().__init__(requests, "cchat_send", stream=stream)
        self.round = 0
        self.due: DueTool | None = None
        self.on_closed: Callable[[], None] | None = None  # a loop that has to know at once

    def error_body(self, error: CanonicalError) -> dict[str, Any]:
        return dict(body_from_error(error))

    def error_event(self, error: CanonicalError) -> dict[str, Any]:
        return {**super().error_event(error), "round": self.round}

    async def put(self, event: dict[str, Any]) -> None:
        """Queue an event of this round; nothing without a stream."""
        if self.events is not None:
            event["round"] = self.round
            await self.events.put(event)

    # The tool that is due.

    async def run_tool(self, index: int, call: ToolCall, limits: LoopLimits, answer: Callable[[str], None]) -> None:
        """Leave a tool to the guest's next recv; returns when it has run and its content was given to `answer`.
        Cancelled, the tool does not run any more, or nobody minds what it gives."""
        due = DueTool(index, call, limits, answer)
        self.due = due
        self._requests.touch()
        try:
            await due.done.wait()
        finally:
            if self.due is due:
                self.due = None

    @property
    def tool_waits(self) -> bool:
        """The next recv has a tool to run, everything before it having been read."""
        return self.due is not None and not self.due.running and not self.events

    def ready(self) -> int:
        return IN if self.tool_waits else super().ready()

    async def run_due(self, guest: Guest) -> None:
        """Run the tool that waits, nested in the guest's call. Raises `Refused` (-9) if it closed this response."""
        due = self.due
        assert due is not None
        due.running = True
        try:
            content = await call_guest_tool(guest, due.index, due.call.arguments, due.limits)
            failed = False
        except ToolFailed as failure:
            content, failed = tool_failed(failure.rc), True
        if self.closed:
            raise Refused(EBADF)
        if self.due is not due:  # its time is over
            return
        due.answer(content)
        self.due = None
        try:
            # Never waits: the tool ran because the queue was empty.
            await self.put(tool_result_event(due.call, content, failed))
        except Refused as refused:
            if refused.errno != ENOMEM:
                raise
            self.give_up(refused)
        due.done.set()

    def release(self) -> None:
        self.due = None
        super().release()
        closed, self.on_closed = self.on_closed, None
        if closed is not None:
            closed()
