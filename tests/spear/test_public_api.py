"""The names that Spear promises are those of the committed list, and importing them loads little."""

from __future__ import annotations

import subprocess
import sys

import pytest

import spear


def python(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_the_public_names_are_as_listed():
    done = python("-m", "tests.checks.public_api")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("code", "loads_none_of"),
    [
        ("import spear", ("httpx", "httpcore2", "wasmtime", "trio", "pydantic")),
        ("import spear; spear.open_runtime", ("httpx", "httpcore2", "wasmtime")),
    ],
)
def test_importing_spear_loads_little(code, loads_none_of):
    done = python("-c", f"{code}; import sys; print([name for name in {loads_none_of} if name in sys.modules])")
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_late_names_are_the_names():
    assert {name: getattr(spear, name) for name in spear.__all__}
    for door in ("ir", "backends", "blocking", "testing"):
        assert getattr(spear, door).__name__ == f"spear.{door}"
    with pytest.raises(AttributeError, match="module 'spear' has no attribute 'nix'"):
        spear.nix  # noqa: B018
