"""spear guest build: from C to a module, with the compiler that is there."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import click

from spear.ir import GuestError

from ._early import EXIT_INTERRUPTED, raise_instead


@click.group()
def guest() -> None:
    """Build guests from C."""


@guest.command()
@click.argument("source", metavar="FILE.c", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--output", "-o", type=click.Path(dir_okay=False, path_type=Path), help="Default: FILE.wasm.")
def build(source: Path, output: Path | None) -> None:
    """Compile FILE.c to a WebAssembly module that `spear run` can run.

    Uses Debian's clang (packages clang, lld, wasi-libc, libclang-rt-dev-wasm32) or else the ziglang wheel, whichever
    is there; spear.h is on the include path.
    """
    from spear.guests import build as build_guest
    from spear.guests import find_compiler

    raise_instead()  # the compiler must end, and what it has begun to write must go
    try:
        compiler = find_compiler()
        target = output or source.with_suffix(".wasm")
        click.echo(f"{source.name}: {compiler.identity}", err=True)
        build_guest(source, target, compiler=compiler, on_warning=partial(click.echo, err=True))
    except GuestError as error:
        raise click.ClickException(error.error.message) from None
    except OSError as error:
        raise click.ClickException(f"{error.filename or source}: {error.strerror}") from None
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    click.echo(f"{target}: {target.stat().st_size} bytes", err=True)
