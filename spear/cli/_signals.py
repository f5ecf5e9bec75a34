"""How a command runs and ends: one Trio run; the first Ctrl-C or SIGTERM drains, the second cancels."""

from __future__ import annotations

import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
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

    def signalled(count: int) -> None:
        nonlocal interrupted
        if count > 1:
            nursery.cancel_scope.cancel()
        if not interrupted:
            interrupted = True
            nursery.cancel_scope.deadline = trio.current_time() + DRAIN_SECONDS
            _tell(f"spear: interrupted; {DRAIN_SECONDS:.0f} s to finish, again to stop at once")

    async with trio.open_nursery() as nursery:
        with _counted_signals(signalled):
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


@contextmanager
def _counted_signals(tell: Callable[[int], None]) -> Iterator[None]:
    """While the block runs, `tell` hears in the loop how many signals have come so far.

    Counted where they arrive: a signal receiver would see two of them as one if the loop was busy in between, as it is
    while the WebAssembly engine loads.
    """
    token = trio.lowlevel.current_trio_token()
    count = 0

    def arrived(number: int, frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(tell, count)

    ours = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]  # ignored stays ignored
    before = {number: signal.signal(number, arrived) for number in ours}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tell(text: str) -> None:
    with suppress(OSError):  # whoever read stderr has left: the signal counts all the same
        click.echo(text, err=True)
