"""A real MCP server, written with the official SDK: on stdio, or with a port on streamable HTTP."""

from __future__ import annotations

import os
import sys
import threading

from mcp.server import MCPServer

server = MCPServer("sdk")


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


if __name__ == "__main__":
    if len(sys.argv) == 1:
        server.run()
    else:
        threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
