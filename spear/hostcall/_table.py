"""Every import a guest can have: module, name, signature, and the function behind it.

Rule 1: the name and signature of a hostcall appear in this file and nowhere else.
Rule 2: a plain hostcall never waits. A suspending one is an `async def` and runs in the guest's own task.

Signatures: one letter per parameter and one or none for the result, `i` for i32 and `I` for i64.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from spear.hostcall import _basic

SPEAR: Final = "spear"
WASI: Final = "wasi_snapshot_preview1"


@dataclass(frozen=True, slots=True)
class Hostcall:
    module: str
    name: str
    params: str
    result: str
    run: Callable[..., Any]

    @property
    def suspends(self) -> bool:
        return inspect.iscoroutinefunction(self.run)


def _spear(name: str, params: str, result: str, run: Callable[..., Any]) -> Hostcall:
    return Hostcall(SPEAR, name, params, result, run)


TABLE: Final[tuple[Hostcall, ...]] = (
    _spear("time_now_ms", "", "I", _basic.time_now_ms),
    _spear("wall_time_s", "", "I", _basic.wall_time_s),
    _spear("random_i64", "", "I", _basic.random_i64),
    _spear("sleep_ms", "i", "", _basic.sleep_ms),
    _spear("log", "iii", "i", _basic.log),
)
