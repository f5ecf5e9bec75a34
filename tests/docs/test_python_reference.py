"""The page on Python lists the public names of each door, all and only these."""

from __future__ import annotations

import importlib
import re
from types import FunctionType

import pytest

from tests.checks.public_api import DOORS, describe
from tests.docs._pages import DOCS, rows, section

TEXT = (DOCS / "reference" / "python.md").read_text(encoding="utf-8")
OWN = tuple(door for door in DOORS if door.startswith("spear"))


def listed(door: str) -> list[str]:
    cells = (row[0] for row in rows(section(TEXT, f"## {door}")))
    return [name for cell in cells for name in re.findall(r"`([\w.]+)", cell)]


def promised(door: str) -> set[str]:
    names = {line.removeprefix(f"{door}.") for line in describe(door)}
    module = importlib.import_module(door)
    if hasattr(module, "__all__"):
        return names
    if hasattr(module, "__path__"):
        return names
    # A plain module without a list of its own exports what it defines, not what it imports.
    own = (type, FunctionType)
    values = {name: getattr(module, name.partition(".")[0]) for name in names}
    return {name for name, value in values.items() if isinstance(value, own) and value.__module__ == door}


@pytest.mark.parametrize("door", OWN)
def test_every_name_is_listed_once(door: str) -> None:
    names = listed(door)
    assert len(names) == len(set(names))
    assert set(names) == promised(door)
