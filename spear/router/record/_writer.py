"""The actor that writes decisions to the file, in a thread, a batch at a time.

It owns the file; what waits for it belongs to the log, so that a restarted writer goes on where the former one was. It
starts before the router and stops after it. A write that fails is counted and said once; the next batch is tried anew.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Lock
from typing import Final, Literal, Never, Self

import trio

from actors import Actor, Context
from spear.config import DecisionsConfig
from spear.telemetry import get_logger

from ._file import RotatingFile
from ._log import Decisions, Entry

_BATCH_BYTES: Final = 262_144
_GATHER_S: Final = 0.1
"""How long a record waits for others, so that not every one costs a thread's turn."""
FLUSH_S: Final = 3.0
_log = get_logger("spear.decisions")


class DecisionWriter(Actor[Never]):
    """After an orderly stop everything that was recorded is in the file, if that takes no more than three seconds."""

    def __init__(self, decisions: Decisions) -> None:
        self._decisions = decisions
        self._ending = False

    @asynccontextmanager
    async def lifespan(self, ctx: Context[Never]) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write, name=f"writer of {ctx.path}")
            try:
                yield
            finally:
                nursery.cancel_scope.deadline = trio.current_time() + FLUSH_S
                self._ending = True
                self._decisions.arrived.set()

    async def _write(self) -> None:
        with _Output(self._decisions) as output:
            while not self._ending:
                await self._decisions.arrived.wait()
                if not self._ending:
                    await trio.sleep(_GATHER_S)
                await output.drain()

    def observe(self) -> Mapping[str, object]:
        return {"path": self._decisions.settings.path or "", **self._decisions.observe()}


async def flush_decisions(decisions: Decisions) -> None:
    """Write what was recorded after the writer had gone. Takes three seconds at most, also where the caller is
    cancelled."""
    with trio.move_on_after(FLUSH_S, shield=True), _Output(decisions) as output:
        await output.drain()


class _Output:
    """The file that the log's settings name."""

    def __init__(self, decisions: Decisions) -> None:
        self._decisions = decisions
        self._named: DecisionsConfig | None = None
        self._file: RotatingFile | None = None
        self._job: _Job | None = None
        self._failing = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._job is not None:
            self._job.abandon()
        elif self._file is not None:
            self._file.close()

    async def drain(self) -> None:
        decisions = self._decisions
        while batch := decisions.take(_BATCH_BYTES):
            file = self._open(decisions.writing)
            self._job = job = _Job(file, batch)
            try:
                await trio.to_thread.run_sync(job, abandon_on_cancel=True)
            except OSError as error:
                self._failed(file, error, len(batch) - file.appended)
            except trio.Cancelled:
                decisions.lost += len(batch)
                raise
            else:
                decisions.lost += len(batch) - file.appended  # those too long for any file
                self._failing = False
            decisions.written += file.appended
            self._job = None

    def _open(self, settings: DecisionsConfig) -> RotatingFile:
        """Opens nothing yet; that is the thread's."""
        if self._file is None or self._named != settings:
            if self._file is not None:
                self._file.close()
            assert settings.path is not None  # else nothing would have been queued
            self._named = settings
            self._file = RotatingFile(Path(settings.path), settings.max_bytes, settings.files)
        return self._file

    def _failed(self, file: RotatingFile, error: OSError, records: int) -> None:
        self._decisions.failures += 1
        self._decisions.lost += records
        if not self._failing:  # said once, until it works again
            self._failing = True
            _log.warning("decisions_not_written", path=str(file.path), reason=error.strerror, lost=records)


class _Job:
    """One append in a thread. Abandoned while it runs, it closes the file itself when it is through."""

    def __init__(self, file: RotatingFile, batch: list[Entry]) -> None:
        self._file = file
        self._batch = batch
        self._lock = Lock()
        self._state: Literal["waits", "runs", "over"] = "waits"
        self._abandoned = False

    def __call__(self) -> None:
        with self._lock:
            if self._state == "over":
                return
            self._state = "runs"
        try:
            self._file.append(self._batch)
        finally:
            with self._lock:
                self._state = "over"
                if self._abandoned:
                    self._file.close()

    def abandon(self) -> None:
        with self._lock:
            self._abandoned = True
            if self._state != "runs":
                self._state = "over"
                self._file.close()
