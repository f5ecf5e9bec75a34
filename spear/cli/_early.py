"""The entry of the process, and signals outside of `run_command`: while modules load, and after all is closed again.

There is nothing to clean up then, so the process leaves at once with the documented code, without a traceback.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from types import FrameType
from typing import Final, NoReturn

EXIT_FAILED: Final = 1
EXIT_INTERRUPTED: Final = 130
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def main() -> NoReturn:
    """The console script: parses the arguments of the process, runs the command, exits with its code."""
    leave_at_once()  # before the imports, which take most of the time until a command begins
    from ._main import main as group

    try:
        group(prog_name="spear")
    except OSError as error:  # a full disk behind stdout; a pipe that nobody reads any more is click's to handle
        _say(f"spear: cannot write: {error.strerror or error}")
        os._exit(EXIT_FAILED)  # without the flush of stdout, which would fail again
    raise AssertionError("click exits by itself")


def _say(text: str) -> None:
    with suppress(OSError):
        os.write(2, f"{text}\n".encode())


def leave_at_once() -> None:
    """From here on, a signal ends the process; one that is ignored (a background job's Ctrl-C) stays ignored."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _leave)


def raise_instead() -> None:
    """From here on, a signal raises KeyboardInterrupt: for a command that has something to clean up, but no Trio."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _leave(number: int, frame: FrameType | None) -> None:
    os._exit(EXIT_INTERRUPTED)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
