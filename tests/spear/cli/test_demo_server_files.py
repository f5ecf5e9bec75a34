"""What a wheel carries for `spear demo`: the server's program and every module of the test servers that it imports."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from spear.backends import _kinds
from spear.cli._main import main

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


def test_a_build_without_its_kinds_is_told_first(monkeypatch: pytest.MonkeyPatch) -> None:
    path = "spear.cli._demo.find_kind"

    def find(name: str) -> object:
        raise _kinds._not_enabled(f"kind {name!r} is not built in")

    monkeypatch.setattr(path, find)
    done = CliRunner().invoke(main, ["demo"], prog_name="spear")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "kind 'stub' is not built in" in done.stderr
