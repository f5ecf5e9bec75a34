"""What people see: tables, the progress line, and the options that commands share."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import shutil
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import trio

from spear.config import Config, default_config, find_config, load_config
from spear.ir import dump_json
from spear.telemetry import configure_logging

MAX_STDIN: Final = 64 * 1024 * 1024
F = TypeVar("F", bound=Callable[..., Any])
_SPINNER: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


def config_option(command: F) -> F:
    return click.option(
        "--config", "-c", "config_path", type=click.Path(path_type=Path), help="The configuration file (TOML)."
    )(command)


def json_option(command: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")(command)


def choose_config(path: Path | None, *, quiet: bool = False) -> Config:
    """The configuration by the documented order; says so on stderr where it falls back to the embedded
    backends. What it warns of
    goes to stderr, too, and its `log` section holds from here on."""
    found = find_config(path, os.environ, Path.cwd())
    if found is not None:
        config = load_config(found)
        configure_logging(config.log.level, config.log.format)
        if config.warnings and not quiet:
            many = f"{len(config.warnings)} warnings" if len(config.warnings) > 1 else "a warning"
            click.echo(f"spear: {many} about {found}; `spear config check` shows what", err=True)
        return config
    if not quiet:
        click.echo("spear: no configuration found; using the embedded backends (see `spear config init`)", err=True)
    return default_config()


def read_stdin() -> bytes:
    """All of it, within what any request takes: a program that writes for ever must not fill the memory."""
    data = sys.stdin.buffer.read(MAX_STDIN + 1)
    if len(data) > MAX_STDIN:
        raise click.BadParameter(f"standard input has more than {MAX_STDIN} bytes, which is the most")
    return data


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
    """The same value whatever is in it, and nothing that a terminal would obey: that is spelled out."""
    text = dump_json(value).decode()
    if not text.isprintable():  # JSON itself leaves what is beyond ASCII as it is
        text = "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)
    click.echo(text)


def printable(text: str) -> str:
    """A guest's text for a terminal: nothing that the terminal would obey, further lines set in, so that none of them
    looks like one of ours."""
    clean = (c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)
    return "".join(clean).replace("\n", "\n    ")


_OBEYED: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")


def shown(text: str) -> str:
    """A model's text as it is; on a terminal without what that would obey."""
    if not sys.stdout.isatty():
        return text
    return _OBEYED.sub(lambda match: match.group().encode("unicode_escape").decode(), text)


def file_name(path: Path) -> str:
    """For a message or JSON: a name that is no UTF-8 is spelled out."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned columns. Where they are wider than the terminal, a block of lines for each row instead, so that
    nothing is cut off."""
    if not rows:
        return "(none)"
    widths = [max(len(row[i]) for row in (headings, *rows)) for i in range(len(headings))]
    if sys.stdout.isatty() and sum(widths) + 2 * len(widths) - 2 > shutil.get_terminal_size().columns:
        label = max(map(len, headings))
        room = shutil.get_terminal_size().columns - label - 2
        blocks = (
            [f"{name.ljust(label)}  {_folded(cell, room)}" for name, cell in zip(headings, row, strict=True) if cell]
            for row in rows
        )
        return "\n\n".join("\n".join(block) for block in blocks)
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (headings, ["─" * width for width in widths], *rows)
    )
    return "\n".join(lines)


def _folded(cell: str, room: int) -> str:
    """Broken between words, further lines set in as far; a word that is too long stays whole, to be copied."""
    lines = textwrap.wrap(cell, max(20, room), break_long_words=False, break_on_hyphens=False)
    return ("\n" + " " * (shutil.get_terminal_size().columns - room)).join(lines)


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
        spinner = _Spinner(what, after)
        nursery.start_soon(spinner.run)
        try:
            yield spinner.end
        except Exception as error:  # noqa: BLE001 - carried out of the nursery bare, then raised
            failure = error
        finally:
            spinner.end()
    if failure is not None:
        raise failure


class _Spinner:
    def __init__(self, what: str, after: float) -> None:
        self._what = what
        self._after = after
        self._scope = trio.CancelScope()
        self._shown = False

    async def run(self) -> None:
        with self._scope:
            began = trio.current_time()
            await trio.sleep(self._after)
            for turn in itertools.count():
                seconds = trio.current_time() - began
                sign = _SPINNER[turn % len(_SPINNER)]
                self._shown = True
                click.echo(f"\r\x1b[K{sign} {self._what} · {seconds:.0f} s", err=True, nl=False)
                await trio.sleep(0.1)

    def end(self) -> None:
        """Take the line away at once: the caller is about to print."""
        self._scope.cancel()
        if self._shown:
            self._shown = False
            click.echo("\r\x1b[K", err=True, nl=False)
