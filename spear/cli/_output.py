"""What people see: tables, the progress line, and the options that commands share."""

from __future__ import annotations

import math
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import trio

from spear.config import Config, default_config, find_config, load_config
from spear.ir import dump_json
from spear.telemetry import configure_logging

F = TypeVar("F", bound=Callable[..., Any])
_SPINNER: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


def config_option(command: F) -> F:
    return click.option(
        "--config", "-c", "config_path", type=click.Path(path_type=Path), help="The configuration file (TOML)."
    )(command)


def json_option(command: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")(command)


def choose_config(path: Path | None, *, quiet: bool = False) -> Config:
    """The configuration by the documented order; says so on stderr where it falls back to the stub. What it warns of
    goes to stderr, too, and its `log` section holds from here on."""
    found = find_config(path, os.environ, Path.cwd())
    if found is not None:
        config = load_config(found)
        configure_logging(config.log.level, config.log.format)
        for warning in config.warnings:
            click.echo(f"spear: warning: {warning}", err=True)
        return config
    if not quiet:
        click.echo("spear: no configuration found; using the embedded stub (see `spear config init`)", err=True)
    return default_config()


class Seconds(click.FloatRange):
    """A number of seconds: finite, and not so large that a clock could not hold it."""

    name = "seconds"

    def __init__(self, *, min: float) -> None:  # noqa: A002 - click's own name
        super().__init__(min=min, max=1e9)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value} is not a number of seconds", param, ctx)
        return number


def print_json(value: object) -> None:
    click.echo(dump_json(value))


def printable(text: str) -> str:
    """A guest's text for a terminal: nothing that the terminal would obey, further lines set in, so that none of them
    looks like one of ours."""
    clean = (c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)
    return "".join(clean).replace("\n", "\n    ")


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned columns, cut to the terminal's width where there is one."""
    if not rows:
        return "(none)"
    widths = [max(len(row[i]) for row in (headings, *rows)) for i in range(len(headings))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (headings, ["─" * width for width in widths], *rows)
    ]
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
        lines = [line if len(line) <= width else line[: width - 1] + "…" for line in lines]
    return "\n".join(lines)


@asynccontextmanager
async def progress(what: str, *, after: float = 1.0) -> AsyncIterator[Callable[[], None]]:
    """While the block runs longer than `after` seconds, show a line on stderr that says so, if stderr is a terminal.

    Yields a function that ends the display early: call it before printing something else.
    """
    if not sys.stderr.isatty():
        yield lambda: None
        return
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()
        nursery.start_soon(_spin, what, after, scope)
        try:
            yield scope.cancel
        except Exception as error:  # noqa: BLE001 - carried out of the nursery bare, then raised
            failure = error
        finally:
            scope.cancel()
    if failure is not None:
        raise failure


async def _spin(what: str, after: float, scope: trio.CancelScope) -> None:
    began = trio.current_time()
    shown = False
    try:
        with scope:
            await trio.sleep(after)
            turn = 0
            while True:
                shown = True
                seconds = trio.current_time() - began
                click.echo(f"\r\x1b[K{_SPINNER[turn % len(_SPINNER)]} {what} · {seconds:.0f} s", err=True, nl=False)
                turn += 1
                await trio.sleep(0.1)
    finally:
        if shown:
            click.echo("\r\x1b[K", err=True, nl=False)
