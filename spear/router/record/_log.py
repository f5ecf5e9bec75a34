"""Which decisions are kept: a ring in memory, always, and what waits for the file, where one is configured.

A request is sampled by the seed of its first decision, so that sampling draws nothing. Records are made to bytes here,
once; the ring and the queue are bounded by count and by bytes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal, NamedTuple, cast
from uuid import uuid4

import orjson
import trio

from spear.config import DecisionsConfig
from spear.ir import ErrorCode, Json, MalformedJson, dump_json, parse_json
from spear.router._decide import Plan
from spear.router._registry import Generation
from spear.router.policies import State

from ._decision import decision_as_json, look
from ._generation import generation_line
from ._trail import Step, Trail

KEPT: Final = 1000
KEPT_BYTES: Final = 16_777_216
QUEUED_BYTES: Final = 8_388_608
LOOKS_PER_SECOND: Final = 50
"""At instances for decisions that found nobody and are not sampled: in a bad hour these are all decisions, and a look
costs time for each instance. Beyond that such a decision is recorded without its inputs."""

Ending = Literal["ok", "failed", "cancelled"]


class Entry(NamedTuple):
    """A line, and that of its generation, which has to stand before it in the same file."""

    header: bytes | None
    line: bytes


class Decisions:
    """Belongs to one desk. `arrived` is set while something waits for the writer."""

    __slots__ = (
        "_clock", "_header", "_header_of", "_looks", "_queue", "_queued_bytes", "_ring", "_ring_bytes", "_run",
        "_second", "_settings", "arrived", "below", "dropped", "failures", "lost", "recorded", "writing", "written",
    )  # fmt: skip

    def __init__(self, settings: DecisionsConfig, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._run = uuid4().hex[:12]
        self._ring: deque[Entry] = deque()
        self._ring_bytes = 0
        self._queue: deque[Entry | DecisionsConfig] = deque()
        self._queued_bytes = 0
        self._header = b""
        self._header_of: Generation | None = None
        self._second, self._looks = 0.0, 0
        self.arrived = trio.Event()
        self.recorded = 0
        self.dropped = 0
        """Too much waited for the writer already, or JSON cannot say it."""
        self.written = 0
        self.lost = 0
        """The file could not be written, or has no room for a line so long."""
        self.failures = 0
        """Of writes."""
        self.writing = self._settings = DecisionsConfig()
        """`writing`: those of what the writer took last."""
        self.below = 0
        """A request is sampled if the seed of its first decision is below this. The numbers of that decision are a hash
        of the seed, so that those below a bound are decided like all others."""
        self.tune(settings)

    def tune(self, settings: DecisionsConfig) -> None:
        """From here on these hold; what waits is still written as it would have been."""
        self.below = int(settings.sample * 2.0**64)
        if settings != self._settings:
            self._settings = settings
            if self._queue and isinstance(self._queue[-1], DecisionsConfig):
                self._queue.pop()  # for nothing; and where there is no file, nobody takes them away
            self._queue.append(settings)
            self.arrived.set()

    @property
    def settings(self) -> DecisionsConfig:
        return self._settings

    # --- while a request is under way ---------------------------------------------------------------------------

    def look(
        self,
        generation: Generation,
        plan: Plan,
        state: State,
        now: float,
        exclude: Iterable[str],
        *,
        panic: bool,
        sampled: bool,
    ) -> Step:
        """To be called right after the decision, before anything that it read has changed."""
        if not sampled and not self._may_look(now):
            return Step(plan, None, None, self._clock())
        if self._header_of is not generation:
            self._header_of, self._header = generation, generation_line(generation, self._run)
        inputs = look(generation, plan, state, now, exclude, panic)
        return Step(plan, self._header, inputs, self._clock())

    def _may_look(self, now: float) -> bool:
        if not 0 <= now - self._second < 1:
            self._second, self._looks = now, 0
        self._looks += 1
        return self._looks <= LOOKS_PER_SECOND

    def now(self) -> float:
        """The time of day."""
        return self._clock()

    # --- when it has ended --------------------------------------------------------------------------------------

    def close(
        self, trail: Trail, request_id: str, outcome: Ending, error: ErrorCode | None, latency_s: float, sent: int
    ) -> None:
        if not (trail.sampled or outcome == "failed" or trail.found_nobody):
            return
        ended: dict[str, Json] = {
            "request_id": request_id,
            "outcome": outcome,
            "error": None if error is None else error.value,
            "latency_ms": latency_s * 1000,
            "sent": sent,
        }
        for number, step in enumerate(trail.steps, 1):
            if trail.sampled or outcome == "failed" or step.found_nobody:
                self._keep(step, trail.sampled, {**ended, "number": number, "attempts": step.attempts})

    def _keep(self, step: Step, sampled: bool, rest: Mapping[str, Json]) -> None:
        record = decision_as_json(step.plan, step.inputs, run=self._run, time=step.time, sampled=sampled, **rest)
        try:
            line = _line(record)
        except MalformedJson:  # a name with half a surrogate in it
            self.dropped += 1
            return
        self.recorded += 1
        entry = Entry(step.header, line)
        self._remember(entry)
        if self._settings.path is not None:
            self._enqueue(entry)

    def _remember(self, entry: Entry) -> None:
        ring = self._ring
        ring.append(entry)
        self._ring_bytes += len(entry.line)
        while len(ring) > KEPT or (self._ring_bytes > KEPT_BYTES and ring):
            self._ring_bytes -= len(ring.popleft().line)

    def _enqueue(self, entry: Entry) -> None:
        if self._queued_bytes + len(entry.line) > QUEUED_BYTES:
            self.dropped += 1
            return
        self._queue.append(entry)
        self._queued_bytes += len(entry.line)
        self.arrived.set()

    # --- reading --------------------------------------------------------------------------------------------------

    def take(self, most_bytes: int) -> list[Entry]:
        """What waits, in order: at least one, then as long as it is not too much. All of it is for the file that
        `writing` names from now on."""
        queue, taken, size = self._queue, list[Entry](), 0
        while queue:
            first = queue[0]
            if isinstance(first, DecisionsConfig):
                if taken:
                    break
                self.writing = first
            elif taken and size + len(first.line) > most_bytes:
                break
            else:
                size += len(first.line)
                taken.append(first)
            queue.popleft()
        self._queued_bytes -= size
        if not queue:
            self.arrived = trio.Event()
        return taken

    def records(self) -> list[dict[str, Any]]:
        """The latest decisions, each generation before the first of its own, as in a file."""
        found: list[dict[str, Any]] = []
        stated: set[bytes] = set()
        for header, line in self._ring:
            if header is not None and header not in stated:
                stated.add(header)
                found.append(cast("dict[str, Any]", parse_json(header)))
            found.append(cast("dict[str, Any]", parse_json(line)))
        return found

    def observe(self) -> dict[str, object]:
        return {
            "recorded": self.recorded,
            "dropped": self.dropped,
            "written": self.written,
            "lost": self.lost,
            "write_failures": self.failures,
        }


def _line(record: dict[str, Json]) -> bytes:
    """All numbers of a decision are finite, so that nobody has to look for one that is not: that would take longer than
    the rest, with many instances."""
    try:
        return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # an integer of more than 64 bits
        return dump_json(record) + b"\n"
