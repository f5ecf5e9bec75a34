"""The log records of one execution: a ring of the newest, and an optional sink that sees each as it comes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from sys import getsizeof

from spear.hostcall._limits import LOG_RING_RECORDS, MIB

LEVELS = ("trace", "debug", "info", "warn", "error")


@dataclass(frozen=True, slots=True)
class LogRecord:
    seq: int
    ts_ms: int
    level: str
    execution_id: str
    task_id: str
    instance_id: str
    message: str


LogSink = Callable[[LogRecord], None]


class LogRing:
    """Keeps the newest records, as many as both a count and the room their messages take allow; `dropped` counts the
    others."""

    __slots__ = ("_bytes", "_ids", "_max_bytes", "_records", "_seq", "_sink")

    def __init__(
        self,
        execution_id: str,
        task_id: str,
        instance_id: str,
        sink: LogSink | None = None,
        max_bytes: int = MIB,
    ) -> None:
        self._ids = (execution_id, task_id, instance_id)
        self._records: deque[LogRecord] | None = None  # most of ten thousand waiting guests have not logged yet
        self._bytes = 0
        self._max_bytes = max_bytes
        self._seq = 0
        self._sink = sink

    def add(self, level: str, message: str) -> None:
        self._seq += 1
        record = LogRecord(self._seq, time.time_ns() // 1_000_000, level, *self._ids, message)
        if self._records is None:
            self._records = deque()
        self._records.append(record)
        self._bytes += getsizeof(message)  # of memory: a character may take one byte or four
        self._shrink(self._records)
        if self._sink is not None:
            self._sink(record)

    def _shrink(self, records: deque[LogRecord]) -> None:
        while len(records) > LOG_RING_RECORDS or (self._bytes > self._max_bytes and len(records) > 1):
            self._bytes -= getsizeof(records.popleft().message)

    @property
    def dropped(self) -> int:
        return self._seq - len(self._records or ())

    def read(self, after: int = 0, limit: int | None = None) -> tuple[LogRecord, ...]:
        """The kept records with a seq above `after`, oldest first, at most `limit` of them."""
        found = tuple(record for record in self._records or () if record.seq > after)
        return found if limit is None else found[: max(limit, 0)]
