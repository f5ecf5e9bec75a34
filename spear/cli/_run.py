"""spear run: a guest from the command line."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import click
import trio

from spear.config import find_config
from spear.ir import GuestError

from ._output import Seconds, choose_config, config_option, json_option, print_json, printable, progress
from ._reload import reloading
from ._signals import run_command

if TYPE_CHECKING:
    from spear.hostcall import ByteSink, Execution, LogRecord, LogSink, Status

EXIT_TIMEOUT = 124
EXIT_TRAP = 125
EXIT_NOT_A_MODULE = 126
TASK_ID_CHARACTERS = 128


def _task_id(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and not 1 <= len(value) <= TASK_ID_CHARACTERS:
        raise click.BadParameter(f"has {len(value)} characters; expected 1 to {TASK_ID_CHARACTERS}")
    return value


@click.command()
@click.argument("guest", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@config_option
@click.option("--entry", default="", metavar="NAME", help="The exported function to call (default: _start, else main).")
@click.option(
    "--timeout",
    type=Seconds(min=0),
    metavar="S",
    help="Seconds until the guest is stopped; 0 = none (default: guests.timeout_s of the configuration, 300).",
)
@click.option(
    "--task", metavar="ID", callback=_task_id, help="The task it runs as: [[spear.tasks]] (default: the file's stem)."
)
@json_option
def run(
    guest: Path, config_path: Path | None, entry: str, timeout: float | None, task: str | None, as_json: bool
) -> None:
    """Run the WebAssembly module GUEST.

    Its stdout comes to stdout; its stderr and its log to stderr, as they come. With --json, exactly one line is
    printed, at the end. A guest has no arguments, environment or stdin.

    SIGHUP reads the configuration again while the guest runs.

    Exit code: the guest's own & 255 (a non-zero one stays non-zero); 124 timeout; 125 trap or failed start; 126 not a
    module; 2 usage or configuration; 130 interrupted.
    """

    async def main() -> int:
        return await _run(guest, config_path, entry, timeout, task, as_json)

    run_command(main)


async def _run(
    guest: Path, config_path: Path | None, entry: str, timeout: float | None, task_id: str | None, as_json: bool
) -> int:
    from spear import Task, open_runtime
    from spear.hostcall import NotAModule

    began = time.perf_counter()
    config = choose_config(config_path, quiet=as_json)
    file = find_config(config_path, os.environ, Path.cwd())
    try:
        async with (
            open_runtime(config) as runtime,
            progress(f"running {guest.name}") as quiet,
            reloading(runtime, file, quiet),
        ):
            live: _Live = {} if as_json else _live(quiet)
            execution = await runtime.run_guest(
                guest,
                entry=entry,
                timeout_s="configured" if timeout is None else timeout or None,
                task=Task(id=task_id) if task_id else None,
                **live,
            )
    except trio.Cancelled:
        if as_json:
            print_json(as_machines_read(_no_execution("terminated", "interrupted", began)))
        raise
    except NotAModule as error:
        return _failed_start(error.error.message, EXIT_NOT_A_MODULE, as_json, began)
    except GuestError as error:
        return _failed_start(error.error.message, EXIT_TRAP, as_json, began)
    except OSError as error:
        if error.filename is None:  # not the guest's file: our own output cannot be written
            raise
        return _failed_start(f"{guest}: cannot be read: {error.strerror}", EXIT_NOT_A_MODULE, as_json, began)
    if as_json:
        print_json(as_machines_read(execution))
    elif execution.error_message:
        click.echo(f"spear: {execution.status}: {execution.error_message}", err=True)
    elif execution.output:
        click.echo(execution.output)
    return exit_code(execution)


class _Live(TypedDict, total=False):
    on_log: LogSink
    on_stdout: ByteSink
    on_stderr: ByteSink


def _live(quiet: Callable[[], None]) -> _Live:
    """What prints a guest's log and output as they come; `quiet` takes the progress line away first."""

    def log(record: LogRecord) -> None:
        quiet()
        click.echo(f"[{record.level}] {printable(record.message.rstrip())}", err=True)

    def out(data: bytes) -> None:
        quiet()
        click.echo(data, nl=False)

    def err(data: bytes) -> None:
        quiet()
        click.echo(data, err=True, nl=False)

    return {"on_log": log, "on_stdout": out, "on_stderr": err}


def exit_code(execution: Execution) -> int:
    """The process's exit code for a finished execution."""
    if execution.status == "timeout":
        return EXIT_TIMEOUT
    if execution.exit_code is None:
        return EXIT_TRAP if execution.status != "completed" else 0
    return (execution.exit_code & 0xFF) or (1 if execution.exit_code else 0)


def as_machines_read(execution: Execution) -> dict[str, Any]:
    """What `--json` prints."""
    return {
        **asdict(execution),
        "logs": [
            {"seq": each.seq, "ts_ms": each.ts_ms, "level": each.level, "message": each.message}
            for each in execution.logs
        ],
    }


def _failed_start(message: str, code: int, as_json: bool, began: float) -> int:
    if as_json:
        print_json(as_machines_read(_no_execution("failed", message, began)))
    else:
        click.echo(f"spear: {message}", err=True)
    return code


def _no_execution(status: Status, message: str, began: float) -> Execution:
    """What is said of a guest that did not start, or was cut off before its end."""
    from spear.hostcall import Execution, Usage

    return Execution(
        status=status,
        exit_code=None,
        output="",
        error_message=message,
        execution_id="",
        duration_ms=(time.perf_counter() - began) * 1000,
        logs=(),
        logs_dropped=0,
        stdout="",
        stderr="",
        stdout_dropped=0,
        stderr_dropped=0,
        usage=Usage(),
    )
