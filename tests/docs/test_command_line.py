"""The page on the command line has every command, option and default that click has, and no other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import click
import pytest

from spear.cli import _early, _run, _signals
from spear.cli._main import main as group
from tests.docs._pages import DOCS, rows, section

TEXT: Final = (DOCS / "reference" / "command-line.md").read_text(encoding="utf-8")


def commands(of: click.Group = group, path: str = "spear") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(of)
    for name in of.list_commands(context):
        command = of.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


COMMANDS: Final = dict(commands())


def described(name: str) -> dict[frozenset[str], list[str]]:
    """The option table of a command's section: its names, and the row."""
    found = {}
    for row in rows(section(TEXT, f"## {name}")):
        names = re.findall(r"`(-[-\w]+)", row[0])
        if names:
            found[frozenset(names)] = row
    return found


def test_the_commands() -> None:
    assert re.findall(r"^## (spear .*)$", TEXT, re.M) == list(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_usage_line(name: str) -> None:
    pieces = COMMANDS[name].collect_usage_pieces(click.Context(COMMANDS[name]))
    assert f"`{' '.join([name, *pieces])}`" in section(TEXT, f"## {name}").splitlines()


@pytest.mark.parametrize("name", COMMANDS)
def test_the_options_and_their_defaults(name: str) -> None:
    options = {frozenset(each.opts): each for each in COMMANDS[name].params if isinstance(each, click.Option)}
    table = described(name)
    assert table.keys() == options.keys()
    for names, option in options.items():
        default = table[names][1]
        if option.is_flag:
            assert default == "", f"{sorted(names)} is a flag"
        else:
            assert default, f"{sorted(names)} has no default in the page"
            if isinstance(option.default, int | float):
                assert default == f"{option.default:g}"


def test_the_exit_codes() -> None:
    named = {row[0] for row in rows(TEXT.partition("## spear run")[0])}
    ours = {
        _signals.EXIT_FAILED,
        _signals.EXIT_USAGE,
        _early.EXIT_INTERRUPTED,
        _run.EXIT_TIMEOUT,
        _run.EXIT_TRAP,
        _run.EXIT_NOT_A_MODULE,
    }
    assert named == {"0", "other", *map(str, ours)}
