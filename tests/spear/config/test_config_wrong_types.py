"""A value of every wrong kind under every key that can be written: said with line and key, on one plain line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spear.config import load_config
from spear.ir import ConfigError, Problem
from spear.router import build_generation

WHOLE = """\
[spear]
default_policy = "peak_ewma"
[spear.mirrors]
max_inflight = 4
path = "m.jsonl"
[spear.decisions]
path = "d.jsonl"
[spear.redis]
url = "redis://localhost:1/0"
[spear.retries]
backoff_s = 1
[spear.keys]
cool_s = 1
[[spear.credentials]]
name = "k"
env = "K"
limits = {{ rpm = 100 }}
[[spear.backends]]
name = "a"
kind = "stub"
hosting = "local"
model_class = "c"
credentials = ["k"]
limits = {{ rpm = 100 }}
price = {{ input = 1.0 }}
probe = {{ every = 30 }}
[[spear.backends]]
name = "b"
kind = "stub"
hosting = "local"
model_class = "d"
price = {{ input = 1.0 }}
[[spear.filters]]
name = "f"
kind = "http"
url = "http://localhost:1/f"
hosting = "local"
content = {{ max_bytes = 100 }}
[[spear.routes]]
match = {{ operation = {operation} }}
policy = "priority"
filter = {filter}
fallback = ["d"]
within_level = "weighted_random"
hedge = {hedge}
continuation = "prefill"
mirror = {{ to = {to}, percent = 5.0 }}
[[spear.tasks]]
id = "t"
allow_backends = ["a"]
[[spear.budgets]]
name = "x"
window = {window}
per = {per}
match = {{ backend = "a" }}
requests = 100
degrade_to = "d"
"""
RIGHT = {
    "operation": '"chat_completions"', "filter": '"f"', "hedge": "{ delay = 1 }", "to": '"b"', "window": "60",
    "per": '"task"',
}  # fmt: skip
WRONG = ["[]", "[1]", '["x"]', "{}", "{ a = 1 }", "true", "-1", "5e-324", "nan", "1e400", '""', '"\\u001b[31m"',
         "07:32:00", f'"{"x" * 9000}"', f"{'9' * 400}"]  # fmt: skip


def problems(folder: Path, text: str) -> tuple[Problem, ...]:
    (folder / "x.toml").write_text(text)
    try:
        build_generation(load_config(folder / "x.toml", environ={"K": "key"}))
    except ConfigError as error:
        return error.problems
    return ()


def test_the_whole_of_it_is_right(tmp_path: Path) -> None:
    assert problems(tmp_path, WHOLE.format(**RIGHT)) == ()


@pytest.mark.parametrize("wrong", WRONG, ids=lambda text: text[:12])
@pytest.mark.parametrize("key", RIGHT)
def test_each_is_said(tmp_path: Path, key: str, wrong: str) -> None:
    found = problems(tmp_path, WHOLE.format(**{**RIGHT, key: wrong}))
    assert found or (key, wrong) == ("hedge", "{}")
    check(found)


def check(found: tuple[Problem, ...]) -> None:
    for each in found:
        assert each.line
        assert each.key
        assert str(each).isprintable()
        assert len(str(each)) < 1000


VALUES: tuple[Any, ...] = (
    [],
    [1],
    ["x"],
    [{}],
    {},
    {"a": 1},
    True,
    -1,
    10**30,
    1e308,
    "",
    "\x1b[31m",
    "x" * 9000,
    "/dev/null",
)


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def test_every_value_anywhere_is_a_configuration_or_an_error(tmp_path: Path) -> None:
    import tomllib
    from copy import deepcopy

    whole = tomllib.loads(WHOLE.format(**RIGHT))
    for path in places(whole["spear"], ("spear",)):
        for value in VALUES:
            changed = deepcopy(whole)
            at: Any = changed
            for key in path[:-1]:
                at = at[key]
            at[path[-1]] = value
            found: tuple[Problem, ...] = ()
            try:
                build_generation(load_config(changed, environ={"K": "key"}))
            except ConfigError as error:
                found = error.problems
            assert all(str(each).isprintable() and len(str(each)) < 1000 for each in found), (path, value)


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/null")])
def test_decisions_go_to_a_regular_file_or_nowhere(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "d.jsonl")
    (found,) = problems(tmp_path, WHOLE.format(**RIGHT))
    assert (found.key, found.line) == ("spear.decisions.path", 7)
    assert "expected a file" in found.message


def test_a_name_of_decisions_that_is_too_long(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, WHOLE.format(**RIGHT).replace('"d.jsonl"', f'"{"x" * 5000}"'))
    assert found.key == "spear.decisions.path"
