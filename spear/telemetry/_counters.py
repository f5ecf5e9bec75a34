"""Counters, gauges and histograms in this process: plain numbers, no thread, no lock.

A child is looked up once and kept by whoever counts; counting is then an attribute and an addition. For one thread:
that of the runtime. Reading is for any moment of it.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

MAX_SERIES: Final = 1000
"""Label combinations of one name; more are counted together under `overflow="true"`, so that a label that a caller
chooses cannot fill the memory."""
SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_OVERFLOW: Final = (("overflow", "true"),)
Labels = tuple[tuple[str, str], ...]


class Counter:
    """Only grows."""

    __slots__ = ("value",)
    kind = "counter"

    def __init__(self) -> None:
        self.value: int | float = 0

    def add(self, amount: float = 1) -> None:
        if amount < 0:
            raise ValueError("a counter only grows; use a gauge")
        self.value += amount


class Gauge:
    """Goes up and down."""

    __slots__ = ("value",)
    kind = "gauge"

    def __init__(self) -> None:
        self.value: int | float = 0

    def add(self, amount: float = 1) -> None:
        self.value += amount

    def set(self, value: float) -> None:
        self.value = value


@dataclass(frozen=True, slots=True)
class HistogramValue:
    """`buckets` counts the values up to each bound, cumulatively; `count` is all of them."""

    count: int
    sum: float
    buckets: Mapping[float, int]


class Histogram:
    """Values by size, in buckets with fixed upper bounds."""

    __slots__ = ("_bounds", "_counts", "_sum")
    kind = "histogram"

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self._bounds = tuple(bounds)
        if not self._bounds or any(a >= b for a, b in zip(self._bounds, self._bounds[1:], strict=False)):
            raise ValueError("the bounds of a histogram are at least one number, in ascending order")
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    @property
    def value(self) -> HistogramValue:
        total, buckets = 0, {}
        for bound, count in zip(self._bounds, self._counts, strict=False):
            total += count
            buckets[bound] = total
        return HistogramValue(total + self._counts[-1], self._sum, buckets)


Series = Counter | Gauge | Histogram
SeriesT = TypeVar("SeriesT", Counter, Gauge, Histogram)


class Counters:
    """All series of one runtime. The same name and labels give the same child."""

    def __init__(self) -> None:
        self._families: dict[str, dict[Labels, Series]] = {}
        self._about: dict[str, str] = {}

    def counter(self, name: str, about: str = "", /, **labels: str) -> Counter:
        return self._child(name, about, labels, Counter())

    def gauge(self, name: str, about: str = "", /, **labels: str) -> Gauge:
        return self._child(name, about, labels, Gauge())

    def histogram(
        self, name: str, about: str = "", /, *, bounds: Sequence[float] = SECONDS, **labels: str
    ) -> Histogram:
        """`bounds` holds where the child is new."""
        return self._child(name, about, labels, Histogram(bounds))

    def snapshot(self) -> Mapping[str, int | float | HistogramValue]:
        """The values of this moment, by `name{label="value"}`."""
        return {_written(name, labels): child.value for name, labels, child in self._series()}

    def prometheus(self) -> str:
        """In the text format that Prometheus reads (version 0.0.4)."""
        lines: list[str] = []
        for name, family in sorted(self._families.items()):
            if about := self._about.get(name):
                lines.append(f"# HELP {name} " + about.replace("\\", r"\\").replace("\n", r"\n"))
            lines.append(f"# TYPE {name} {next(iter(family.values())).kind}")
            for labels, child in sorted(family.items()):
                lines += _lines(name, labels, child)
        return "".join(line + "\n" for line in lines)

    def _series(self) -> list[tuple[str, Labels, Series]]:
        return [
            (name, labels, child)
            for name, family in sorted(self._families.items())
            for labels, child in sorted(family.items())
        ]

    def _child(self, name: str, about: str, labels: Mapping[str, str], new: SeriesT) -> SeriesT:
        key: Labels = tuple(sorted(labels.items()))
        family = self._families.get(name)
        if family is None:
            if _NAME.fullmatch(name) is None:
                raise ValueError(f"{name!r} is no name of a metric; expected letters, digits, _ and :")
            family = self._families[name] = {}
        child = family.get(key)
        if child is None:
            if any(_LABEL.fullmatch(label) is None or label in {"le", "overflow"} for label in labels):
                raise ValueError("a label's name is made of letters, digits and _, and is neither le nor overflow")
            key = key if len(family) < MAX_SERIES else _OVERFLOW
            child = family.setdefault(key, new)
        if type(child) is not type(new):
            raise ValueError(f"{name} is a {child.kind} already")
        if about:
            self._about.setdefault(name, about)
        return child


def _lines(name: str, labels: Labels, child: Series) -> list[str]:
    if not isinstance(child, Histogram):
        return [f"{_written(name, labels)} {_number(child.value)}"]
    found = child.value
    buckets = [(_number(bound), count) for bound, count in found.buckets.items()]
    return [
        *(
            f"{_written(name + '_bucket', (*labels, ('le', le)))} {count}"
            for le, count in [*buckets, ("+Inf", found.count)]
        ),
        f"{_written(name + '_sum', labels)} {_number(found.sum)}",
        f"{_written(name + '_count', labels)} {found.count}",
    ]


def _written(name: str, labels: Labels) -> str:
    inner = ",".join(f'{label}="{_escaped(value)}"' for label, value in labels)
    return f"{name}{{{inner}}}" if inner else name


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(float(value))
