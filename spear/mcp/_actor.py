"""The actors: one per server, which owns the connection to it, and one that owns these.

An incarnation is a connection. What cannot go on with it (`ConnectionLost`) ends the incarnation, and the supervisor
starts another one after a pause; whoever was in a call is told why before that.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import trio

from actors import Actor, Context, Request
from spear.config import McpServer
from spear.secrets import Redactor, Secret
from spear.telemetry import get_logger

from ._client import HANDSHAKE_S, Client, Transport
from ._failures import ConnectionLost, McpFailed, ServerError
from ._state import ServerState
from ._tools import Listing

_log = get_logger("spear.mcp")
TOLD_S: Final = 1.0
"""For those who wait to hear why there is no connection."""
CHANGED: Final = "notifications/tools/list_changed"


@dataclass(frozen=True, slots=True)
class ListTools(Request[Listing]):
    """Ask the server for its tools. Rejected with `McpFailed`."""


@dataclass(frozen=True, slots=True)
class CallTool(Request[Any]):
    """Rejected with `McpFailed`. Cancelled, the server is told so."""

    tool: str
    arguments: dict[str, Any] | None


class ServerActor(Actor[ListTools | CallTool]):
    rejects = (McpFailed,)

    def __init__(self, config: McpServer, key: Secret | None, state: ServerState) -> None:
        self._config = config
        self._key = key
        self._state = state
        self._redact = Redactor([*config.secrets, *([key] if key is not None else [])])
        self._client: Client | None = None
        self._settled = trio.Event()
        self._leaving = trio.Event()
        self._waiting = 0

    @asynccontextmanager
    async def lifespan(self, ctx: Context[ListTools | CallTool]) -> AsyncIterator[None]:
        state = self._state
        state.phase, state.connections = "connecting", state.connections + 1
        lost: ConnectionLost | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._live, name=f"connection of {ctx.path}")
                yield
                self._leaving.set()
        except* ConnectionLost as group:
            lost = first_of(group)
        finally:
            state.phase, state.fresh = "not started", False
        if lost is not None:
            state.phase = "failed"
            _log.warning("mcp_connection_lost", server=self._config.server_id, why=str(lost), stderr=state.last_words)
            raise lost

    async def _live(self) -> None:
        try:
            async with self._open() as transport:
                await self._greet(transport)
                await self._leaving.wait()
        except* ConnectionLost as group:
            lost = first_of(group)
            self._client = None
            self._state.phase, self._state.failure = "failed", self._redact(str(lost))
            self._settled.set()
            with trio.move_on_after(TOLD_S):
                while self._waiting:  # noqa: ASYNC110 -- a second at most, once in the life of a connection
                    await trio.sleep(0.005)
            raise lost from None

    async def _greet(self, transport: Transport) -> None:
        client = Client(self._config.server_id, transport)
        with trio.move_on_after(HANDSHAKE_S) as scope:
            await client.greet()
        if scope.cancelled_caught:
            raise ConnectionLost(f"the handshake failed: it took more than {HANDSHAKE_S:.0f} s")
        self._client = client
        self._state.phase, self._state.failure = "ready", ""
        self._settled.set()

    def _open(self) -> AbstractAsyncContextManager[Transport]:
        config = self._config
        if config.stdio is not None:
            from ._stdio import open_stdio

            return open_stdio(config.server_id, config.stdio, self._redact, self._notice, self._state)
        try:
            from ._http import open_http
        except ModuleNotFoundError as missing:  # of a wheel that was built without any backend over HTTP
            raise ConnectionLost(f"{missing.name} is not installed, which servers behind HTTP need") from None
        assert config.http is not None  # the configuration's check saw to it
        return open_http(config.http, self._key, self._notice)

    def _notice(self, method: str) -> None:
        if method == CHANGED:
            self._state.changes += 1
            self._state.fresh = False

    async def handle(self, msg: ListTools | CallTool, ctx: Context[ListTools | CallTool]) -> object:
        self._waiting += 1
        try:
            await self._settled.wait()
            if self._client is None:
                raise McpFailed(self._state.failure)
            if isinstance(msg, CallTool):
                return await self._client.call(msg.tool, msg.arguments)
            return await self._list(self._client)
        except ServerError as error:
            raise ServerError(self._redact(str(error))) from None
        finally:
            self._waiting -= 1

    async def _list(self, client: Client) -> Listing:
        state, before = self._state, self._state.changes
        listing = await client.list_tools()
        if listing.left_out and listing.left_out != state.listing.left_out:
            some = [self._redact(each) for each in listing.left_out[:5]]
            _log.warning("mcp_tools_left_out", server=self._config.server_id, count=len(listing.left_out), some=some)
        state.listing = listing
        # Over HTTP nobody listens between calls, so that a change would not be heard.
        state.fresh = client.tells_changes and self._config.stdio is not None and state.changes == before
        return listing

    def observe(self) -> Mapping[str, object]:
        return {
            "transport": self._config.transport,
            "phase": self._state.phase,
            "tools": len(self._state.listing.tools),
            "pid": self._state.pid,
            "failure": self._state.failure,
        }


def first_of(group: BaseExceptionGroup[ConnectionLost]) -> ConnectionLost:
    first = group.exceptions[0]
    return first_of(first) if isinstance(first, BaseExceptionGroup) else first
