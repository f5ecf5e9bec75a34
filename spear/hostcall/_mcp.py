"""A guest's way to the tools of MCP servers: what is offered with a request, and a call that the model asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from spear.hostcall._chat_port import ChatSnapshot
from spear.hostcall._errno import EACCES, EINVAL, Refused
from spear.hostcall._tool_plan import ToolCall, mcp_failed
from spear.mcp import (
    NO_REGISTRY,
    NO_TASK_POLICY,
    Access,
    McpFailed,
    McpPort,
    Names,
    TaskPolicy,
    arguments_of,
    named,
    task_policy,
)

if TYPE_CHECKING:
    from spear.hostcall._guest import Guest

MAX_OFFERED: Final = 512
MCP_KEYS: Final = frozenset({"mcp.enabled", "mcp.server_ids", "mcp.tool_allowlist", "mcp.tool_denylist"})


@dataclass(frozen=True, slots=True)
class GuestMcp:
    """Of one execution: what its task allows, and the host's servers, if there are any."""

    policy: TaskPolicy = NO_TASK_POLICY
    port: McpPort | None = None


NO_MCP: Final = GuestMcp()


def guest_mcp(config: Mapping[str, str], port: McpPort | None) -> GuestMcp:
    policy = task_policy(config)
    return NO_MCP if port is None and policy is NO_TASK_POLICY else GuestMcp(policy, port)


class SessionMcp:
    """The MCP part of a session: inside what its task allows, a guest may switch it on and off and narrow it."""

    __slots__ = ("_policy", "allowlist", "denylist", "enabled", "server_ids")

    def __init__(self, policy: TaskPolicy = NO_TASK_POLICY) -> None:
        self._policy = policy
        self.server_ids: list[str] = list(policy.first_servers)
        self.enabled = bool(self.server_ids)
        self.allowlist: list[str] = []
        self.denylist: list[str] = []

    def access(self) -> Access:
        return Access(self.enabled, tuple(self.server_ids), tuple(self.allowlist), tuple(self.denylist), self._policy)

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


def check_param(policy: TaskPolicy, key: str, value: Any) -> None:
    """Raise `Refused` if a SET_PARAM of this key and value is not allowed."""
    if key.startswith("mcp.task_"):
        raise Refused(EACCES)
    if key == "mcp.enabled":
        if not isinstance(value, bool):
            raise Refused(EINVAL)
        if value and not policy.enabled:
            raise Refused(EACCES)
    elif key in {"mcp.server_ids", "mcp.tool_allowlist", "mcp.tool_denylist"}:
        if not isinstance(value, list):
            raise Refused(EINVAL)
        if key == "mcp.server_ids" and any(each and each not in policy.allowed_servers for each in _strings(value)):
            raise Refused(EACCES)


def _strings(value: list[Any]) -> list[str]:
    return [one for one in value if isinstance(one, str)]


@dataclass(frozen=True, slots=True)
class Offer:
    """The tools that go with one request, beside the guest's own."""

    tools: tuple[tuple[int, str], ...] = ()
    names: Names = field(default_factory=dict)

    def into(self, snapshot: ChatSnapshot) -> ChatSnapshot:
        return replace(snapshot, tools=(*snapshot.tools, *self.tools)) if self.tools else snapshot


NO_OFFER: Final = Offer()


async def offer_tools(guest: Guest, mcp: SessionMcp) -> Offer:
    """Waits for servers that have to be asked. Without MCP, not at all."""
    port = guest.mcp.port
    if port is None or not mcp.enabled:
        return NO_OFFER
    access = mcp.access()
    if not access.active:
        return NO_OFFER
    tools = await port.tools(access)
    if len(tools) > MAX_OFFERED:
        guest.log.add("warn", f"mcp: {len(tools)} tools, of which {MAX_OFFERED} are offered")
        tools = tools[:MAX_OFFERED]
    # No slot of the guest's function table: the loop never looks these up there.
    return Offer(
        tuple((-1, tool.definition) for tool in tools), {tool.full_name: (tool.server, tool.name) for tool in tools}
    )


async def call_mcp_tool(guest: Guest, mcp: SessionMcp, names: Names, call: ToolCall, max_output_bytes: Any) -> str:
    """The content of the tool message, also where the call fails. Waits for the server; cancelled, it is told so."""
    port = guest.mcp.port
    try:
        if port is None:
            raise McpFailed(NO_REGISTRY)
        access = mcp.access()
        server, tool = named(access, call.name, names)
        return await port.call(access, server, tool, arguments_of(call.arguments), max_output_bytes=max_output_bytes)
    except McpFailed as failed:
        return mcp_failed(str(failed))
