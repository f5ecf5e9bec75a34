"""A server's process: started in a group of its own, and ended with all that it started."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio

from ._failures import ConnectionLost

EXIT_S: Final = 1.0
"""For a server to end by itself once its input is closed, and again once it was asked to end."""
_REAP_S: Final = 1.0


async def start(command: Sequence[str], env: Mapping[str, str], cwd: str | None) -> trio.Process:
    """With pipes for all three streams. Raises `ConnectionLost` where there is no such program."""
    try:
        return await trio.lowlevel.open_process(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(env),
            cwd=cwd,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else "not a usable command"
        raise ConnectionLost(f"the server cannot be started: {why.lower()}") from None


async def end(process: trio.Process, *, gently: bool) -> None:
    """Waits at most some three seconds, and is shielded: whoever leaves leaves no process behind. Gently, the server
    may end by itself first."""
    with trio.CancelScope(shield=True):
        if process.stdin is not None:
            await process.stdin.aclose()
        if gently and await _ended(process, EXIT_S):
            pass
        else:
            _signal(process, signal.SIGTERM)
            await _ended(process, EXIT_S)
        _signal(process, signal.SIGKILL)  # what it started may be left even where it has gone itself
        await trio.to_thread.run_sync(_kill_session, process.pid)
        await _ended(process, _REAP_S)
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                await stream.aclose()


async def _ended(process: trio.Process, limit: float) -> bool:
    with trio.move_on_after(limit):
        await process.wait()
    return process.returncode is not None


def _signal(process: trio.Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _kill_session(number: int) -> None:
    """Of its session, which began with it, also those that made themselves a group of their own, as the jobs of a shell
    do. One that began another session is nobody's any more."""
    for pid in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if not pid.isdecimal():
            continue
        with suppress(OSError, IndexError, ValueError):  # it has gone just now
            state = Path("/proc", pid, "stat").read_bytes().rpartition(b")")[2].split()
            if int(state[3]) == number and int(pid) != number:
                os.kill(int(pid), signal.SIGKILL)


def how_it_ended(code: int | None) -> str:
    if code is None:
        return "the server closed its output"
    if code < 0:
        with suppress(ValueError):
            return f"the server was ended by {signal.Signals(-code).name}"
    return f"the server ended with exit code {code}"
