"""spear config check, diff, init."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from spear.config import FILE_NAME, Budget, Config, Route, default_config, find_config, load_config
from spear.ir import ConfigError, Problem

from ._config_diff import diff
from ._output import config_option, json_option, print_json, table
from ._signals import EXIT_USAGE

if TYPE_CHECKING:
    from spear.router import Generation, Instance


@click.group()
def config() -> None:
    """Check a configuration, compare two, or write a first one."""


@config.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@config_option
@json_option
@click.pass_context
def check(context: click.Context, file: Path | None, config_path: Path | None, as_json: bool) -> None:
    """Say what FILE means, or everything that is wrong with it.

    Without FILE: the one that every command would use. Starts nothing and connects to nothing; looks whether the
    variables and files of the credentials are there. Ends with 2 if anything is wrong.
    """
    from spear.router import build_generation

    found = find_config(file or config_path, os.environ, Path.cwd())
    try:
        loaded = load_config(found) if found is not None else default_config()
        generation = build_generation(loaded)
    except ConfigError as error:
        if as_json:
            print_json({"file": _name(found), "valid": False, "problems": [_fields(each) for each in error.problems]})
        else:
            click.echo(str(error), err=True)
            click.echo(f"spear: {len(error.problems)} problem(s); nothing would start", err=True)
        context.exit(EXIT_USAGE)
    if as_json:
        print_json(_as_json(found, loaded, generation))
    else:
        _print(found, loaded, generation)


@config.command()
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
@click.pass_context
def init(context: click.Context, force: bool) -> None:
    """Write a spear.toml into this folder that works at once, with examples of most other things."""
    from ._starter import starter_text

    text = starter_text()
    try:
        with Path(FILE_NAME).open("w" if force else "x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        click.echo(f"spear: {FILE_NAME} is here already; --force replaces it", err=True)
        context.exit(EXIT_USAGE)
    except OSError as error:
        click.echo(f"spear: {FILE_NAME} cannot be written: {error.strerror}", err=True)
        context.exit(EXIT_USAGE)
    click.echo(f'Wrote {FILE_NAME}. Try: spear config check, then: spear chat "hello"')


config.add_command(diff)


_SCOPES: Final = {"serving": "serving", "installed": "able to serve"}


def _name(found: Path | None) -> str | None:
    return str(found) if found is not None else None


def _print(found: Path | None, loaded: Config, generation: Generation) -> None:
    if found is None:
        click.echo("no configuration found: the embedded backends\n")
    else:
        click.echo(f"{found} (layout [{'spearlet.llm' if loaded.layout == 'spearlet' else 'spear'}])\n")
    rows = [_backend(each, loaded) for each in generation.instances]
    keys = ("name", "kind", "hosting", "model", "model_class", "weight", "priority", "credential", "state")
    headings = [{"name": "backend", "model_class": "class"}.get(key, key) for key in keys]
    click.echo(table(headings, [[str(row[key]) for key in keys] for row in rows]))
    if generation.skipped:
        skipped = [(each.name, each.kind, f"{each.reason}: {each.detail}") for each in generation.skipped]
        click.echo("\n" + table(("skipped", "kind", "reason"), skipped))
    if loaded.routes:
        routes = [
            (
                each.match.operation.value if each.match.operation else "any",
                each.match.model_class or "any",
                each.policy or "-",
                ", ".join(each.fallback) or "-",
                each.filter or "-",
                _hedge(each),
                f"{each.mirror.percent:g} % to {each.mirror.to}" if each.mirror else "-",
            )
            for each in loaded.routes
        ]
        headings = ["route: operation", "class", "policy", "fallback", "filter", "hedge", "mirror"]
        click.echo("\n" + _told(headings, routes, always=4))
    if loaded.budgets:
        budgets = [(each.name, each.per, f"{each.window:g} s", _bounds(each), each.degrade_to or "-") for each in
                   loaded.budgets]  # fmt: skip
        click.echo("\n" + table(("budget", "per", "window", "at most", "then"), budgets))
    if loaded.tasks:
        tasks = [
            (
                each.id,
                _rights(each.allow_operations),
                _rights(each.allow_backends),
                ", ".join(sorted(each.config)) or "-",
            )
            for each in loaded.tasks
        ]
        click.echo("\n" + table(("task", "operations", "backends", "config keys"), tasks))
    if loaded.discovery.ollama.enabled:
        click.echo(f"\nmodels that Ollama is {_SCOPES[loaded.discovery.ollama.scope]} become backends at start")
    for warning in loaded.warnings:
        click.echo(f"warning: {warning}", err=True)


def _told(headings: Sequence[str], rows: Sequence[Sequence[str]], always: int) -> str:
    """A table without the columns, the first `always` ones apart, that say nothing in any row."""
    kept = [index for index in range(len(headings)) if index < always or any(row[index] != "-" for row in rows)]
    return table([headings[index] for index in kept], [[row[index] for index in kept] for row in rows])


def _hedge(route: Route) -> str:
    if route.hedge is None:
        return "-"
    delay = route.hedge.delay
    after = "" if delay is None else f" after {delay if isinstance(delay, str) else f'{delay:g} s'}"
    return f"{100 * route.hedge.max_extra_load:g} %{after}"


def _bounds(budget: Budget) -> str:
    found = ((getattr(budget, name), name) for name in ("requests", "tokens", "cost"))
    return ", ".join(f"{name} {value:g}" for value, name in found if value is not None)


def _as_json(found: Path | None, loaded: Config, generation: Generation) -> dict[str, Any]:
    return {
        "file": _name(found),
        "valid": True,
        "layout": loaded.layout,
        "default_policy": loaded.default_policy,
        "backends": [_backend(each, loaded) for each in generation.instances],
        "skipped": [
            {
                "name": each.name,
                "kind": each.kind,
                "reason": each.reason,
                "detail": each.detail,
                "line": each.origin.line,
            }
            for each in generation.skipped
        ],
        "routes": [_route(each) for each in loaded.routes],
        "tasks": [
            {"id": each.id, "allow_operations": each.allow_operations, "allow_backends": each.allow_backends}
            for each in loaded.tasks
        ],
        "budgets": [each.model_dump(exclude={"origin"}) | {"line": each.origin.line} for each in loaded.budgets],
        "discovery": loaded.discovery.ollama.scope if loaded.discovery.ollama.enabled else None,
        "warnings": loaded.warnings,
    }


def _backend(instance: Instance, loaded: Config) -> dict[str, Any]:
    """What may be shown: neither the address nor the key."""
    written = instance.config
    present = {each.name: "present" if each.value else f"{each.source} missing" for each in loaded.credentials}
    keys = ", ".join(f"{name} ({present.get(name, 'missing')})" for name in written.credentials)
    return {
        "name": written.name,
        "kind": written.kind,
        "hosting": written.hosting.value,
        "model": written.model or ("any" if not written.answers_to else ""),
        "model_class": written.model_class or "",
        "weight": written.weight,
        "priority": written.priority,
        "credential": keys or "none",
        "state": instance.reason or ("drained" if written.weight == 0 else "ready"),
        "operations": [operation.value for operation in instance.capabilities.ops],
        "line": written.origin.line,
    }


def _route(route: Route) -> dict[str, Any]:
    return {
        "operation": route.match.operation.value if route.match.operation else None,
        "model_class": route.match.model_class,
        "policy": route.policy,
        "within_level": route.within_level,
        "spill": route.spill,
        "tau": route.tau,
        "hash_key": None if route.hash_key is None else list(route.hash_key),
        "load_bound": route.load_bound,
        "filter": route.filter,
        "hedge": None if route.hedge is None else route.hedge.model_dump(),
        "continuation": route.continuation,
        "on_exhausted": route.on_exhausted,
        "max_attempts": route.max_attempts,
        "allow_policies": list(route.allow_policies),
        "fallback": list(route.fallback),
        "mirror": None if route.mirror is None else route.mirror.model_dump(),
        "line": route.origin.line,
    }


def _fields(problem: Problem) -> dict[str, Any]:
    return {"file": problem.file, "line": problem.line, "key": problem.key, "message": problem.message}


def _rights(names: tuple[str, ...] | None) -> str:
    return "all" if names is None else ", ".join(names) or "none"
