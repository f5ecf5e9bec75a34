"""Running the command as people do: another process, its own environment, real pipes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

COMMAND = [str(Path(sys.executable).with_name("spear"))]
STATUSES = {"completed", "failed", "timeout", "terminated"}
RUN_KEYS = {
    "status", "exit_code", "output", "error_message", "execution_id", "duration_ms", "logs", "logs_dropped",
    "stdout", "stderr", "stdout_dropped", "stderr_dropped", "usage",
}  # fmt: skip
USAGE_KEYS = {"requests", "input_tokens", "output_tokens", "cost", "estimated"}


def environment(**more: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "XDG_CACHE_HOME", "PYTHONPATH") if name in os.environ}
    return {**kept, "COLUMNS": "100", "PYTHONWARNINGS": "error", **more}


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """stdout as one line of JSON, exactly."""
        assert self.out.endswith("\n")
        assert self.out.count("\n") == 1, self.out
        return json.loads(self.out)


def spear(*arguments: object, cwd: Path, stdin: bytes = b"", **variables: str) -> Result:
    """In this process, which saves the second that a new one takes to start; what it would print and its code."""
    from spear.cli._main import main

    with environ(variables), chdir(cwd):
        done = CliRunner(env={"COLUMNS": "100"}).invoke(
            main, list(map(str, arguments)), input=stdin, prog_name="spear", catch_exceptions=False
        )
    return _checked(Result(done.exit_code, done.stdout, done.stderr))


def spear_process(*arguments: object, cwd: Path, stdin: bytes = b"", limit: float = 60, **variables: str) -> Result:
    """The same in a process of its own."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=cwd,
        env=environment(**variables),
        input=stdin,
        capture_output=True,
        timeout=limit,
        check=False,
    )
    return _checked(Result(done.returncode, done.stdout.decode(), done.stderr.decode()))


def _checked(result: Result) -> Result:
    assert "Traceback" not in result.err, result.err
    assert "Traceback" not in result.out, result.out
    return result


@contextmanager
def environ(variables: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.pop("SPEAR_CONFIG", None)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def catches(pid: int, number: int) -> bool:
    """Does the process have a handler for this signal by now?"""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


def group_is_empty(pid: int) -> bool:
    """Nobody is left of the process group that this process led."""
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return True
    return False


def toml(*tables: str) -> str:
    return "\n\n".join(tables) + "\n"


def openai_backend(url: str, name: str = "home", **more: object) -> str:
    lines = [
        "[[spear.backends]]",
        f'name = "{name}"',
        'kind = "openai_chat"',
        'hosting = "local"',
        f'base_url = "{url}"',
        'model = "small"',
        *(f"{key} = {json.dumps(value)}" for key, value in more.items()),
    ]
    return "\n".join(lines)


SIGINT, SIGTERM = signal.SIGINT, signal.SIGTERM
