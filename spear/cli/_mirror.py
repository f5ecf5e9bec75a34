"""spear mirror report: what the records of mirrored requests come to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ._output import file_name, json_option, print_json, printable, table

if TYPE_CHECKING:
    from spear.router.mirrors import Group, Summary

_HEADINGS = ("primary", "mirror", "model", "n", "errors", "alike", "p10", "tools", "args", "schema", "time", "cost")
_LEGEND = """\
alike, p10   similarity of the texts, 0 to 1: median and 10th percentile
tools, args  of the answers with tool calls: same names; same arguments, too
schema       mirror's answers that are the JSON that was asked for
time, cost   mirror / primary: median of the times; sums of the costs
-            no record says anything of it"""


@click.group()
def mirror() -> None:
    """Read the records of mirrored requests."""


@mirror.command()
@click.argument(
    "paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@json_option
def report(paths: tuple[Path, ...], as_json: bool) -> None:
    """Summarize the records in PATH, by primary, mirror and model.

    PATH is the file that `mirrors.path` names; give its older ones (PATH.1, PATH.2, …) as well. Lines that are no
    records are counted and named, and left out.
    """
    from spear.router.mirrors import Summary, read_lines

    summary = Summary()
    for path in paths:
        try:
            with path.open("rb") as file:
                summary.read(file_name(path), read_lines(file))
        except OSError as error:
            raise click.ClickException(f"{printable(file_name(path))}: {error.strerror}") from None
    if as_json:
        print_json(summary.as_json())
    else:
        _print(summary)


def _print(summary: Summary) -> None:
    groups = summary.groups
    if groups:
        click.echo(table(_HEADINGS, [_row(each) for each in groups]))
        click.echo("\n" + _LEGEND)
        worst = [
            (each.primary, each.mirror, f"{found.similarity:.2f}", found.request_id)
            for each in groups
            for found in each.worst
            if found.similarity < 1
        ]
        if worst:
            rows = [[_cell(cell) for cell in row] for row in worst]
            click.echo("\nthe least alike:\n" + table(("primary", "mirror", "alike", "request"), rows))
    else:
        click.echo("no records")
    for bad in summary.bad:
        click.echo(f"spear: {printable(bad.file)}:{bad.line}: {printable(bad.why)}", err=True)
    if summary.bad_lines:
        click.echo(f"spear: {summary.bad_lines} line(s) are no records and were left out", err=True)


def _row(group: Group) -> list[str]:
    found = group.as_json()
    return [
        _cell(group.primary),
        _cell(group.mirror),
        _cell(group.model) or "any",
        str(group.n),
        str(group.errors),
        *(_number(found[key], "{:.2f}") for key in ("similarity_median", "similarity_p10")),
        *(_number(found[key], "{:.0%}") for key in ("tool_names_equal", "tool_arguments_equal", "mirror_schema_valid")),
        *(_number(found[key], "{:.2f}×") for key in ("latency_ratio", "cost_ratio")),
    ]


def _cell(text: str) -> str:
    """A file's text on one line."""
    return printable(" ".join(text.split()))


def _number(value: object, form: str) -> str:
    return "-" if value is None else form.format(value)
