"""Which instances one request may be sent to a second time, and when: nobody's but this request's business."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from spear.config import RetryConfig

from ._facts import Facts
from ._failures import Fault
from ._retry import backoff, not_before


class Repeat(NamedTuple):
    due: float
    name: str
    facts: Facts


class Again:
    __slots__ = ("_count", "_due", "_sends", "_settings", "spent")

    def __init__(self, settings: RetryConfig) -> None:
        self._settings = settings
        self._sends: dict[str, int] = {}
        self._due: dict[str, Repeat] = {}
        self._count = 0
        self.spent: set[str] = set()
        """Those that this request goes to no more."""

    @property
    def begun(self) -> bool:
        """Something was sent."""
        return bool(self._sends)

    def sent(self, name: str) -> None:
        self._sends[name] = self._sends.get(name, 0) + 1
        self._due.pop(name, None)

    def refused(self, name: str) -> None:
        self.spent.add(name)
        self._due.pop(name, None)

    def forgive(self, name: str) -> None:
        """What failed there last was a key, and it has another one: that is no repetition."""
        self._sends[name] = max(0, self._sends.get(name, 0) - 1)
        self.spent.discard(name)

    def failed(self, name: str, facts: Facts, fault: Fault, now: float, deadline: float, factor: float) -> None:
        """`factor` is the jitter of a backoff."""
        due = None
        if fault.rule.same_instance != "no" and self._sends.get(name, 0) < self._settings.per_instance:
            wait = backoff(self._count + 1, factor, self._settings)
            due = not_before(now, deadline, fault.error.retry_after_ms, wait, self._settings)
        if due is None:
            self.refused(name)
        else:
            self._count += 1
            self._due[name] = Repeat(due, name, facts)

    def move(self, settings: RetryConfig, gone: AbstractSet[str]) -> None:
        """Another configuration holds, in which those of the names `gone` are others or nobody."""
        self._settings = settings
        self.spent -= gone
        for name in gone:
            self._sends.pop(name, None)
            self._due.pop(name, None)

    def waiting(self) -> Sequence[Repeat]:
        """The earliest first."""
        return sorted(self._due.values(), key=lambda each: each.due)
