"""The media store under what real machines do: processes that are killed, and disks that are full."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHILD = Path(__file__).parents[1] / "spear" / "media" / "media_child.py"
ROOT = Path(__file__).parents[2]


def run(command: list[str]) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_any_moment(tmp_path, seed):
    said = run([sys.executable, str(CHILD), "killed", str(tmp_path / "media"), str(seed), "40"])
    assert said.startswith("40 kills, ")
    assert int(said.split()[2]) > 20


def test_a_disk_that_is_full(tmp_path):
    """A tmpfs of 8 MiB, in a mount namespace of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    new_namespace = ["unshare", "-m"] if os.getuid() == 0 else ["unshare", "-rm"]
    if subprocess.run([*new_namespace, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no mount namespaces here")
    inside = f'mount -t tmpfs -o size=8m none "{disk}" && exec "{sys.executable}" "{CHILD}" full "{disk}"'
    assert run([*new_namespace, "sh", "-c", inside]) == "healthy\n"
