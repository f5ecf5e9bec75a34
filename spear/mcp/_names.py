"""The names under which a model sees the tools of MCP servers. Pure.

A model gets `mcp__<server>__<tool>`, both in base64url without padding, so that any name is one that every provider
takes. `mcp.<server>.<tool>` is understood, too.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Final

ENCODED: Final = "mcp__"
PLAIN: Final = "mcp."
MAX_NAME: Final = 4096
"""Characters; what is longer is no name."""


def is_mcp_name(name: str) -> bool:
    return name.startswith((ENCODED, PLAIN))


def encode_name(server: str, tool: str) -> str:
    return f"{ENCODED}{_encode(server)}__{_encode(tool)}"


def decode_name(name: str) -> tuple[tuple[str, str], ...]:
    """What the name may mean, as (server, tool); empty if it is none. An encoded name may mean several things, as
    `_` is a letter of base64url: whoever knows the servers can tell."""
    if len(name) > MAX_NAME:
        return ()
    if name.startswith(ENCODED):
        return tuple(_splits(name.removeprefix(ENCODED)))
    server, dot, tool = name.removeprefix(PLAIN).partition(".")
    return ((server, tool),) if name.startswith(PLAIN) and dot and server and tool else ()


def _splits(text: str) -> Iterator[tuple[str, str]]:
    at = text.find("__")
    while at >= 0:
        server, tool = _decode(text[:at]), _decode(text[at + 2 :])
        if server and tool:
            yield server, tool
        at = text.find("__", at + 1)


def _encode(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode("utf-8", "replace")).rstrip(b"=").decode()


def _decode(text: str) -> str:
    """Empty where it is not what `_encode` would have written."""
    try:
        plain = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except (binascii.Error, ValueError):
        return ""
    return plain if _encode(plain) == text else ""
