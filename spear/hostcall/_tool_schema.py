"""What the host has to know of a tool: the name under which it can be called, and how much JSON it is."""

from __future__ import annotations

from typing import Any

from spear.hostcall import _json


def inspect_tool(text: str, max_values: int) -> tuple[str | None, int]:
    """`function.name`, else the top-level `name`, or None for a tool that cannot be called by name; and the number of
    JSON values, counted until it is over `max_values`. What is no JSON has none."""
    try:
        schema = _json.parse(text)
    except _json.Malformed:
        return None, 0
    return _name(schema), _json.count_values(schema, max_values)


def _name(schema: Any) -> str | None:
    if not isinstance(schema, dict):
        return None
    function = schema.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        name = schema.get("name")
    return name if isinstance(name, str) and name else None
