"""Starting the MCP servers' actor: with the first configuration that has servers, at the start or at a reload."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from actors import ActorStopped, MailboxFull, Ref, StartFailed, Supervisor, SupervisorClosed

from ._tree import CannotStart
from .config import Config
from .egress import check_base_url
from .ir import BackendError, ConfigError, ErrorCode, Failure, Problem, invalid_request, make_error
from .telemetry import get_logger

_log = get_logger("spear.mcp")

if TYPE_CHECKING:
    from .mcp import McpPort
    from .mcp._registry import McpRegistry, StartAll


class McpNode:
    """Once started, the actor stays: a configuration without servers gives it nothing to do."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._ref: Ref[StartAll] | None = None
        self.registry: McpRegistry | None = None

    @property
    def port(self) -> McpPort | None:
        """None where the host has no servers."""
        return self.registry or None

    async def prepare(self, config: Config) -> None:
        """Start what `config` needs, before it holds. Raises `ConfigError`, `CannotStart`."""
        check_addresses(config)
        _warn_of_unknown_servers(config)
        if self._ref is not None or not config.mcp.servers:
            return
        from .mcp._registry import McpRegistry, servers_spec

        registry = McpRegistry(config)
        try:
            self._ref = await self._supervisor.start(servers_spec(registry))
        except (StartFailed, SupervisorClosed) as error:
            raise CannotStart(f"the MCP servers did not start: {error}") from None
        self.registry = registry

    def apply(self, config: Config) -> None:
        """`config` holds from now on. Never waits."""
        if self.registry is None or self._ref is None:
            return
        from .mcp._registry import StartAll

        self.registry.apply(config)
        if self.registry.at_once:
            try:
                self._ref.tell_nowait(StartAll())
            except (ActorStopped, MailboxFull):
                return  # it stops, or has that to do already

    # --- for the host's own program ------------------------------------------------------------------------------

    def rows(self) -> list[dict[str, Any]]:
        return [] if self.registry is None else list(self.registry.rows())

    async def tools(self, server: str) -> list[dict[str, Any]]:
        registry = self._known(server)
        with _as_errors():
            listing = await registry.list(server)
            return [
                {"name": tool.name, "description": tool.description, "schema": dict(tool.schema)}
                for tool in registry.permitted(server, listing)
            ]

    async def call(self, server: str, tool: str, arguments: Mapping[str, Any] | None) -> dict[str, Any]:
        from .mcp import Access

        registry = self._known(server)
        given = None if arguments is None else dict(arguments)
        with _as_errors():
            return await registry.result(Access(True, (server,)), server, tool, given)

    def _known(self, server: str) -> McpRegistry:
        names = [row["server_id"] for row in self.rows()]
        if self.registry is None or server not in names:
            there = ", ".join(names) or "none"
            raise invalid_request("server", f"is no MCP server of this host; there are: {there}")
        return self.registry


@contextmanager
def _as_errors() -> Iterator[None]:
    from .mcp import McpFailed

    try:
        yield
    except McpFailed as failed:
        raise BackendError(make_error(ErrorCode.BACKEND_ERROR, f"MCP: {failed}"), Failure.SERVER) from None


def _warn_of_unknown_servers(config: Config) -> None:
    """A task may name servers that this host does not have, but often that is a slip."""
    there = {each.server_id for each in config.mcp.servers}
    for task in config.tasks:
        if not any(key.startswith("mcp.") for key in task.config):
            continue
        from .mcp import task_policy

        policy = task_policy(task.config)
        unknown = sorted({*policy.default_servers, *policy.allowed_servers} - there)
        if policy.enabled and unknown:
            _log.warning("mcp_unknown_servers", task=task.id, servers=unknown)


async def open_mcp(supervisor: Supervisor, config: Config) -> McpNode:
    node = McpNode(supervisor)
    await node.prepare(config)
    return node


def check_addresses(config: Config) -> None:
    """Raise `ConfigError` where a server may not be called at its address."""
    problems = []
    for each in config.mcp.servers:
        if each.http is None:
            continue
        try:
            http = each.http
            check_base_url(http.url.reveal(), hosting=http.hosting, allow_plaintext=http.allow_plaintext)
        except ValueError as error:
            origin = each.origin
            key = ".".join(part for part in (origin.key, "http.url") if part)
            problems.append(Problem(origin.file, origin.line_of("http"), key, str(error)))
    if problems:
        raise ConfigError(problems)
