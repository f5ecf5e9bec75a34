"""The entry of the process, and signals outside of `run_command`: while modules load, and after all is closed again.

There is nothing to clean up then, so the process leaves at once with the documented code, without a traceback.
"""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Final, NoReturn

EXIT_INTERRUPTED: Final = 130
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def main() -> NoReturn:
    """The console script: parses the arguments of the process, runs the command, exits with its code."""
    leave_at_once()  # before the imports, which take most of the time until a command begins
    from ._main import main as group

    group(prog_name="spear")
    raise AssertionError("click exits by itself")


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
