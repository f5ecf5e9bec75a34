"""Variants side by side, each in a process of its own: a simulation has the whole of Trio's scheduler for itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from spear.ir import dump_json, parse_json

_LAST_WORDS: Final = 4_000
Progress = Callable[[str, int], None]


class WorkerFailed(RuntimeError):
    """A worker process ended without a result; the message has its last words."""


@dataclass(frozen=True, slots=True)
class Job:
    """One variant of the scenario in `text`, which was read from `file`; `variant` may be the name of a policy. None =
    as the scenario says."""

    file: Path
    text: str
    variant: str
    seed: int | None = None
    requests: int | None = None

    def as_json(self) -> bytes:
        fields = {
            "file": str(self.file.absolute()),
            "text": self.text,
            "variant": self.variant,
            "seed": self.seed,
            "requests": self.requests,
        }
        return dump_json(fields)


async def run_jobs(jobs: list[Job], *, workers: int, progress: Progress | None = None) -> list[dict[str, Any]]:
    """The results in the order of the jobs, at most `workers` processes at a time. `progress` hears of a variant how
    many requests have arrived. Cancelled, all workers are ended. Raises `WorkerFailed`."""
    results: list[dict[str, Any]] = [{} for _ in jobs]
    places = trio.CapacityLimiter(workers)
    failure: WorkerFailed | None = None

    async def one(number: int, job: Job) -> None:
        nonlocal failure
        async with places:
            try:
                results[number] = await _run(job, progress)
            except WorkerFailed as error:
                failure = failure or error
                nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for number, job in enumerate(jobs):
            nursery.start_soon(one, number, job)
    if failure is not None:
        raise failure
    return results


async def _run(job: Job, progress: Progress | None) -> dict[str, Any]:
    found: list[dict[str, Any]] = []
    words = bytearray()
    async with trio.open_nursery() as nursery:
        process: trio.Process = await nursery.start(
            partial(
                trio.run_process,
                [sys.executable, "-m", "spear.simulate"],
                stdin=job.as_json(),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                check=False,
            )
        )
        assert process.stdout is not None
        assert process.stderr is not None
        nursery.start_soon(_listen, process.stdout, job.variant, found, progress)
        nursery.start_soon(_keep_last, process.stderr, words)
    if process.returncode or not found:
        said = words.decode(errors="replace").strip().rpartition("\n")[2] or "it said nothing"
        raise WorkerFailed(f"{job.variant}: the worker ended with status {process.returncode}: {said}")
    return found[0]


async def _listen(
    stream: trio.abc.ReceiveStream, variant: str, found: list[dict[str, Any]], progress: Progress | None
) -> None:
    line = bytearray()
    async for data in stream:
        line += data
        *lines, rest = line.split(b"\n")
        line = bytearray(rest)
        for each in lines:
            said: Any = parse_json(bytes(each))
            if "result" in said:
                found.append(said["result"])
            elif progress is not None:
                progress(variant, said["arrived"])


async def _keep_last(stream: trio.abc.ReceiveStream, words: bytearray) -> None:
    async for data in stream:
        words += data
        del words[:-_LAST_WORDS]
