"""The keys of one instance: whether one is ready, and which is next."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Final

from spear.backends import Key

from ._pick import Weighted, by_session, in_turn
from ._state import KeyState

KEYS_COOLING: Final = "keys_cooling"
KEYS_DEAD: Final = "keys_dead"


class Pool:
    __slots__ = ("_wheel", "keys")

    def __init__(self, keys: Sequence[KeyState]) -> None:
        self.keys = tuple(keys)
        self._wheel: dict[Weighted, int] = {}

    def reason(self, now: float) -> str | None:
        """Why none of them may be used; None = one may."""
        if any(each.admits(now) for each in self.keys):
            return None
        return KEYS_COOLING if any(each.waits(now) for each in self.keys) else KEYS_DEAD

    def spare(self, now: float) -> Key | None:
        """One for what is sent beside requests and tells nobody how it went: neither cooling nor dead."""
        return next((each.key for each in self.keys if each.state(now) == "ok"), None)

    def ready_at(self, now: float) -> float:
        """When the first of those that cool may be used again; infinity where none cools."""
        return min((each.group.until for each in self.keys if each.waits(now)), default=math.inf)

    def stirred(self, now: float) -> bool:
        return any(each.stirred(now) for each in self.keys)

    def observe(self, now: float) -> list[dict[str, object]]:
        return [each.observe(now) for each in self.keys]

    def ready_beside(self, used: Collection[KeyState], now: float) -> bool:
        """Whether there is one that is none of those used, nor of their quota groups."""
        groups = {each.group for each in used}
        return any(each.group not in groups and each.admits(now) for each in self.keys)

    def usable_from(self, now: float) -> dict[str, float]:
        """When each key may be used, as far as is known: now, when its quota has cooled, or never."""
        return {
            each.key.id: now if each.admits(now) else each.group.until if each.waits(now) else math.inf
            for each in self.keys
        }

    def take(
        self,
        attempt: object,
        session: int | None,
        now: float,
        used: Collection[KeyState] = (),
        has_room: Callable[[str], bool] | None = None,
    ) -> KeyState:
        """The key for `attempt`, which begins now: one with room, rather none of those used. Where `reason` is None
        there is one."""
        keys: Sequence[KeyState] = self.keys
        if len(keys) > 1:
            keys = [each for each in keys if each.admits(now)]
            if has_room is not None:
                keys = [each for each in keys if has_room(each.key.id)] or keys
            keys = [each for each in keys if each not in used] or keys
        taken = keys[0]
        if len(keys) > 1:
            taken = keys[in_turn(keys, self._wheel) if session is None else by_session(keys, session)]
        taken.begin(attempt)
        return taken
