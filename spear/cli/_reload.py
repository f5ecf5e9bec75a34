"""SIGHUP in a command that runs for long: its configuration is read again."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import trio

from spear.telemetry import configure_logging

if TYPE_CHECKING:
    from spear import Runtime

_TERMINAL: Final = "/dev/tty"


@asynccontextmanager
async def reloading(runtime: Runtime, file: Path | None, quiet: Callable[[], None]) -> AsyncIterator[None]:
    """While the block lasts, SIGHUP reloads `file`, and what became of it is said on stderr, after `quiet`.

    Also sent when the terminal goes away, it then ends the command as ever; and one that is ignored (nohup) stays
    ignored.
    """
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        yield
        return
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        await nursery.start(_listen, runtime, file, quiet)
        try:
            yield
        except Exception as error:  # noqa: BLE001 - carried out of the nursery bare, then raised
            failure = error
        finally:
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _listen(
    runtime: Runtime, file: Path | None, quiet: Callable[[], None], task_status: trio.TaskStatus[None]
) -> None:
    attended = _has_terminal()
    with trio.open_signal_receiver(signal.SIGHUP) as signals:
        task_status.started()
        async for _ in signals:
            quiet()
            if attended and not _has_terminal():
                os.kill(os.getpid(), signal.SIGTERM)
            elif file is None:
                _say("spear: nothing to reload: there is no configuration file")
            else:
                await _reload(runtime, file)


async def _reload(runtime: Runtime, file: Path) -> None:
    """A failure is an error in the log, which is on stderr."""
    report = await runtime.reload(file)
    if report.ok:
        log = runtime.config.log
        configure_logging(log.level, log.format)
        for warning in report.warnings:
            _say(f"spear: warning: {warning}")
        _say(f"spear: reloaded: {report}")


def _say(text: str) -> None:
    with suppress(OSError):  # whoever read stderr has left: the signal counts all the same
        click.echo(text, err=True)


def _has_terminal() -> bool:
    try:
        os.close(os.open(_TERMINAL, os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
