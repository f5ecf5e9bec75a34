"""Mirroring in a configuration: what it means, and how each mistake is reported."""

from __future__ import annotations

from pathlib import Path

import pytest

import spear
from spear.config import Config, Mirror, MirrorLimits, load_config
from spear.ir import ConfigError
from spear.router import build_generation

BACKENDS = """\
[[spear.backends]]
name = "a"
kind = "stub"
hosting = "local"

[[spear.backends]]
name = "b"
kind = "stub"
hosting = "local"
"""
FULL = (
    BACKENDS
    + """
[spear.mirrors]
max_inflight = 2
max_waiting = 0
timeout_s = "1m"
requests_per_minute = 10
path = "records/m.jsonl"
max_bytes = 8192
files = 2
keep = 5
content = true
content_chars = 20
max_payload_bytes = 1000

[[spear.routes]]
mirror = { to = "b", percent = 2.5, compare = false }
"""
)


def load(folder: Path, text: str) -> Config:
    (folder / "spear.toml").write_text(text)
    config = load_config(folder / "spear.toml")
    build_generation(config)
    return config


def problems(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(folder, text)
    return [f"{each.line} {each.key}: {each.message}" for each in caught.value.problems]


def test_everything_that_can_be_said(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    config = load(tmp_path, FULL)
    assert config.routes[0].mirror == Mirror(to="b", percent=2.5, compare=False)
    assert config.mirrors == MirrorLimits(
        max_inflight=2, max_waiting=0, timeout_s=60.0, requests_per_minute=10, path=tmp_path / "records/m.jsonl",
        max_bytes=8192, files=2, keep=5, content=True, content_chars=20, max_payload_bytes=1000,
    )  # fmt: skip


def route(mirror: str, more: str = "") -> str:
    return f"{BACKENDS}\n[[spear.routes]]\n{more}\nmirror = {mirror}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (route("{ percent = 1 }"), "13 spear.routes[0].mirror.to: is missing"),
        (route("{ to = 'b' }"), "13 spear.routes[0].mirror.percent: is missing"),
        (
            route("{ to = 'c', percent = 1 }"),
            "13 spear.routes[0].mirror.to: is not among [[spear.backends]]; there are",
        ),
        (route("{ to = 'b', percent = 101 }"), "13 spear.routes[0].mirror.percent: is 101; expected at most 100"),
        (route("{ to = 'b', percent = -1 }"), "13 spear.routes[0].mirror.percent: is -1; expected at least 0"),
        (
            route("{ to = 'b', percent = 1, comprae = true }"),
            'mirror.comprae: is not a known key; did you mean "compare"?',
        ),
        (route("'b'"), "13 spear.routes[0].mirror: is a string; expected a table"),
        (route("{ to = 5, percent = 1 }"), "13 spear.routes[0].mirror.to: is 5; expected a string"),
        (
            route("{ to = 'b', percent = 1 }", "match = { operation = 'embeddings' }"),
            "13 spear.routes[0].mirror: to: b does not do embeddings; it does chat_completions",
        ),
        (
            route("{ to = 'b', percent = 1 }").replace(
                'local"\n\n[[spear.routes', 'local"\nlimits = { max_inflight = 1, max_queue = 0 }\n[[spear.routes'
            ),
            "spear.routes[0].mirror: to: b takes one request at a time and lets none wait",
        ),
        (
            route("{ to = 'b', percent = 1 }") + "[spear.mirrors]\nmax_cost_per_hour = 1",
            "13 spear.routes[0].mirror: to: b has no price, so that mirrors.max_cost_per_hour cannot be kept",
        ),
        ("[spear.mirrors]\npath = ''", "2 spear.mirrors.path: is empty or no path"),
        ("[spear.mirrors]\npath = 5", "2 spear.mirrors.path: is 5; "),
        ("[spear.mirrors]\nmax_inflight = 0", "2 spear.mirrors.max_inflight: is 0; expected at least 1"),
        ("[spear.mirrors]\ntimeout_s = 0", "2 spear.mirrors.timeout_s: is 0; expected more than 0"),
        ("[spear.mirrors]\nmax_cost_per_hour = 0", "2 spear.mirrors.max_cost_per_hour: is 0; expected more than 0"),
        ("[spear.mirrors]\nfiles = 0", "2 spear.mirrors.files: is 0; expected at least 1"),
        ("[spear.mirror]\nfiles = 1", '1 spear.mirror: is not a known key; did you mean "mirrors"?'),
    ],
)
def test_every_mistake_is_named(text: str, expected: str, tmp_path: Path) -> None:
    found = problems(tmp_path, text)
    assert len(found) == 1, found
    assert expected in found[0]


async def test_a_file_that_cannot_be_written_is_a_problem_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    config = load(tmp_path, FULL)
    (tmp_path / "records").rmdir()
    with pytest.raises(ConfigError) as caught:
        async with spear.open_runtime(config):
            pytest.fail("it started")
    (problem,) = caught.value.problems
    assert problem.key == "spear.mirrors.path"
    assert "records/m.jsonl cannot be written: No such file or directory" in problem.message
    assert problem.line == 11
