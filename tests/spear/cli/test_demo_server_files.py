"""What a wheel carries for `spear demo`: the server's program and every module of the test servers that it imports."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[3]


def imported(path: Path) -> set[Path]:
    """The files of tests/servers that this one needs."""
    modules = (node.module for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.ImportFrom))
    return {ROOT / f"{each.replace('.', '/')}.py" for each in modules if each and each.startswith("tests.servers.")}


def test_the_wheel_has_all_that_the_demo_server_imports() -> None:
    needed: set[Path] = set()
    open_ = {ROOT / "tests/servers/openai_server.py"}
    while open_:
        needed |= open_
        open_ = {other for each in open_ for other in imported(each)} - needed
    assert len(needed) > 3
    built = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]["targets"]["wheel"]
    carried = {ROOT / each for each in built["force-include"]}
    assert carried == needed
