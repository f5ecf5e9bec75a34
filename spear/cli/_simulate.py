"""spear simulate: a scenario in virtual time, its variants side by side."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spear.ir import ConfigError, Problem

from ._early import EXIT_FAILED
from ._output import json_option, print_json, table
from ._signals import run_command

if TYPE_CHECKING:
    from spear.simulate import Scenario


@click.command()
@click.argument("scenario", metavar="SCENARIO", required=False)
@click.option(
    "--policy", "policies", multiple=True, metavar="NAME", help="Only this variant or policy; may be repeated."
)
@click.option("--requests", type=click.IntRange(1, 100_000_000), help="Instead of the scenario's.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="Instead of the scenario's.")
@click.option("--workers", type=click.IntRange(1, 256), help="Processes at a time.")
@click.option("--plot", "plot_to", type=click.Path(path_type=Path, dir_okay=False), help="Draw a figure: .png or .svg.")
@click.option("--list", "list_them", is_flag=True, help="Show the scenarios that come with Spear.")
@json_option
def simulate(
    scenario: str | None,
    policies: tuple[str, ...],
    requests: int | None,
    seed: int | None,
    workers: int | None,
    plot_to: Path | None,
    list_them: bool,
    as_json: bool,
) -> None:
    """Run SCENARIO (a .toml file, or the name of one that comes with Spear) in virtual time and compare its variants.

    The router, its breakers, retries and limits are the real ones; the backends and the callers are modelled. The same
    seed gives the same result. Nothing is contacted.
    """
    from spear.simulate import Job, WorkerFailed, find_scenario, parse_scenario, run_jobs, shipped

    if list_them:
        _list(as_json)
        return
    if scenario is None:
        raise click.UsageError(f"give a scenario: a file, or one of {', '.join(shipped())}")
    if plot_to is not None:
        _check_plot(plot_to)

    async def main() -> int:
        path = find_scenario(scenario)
        text = _text(path)
        found = parse_scenario(text.encode(), file=str(path), folder=path.parent, only=policies)
        if found.left_out:
            click.echo(f"spear: not simulated, as it reaches outside: {', '.join(found.left_out)}", err=True)
        jobs = [Job(path, text, each.name, seed, requests) for each in found.variants]
        try:
            with _progress(len(jobs), requests or found.requests) as progress:
                results = await run_jobs(jobs, workers=workers or os.cpu_count() or 1, progress=progress)
        except WorkerFailed as error:
            click.echo(f"spear: {error}", err=True)
            return EXIT_FAILED
        if as_json:
            print_json({"scenario": found.name, "seed": found.seed if seed is None else seed, "variants": results})
        else:
            _print(found, results, found.seed if seed is None else seed)
        if plot_to is not None:
            from spear.simulate._plot import plot

            plot(found, results, plot_to)
            click.echo(f"spear: wrote {plot_to}", err=True)
        return 0

    run_command(main)


def _text(path: Path) -> str:
    """As it is now: the workers get the same."""
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        reason = "is not UTF-8, which TOML has to be"
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
    raise ConfigError([Problem(str(path), 0, "", reason)])


def _list(as_json: bool) -> None:
    from spear.simulate import read_scenario, shipped

    found = [read_scenario(path) for path in shipped().values()]
    if as_json:
        print_json({"scenarios": [{"name": each.name, "title": each.title, "about": each.about} for each in found]})
    else:
        click.echo(table(("name", "what happens"), [(each.name, each.about) for each in found]))


def _check_plot(path: Path) -> None:
    """Before anything runs: what would fail at the end."""
    from spear._extras import MissingExtra
    from spear.simulate import check_plot

    try:
        check_plot(path)
    except MissingExtra as error:
        raise click.UsageError(f"--plot needs matplotlib: {error}") from None
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _print(scenario: Scenario, results: list[dict[str, Any]], seed: int) -> None:
    from spear.simulate import COLUMNS, shares, summary, troubles

    click.echo(f"{scenario.title}: {results[0]['arrivals']} requests, seed {seed}\n")
    click.echo(table(COLUMNS, summary(results)))
    headings, rows = shares(results)
    click.echo("\n" + table(headings, rows))
    if found := troubles(results):
        click.echo("\n" + table(("variant", "trouble", "times"), found))


@contextmanager
def _progress(variants: int, requests: int | None) -> Iterator[Callable[[str, int], None]]:
    """A line on stderr, if that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda variant, arrived: None
        return
    done: dict[str, int] = {}

    def show(variant: str, arrived: int) -> None:
        done[variant] = arrived
        of = "" if requests is None else f" of {variants * requests}"
        click.echo(f"\r\x1b[K{sum(done.values())}{of} requests simulated", err=True, nl=False)

    try:
        yield show
    finally:
        click.echo("\r\x1b[K", err=True, nl=False)
