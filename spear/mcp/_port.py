"""What guests and programs go through: the tools one may use, and a call of one of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

from ._failures import McpFailed
from ._names import decode_name
from ._policy import Access
from ._tools import Tool

NO_REGISTRY: Final = "mcp registry not available"
NOT_ENABLED: Final = "mcp not enabled"
INVALID_NAME: Final = "invalid mcp tool name"
UNKNOWN_SERVER: Final = "unknown mcp server"
TIMEOUT: Final = "mcp tool timeout"

Names = Mapping[str, tuple[str, str]]
"""Of the tools that a request offered: (server, tool) by the name that the model knows."""


class McpPort(Protocol):
    async def tools(self, access: Access) -> tuple[Tool, ...]:
        """Those of all its servers, in their order. A server that cannot be asked has none. Waits for the slowest."""

    async def call(
        self, access: Access, server: str, tool: str, arguments: dict[str, Any] | None, *, max_output_bytes: Any
    ) -> str:
        """The content. Raises `McpFailed` with what the model is told. Cancelled, the server is told so."""


def named(access: Access, name: str, names: Names) -> tuple[str, str]:
    """The server and tool that are meant. Raises `McpFailed` where that is none which the session may ask."""
    if not access.enabled:
        raise McpFailed(NOT_ENABLED)
    meant = (names[name],) if name in names else decode_name(name)
    if not meant:
        raise McpFailed(INVALID_NAME)
    for server, tool in meant:
        if server in access.servers:
            return server, tool
    raise McpFailed(UNKNOWN_SERVER)
