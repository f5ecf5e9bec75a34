"""One run of espeak-ng: text in, samples out, bounded, and ended with whoever asked for it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from typing import Final

import trio

from spear.ir import BackendError, ErrorCode, Failure, make_error

PROGRAM: Final = "espeak-ng"
INSTALL: Final = "espeak-ng is not installed; it is no Python package: apt-get install espeak-ng"
_PIECE: Final = 65_536


class TooMuch(Exception):
    """It said more than it may."""


def find_program() -> str | None:
    return shutil.which(PROGRAM)


async def run(arguments: Sequence[str], text: bytes, *, most: int) -> bytes:
    """What it writes to its standard output. Raises `TooMuch` beyond `most` bytes, and `BackendError`. However this
    ends, the process has ended before."""
    program = find_program()
    if program is None:
        raise failed(INSTALL, Failure.CONNECT)
    try:
        process = await trio.lowlevel.open_process(
            [program, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={"LC_ALL": "C.UTF-8", "HOME": "/nonexistent"},
        )
    except OSError as error:
        raise failed(f"espeak-ng could not be started: {error.strerror}", Failure.CONNECT) from None
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        out = await _exchange(process.stdin, process.stdout, text, most)
        code = await process.wait()
    finally:
        process.kill()
        with trio.CancelScope(shield=True):  # it is dead; this only collects it
            await process.wait()
            await process.stdin.aclose()
            await process.stdout.aclose()
    if code:
        raise failed(f"espeak-ng ended with code {code}", Failure.SERVER)
    return out


async def _exchange(stdin: trio.abc.SendStream, stdout: trio.abc.ReceiveStream, text: bytes, most: int) -> bytes:
    out = bytearray()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_feed, stdin, text)
        while piece := await _next(stdout):
            out += piece
            if len(out) > most:
                nursery.cancel_scope.cancel()
                break
    if len(out) > most:
        raise TooMuch
    return bytes(out)


async def _next(stdout: trio.abc.ReceiveStream) -> bytes:
    return bytes(await stdout.receive_some(_PIECE))


async def _feed(stdin: trio.abc.SendStream, text: bytes) -> None:
    try:
        await stdin.send_all(text)
    except trio.BrokenResourceError:
        return  # it ended early; its exit code says how
    await stdin.aclose()


def failed(message: str, failure: Failure) -> BackendError:
    code = ErrorCode.BACKEND_UNAVAILABLE if failure is Failure.CONNECT else ErrorCode.BACKEND_ERROR
    return BackendError(make_error(code, message), failure)
