"""How a command runs and ends: one Trio run; the first Ctrl-C or SIGTERM drains, the second cancels."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, NoReturn

import click
import trio

from spear.ir import ConfigError, SpearError

from ._early import EXIT_FAILED, EXIT_INTERRUPTED, SIGNALS

DRAIN_SECONDS: Final = 10.0
EXIT_USAGE: Final = 2


def run_command(command: Callable[[], Awaitable[int]]) -> NoReturn:
    """Run `command` under Trio and exit with its code.

    A signal gives it ten seconds to finish; a second one, or the end of these, cancels it. Either way the exit code
    is 130, and everything that the command opened has been closed when the process ends.
    """
    try:
        code = trio.run(_until_signalled, command)
    except ConfigError as error:
        click.echo(str(error), err=True)
        code = EXIT_USAGE
    except SpearError as error:
        click.echo(f"spear: {error}", err=True)
        code = EXIT_FAILED
    sys.exit(code)


async def _until_signalled(command: Callable[[], Awaitable[int]]) -> int:
    interrupted = False
    code = EXIT_INTERRUPTED
    failure: Exception | None = None

    async def watch(task_status: trio.TaskStatus[None]) -> None:
        nonlocal interrupted
        with trio.open_signal_receiver(*SIGNALS) as signals:
            task_status.started()
            async for _ in signals:
                if interrupted:
                    nursery.cancel_scope.cancel()
                    return
                interrupted = True
                nursery.cancel_scope.deadline = trio.current_time() + DRAIN_SECONDS
                _tell(f"spear: interrupted; {DRAIN_SECONDS:.0f} s to finish, again to stop at once")

    async with trio.open_nursery() as nursery:
        await nursery.start(watch)
        try:
            code = await command()
        except Exception as error:  # noqa: BLE001 - carried out of the nursery bare, then raised
            failure = error
        nursery.cancel_scope.cancel()
    if interrupted:
        if isinstance(failure, SpearError):
            _tell(f"spear: {failure}")
        elif failure is not None and not isinstance(failure, OSError):
            raise failure  # a bug of ours is not less of one
        return EXIT_INTERRUPTED
    if failure is not None:
        raise failure
    return code


def _tell(text: str) -> None:
    with suppress(OSError):  # whoever read stderr has left: the signal counts all the same
        click.echo(text, err=True)
