"""The name under which a registered tool can be called."""

from __future__ import annotations

from spear.hostcall import _json


def tool_name(text: str) -> str | None:
    """`function.name`, else the top-level `name`; None for a tool that cannot be called by name."""
    try:
        schema = _json.parse(text)
    except _json.Malformed:
        return None
    if not isinstance(schema, dict):
        return None
    function = schema.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        name = schema.get("name")
    return name if isinstance(name, str) and name else None
