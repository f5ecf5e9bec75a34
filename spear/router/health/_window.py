"""Outcomes of the last seconds, counted in ten buckets: the memory does not grow with the traffic."""

from __future__ import annotations

from collections import deque
from typing import Final

_BUCKETS: Final = 10


class Window:
    """`ok` and `failed` are as of the last call of `add` or `expire`."""

    __slots__ = ("_buckets", "_width", "failed", "ok")

    def __init__(self, seconds: float) -> None:
        self._width = seconds / _BUCKETS
        self._buckets: deque[list[int]] = deque()  # number of the bucket, ok, failed
        self.ok = self.failed = 0

    def add(self, ok: bool, now: float) -> None:
        number = int(now // self._width)
        buckets = self._buckets
        if not buckets or buckets[-1][0] < number:
            self.expire(now)
            buckets.append([number, 0, 0])
        if ok:
            self.ok += 1
            buckets[-1][1] += 1
        else:
            self.failed += 1
            buckets[-1][2] += 1

    def expire(self, now: float) -> None:
        oldest = int(now // self._width) - _BUCKETS
        buckets = self._buckets
        while buckets and buckets[0][0] <= oldest:
            _, ok, failed = buckets.popleft()
            self.ok -= ok
            self.failed -= failed

    def tune(self, seconds: float) -> None:
        """Another length; what was counted is forgotten where it differs."""
        if self._width != seconds / _BUCKETS:
            self._width = seconds / _BUCKETS
            self.clear()

    def clear(self) -> None:
        self._buckets.clear()
        self.ok = self.failed = 0
