"""The keys that one request has used: nobody's but this request's business."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Protocol

from ._pool import Pool
from ._state import KeyState


class Keyed(Protocol):
    @property
    def pool(self) -> Pool | None: ...


class Trail:
    """Made with the first failure of an attempt that had a key."""

    __slots__ = ("_refused", "used")

    def __init__(self) -> None:
        self.used: set[KeyState] = set()
        self._refused: dict[str, set[KeyState]] = {}

    def failed(self, name: str, key: KeyState, *, refused: bool) -> None:
        """An attempt at the instance `name` failed; `refused`: it was about the key."""
        self.used.add(key)
        if refused:
            self._refused.setdefault(name, set()).add(key)
        else:
            self._refused.pop(name, None)

    def open_again(self, name: str, instance: Keyed, now: float) -> bool:
        """Whether the instance refused a key, and has another one ready that this request has not used."""
        return name in self._refused and instance.pool is not None and instance.pool.ready_beside(self.used, now)

    def closed(self, tried: Mapping[str, Keyed], now: float) -> AbstractSet[str]:
        """Of the instances that this request has tried, those that it has to leave alone."""
        return {name for name, instance in tried.items() if not self.open_again(name, instance, now)}
