"""spear simulate, as people meet it: real worker processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.spear.cli.command import spear
from tests.spear.simulate.small import text

TWO = """
[[simulate.compare]]
name = "even"
policy = "weighted_random"
[[simulate.compare]]
name = "late"
policy = "peak_ewma"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(text(60, more=TWO))
    return path


def test_a_table_for_people(file: Path) -> None:
    result = spear("simulate", file, cwd=file.parent)
    assert result.code == 0, result.err
    assert result.out.startswith("mine: 60 requests, seed 7\n")
    assert [line.split()[0] for line in result.out.splitlines()[4:6]] == ["even", "late"]
    assert "share of answers" in result.out


def test_json_is_the_same_for_the_same_seed(file: Path) -> None:
    first, second = (spear("simulate", file, "--json", "--workers", workers, cwd=file.parent) for workers in (1, 2))
    assert first.json == second.json
    assert first.out == second.out
    assert [each["name"] for each in first.json["variants"]] == ["even", "late"]
    other = spear("simulate", file, "--json", "--seed", 8, cwd=file.parent)
    assert other.json["seed"] == 8
    assert other.json["variants"] != first.json["variants"]


def test_some_variants_fewer_requests(file: Path) -> None:
    result = spear(
        "simulate", file, "--policy", "late", "--policy", "cheapest", "--requests", 50, "--json", cwd=file.parent
    )
    assert [(each["name"], each["arrivals"]) for each in result.json["variants"]] == [("late", 50), ("cheapest", 50)]


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_a_figure(file: Path, suffix: str) -> None:
    pytest.importorskip("matplotlib")
    path = file.with_suffix(suffix)
    written = []
    for _ in range(2):
        result = spear("simulate", file, "--plot", path, "--policy", "late", cwd=file.parent)
        assert result.code == 0, result.err
        written.append(path.read_bytes())
    assert written[0] == written[1]
    assert written[0].startswith(b"\x89PNG" if suffix == ".png" else b"<?xml")
    if suffix == ".svg":
        assert b"nan" not in written[0].lower()


def test_without_matplotlib_the_table_still_prints(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    refused = spear("simulate", file, "--plot", file.with_suffix(".png"), cwd=file.parent)
    assert refused.code == 2
    assert "spear-runtime[simulate]" in refused.err
    assert spear("simulate", file, cwd=file.parent).code == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "give a scenario: a file, or one of brown_out"),
        (("brownout",), 'did you mean "brown_out"?'),
        (("missing.toml",), "missing.toml: cannot be read"),
        (("mine.toml", "--policy", "lat"), 'did you mean "late"?'),
        (("mine.toml", "--plot", "x.gif"), "expected a name that ends in .png or .svg"),
        (("mine.toml", "--requests", "0"), "0 is not in the range"),
    ],
)
def test_usage(file: Path, arguments: tuple[str, ...], says: str) -> None:
    result = spear("simulate", *arguments, cwd=file.parent)
    assert result.code == 2
    assert says in result.err
    assert "Traceback" not in result.err


def test_the_list(tmp_path: Path) -> None:
    assert "tail_latency" in spear("simulate", "--list", cwd=tmp_path).out
    listed = json.loads(spear("simulate", "--list", "--json", cwd=tmp_path).out)
    assert {"name", "title", "about"} == set(listed["scenarios"][0])


def test_a_worker_that_dies_is_said(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own last words, not a silent empty table."""
    monkeypatch.setattr("spear.simulate._workers.sys.executable", "/bin/false")
    result = spear("simulate", file, cwd=file.parent)
    assert result.code == 1
    assert "the worker ended with status 1" in result.err
