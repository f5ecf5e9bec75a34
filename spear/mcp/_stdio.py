"""A connection to a server that is a process of ours: a JSON text per line, on its stdin and stdout.

Two tasks move the lines, so that a server which does not read cannot keep us from reading what it says, and a turn
that is cancelled leaves no half line.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import trio

from spear.config import McpStdio
from spear.secrets import Redactor

from . import _process as processes
from ._failures import ConnectionLost, McpFailed, ServerError
from ._messages import (
    Answer,
    Garbage,
    Lines,
    Message,
    Notice,
    Question,
    Unasked,
    notification,
    read_message,
    reply,
    request,
)
from ._state import ServerState
from ._stderr import StderrLog

_PIECE: Final = 65_536
_OUTGOING: Final = 64
_BATCH: Final = 200
"""Messages of one piece that are looked at before others get their turn."""
SILENT_CALLS: Final = 3
SILENT_S: Final = 5.0
"""So many calls given up in a row, and not a word for so long: then the server is taken to hang."""
LEAVE_S: Final = 1.0


class _Waiting:
    __slots__ = ("answer", "event")

    def __init__(self) -> None:
        self.event = trio.Event()
        self.answer: Answer | McpFailed | None = None

    def settle(self, answer: Answer | McpFailed) -> None:
        self.answer = answer
        self.event.set()


class StdioTransport:
    """Belongs to one process. `run` has to run beside everything else."""

    def __init__(self, process: trio.Process, on_notice: Callable[[str], None]) -> None:
        self._process = process
        self._on_notice = on_notice
        self._send, self._outgoing = trio.open_memory_channel[bytes](_OUTGOING)
        self._waiting: dict[int, _Waiting] = {}
        self._next = 0
        self._silent = 0
        self._heard = trio.current_time()
        self._lost: ConnectionLost | None = None
        self._hung = trio.Event()
        self.garbage = 0

    async def request(self, method: str, params: dict[str, Any]) -> Any:
        if self._lost is not None:
            raise McpFailed(str(self._lost))
        self._next += 1
        number = self._next
        waiting = self._waiting[number] = _Waiting()
        try:
            await self._send.send(request(number, method, params))
            await waiting.event.wait()
        except trio.Cancelled:
            self._given_up(number, method)
            raise
        except trio.BrokenResourceError:
            raise McpFailed("the connection was closed") from None
        finally:
            del self._waiting[number]
        answer = waiting.answer
        if isinstance(answer, McpFailed):
            raise answer
        assert answer is not None
        if answer.error is not None:
            raise ServerError(answer.error)
        return answer.result

    async def notify(self, method: str) -> None:
        await self._send.send(notification(method))

    def agreed(self, version: str) -> None:
        """Nothing to do here: the revision stands in no line."""

    def _given_up(self, number: int, method: str) -> None:
        if method != "initialize":
            self._say(notification("notifications/cancelled", {"requestId": number, "reason": "given up"}))
        self._silent += 1
        if self._silent >= SILENT_CALLS and trio.current_time() - self._heard >= SILENT_S:
            self._hung.set()

    def _say(self, line: bytes) -> None:
        """If there is room: a server that does not read does not miss it."""
        try:
            self._send.send_nowait(line)
        except (trio.WouldBlock, trio.BrokenResourceError):
            self.garbage += 1

    async def run(self) -> None:
        """Ends only by raising: `ConnectionLost`, once everybody who waits has been told."""
        lost = ConnectionLost("the connection was closed")
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write)
                nursery.start_soon(self._watch)
                await self._read()
        except* ConnectionLost as group:
            lost = _first(group)
        self._lost = lost
        for waiting in list(self._waiting.values()):
            waiting.settle(McpFailed(str(lost)))
        with trio.move_on_after(LEAVE_S):  # they take their answers before the actor's turns are cancelled
            while self._waiting:  # noqa: ASYNC110 -- at most a second, at most once in the life of a process
                await trio.sleep(0.005)
        raise lost

    async def _watch(self) -> None:
        await self._hung.wait()
        raise ConnectionLost(f"the server does not answer: {SILENT_CALLS} calls in a row were given up")

    async def _write(self) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        try:
            async for line in self._outgoing:
                await stdin.send_all(line + b"\n")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the reader learns how it ended

    async def _read(self) -> None:
        stdout = self._process.stdout
        assert stdout is not None
        lines, unasked = Lines(), Unasked(trio.current_time())
        try:
            while data := await stdout.receive_some(_PIECE):
                for number, line in enumerate(lines.feed(bytes(data))):
                    if number % _BATCH == _BATCH - 1:
                        await trio.lowlevel.checkpoint()
                    self._take(read_message(line), len(line), unasked)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        with trio.move_on_after(0.2):  # its output ends a moment before itself
            await self._process.wait()
        raise ConnectionLost(processes.how_it_ended(self._process.returncode))

    def _take(self, message: Message, size: int, unasked: Unasked) -> None:
        self._silent, self._heard = 0, trio.current_time()
        waiting = self._waiting.get(message.id) if isinstance(message, Answer) else None
        if isinstance(message, Answer) and waiting is not None and waiting.answer is None:
            waiting.settle(message)
            return
        unasked.add(size, trio.current_time())
        if isinstance(message, Question):
            self._say(reply(message))
        elif isinstance(message, Notice):
            self._on_notice(message.method)
        elif isinstance(message, Garbage | Answer):
            self.garbage += 1


def _first(group: BaseExceptionGroup[ConnectionLost]) -> ConnectionLost:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


@asynccontextmanager
async def open_stdio(
    server: str, config: McpStdio, redact: Redactor, on_notice: Callable[[str], None], state: ServerState
) -> AsyncIterator[StdioTransport]:
    """The transport runs in the block. Raises `ConnectionLost`, from the block as well. Afterwards the process and
    what it started have gone."""
    env = {name: value.reveal() for name, value in config.env.items()}
    process = await processes.start([config.command, *config.args], env, config.cwd)
    gently = False
    try:
        async with trio.open_nursery() as nursery:
            assert process.stderr is not None
            log = StderrLog(server, redact)
            state.stderr, state.pid = log, process.pid
            nursery.start_soon(log.run, process.stderr)
            transport = StdioTransport(process, on_notice)
            nursery.start_soon(transport.run)
            yield transport
            gently = True
            nursery.cancel_scope.cancel()
    finally:
        state.pid = None
        await processes.end(process, gently=gently)
