"""From a server's answer to what a model reads. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from spear.ir import MalformedJson, dump_json, parse_json

from ._failures import McpFailed

DEFAULT_OUTPUT_BYTES: Final = 65_536
MAX_OUTPUT_BYTES: Final = 10 * 1024 * 1024


def arguments_of(text: str) -> dict[str, Any] | None:
    """The JSON object that the model wrote; anything else is none."""
    try:
        value = parse_json(text)
    except MalformedJson:
        return None
    return value if isinstance(value, dict) else None


def content_of(result: dict[str, Any], max_bytes: int, mask: Callable[[bytes], bytes] = bytes) -> str:
    """A CallToolResult as JSON text of at most that many bytes, cut at a character."""
    try:
        text = dump_json(result, sort=True)
    except MalformedJson:
        raise McpFailed("the server's answer is not representable as JSON") from None
    text = mask(text)
    return (text if len(text) <= max_bytes else text[:max_bytes]).decode("utf-8", "ignore")


def output_bytes(wanted: Any, server: int) -> int:
    """The cap of one content: the smaller of the session's and the server's (0 = it has none)."""
    mine = DEFAULT_OUTPUT_BYTES
    if isinstance(wanted, int) and not isinstance(wanted, bool) and wanted >= 0:
        mine = min(wanted, MAX_OUTPUT_BYTES)
    return min(mine, server) if server else mine


def timeout_s(budget_ms: int, default_ms: int, most_ms: int) -> float:
    """`budget_ms` of 0 = the default."""
    return min(max(budget_ms, 100), most_ms) / 1000 if budget_ms else default_ms / 1000
