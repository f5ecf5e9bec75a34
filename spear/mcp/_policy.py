"""Who may use which tool: the server's list, the task's, the session's. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from spear.ir import MalformedJson, parse_json

_YES: Final = frozenset({"true", "1", "yes", "y", "on"})


@dataclass(frozen=True, slots=True)
class TaskPolicy:
    """What a task's configuration says about MCP. The default is that of a task which says nothing: not enabled."""

    enabled: bool = False
    default_servers: tuple[str, ...] = ()
    allowed_servers: frozenset[str] = frozenset()
    allowlist: tuple[str, ...] = ()
    denylist: tuple[str, ...] = ()

    @property
    def first_servers(self) -> tuple[str, ...]:
        """Those that a session starts with, each once; empty = it starts without MCP."""
        if not self.enabled:
            return ()
        return tuple(dict.fromkeys(each for each in self.default_servers if each in self.allowed_servers))


NO_TASK_POLICY: Final = TaskPolicy()


def task_policy(config: Mapping[str, str]) -> TaskPolicy:
    """From the `mcp.*` entries of a task's configuration. Lists are JSON arrays of strings, or have commas."""
    if not any(key.startswith("mcp.") for key in config):
        return NO_TASK_POLICY
    default = _list(config.get("mcp.default_server_ids", ""))
    allowed = config.get("mcp.allowed_server_ids")
    return TaskPolicy(
        enabled=config.get("mcp.enabled", "").strip().lower() in _YES,
        default_servers=default,
        allowed_servers=frozenset(default if allowed is None else _list(allowed)),
        allowlist=_list(config.get("mcp.tool_allowlist", "")),
        denylist=_list(config.get("mcp.tool_denylist", "")),
    )


def _list(text: str) -> tuple[str, ...]:
    items: Iterable[str] = text.split(",")
    if text.lstrip().startswith("["):
        try:
            value = parse_json(text)
        except MalformedJson:
            value = None
        if isinstance(value, list):
            items = [each for each in value if isinstance(each, str)]
    return tuple(each.strip() for each in items if each.strip())


@dataclass(frozen=True, slots=True)
class Access:
    """What one session may use at this moment: its own choice inside that of its task."""

    enabled: bool = False
    servers: tuple[str, ...] = ()
    allowlist: tuple[str, ...] = ()
    denylist: tuple[str, ...] = ()
    task: TaskPolicy = field(default=NO_TASK_POLICY)

    @property
    def active(self) -> bool:
        return self.enabled and bool(self.servers)

    def denied(self, allowed_tools: Sequence[str], tool: str) -> str:
        """Why this tool of a server with these `allowed_tools` may not be used; empty = it may."""
        name = tool.encode("utf-8", "replace")
        who = ""
        if not _any(allowed_tools, name):
            who = "server policy"
        elif self.task.allowlist and not _any(self.task.allowlist, name):
            who = "task allowlist"
        elif _any(self.task.denylist, name):
            who = "task denylist"
        elif self.allowlist and not _any(self.allowlist, name):
            who = "session allowlist"
        elif _any(self.denylist, name):
            who = "session denylist"
        return who and f"mcp tool denied by {who}"


def _any(patterns: Sequence[str], name: bytes) -> bool:
    return any(matches(each.encode("utf-8", "replace"), name) for each in patterns)


def matches(pattern: bytes, text: bytes) -> bool:
    """Whether all of `text` fits: `*` is any run of bytes, `?` one byte, everything else itself."""
    at = here = 0
    star = resume = -1
    while here < len(text):
        if at < len(pattern) and pattern[at] == _STAR:
            star, resume = at, here
            at += 1
        elif at < len(pattern) and pattern[at] in (_ONE, text[here]):
            at += 1
            here += 1
        elif star >= 0:  # let the last star take one byte more
            resume += 1
            at, here = star + 1, resume
        else:
            return False
    return all(byte == _STAR for byte in pattern[at:])


_STAR: Final = ord("*")
_ONE: Final = ord("?")
