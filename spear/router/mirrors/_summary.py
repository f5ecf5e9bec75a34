"""From the lines of record files to a report. Pure but for reading the lines: they may be anybody's."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import ceil, isfinite
from statistics import median
from typing import BinaryIO, Final, NamedTuple

from spear.ir import Json

from ._record import BadRecord, MirrorRecord, read_record
from ._side import OK

LONGEST_LINE: Final = 4 * 1024 * 1024
_BAD_NAMED: Final = 20
_WORST: Final = 5


class Bad(NamedTuple):
    """A line that is no record: counted from 1."""

    file: str
    line: int
    why: str


class Worst(NamedTuple):
    similarity: float
    request_id: str


def read_lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Each line with its number; of one that is too long only the beginning, one byte longer than may be."""
    number = 0
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        yield number, line
        while line and not line.endswith(b"\n"):
            line = file.readline(LONGEST_LINE)


@dataclass
class Group:
    """The pairs of one primary, one mirror and one model that was asked for."""

    primary: str
    mirror: str
    model: str
    n: int = 0
    compared: int = 0
    errors: int = 0
    _similarity: list[float] = field(default_factory=list)
    _names: list[bool] = field(default_factory=list)
    _arguments: list[bool] = field(default_factory=list)
    _schema: list[bool] = field(default_factory=list)
    _primary_schema: list[bool] = field(default_factory=list)
    _finish: list[bool] = field(default_factory=list)
    _latency: list[float] = field(default_factory=list)
    _costs: tuple[float, float] = (0.0, 0.0)
    _worst: list[tuple[float, int, str]] = field(default_factory=list)

    def add(self, record: MirrorRecord) -> None:
        self.n += 1
        self.errors += record.mirror_outcome != OK
        if not record.compared:
            return
        self.compared += 1
        for into, value in (
            (self._similarity, record.text_similarity),
            (self._names, record.tool_names_equal),
            (self._arguments, record.tool_arguments_equal),
            (self._schema, record.mirror_schema_valid),
            (self._primary_schema, record.primary_schema_valid),
        ):
            if value is not None:
                into.append(value)  # type: ignore[arg-type]
        if record.primary_finish_reason is not None and record.mirror_finish_reason is not None:
            self._finish.append(record.primary_finish_reason == record.mirror_finish_reason)
        if record.primary_latency_ms and record.mirror_latency_ms is not None:
            self._latency.append(record.mirror_latency_ms / record.primary_latency_ms)
        if record.primary_cost is not None and record.mirror_cost is not None:
            ours, theirs = self._costs
            self._costs = ours + record.primary_cost, theirs + record.mirror_cost
        if record.text_similarity is not None:
            entry = (-record.text_similarity, -self.n, record.request_id)
            (heapq.heappush if len(self._worst) < _WORST else heapq.heappushpop)(self._worst, entry)

    @property
    def worst(self) -> list[Worst]:
        """The least alike, the worst first, of equals the first one."""
        return [Worst(-likeness, name) for likeness, _, name in sorted(self._worst, reverse=True)]

    def as_json(self) -> dict[str, Json]:
        """Shares are from 0 to 1; None where no record says anything of it."""
        ours, theirs = self._costs
        return {
            "primary": self.primary,
            "mirror": self.mirror,
            "model": self.model,
            "n": self.n,
            "compared": self.compared,
            "errors": self.errors,
            "similarity_median": median(self._similarity) if self._similarity else None,
            "similarity_p10": _percentile(self._similarity, 0.1),
            "tool_names_equal": _share(self._names),
            "tool_arguments_equal": _share(self._arguments),
            "mirror_schema_valid": _share(self._schema),
            "primary_schema_valid": _share(self._primary_schema),
            "finish_reasons_equal": _share(self._finish),
            "latency_ratio": _finite(median(self._latency)) if self._latency else None,
            "cost_ratio": _finite(theirs / ours) if ours else None,
            "worst": [each._asdict() for each in self.worst],
        }


@dataclass
class Summary:
    """Of the bad lines the first twenty are named, all are counted."""

    records: int = 0
    bad_lines: int = 0
    bad: list[Bad] = field(default_factory=list)
    _groups: dict[tuple[str, str, str], Group] = field(default_factory=dict)

    @property
    def groups(self) -> list[Group]:
        """By name."""
        return [group for _, group in sorted(self._groups.items())]

    def read(self, name: str, lines: Iterable[tuple[int, bytes]]) -> None:
        for number, line in lines:
            if not line.strip():
                continue
            try:
                if len(line) > LONGEST_LINE:
                    raise BadRecord(f"is longer than {LONGEST_LINE} bytes")
                self.add(read_record(line))
            except BadRecord as error:
                self.bad_lines += 1
                if len(self.bad) < _BAD_NAMED:
                    self.bad.append(Bad(name, number, str(error)))

    def add(self, record: MirrorRecord) -> None:
        self.records += 1
        key = record.primary, record.mirror, record.model
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group(*key)
        group.add(record)

    def as_json(self) -> Mapping[str, Json]:
        return {
            "records": self.records,
            "bad_lines": self.bad_lines,
            "bad": [each._asdict() for each in self.bad],
            "groups": [each.as_json() for each in self.groups],
        }


def _percentile(values: list[float], fraction: float) -> float | None:
    """The least value that at least `fraction` of them do not exceed."""
    return sorted(values)[max(1, ceil(fraction * len(values))) - 1] if values else None


def _share(values: list[bool]) -> float | None:
    return sum(values) / len(values) if values else None


def _finite(value: float) -> float | None:
    """What a foreign file says may be beyond what a ratio can hold."""
    return value if isfinite(value) else None
