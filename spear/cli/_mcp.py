"""spear mcp: which MCP servers there are, whether they answer, and what tools they have."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import trio

from ._output import choose_config, config_option, json_option, print_json, printable, progress, table
from ._signals import run_command

if TYPE_CHECKING:
    from spear import Runtime


@click.command()
@click.argument("servers", nargs=-1, metavar="[SERVER]...")
@config_option
@json_option
def mcp(servers: tuple[str, ...], config_path: Path | None, as_json: bool) -> None:
    """Start the MCP servers, or those named, ask each for its tools, and show what came of it.

    Exit code 1 where one of them does not answer.
    """

    async def main() -> int:
        from spear import open_runtime

        async with open_runtime(_without_filters(choose_config(config_path, quiet=as_json))) as runtime:
            there = [row["server_id"] for row in runtime.mcp_servers()]
            unknown = [name for name in servers if name not in there]
            if unknown:
                raise click.UsageError(
                    f"there is no MCP server {unknown[0]!r}; there are: {', '.join(there) or 'none'}"
                )
            wanted = servers or tuple(there)
            tools: dict[str, list[dict[str, Any]]] = {}
            async with progress("asking the MCP servers"), trio.open_nursery() as nursery:
                for name in wanted:
                    nursery.start_soon(_ask, runtime, name, tools)
            rows = [row for row in runtime.mcp_servers() if row["server_id"] in wanted]
        for row in rows:
            row["tools"] = tools.get(row["server_id"], [])
        if as_json:
            print_json({"servers": rows})
        else:
            click.echo(_shown(rows))
            for row in rows:
                if why := _why(row):
                    click.echo(f"spear: {row['server_id']}: {why}", err=True)
        return 0 if len(tools) == len(wanted) else 1

    run_command(main)


def _without_filters(config: Any) -> Any:
    """Nothing is routed here, so that filters whose functions are in another program are not needed."""
    routes = tuple(each.model_copy(update={"filter": None}) for each in config.routes)
    return config.model_copy(update={"filters": (), "routes": routes})


async def _ask(runtime: Runtime, name: str, tools: dict[str, list[dict[str, Any]]]) -> None:
    from spear import SpearError

    try:
        tools[name] = await runtime.mcp_tools(name)
    except SpearError:
        return  # its row says why


def _shown(rows: list[dict[str, Any]]) -> str:
    lines = []
    for row in rows:
        state = row["state"] if row["state"] != "ready" or row["tools"] else "ready, no tools"
        first = (row["server_id"], row["transport"], state)
        left_out = [("", f"({len(row['left_out'])} left out: {row['left_out'][0]}, …)")] if row["left_out"] else []
        tools = [*((tool["name"], _first_line(tool["description"])) for tool in row["tools"]), *left_out]
        lines += [(*first, *tools[0]) if tools else (*first, "", "")]
        lines += [("", "", "", *each) for each in tools[1:]]
    return table(
        ("server", "transport", "state", "tool", "what it does"),
        [tuple(printable(cell) for cell in line) for line in lines],
    )


def _why(row: dict[str, Any]) -> str:
    """Beside the table: as a cell of it, it would make every line as long."""
    return printable("; ".join(filter(None, (row["detail"], row["stderr"] and f"stderr: {row['stderr']}"))))


def _first_line(text: str) -> str:
    line = text.strip().partition("\n")[0]
    return line if len(line) <= 80 else line[:79] + "…"
