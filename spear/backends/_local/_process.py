"""One worker process, seen from here. Whoever leases it talks to it alone.

Both ways go frames: four bytes of length (little-endian), then that many bytes. It is given frames of any bytes, and
says JSON: `{"ready": true}` once, and a message with `done` as the last of each answer.
"""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any, Final

import trio

from spear.ir import BackendError, ErrorCode, Failure, MalformedJson, make_error, parse_json

_KEPT: Final = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "PYTHONHOME",
    "PYTHONPATH",
    "TMPDIR",
    "VIRTUAL_ENV",
)
"""Of the environment: keys in other variables are none of its business."""
_LONGEST: Final = 1_048_576
"""Bytes of one frame of its answer."""
_PIECE: Final = 65_536


class Worker:
    """`ready` = nothing was asked that it has not answered whole; only such a one may be leased again."""

    def __init__(self, process: trio.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._stdin = process.stdin
        self._stdout = process.stdout
        self._buffer = bytearray()
        self.ready = False

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    async def give(self, work: bytes) -> None:
        """Give it one piece of work; its answer is told by `next_piece`. Raises `BackendError` where it died."""
        self.ready = False
        try:
            await self._stdin.send_all(struct.pack("<I", len(work)) + work)
        except trio.BrokenResourceError:
            raise broken("it has ended") from None

    async def next_piece(self) -> dict[str, Any] | None:
        """None = that was all. Raises `BackendError` where it dies or talks nonsense."""
        message = await self.message()
        self.ready = "done" in message
        return None if self.ready else message

    async def message(self) -> dict[str, Any]:
        (size,) = struct.unpack("<I", await self._exactly(4))
        if size > _LONGEST:
            raise broken("it says more than it may")
        try:
            found = parse_json(await self._exactly(size))
        except MalformedJson:
            raise broken("it talks nonsense") from None
        if not isinstance(found, dict):
            raise broken("it talks nonsense")
        return found

    async def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            piece = await self._stdout.receive_some(_PIECE)
            if not piece:
                raise broken("it has ended")
            self._buffer += piece
        found = bytes(self._buffer[:size])
        del self._buffer[:size]
        return found

    async def kill(self) -> None:
        """Not to be cancelled: it is dead before this returns."""
        self._process.kill()
        with trio.CancelScope(shield=True):
            await self._process.wait()
            await self._stdin.aclose()
            await self._stdout.aclose()


async def start_worker(command: Sequence[str], more: Mapping[str, str] | None = None) -> Worker:
    """One that has said it is ready, with `more` in its environment. Raises `BackendError`."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    try:
        process = await trio.lowlevel.open_process(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=kept | dict(more or {}),
            start_new_session=True,  # the terminal's Ctrl-C is ours to handle
        )
    except OSError as error:
        raise broken(f"it could not be started: {error.strerror}") from None
    worker = Worker(process)
    try:
        if "ready" not in await worker.message():
            raise broken("it talks nonsense")
        worker.ready = True
    finally:
        if not worker.ready:
            await worker.kill()
    return worker


def broken(what: str) -> BackendError:
    message = f"its worker process failed: {what}; the next request gets another one"
    return BackendError(make_error(ErrorCode.BACKEND_ERROR, message), Failure.SERVER)
