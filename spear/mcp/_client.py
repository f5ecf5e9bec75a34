"""The client's side of the protocol, over whichever transport: the handshake, listing tools, calling one."""

from __future__ import annotations

from typing import Any, Final, Protocol

from spear._about import DISTRIBUTION, __version__

from ._failures import ConnectionLost, McpFailed, ServerError
from ._tools import Listing, ListingReader

PROTOCOL: Final = "2025-06-18"
SPOKEN: Final = frozenset({"2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"})
"""The revisions whose handshake, listing and calls are the same to us."""
MAX_PAGES: Final = 64
HANDSHAKE_S: Final = 30.0


class Transport(Protocol):
    async def request(self, method: str, params: dict[str, Any]) -> Any:
        """The result. Raises `ServerError` with what the server says, `McpFailed` where the connection breaks.
        Cancelled, the server is told so, without waiting for it."""

    async def notify(self, method: str) -> None: ...

    def agreed(self, version: str) -> None:
        """The handshake is over; from here on this revision is spoken."""


class Client:
    """`tells_changes`: the server says when its tools change."""

    def __init__(self, server: str, transport: Transport) -> None:
        self._server = server
        self._transport = transport
        self.tells_changes = False

    async def greet(self) -> None:
        """The handshake. Raises `ConnectionLost` where it comes to nothing."""
        about = {"name": DISTRIBUTION, "version": __version__}
        params = {"protocolVersion": PROTOCOL, "capabilities": {}, "clientInfo": about}
        try:
            result = await self._transport.request("initialize", params)
        except McpFailed as failed:
            raise ConnectionLost(f"the handshake failed: {failed}") from None
        version = result.get("protocolVersion") if isinstance(result, dict) else None
        if version not in SPOKEN:
            raise ConnectionLost("the handshake failed: the server speaks no revision of MCP that is known here")
        can = result.get("capabilities")
        tools = can.get("tools") if isinstance(can, dict) else None
        self.tells_changes = isinstance(tools, dict) and tools.get("listChanged") is True
        self._transport.agreed(version)
        try:
            await self._transport.notify("notifications/initialized")
        except McpFailed as failed:
            raise ConnectionLost(f"the handshake failed: {failed}") from None

    async def list_tools(self) -> Listing:
        """All pages. Raises `McpFailed`."""
        reader = ListingReader(self._server)
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            result = await self._transport.request("tools/list", {} if cursor is None else {"cursor": cursor})
            page = result.get("tools") if isinstance(result, dict) else None
            if not isinstance(page, list):
                raise ServerError("its list of tools is no list")
            reader.add(page)
            cursor = result.get("nextCursor")
            if not isinstance(cursor, str) or reader.full:
                break
        return reader.listing

    async def call(self, tool: str, arguments: dict[str, Any] | None) -> Any:
        params: dict[str, Any] = {"name": tool}
        if arguments is not None:
            params["arguments"] = arguments
        return await self._transport.request("tools/call", params)
