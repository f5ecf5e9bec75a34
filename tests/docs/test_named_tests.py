"""The tests that the documentation names are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"`((?:tests|benchmarks)/[\w/]+\.py)(?:::(\w+))?`")
FOUND = [
    (str(page.relative_to(ROOT)), *match.groups())
    for page in sorted((ROOT / "docs").rglob("*.md"))
    for match in NAMED.finditer(page.read_text(encoding="utf-8"))
]


def test_some_are_named():
    assert len(FOUND) > 10


@pytest.mark.parametrize(("page", "path", "name"), FOUND)
def test_it_is_there(page: str, path: str, name: str | None):
    source = ROOT / path
    assert source.is_file(), f"{page} names {path}"
    if name is not None:
        tree = ast.parse(source.read_text(encoding="utf-8"))
        defined = {each.name for each in ast.walk(tree) if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert name in defined, f"{page} names {name}"
