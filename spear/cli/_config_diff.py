"""spear config diff: what a reload would do, without doing it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from spear.config import Config, GuestLimits, InstanceConfig, RouterLimits, load_config
from spear.ir import ConfigError

from ._output import json_option, print_json, table
from ._signals import EXIT_USAGE

if TYPE_CHECKING:
    from spear.router import Generation, Instance, Succession

_PLAIN: Final = frozenset({"weight", "priority", "model", "model_class", "region", "kind", "hosting"})
"""Keys whose values may be shown; of the others only that they differ."""


@click.command()
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@json_option
@click.pass_context
def diff(context: click.Context, old: Path, new: Path, as_json: bool) -> None:
    """Say what a running Spear would do on a reload from OLD to NEW: which backends it would start, replace, adjust,
    keep and drain, and which other settings differ.

    Starts nothing and connects to nothing. Keys are looked up as they are here and now, so that one that has changed
    since is not seen. Ends with 2 if anything is wrong in either file.
    """
    from spear._reload import changed_settings, not_applied
    from spear.router import succeed

    before, after = _load(context, old), _load(context, new)
    succession = succeed(before, after)
    rows = _rows(before, succession)
    settings = changed_settings(before.config, after.config)
    fixed = list(not_applied(*_started(before.config), after.config))
    if as_json:
        print_json({"backends": rows, "settings": list(settings), "not_applied": fixed})
        return
    click.echo(table(("backend", "reload", "because"), [(row["name"], row["action"], row["because"]) for row in rows]))
    click.echo(f"\nother settings that differ: {', '.join(settings) or 'none'}")
    for each in fixed:
        click.echo(f"not applied by a reload: {each}")


def _started(config: Config) -> tuple[RouterLimits, GuestLimits, bool]:
    return config.router, config.guests, config.tracing


def _load(context: click.Context, path: Path) -> Generation:
    from spear.router import build_generation

    try:
        return build_generation(load_config(path))
    except ConfigError as error:
        click.echo(str(error), err=True)
        context.exit(EXIT_USAGE)


def _rows(before: Generation, succession: Succession) -> list[dict[str, Any]]:
    """In the order of the new file, what leaves last."""
    actions = {each.name: "start" for each in succession.added}
    actions |= {each.name: "replace" for each in succession.changed}
    actions |= {each.name: "adjust" for each, _ in succession.adjusted}
    after = {each.name: each for each in succession.generation.instances}
    written = {each.name: each for each in succession.generation.config.backends}
    rows = []
    for name in after:
        action = actions.get(name, "keep")
        known = before.by_name.get(name)
        because = ""
        if action == "start":
            because = "new" if after[name].reason is None else f"not started: {after[name].reason}"
        elif action != "keep" and known is not None:
            because = _differences(known, after[name], written[name], before.config, succession.generation.config)
        rows.append({"name": name, "action": action, "because": because})
    return rows + [{"name": name, "action": "drain", "because": "not in the new file"} for name in succession.removed]


def _differences(old: Instance, new: Instance, written: InstanceConfig, before: Config, after: Config) -> str:
    found = []
    for key in InstanceConfig.model_fields:
        then, now = getattr(old.config, key), getattr(written, key)
        if key != "origin" and then != now:
            found.append(f"{key} {then} → {now}" if key in _PLAIN else key)
    if old.keys != new.keys and "credentials" not in found:
        found.append("the value of its key")
    if (old.max_inflight, old.max_queue) != (new.max_inflight, new.max_queue) and "limits" not in found:
        found.append("router.max_inflight or max_queue")
    if before.debug_raw != after.debug_raw:
        found.append("debug_raw")
    return ", ".join(found) or "what its kind can do"
