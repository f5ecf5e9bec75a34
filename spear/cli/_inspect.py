"""spear backends, capabilities, explain, schema: looking without asking any backend."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NoReturn

import click

from spear.ir import json_schema, parse_request
from spear.router import COLUMNS, Explanation

from ._output import choose_config, config_option, json_option, print_json, table
from ._signals import EXIT_USAGE, run_command

if TYPE_CHECKING:
    from spear import Runtime


@asynccontextmanager
async def _looked_at(config_path: Path | None, *, quiet: bool) -> AsyncIterator[Runtime]:
    """A runtime that nothing is sent through. Filters are not asked by these commands, so that those whose functions
    are in another program need none here."""
    from spear import open_runtime

    config = choose_config(config_path, quiet=quiet)
    functions = {each.name: _never_asked for each in config.filters if each.kind == "python"}
    async with open_runtime(config, filters=functions) as runtime:
        yield runtime


def _never_asked(question: object) -> NoReturn:
    raise AssertionError("looking asks no filter")


@click.command()
@config_option
@json_option
def backends(config_path: Path | None, as_json: bool) -> None:
    """Show the configured backends, what each can do, and why one is not usable."""

    async def main() -> int:
        async with _looked_at(config_path, quiet=as_json) as runtime:
            rows = runtime.backends()
        if as_json:
            print_json({"backends": rows})
            return 0
        click.echo(
            table(
                ("name", "kind", "answers to", "weight", "operations", "features", "state"),
                [
                    (
                        row["name"],
                        row["kind"],
                        ", ".join(row["answers_to"]) or "(any model)",
                        str(row["weight"]),
                        ", ".join(row["ops"]),
                        ", ".join(f.removeprefix("supports_") for f in row["features"]),
                        row["state"]
                        + (", discovered" if row["discovered"] else "")
                        + (f": {row['detail']}" if row["detail"] else ""),
                    )
                    for row in rows
                ],
            )
        )
        return 0

    run_command(main)


@click.command()
@config_option
@json_option
def capabilities(config_path: Path | None, as_json: bool) -> None:
    """Show the operations, features and models that can be asked for now."""

    async def main() -> int:
        async with _looked_at(config_path, quiet=as_json) as runtime:
            found = runtime.capabilities()
        if as_json:
            print_json(found)
            return 0
        rows = [
            (
                operation,
                ", ".join(found["models"].get(operation, ())) or "(any model)",
                ", ".join(f.removeprefix("supports_") for f in found["features"].get(operation, ())),
            )
            for operation in found["operations"]
        ]
        click.echo(table(("operation", "models", "features"), rows))
        return 0

    run_command(main)


@click.command()
@click.argument("request_file", metavar="REQUEST.json", type=click.File("rb"))
@config_option
@json_option
def explain(request_file: BinaryIO, config_path: Path | None, as_json: bool) -> None:
    """Show how the request in REQUEST.json ("-" for stdin) would be routed now; nothing is sent.

    The file holds a request envelope (`spear schema` describes it), for example
    {"operation": "chat_completions", "payload": {"kind": "chat_completions", "messages": [{"role": "user", "content":
    "hi"}]}}
    """
    data = request_file.read()
    name = getattr(request_file, "name", "stdin")

    async def main() -> int:
        from spear import SpearError

        try:
            request = parse_request(data)
        except SpearError as error:
            click.echo(f"spear: {name}: {error.error.message}", err=True)
            return EXIT_USAGE
        async with _looked_at(config_path, quiet=as_json) as runtime:
            explanation = runtime.explain(request)
        if as_json:
            print_json(explanation.as_json())
        else:
            click.echo(_headline(explanation))
            click.echo(table(COLUMNS, list(explanation.rows())))
        return 0 if explanation.chosen is not None else 1

    run_command(main)


def _headline(explanation: Explanation) -> str:
    asked = f"{explanation.operation}, model {explanation.model!r}" if explanation.model else explanation.operation
    lines = [f"{asked}: policy {explanation.policy}, generation {explanation.generation}, seed {explanation.seed}"]
    if explanation.note:
        lines.append(explanation.note)
    if explanation.error is not None:
        lines.append(f"nobody: {explanation.error.code.value}: {explanation.error.message}")
    return "\n".join(lines) + "\n"


@click.command()
@json_option
def schema(as_json: bool) -> None:
    """Print the JSON Schema (2020-12) of requests, responses, stream events and errors."""
    print_json(json_schema())
