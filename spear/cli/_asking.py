"""What the commands that ask for one answer share: their options, the asking, and where results go."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from spear.ir import ErrorCode, RequestEnvelope, ResponseEnvelope, error_to_exception

from ._chat import footer, tried
from ._output import Seconds, choose_config, config_option, file_name, json_option, print_json, progress, read_stdin
from ._signals import run_command

if TYPE_CHECKING:
    from spear import Runtime

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Asking:
    """The options that are the same for all of them."""

    config_path: Path | None
    model: str
    backend: str | None
    timeout: float | None
    degrade: bool
    verbose: bool
    as_json: bool

    @property
    def params(self) -> dict[str, object]:
        return {
            "model": self.model,
            "backend": self.backend,
            "timeout_ms": None if self.timeout is None else max(1, round(self.timeout * 1000)),
            "degradation": "allow" if self.degrade else "reject",
        }


def asking_options(command: F) -> F:
    for option in (
        json_option,
        click.option("--verbose", "-v", is_flag=True, help="Say who answered, how long it took and what it used."),
        click.option("--degrade", is_flag=True, help="Rather do it less well than not at all; says what was done."),
        click.option("--timeout", type=Seconds(min=0.001), metavar="S", help="Seconds until the request is given up."),
        click.option("--backend", "-b", help="Ask exactly this backend."),
        click.option("--model", "-m", default="", help="The model or model class to ask (default: the host's choice)."),
        config_option,
    ):
        command = option(command)
    return command


def ask(
    asking: Asking,
    make: Callable[[Runtime], RequestEnvelope | Awaitable[RequestEnvelope]],
    show: Callable[[Runtime, ResponseEnvelope], Awaitable[None] | None],
    waiting: str,
) -> NoReturn:
    """Ask once and exit. `show` gets an answer that is no error, to save it or, without --json, to print it."""

    async def main() -> int:
        from spear import open_runtime

        async with open_runtime(choose_config(asking.config_path, quiet=asking.as_json)) as runtime:
            made = make(runtime)
            request = made if isinstance(made, RequestEnvelope) else await made
            async with progress(waiting):
                response = await runtime.invoke(request)
            if response.result.error is None and (showing := show(runtime, response)) is not None:
                await showing
            return _end(asking, runtime, response)

    run_command(main)


def _end(asking: Asking, runtime: Runtime, response: ResponseEnvelope) -> int:
    error = response.result.error
    if asking.as_json:
        print_json(response.model_dump(mode="json"))
        return 1 if error is not None else 0
    if error is not None:
        if asking.verbose:
            click.echo(tried(error), err=True)
        if error.code is ErrorCode.MISSING_CAPABILITIES:
            _tell_left_out(runtime)
        raise error_to_exception(error)
    if response.backend is not None and response.backend.degraded:
        click.echo(f"spear: done less well: {', '.join(response.backend.degraded)}", err=True)
    if asking.verbose:
        click.echo(footer(response), err=True)
    return 0


def _tell_left_out(runtime: Runtime) -> None:
    """Nobody can do it: perhaps somebody could who was left out."""
    for row in runtime.backends():
        if row["detail"]:
            click.echo(f"spear: {row['name']} was left out: {row['detail']}", err=True)


def checked_out(out: Path | None, *, as_json: bool, example: str) -> Path | None:
    """Where the result goes, before anything is asked for."""
    if out is None:
        if as_json:
            return None
        raise click.UsageError(f"--out is missing: the file to write, as in --out {example}, or - for standard output")
    if str(out) == "-":
        if as_json:
            raise click.UsageError("--out - and --json both want standard output")
        if sys.stdout.isatty():
            raise click.UsageError("--out - would write bytes to the terminal; redirect it, or name a file")
        return out
    if out.is_dir():
        raise click.BadParameter(f"{file_name(out)} is a folder; expected a file")
    if not out.parent.is_dir():
        raise click.BadParameter(f"{file_name(out.parent)} is no folder")
    return out


def write_out(out: Path, data: bytes) -> None:
    """All of it or nothing: a file that is there already stays until the new one is complete."""
    if str(out) == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    if out.exists() and not out.is_file():  # a pipe or a device has no place for another file beside it
        out.write_bytes(data)
        return
    part = out.with_name(f".{out.name}.part")
    try:
        part.write_bytes(data)
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)


def is_text(name: str, given: str) -> str:
    """Bytes of the command line that are no UTF-8 arrive as lone surrogates, which no backend can be sent."""
    if any("\ud800" <= character <= "\udfff" for character in given):
        raise click.BadParameter(f"{name} is not valid UTF-8")
    return given


def text_argument(name: str, given: str) -> str:
    """Itself, or what standard input says where it is "-"."""
    if given == "-":
        given = read_stdin().decode("utf-8", "surrogateescape")
    return is_text(name, given)


def tell(message: str) -> None:
    click.echo(f"spear: {message}", err=True)
