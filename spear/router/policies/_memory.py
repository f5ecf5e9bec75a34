"""What policies remember, by policy and set of candidates: the least recently used are forgotten.

A decision only reads it and gives back a `Change`; whoever runs the decision for real applies that. So an
explanation, a replay and a failed experiment leave no trace.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, NamedTuple

from ._policy import State

_MOST: Final = 1024

Key = tuple[str, tuple[int, ...]]
"""The policy's name, and the candidates' indexes, which no other instance of any generation has: what is remembered of
candidates that stay holds on, and of others it is never met again."""


class Change(NamedTuple):
    key: Key
    state: State


class Memory:
    __slots__ = ("_most", "_states")

    def __init__(self, most: int = _MOST) -> None:
        self._states: OrderedDict[Key, State] = OrderedDict()
        self._most = most

    def __len__(self) -> int:
        return len(self._states)

    def get(self, key: Key) -> State:
        return self._states.get(key)

    def apply(self, change: Change) -> None:
        states = self._states
        states[change.key] = change.state
        states.move_to_end(change.key)
        if len(states) > self._most:
            states.popitem(last=False)
