"""A chat session: the state behind its descriptor, and the caps on it. Nothing here waits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from spear.hostcall import _json
from spear.hostcall._chat_port import ChatSnapshot
from spear.hostcall._errno import ENOMEM, Refused
from spear.hostcall._fds import Entry
from spear.hostcall._holdings import ITEM_BYTES, VALUE_BYTES, Holdings
from spear.hostcall._limits import Limits
from spear.hostcall._mcp import MCP_KEYS, SessionMcp
from spear.hostcall._tool_schema import inspect_tool
from spear.mcp import NO_TASK_POLICY, TaskPolicy


class SessionTooLarge(Exception):
    """The tool loop wanted to append beyond the caps of the session."""


_NO_MCP: Final = SessionMcp()  # of all closed sessions: there may be many, and nobody writes to it


class ChatSession(Entry):
    """Messages, tools and parameters. Text bytes count message contents, tool texts and parameter JSON together."""

    kind = "ChatSession"
    __slots__ = (
        "_held",
        "_holdings",
        "_limits",
        "_param_costs",
        "_pins",
        "json_values",
        "loop",
        "mcp",
        "media_bytes",
        "messages",
        "names",
        "params",
        "text_bytes",
        "tools",
    )

    def __init__(self, limits: Limits, holdings: Holdings, policy: TaskPolicy = NO_TASK_POLICY) -> None:
        super().__init__()
        self._limits = limits
        self._holdings = holdings
        self._held = 0
        self._pins = 0
        self.loop: object | None = None  # the tool loop that runs in the background; nothing else may write then
        self._param_costs: dict[str, tuple[int, int]] = {}  # text bytes and JSON values
        self.mcp = SessionMcp(policy)
        self.messages: list[dict[str, Any]] = []
        self.tools: list[tuple[int, str]] = []
        self.names: dict[str, int] = {}  # tool name -> table index; the first registration wins
        self.params: dict[str, Any] = {}
        self.text_bytes = 0
        self.json_values = 0
        self.media_bytes = 0  # of stored objects; a send puts them into its body

    def add_text(self, role: str, content: str, size: int) -> None:
        self._count(len(self.messages), self._limits.session_messages)
        self._charge(size, 0, len(role) + size + ITEM_BYTES)
        self.messages.append({"role": role, "content": content})

    def add_tool(self, index: int, text: str, size: int) -> None:
        self._count(len(self.tools), self._limits.session_tools)
        name, values = inspect_tool(text, self._limits.session_json_values)
        self._charge(size, values, size + ITEM_BYTES)
        self.tools.append((index, text))
        if name is not None:
            self.names.setdefault(name, index)

    def set_param(self, key: str, value: Any, size: int) -> None:
        if key not in MCP_KEYS:
            self._count(len(self.params) - (key in self.params), self._limits.session_params)
        old_size, old_values = self._param_costs.get(key, (0, 0))
        values = _json.count_values(value, self._limits.session_json_values)
        more, more_values = size - old_size, values - old_values
        item = 0 if key in self._param_costs else ITEM_BYTES
        self._charge(more, more_values, more + VALUE_BYTES * more_values + item)
        self._param_costs[key] = size, values
        if not self.mcp.take(key, value):
            self.params[key] = value

    def append(self, message: Mapping[str, Any]) -> None:
        """Append a whole message, as the tool loop does. Raises `SessionTooLarge`."""
        self._take_room(message)
        self.messages.append(dict(message))
        for part in message.get("content_parts", ()):
            self.media_bytes += part.get("media", {}).get("size", 0)

    def check_room(self, message: Mapping[str, Any]) -> None:
        """Raises `SessionTooLarge` where `append` would."""
        size, values, held = self._take_room(message)
        self._charge(-size, -values, -held)

    def _take_room(self, message: Mapping[str, Any]) -> tuple[int, int, int]:
        size, values = _message_cost(message, self._limits.session_json_values)
        held = size + VALUE_BYTES * values + ITEM_BYTES
        try:
            self._count(len(self.messages), self._limits.session_messages)
            self._charge(size, values, held)
        except Refused:
            raise SessionTooLarge from None
        return size, values, held

    def _count(self, count: int, max_count: int) -> None:
        if count >= max_count:
            raise Refused(ENOMEM)

    def _charge(self, text: int, values: int, held: int) -> None:
        """All or nothing: `Refused` if one of the caps does not allow it. The amounts may be negative."""
        if (
            self.text_bytes + text > self._limits.session_text_bytes
            or self.json_values + values > self._limits.session_json_values
        ):
            raise Refused(ENOMEM)
        self._holdings.take(held)
        self.text_bytes += text
        self.json_values += values
        self._held += held

    def snapshot(self) -> ChatSnapshot:
        return ChatSnapshot(self.fd, tuple(self.messages), tuple(self.tools), dict(self.params))

    def pin(self) -> None:
        """A request in the background uses the messages: they count as held until `unpin`, even when closed."""
        self._pins += 1

    def unpin(self) -> None:
        self._pins -= 1
        if self.closed and not self._pins:
            self._free()

    def release(self) -> None:
        if not self._pins:
            self._free()

    def _free(self) -> None:
        self.messages, self.tools, self.names, self.params = [], [], {}, {}
        self._param_costs = {}
        self.mcp = _NO_MCP
        self.text_bytes = self.json_values = self.media_bytes = 0
        self._holdings.take(-self._held)
        self._held = 0


def _message_cost(message: Mapping[str, Any], max_values: int) -> tuple[int, int]:
    """Text bytes, and the JSON values of what is not plain text."""
    content = message.get("content")
    size = len(content.encode("utf-8", "replace")) if isinstance(content, str) else 0
    rest = {key: value for key, value in message.items() if key not in {"role", "content"}}
    if content is not None and not isinstance(content, str):
        rest["content"] = content
    return (size + len(_json.dump(rest)), _json.count_values(rest, max_values)) if rest else (size, 0)
