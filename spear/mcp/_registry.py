"""The configured servers, and the way to each: started with its first use, asked under its timeouts, renewed by a
reload."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import trio

from actors import Actor, ActorCrashed, ActorStopped, Backoff, Context, Ref, Spec, Supervisor, open_supervisor
from spear.config import MAX_MCP_SERVERS, Config, McpServer, Origin
from spear.secrets import KeyMask, Secret
from spear.telemetry import get_logger

from ._actor import CallTool, ListTools, ServerActor
from ._failures import McpFailed
from ._policy import Access
from ._port import TIMEOUT, UNKNOWN_SERVER
from ._results import content_of, output_bytes, timeout_s
from ._state import ServerState
from ._tools import Listing, Tool

_log = get_logger("spear.mcp")
LIST_MS: Final = (12_000, 180_000)
"""For listing: the default and the most."""
CALL_MS: Final = (8_000, 120_000)
_BACKOFF: Final = Backoff(first=0.5, limit=30.0)
_NOT_THERE: Final = "the server is not there"
Message = ListTools | CallTool


@dataclass(slots=True)
class _Server:
    config: McpServer
    key: Secret | None
    state: ServerState = field(default_factory=ServerState)
    ref: Ref[Message] | None = None
    starting: trio.Lock = field(default_factory=trio.Lock)
    inflight: int = 0

    @property
    def unusable(self) -> str:
        """Why it cannot even be started, for people of this host."""
        if self.config.missing:
            return f"missing: {', '.join(self.config.missing)}"
        if self.config.http is not None and self.config.http.auth_ref is not None and self.key is None:
            return f"missing_credential: {self.config.http.auth_ref} has no value"
        return ""


@dataclass(frozen=True, slots=True)
class StartAll:
    """Start every server that is not; for configurations that want so."""


class McpRegistry:
    """The port of guests and programs; `servers_spec` makes the actor that owns its connections."""

    def __init__(self, config: Config) -> None:
        self._servers: dict[str, _Server] = {}
        self._supervisor: Supervisor | None = None
        self._started: dict[str, int] = {}
        self.at_once = False
        self.apply(config)

    def __len__(self) -> int:
        return len(self._servers)

    def apply(self, config: Config) -> None:
        """Go on with these servers. One that is the same keeps its connection; of one that changed or went, calls
        under way finish. Never waits."""
        keys = {each.name: each.value for each in config.credentials}
        before, self._servers = self._servers, {}
        for each in config.mcp.servers:
            key = keys.get(each.http.auth_ref or "") if each.http is not None else None
            old = before.get(each.server_id)
            if old is not None and (_bare(old.config), old.key) == (_bare(each), key):
                self._servers[each.server_id] = before.pop(each.server_id)
            else:
                self._servers[each.server_id] = _Server(each, key)
        for gone in before.values():
            if gone.ref is not None and self._supervisor is not None:
                self._supervisor.stop_soon(gone.ref, drain=CALL_MS[1] / 1000)
        self.at_once = config.mcp.start == "at_once"

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Servers can be started inside this block. Left, their connections have gone."""
        # One that dies for ever comes to nine restarts in 30 s; it must not take the others down.
        most = 10 * MAX_MCP_SERVERS
        try:
            async with open_supervisor(name="servers", intensity=most, period=30.0, stop="together") as supervisor:
                self._supervisor = supervisor
                yield
        finally:
            self._supervisor = None
            for each in self._servers.values():
                each.ref = None

    async def start_all(self) -> None:
        for each in list(self._servers.values()):
            if not each.unusable:
                await self._ref(each)

    # --- what is asked -------------------------------------------------------------------------------------------

    async def tools(self, access: Access) -> tuple[Tool, ...]:
        """As in `McpPort`."""
        wanted = [self._servers[name] for name in dict.fromkeys(access.servers) if name in self._servers]
        wanted = [each for each in wanted if each.config.allowed_tools]
        stale = [each for each in wanted if not each.state.fresh]
        found: dict[str, Listing] = {each.config.server_id: each.state.listing for each in wanted if each.state.fresh}
        if len(stale) == 1:
            await self._list_into(found, stale[0])
        elif stale:
            async with trio.open_nursery() as nursery:
                for each in stale:
                    nursery.start_soon(self._list_into, found, each)
        return tuple(
            tool
            for each in wanted
            for tool in found[each.config.server_id].tools
            if not access.denied(each.config.allowed_tools, tool.name)
        )

    async def _list_into(self, found: dict[str, Listing], server: _Server) -> None:
        name = server.config.server_id
        try:
            found[name] = await self.list(name)
        except McpFailed as failed:
            found[name] = Listing()
            _log.info("mcp_list_failed", server=name, why=str(failed))

    async def list(self, name: str) -> Listing:
        """What this server lists now. Raises `McpFailed`."""
        server = self._known(name)
        limit = timeout_s(server.config.budgets.tool_timeout_ms, *LIST_MS)
        listing: Listing = await self._ask(server, ListTools(), limit)
        return listing

    def permitted(self, name: str, listing: Listing) -> tuple[Tool, ...]:
        """Those that the server's own `allowed_tools` lets through."""
        allowed, everything = self._known(name).config.allowed_tools, Access()
        return tuple(tool for tool in listing.tools if not everything.denied(allowed, tool.name))

    async def call(
        self, access: Access, server: str, tool: str, arguments: dict[str, Any] | None, *, max_output_bytes: Any
    ) -> str:
        """As in `McpPort`."""
        found = self._known(server)
        result = await self.result(access, server, tool, arguments)
        mask = KeyMask([*found.config.secrets, *([found.key] if found.key is not None else [])])
        return content_of(result, output_bytes(max_output_bytes, found.config.budgets.max_tool_output_bytes), mask)

    async def result(self, access: Access, server: str, tool: str, arguments: dict[str, Any] | None) -> dict[str, Any]:
        """What the server answers. Raises `McpFailed`."""
        found = self._known(server)
        denied = access.denied(found.config.allowed_tools, tool)
        if denied:
            raise McpFailed(denied)
        limit = timeout_s(found.config.budgets.tool_timeout_ms, *CALL_MS)
        result = await self._ask(found, CallTool(tool, arguments), limit)
        if not isinstance(result, dict):
            raise McpFailed("the server's answer is no result of a tool")
        return result

    def _known(self, name: str) -> _Server:
        server = self._servers.get(name)
        if server is None:
            raise McpFailed(UNKNOWN_SERVER)
        return server

    async def _ask(self, server: _Server, message: Message, limit: float) -> Any:
        """Waits for a place among its calls, too, and for a connection that is being made; not for one that failed and
        is tried again later."""
        if server.unusable:
            raise McpFailed(_NOT_THERE)
        server.inflight += 1
        try:
            with trio.move_on_after(limit):
                ref = await self._ref(server)
                if ref.status == "backing_off":
                    raise McpFailed(server.state.failure or _NOT_THERE)
                return await ref.ask(message)
        except (ActorStopped, ActorCrashed):
            raise McpFailed(server.state.failure or _NOT_THERE) from None
        finally:
            server.inflight -= 1
        raise McpFailed(TIMEOUT)

    async def _ref(self, server: _Server) -> Ref[Message]:
        async with server.starting:
            if server.ref is None or server.ref.status == "exited":
                if self._supervisor is None:
                    raise McpFailed(_NOT_THERE)
                server.ref = await self._supervisor.start(self._spec(server))
            return server.ref

    def _spec(self, server: _Server) -> Spec[Message]:
        name = server.config.server_id
        earlier = self._started.get(name, 0)
        self._started[name] = earlier + 1
        return Spec(
            name=f"{name} #{earlier}" if earlier else name,  # the one it replaces may have the plain one for a while
            factory=partial(ServerActor, server.config, server.key, server.state),
            concurrency=server.config.budgets.max_concurrency,
            backoff=_BACKOFF,
        )

    # --- looking -------------------------------------------------------------------------------------------------

    def rows(self) -> Iterator[dict[str, Any]]:
        """Each server as it is now. No addresses, no commands, no keys."""
        for name, each in self._servers.items():
            state = each.state
            yield {
                "server_id": name,
                "display_name": each.config.display_name,
                "transport": each.config.transport,
                "state": "not usable" if each.unusable else state.phase,
                "detail": each.unusable or state.failure,
                "stderr": state.last_words if state.phase == "failed" else "",
                "allowed_tools": list(each.config.allowed_tools),
                "tools": [tool.name for tool in state.listing.tools],
                "left_out": list(state.listing.left_out),
                "connections": state.connections,
                "inflight": each.inflight,
            }


def _bare(config: McpServer) -> McpServer:
    return config.model_copy(update={"origin": Origin()})


class McpServers(Actor[StartAll]):
    """Owns the connections of a registry."""

    def __init__(self, registry: McpRegistry) -> None:
        self._registry = registry

    @asynccontextmanager
    async def lifespan(self, ctx: Context[StartAll]) -> AsyncIterator[None]:
        async with self._registry.opened():
            if self._registry.at_once:
                await self._registry.start_all()
            yield

    async def handle(self, msg: StartAll, ctx: Context[StartAll]) -> None:
        await self._registry.start_all()

    def observe(self) -> Mapping[str, object]:
        return {row["server_id"]: row["state"] for row in self._registry.rows()}


def servers_spec(registry: McpRegistry) -> Spec[StartAll]:
    return Spec(name="mcp", factory=partial(McpServers, registry))
