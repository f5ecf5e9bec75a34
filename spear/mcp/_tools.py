"""What a server lists, checked: each entry becomes a tool, or is left out with the reason. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from spear.ir import MalformedJson, dump_json

from ._names import encode_name

MAX_TOOLS: Final = 512
"""Of one server; what it lists beyond is left out."""
MAX_ENTRIES: Final = 2048
"""Of its list; those behind them are not looked at, whatever they are."""
MAX_TOOL_BYTES: Final = 65_536
"""Of one definition, as for a guest's own tool."""
MAX_NAME_BYTES: Final = 256


@dataclass(frozen=True)
class Tool:
    """One tool of one server."""

    server: str
    name: str
    description: str
    schema: Mapping[str, Any]

    @property
    def full_name(self) -> str:
        return encode_name(self.server, self.name)

    @cached_property
    def definition(self) -> str:
        """The JSON that a model gets."""
        function = {"name": self.full_name, "description": self.description, "parameters": self.schema}
        return dump_json({"type": "function", "function": function}, sort=True).decode()


@dataclass(frozen=True, slots=True)
class Listing:
    tools: tuple[Tool, ...] = ()
    left_out: tuple[str, ...] = ()
    """Of each entry that is no usable tool, which and why."""


def read_listing(server: str, entries: Iterable[Any]) -> Listing:
    """The first of equal names wins."""
    reader = ListingReader(server)
    reader.add(entries)
    return reader.listing


class ListingReader:
    """Of a list that comes in pages: what was left out of one page is not kept until the last has come."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._tools: dict[str, Tool] = {}
        self._left_out: list[str] = []
        self._seen = 0
        self.full = False

    @property
    def listing(self) -> Listing:
        return Listing(tuple(self._tools.values()), tuple(self._left_out))

    def add(self, entries: Iterable[Any]) -> None:
        for number, entry in enumerate(entries, self._seen):
            if len(self._tools) >= MAX_TOOLS or number >= MAX_ENTRIES:
                most = f"a server has at most {MAX_TOOLS} tools, and its list {MAX_ENTRIES} entries"
                self._left_out.append(f"all from number {number} on: {most}")
                self.full = True
                return
            self._seen = number + 1
            found = _read(self._server, entry)
            if isinstance(found, str):
                self._left_out.append(f"number {number}: {found}")
            elif found.name in self._tools:
                self._left_out.append(f"number {number}: its name is there twice")
            else:
                self._tools[found.name] = found


def _read(server: str, entry: Any) -> Tool | str:
    if not isinstance(entry, dict):
        return "is no object"
    name = entry.get("name")
    if not isinstance(name, str) or not name:
        return "has no name"
    if len(name.encode("utf-8", "replace")) > MAX_NAME_BYTES:
        return f"its name has more than {MAX_NAME_BYTES} bytes"
    schema = entry.get("inputSchema")
    if schema is None:
        schema = entry.get("input_schema")
    if schema is None:
        schema = {"type": "object"}
    wrong = _no_schema(schema)
    if wrong:
        return f"its schema {wrong}"
    description = entry.get("description")
    tool = Tool(server, name, description if isinstance(description, str) else "", schema)
    try:
        size = len(tool.definition.encode())
    except (MalformedJson, UnicodeEncodeError):
        return "it is not representable as JSON"
    return f"it has more than {MAX_TOOL_BYTES} bytes" if size > MAX_TOOL_BYTES else tool


def _no_schema(schema: Any) -> str:
    """What keeps it from being the schema of an object. A provider refuses a whole request for one such tool."""
    if not isinstance(schema, dict):
        return "is no object"
    if schema.get("type", "object") != "object":
        return 'is not of type "object"'
    if not isinstance(schema.get("properties", {}), dict):
        return "has properties that are no object"
    required = schema.get("required", [])
    if not isinstance(required, list) or not all(isinstance(each, str) for each in required):
        return "has a `required` that is no list of names"
    return ""
