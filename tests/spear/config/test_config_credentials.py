"""Keys from variables and files: when they are read, what is refused, and that nothing of them shows."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from spear.config import Config, default_config, find_config, load_config
from spear.ir import ConfigError
from spear.secrets import Secret


class Watched(Mapping[str, str]):
    """An environment that remembers what was asked of it."""

    def __init__(self, values: dict[str, str]) -> None:
        self.values_ = values
        self.asked: list[str] = []

    def __getitem__(self, key: str) -> str:
        self.asked.append(key)
        return self.values_[key]

    def __contains__(self, key: object) -> bool:
        self.asked.append(str(key))
        return key in self.values_

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("nobody has a reason to list the environment")

    def __len__(self) -> int:
        return len(self.values_)


def config_of(source: dict[str, str], environ: Mapping[str, str]) -> Config:
    backend = {"name": "b", "kind": "stub", "hosting": "local", "credentials": ["k"]}
    return load_config({"spear": {"credentials": [{"name": "k", **source}], "backends": [backend]}}, environ=environ)


def value_of(source: dict[str, str], environ: Mapping[str, str] = {}) -> Secret | None:
    return config_of(source, environ).credentials[0].value


def problem_of(source: dict[str, str], environ: Mapping[str, str] = {}) -> str:
    with pytest.raises(ConfigError) as caught:
        config_of(source, environ)
    (problem,) = caught.value.problems
    assert "canary" not in str(problem)
    return str(problem)


def test_only_variables_in_use_are_read_and_once() -> None:
    environ = Watched({"K": "v", "OTHER": "w"})
    backends = [{"name": name, "kind": "stub", "hosting": "local", "credentials": ["k"]} for name in ("a", "b")]
    credentials = [{"name": "k", "env": "K"}, {"name": "o", "env": "OTHER"}]
    config = load_config({"spear": {"credentials": credentials, "backends": backends}}, environ=environ)
    assert environ.asked == ["K"]
    assert [credential.value for credential in config.credentials] == [Secret("v"), None]


@pytest.mark.parametrize("environ", [{}, {"K": ""}, {"K": " \n"}])
def test_a_missing_or_empty_variable_is_no_error(environ: dict[str, str]) -> None:
    assert value_of({"env": "K"}, environ) is None


@pytest.mark.parametrize("value", ["canary\r\nX-Injected: 1", "canary\x00", "canary\udcff", "canary\x1b[0m"])
def test_a_value_that_could_break_a_header_is_refused(value: str) -> None:
    assert "spear.credentials[0].env: the variable has line breaks" in problem_of({"env": "K"}, {"K": value})


def test_a_file_is_read_and_stripped(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("  sk-canary\n")
    assert value_of({"file": str(tmp_path / "key")}) == Secret("sk-canary")


def test_a_relative_file_is_looked_for_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-canary")
    (tmp_path / "spear.toml").write_text(
        '[[spear.credentials]]\nname="k"\nfile="key"\n'
        '[[spear.backends]]\nname="b"\nkind="stub"\nhosting="local"\ncredentials=["k"]\n'
    )
    config = load_config(tmp_path / "spear.toml", environ={})
    assert config.credentials[0].value == Secret("sk-canary")
    assert config.credentials[0].source == "file:key"


@pytest.mark.parametrize("content", [None, b"", b"\n"])
def test_a_missing_or_empty_file_is_no_error(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    assert value_of({"file": str(tmp_path / "key")}) is None


def test_a_file_at_the_limit_and_beyond(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"k" + b" " * 65_535)
    assert value_of({"file": str(tmp_path / "key")}) == Secret("k")
    (tmp_path / "key").write_bytes(b"canary" + b" " * 65_536)
    assert "larger than 65536 bytes" in problem_of({"file": str(tmp_path / "key")})


@pytest.mark.parametrize("content", [b"\xff\xfecanary", b"canary\ncanary"])
def test_a_file_that_holds_no_key(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)
    assert "spear.credentials[0].file: the file" in problem_of({"file": str(tmp_path / "key")})


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "is not a regular file" in problem_of({"file": str(tmp_path / "pipe")})
    assert "is not a regular file" in problem_of({"file": "/dev/zero"})
    open_files = len(os.listdir("/proc/self/fd"))
    assert "is not a regular file" in problem_of({"file": str(tmp_path)})
    assert len(os.listdir("/proc/self/fd")) == open_files


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    # A loop of links, because root may read everything.
    (tmp_path / "key").symlink_to(tmp_path / "key")
    assert "the file cannot be read: " in problem_of({"file": str(tmp_path / "key")})
    assert "the file cannot be read: not a usable path" in problem_of({"file": "a\0b"})


def test_where_a_configuration_is_looked_for(tmp_path: Path) -> None:
    assert find_config(None, {}, tmp_path) is None
    assert find_config(None, {"SPEAR_CONFIG": ""}, tmp_path) is None
    (tmp_path / "spear.toml").touch()
    assert find_config(None, {}, tmp_path) == tmp_path / "spear.toml"
    assert find_config(None, {"SPEAR_CONFIG": "other.toml"}, tmp_path) == tmp_path / "other.toml"
    assert find_config("named.toml", {"SPEAR_CONFIG": "other.toml"}, tmp_path) == tmp_path / "named.toml"
    assert find_config(Path("/x/named.toml"), {}, tmp_path) == Path("/x/named.toml")


def test_the_default_needs_no_secret() -> None:
    assert default_config().secrets == ()
