"""spear mcp: what it shows, and its exit codes."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from spear.cli._main import main
from tests.spear.mcp.mcp_kit import PLAIN, processes


def config(folder, **faults):
    import sys

    lines = ['[[spear.backends]]\nname = "b"\nkind = "stub"\nhosting = "local"\n']
    for name, fault in faults.items():
        lines.append(
            f'[[spear.mcp.servers]]\nserver_id = "{name}"\ntransport = "stdio"\nallowed_tools = ["*"]\n'
            f'stdio = {{ command = "{sys.executable}", args = ["{PLAIN}", "{fault}"] }}\n'
        )
    path = folder / "spear.toml"
    path.write_text("".join(lines), encoding="utf-8")
    return path


def mcp(*arguments):
    return CliRunner().invoke(main, ["mcp", *map(str, arguments)], prog_name="spear", catch_exceptions=False)


def test_the_table(tmp_path):
    done = mcp("--config", config(tmp_path, good="", bad="exits", odd="bad-schemas"))
    assert done.exit_code == 1
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[2][:4] == ["good", "stdio", "ready", "echo"]
    assert "bad     stdio      failed\n" in done.stdout
    [why] = [line for line in done.stderr.splitlines() if line.startswith("spear: bad: ")]
    assert why.startswith("spear: bad: the handshake failed: the server ended with exit code 3")
    assert "stderr: cannot open /etc/nothing" in why
    assert "(4 left out: number 0: its schema is no object, …)" in done.stdout
    assert processes() == []


def test_json_of_one(tmp_path):
    import json

    done = mcp("good", "--json", "--config", config(tmp_path, good="", bad="exits"))
    assert done.exit_code == 0
    [row] = json.loads(done.stdout)["servers"]
    assert [tool["name"] for tool in row["tools"]] == ["echo", "read_file", "write_file"]
    assert row["state"] == "ready"


@pytest.mark.parametrize("name", ["nix", ""])
def test_one_that_is_not_there(tmp_path, name):
    done = mcp("--config", config(tmp_path, good=""), name)
    assert done.exit_code == 2
    assert f"there is no MCP server {name!r}; there are: good" in done.stderr


def test_none(tmp_path):
    done = mcp("--config", config(tmp_path))
    assert (done.exit_code, done.stdout) == (0, "(none)\n")
