"""A chat session and a chat response: the state behind their descriptors, and the caps on it. Nothing here waits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spear.hostcall import _json
from spear.hostcall._chat_port import ChatSnapshot
from spear.hostcall._errno import EACCES, EINVAL, ENOMEM, Refused
from spear.hostcall._fds import IN, Entry
from spear.hostcall._limits import Limits
from spear.hostcall._tool_schema import tool_name


class SessionTooLarge(Exception):
    """The tool loop wanted to append beyond the caps of the session."""


class Mcp:
    """The MCP part of a session. Without a task policy a guest may switch it off and narrow it, nothing else."""

    __slots__ = ("allowlist", "denylist", "enabled", "server_ids")

    def __init__(self) -> None:
        self.enabled = False
        self.server_ids: list[str] = []
        self.allowlist: list[str] = []
        self.denylist: list[str] = []

    @staticmethod
    def check(key: str, value: Any) -> None:
        """Raise `Refused` if a SET_PARAM of this key and value is not allowed."""
        if key.startswith("mcp.task_"):
            raise Refused(EACCES)
        if key == "mcp.enabled":
            if not isinstance(value, bool):
                raise Refused(EINVAL)
            if value:
                raise Refused(EACCES)
        elif key in {"mcp.server_ids", "mcp.tool_allowlist", "mcp.tool_denylist"}:
            if not isinstance(value, list):
                raise Refused(EINVAL)
            if key == "mcp.server_ids" and any(isinstance(one, str) and one for one in value):
                raise Refused(EACCES)

    def take(self, key: str, value: Any) -> bool:
        """Store a checked value; False if the key is not one of these."""
        if key == "mcp.enabled":
            self.enabled = value
        elif key == "mcp.server_ids":
            self.server_ids = _strings(value)
        elif key == "mcp.tool_allowlist":
            self.allowlist = _strings(value)
        elif key == "mcp.tool_denylist":
            self.denylist = _strings(value)
        else:
            return False
        return True


def _strings(value: list[Any]) -> list[str]:
    return [one for one in value if isinstance(one, str)]


class ChatSession(Entry):
    """Messages, tools and parameters. Text bytes count message contents, tool texts and parameter JSON together."""

    kind = "ChatSession"
    __slots__ = ("_limits", "_param_bytes", "mcp", "messages", "names", "params", "text_bytes", "tools")

    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self._limits = limits
        self._param_bytes: dict[str, int] = {}
        self.mcp = Mcp()
        self.messages: list[dict[str, Any]] = []
        self.tools: list[tuple[int, str]] = []
        self.names: dict[str, int] = {}  # tool name -> table index; the first registration wins
        self.params: dict[str, Any] = {}
        self.text_bytes = 0

    def add_text(self, role: str, content: str, size: int) -> None:
        self._room(size, len(self.messages), self._limits.session_messages)
        self.messages.append({"role": role, "content": content})
        self.text_bytes += size

    def add_tool(self, index: int, text: str, size: int) -> None:
        self._room(size, len(self.tools), self._limits.session_tools)
        self.tools.append((index, text))
        self.text_bytes += size
        name = tool_name(text)
        if name is not None:
            self.names.setdefault(name, index)

    def set_param(self, key: str, value: Any, size: int) -> None:
        if self.mcp.take(key, value):
            return
        old = self._param_bytes.get(key, 0)
        self._room(size - old, len(self.params) - (key in self.params), self._limits.session_params)
        self.params[key] = value
        self._param_bytes[key] = size
        self.text_bytes += size - old

    def _room(self, size: int, count: int, max_count: int) -> None:
        if count >= max_count or self.text_bytes + size > self._limits.session_text_bytes:
            raise Refused(ENOMEM)

    def append(self, message: Mapping[str, Any]) -> None:
        """Append a whole message on behalf of the tool loop. Raises `SessionTooLarge`."""
        size = _message_bytes(message)
        if (
            len(self.messages) >= self._limits.session_messages
            or self.text_bytes + size > self._limits.session_text_bytes
        ):
            raise SessionTooLarge
        self.messages.append(dict(message))
        self.text_bytes += size

    def snapshot(self) -> ChatSnapshot:
        return ChatSnapshot(self.fd, tuple(self.messages), tuple(self.tools), dict(self.params))

    def release(self) -> None:
        self.messages, self.tools, self.names, self.params = [], [], {}, {}
        self._param_bytes = {}
        self.text_bytes = 0


def _message_bytes(message: Mapping[str, Any]) -> int:
    content = message.get("content")
    size = len(content.encode("utf-8", "replace")) if isinstance(content, str) else 0
    rest = {key: value for key, value in message.items() if key not in {"role", "content"}}
    if content is not None and not isinstance(content, str):
        rest["content"] = content
    return size + (len(_json.dump(rest)) if rest else 0)


class ChatResponse(Entry):
    """The body of one answer. It is readable as often as one likes until the descriptor is closed."""

    kind = "ChatResponse"
    __slots__ = ("_metrics", "body")

    def __init__(self) -> None:
        super().__init__()
        self.body: bytes | None = None
        self._metrics: dict[str, int] = {}

    def fill(self, body: bytes, metrics: dict[str, int]) -> None:
        if not self.closed:
            self.body, self._metrics = body, metrics

    def ready(self) -> int:
        return IN if self.body is not None else 0

    def release(self) -> None:
        self.body, self._metrics = None, {}

    def metrics(self) -> dict[str, Any]:
        return dict(self._metrics)
