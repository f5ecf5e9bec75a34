"""spear replay: recorded decisions, made again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from spear.config import load_config
from spear.ir import ConfigError
from spear.router import POLICIES, build_generation
from spear.router.record import NOBODY, Place, Replay, Skipped, Tally, Unreadable, in_order, read_records

from ._output import file_name, json_option, print_json, printable, table
from ._signals import EXIT_USAGE

_NAMED: Final = 20
"""Lines that cannot be read and are named one by one."""


@click.command()
@click.argument("files", metavar="DECISIONS.jsonl...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--policy", type=click.Choice(sorted(POLICIES)), help="Decide by this policy instead.")
@click.option("--config", "-c", "config_path", type=click.Path(path_type=Path), help="Decide by this file instead.")
@json_option
@click.pass_context
def replay(
    context: click.Context, files: tuple[Path, ...], policy: str | None, config_path: Path | None, as_json: bool
) -> None:
    """Make recorded decisions again: as they were, or by another policy or configuration. Nothing is sent.

    Without options every decision has to come out the same, bit for bit. Ends with 1 if one does not, or if there was
    none to replay. Lines that are no records are named and passed over.
    """
    try:
        other = None if config_path is None else build_generation(load_config(config_path))
    except ConfigError as error:
        click.echo(str(error), err=True)
        context.exit(EXIT_USAGE)
    again, tally, unreadable = Replay(policy, other), Tally(), 0
    try:
        for result in _results(again, files, tally):
            unreadable += 1
            if unreadable <= _NAMED:
                click.echo(f"spear: {printable(str(result))}", err=True)
    except OSError as error:
        click.echo(f"spear: {printable(str(error.filename))}: {error.strerror}", err=True)
        context.exit(EXIT_USAGE)
    if unreadable > _NAMED:
        click.echo(f"spear: … and {unreadable - _NAMED} more lines that cannot be read", err=True)
    if as_json:
        print_json({**tally.as_json(), "unreadable": unreadable})
    elif again.as_it_was:
        _print_same(tally)
    else:
        _print_other(tally)
    if tally.decisions == 0 or (again.as_it_was and tally.different):
        context.exit(1)


def _results(again: Replay, files: tuple[Path, ...], tally: Tally) -> Iterator[Unreadable]:
    """What cannot be replayed because it is broken; the rest goes to `tally`."""
    for path in in_order(files):
        with path.open("rb") as file:
            for found in read_records(file, file_name(path)):
                result = found if isinstance(found, Unreadable) else again.take(Place(*found[0]), found[1])
                if isinstance(result, Unreadable):
                    yield result
                elif isinstance(result, Skipped):
                    tally.skip(result)
                elif result is not None:
                    tally.add(result)


def _print_same(tally: Tally) -> None:
    click.echo(f"{_decisions(tally.decisions - tally.different)} reproduced{_skipped(tally)}")
    if tally.different:
        click.echo(f"{_decisions(tally.different)} came out differently:\n")
        rows = [
            (
                str(each.place),
                each.record.request_id,
                ", ".join(each.differs),
                str(each.then.get("chosen")),
                str(each.now.get("chosen")),
            )
            for each in tally.differences
        ]
        shown = [tuple(printable(cell) for cell in row) for row in rows]
        click.echo(table(("where", "request", "differs in", "chosen then", "chosen now"), shown))
        if tally.different > len(rows):
            click.echo(f"… and {tally.different - len(rows)} more")


def _print_other(tally: Tally) -> None:
    count = tally.decisions
    share = f" ({tally.elsewhere / count:.1%})" if count else ""
    click.echo(f"{_decisions(count)}{_skipped(tally)}; {tally.elsewhere}{share} choose differently\n")
    names = sorted({*tally.then, *tally.now}, key=lambda name: (name == NOBODY, -tally.then[name], name))
    click.echo(
        table(
            ("chosen", "then", "share", "now", "share"),
            [
                (printable(name), str(tally.then[name]), _share(tally.then[name], count),
                 str(tally.now[name]), _share(tally.now[name], count))
                for name in names
            ],
        )
    )  # fmt: skip
    reasons = sorted({*tally.rejected_then, *tally.rejected_now})
    if reasons:
        rows = [(printable(why), str(tally.rejected_then[why]), str(tally.rejected_now[why])) for why in reasons]
        click.echo("\n" + table(("rejected", "then", "now"), rows))
    estimates = []
    if count := tally.latency_s.decisions:
        then, now = tally.latency_s.then / count, tally.latency_s.now / count
        estimates.append(("mean latency, s", f"{then:.6f}", f"{now:.6f}", str(count)))
    if count := tally.cost.decisions:
        estimates.append(("cost in all", f"{tally.cost.then:.6g}", f"{tally.cost.now:.6g}", str(count)))
    if estimates:
        click.echo("\n" + table(("estimate", "then", "now", "of decisions"), estimates))
    if tally.unknown:
        click.echo(
            f"\nnot in the records, taken to be idle and well: {', '.join(map(printable, sorted(tally.unknown)))}"
        )


def _decisions(count: int) -> str:
    return f"{count} decision" if count == 1 else f"{count} decisions"


def _skipped(tally: Tally) -> str:
    return f", {tally.skipped} recorded without what they read" if tally.skipped else ""


def _share(count: int, of: int) -> str:
    return f"{count / of:.1%}" if of else ""
