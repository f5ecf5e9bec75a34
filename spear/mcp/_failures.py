"""What goes wrong with a server or a call of it. The texts are for guests: no paths, no addresses, no keys."""

from __future__ import annotations


class McpFailed(Exception):
    """A call that came to nothing; the message is what the model is told."""


class ConnectionLost(Exception):
    """The connection to a server cannot go on: its actor ends and is restarted. The message says why."""


class ServerError(McpFailed):
    """The server answered with an error."""
