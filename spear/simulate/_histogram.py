"""A distribution in constant space: counts in buckets that grow with the value, as of an HDR histogram.

Each power of two has 64 buckets, so that a quantile is off by at most 0.8 %, however many values there were.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, frexp, ldexp
from typing import Final

_PARTS: Final = 64


class Histogram:
    """Of values from 0 up. `total`, `count`, `least` and `most` are exact."""

    __slots__ = ("_buckets", "_zeros", "count", "least", "most", "total")

    def __init__(self) -> None:
        self._buckets: dict[int, int] = {}
        self._zeros = 0
        self.count = 0
        self.total = 0.0
        self.least = 0.0
        self.most = 0.0

    def add(self, value: float) -> None:
        self.least = value if self.count == 0 else min(self.least, value)
        self.most = max(self.most, value)
        self.count += 1
        self.total += value
        if value <= 0:
            self._zeros += 1
            return
        mantissa, exponent = frexp(value)  # 0.5 <= mantissa < 1
        bucket = exponent * _PARTS + int((mantissa - 0.5) * (2 * _PARTS))
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1

    def merge(self, other: Histogram) -> None:
        if other.count == 0:
            return
        self.least = other.least if self.count == 0 else min(self.least, other.least)
        self.most = max(self.most, other.most)
        self.count += other.count
        self.total += other.total
        self._zeros += other._zeros
        for bucket, count in other._buckets.items():
            self._buckets[bucket] = self._buckets.get(bucket, 0) + count

    @property
    def mean(self) -> float | None:
        return self.total / self.count if self.count else None

    def quantile(self, fraction: float) -> float | None:
        """The least value that at least `fraction` of all did not exceed, to within a bucket; None without values."""
        if not self.count:
            return None
        wanted = min(self.count, max(1, ceil(fraction * self.count)))
        for value, seen in self.cumulative():
            if seen >= wanted:
                return min(self.most, max(self.least, value))
        raise AssertionError("unreachable: the last bucket has seen all")

    def cumulative(self) -> Iterator[tuple[float, int]]:
        """Each bucket's middle, and how many values did not exceed the bucket, in rising order."""
        seen = self._zeros
        if seen:
            yield 0.0, seen
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            exponent, part = divmod(bucket, _PARTS)
            yield ldexp(0.5 + (part + 0.5) / (2 * _PARTS), exponent), seen
