"""A simulation, in Python, of the script in Redis: for properties in virtual time. A test compares the two."""

from __future__ import annotations

import math
from typing import Any

import orjson


class SimulatedStore:
    """`now` is its clock. `data` by key: slice → amount."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.clear()

    def clear(self) -> None:
        self.data: dict[str, dict[int, float]] = {}
        self.alive: dict[str, float] = {}
        self.mark: str | None = None
        self.hold = 0.0

    def run(self, keys: list[str], told: bytes) -> bytes:
        asked = orjson.loads(told)
        self.mark = self.mark or asked["mark"]
        known = self.mark == asked["born"]
        if asked["born"] and not known:
            self.hold = self.now + asked["hold_s"]
        hold = self.now < self.hold
        self.alive[asked["node"]] = self.now
        if asked["leaving"]:
            del self.alive[asked["node"]]
        self.alive = {node: at for node, at in self.alive.items() if at > self.now - asked["alive_s"]}
        answers = []
        if known or not asked["born"]:
            for key, one in zip(keys[2:], asked["limits"], strict=True):
                answers.append(self._one(self.data.setdefault(key, {}), one, hold, asked["leaving"]))
        nodes = len(self.alive)
        return orjson.dumps({"mark": self.mark, "hold": hold, "nodes": nodes, "answers": answers or {}})

    def _one(self, held: dict[int, float], one: dict[str, Any], hold: bool, leaving: bool) -> list[str]:
        slice_ = math.floor(self.now / one["slice_s"])

        def take_out(number: int, amount: float) -> float:
            out = min(held.get(number, 0.0), amount)
            if out > 0:
                held[number] -= out
            return max(0.0, out)

        for number, amount in one["back"]:
            take_out(number, amount)
        moved = take_out(one["slice"], one["moved"]) if one["moved"] > 0 else 0.0
        for number in [number for number in held if number < slice_ - one["slices"]]:
            del held[number]
        used = sum(amount for amount in held.values() if amount > 0) + moved + one["forced"]
        oldest = min([slice_, *(number for number, amount in held.items() if amount > 0)])
        granted = 0.0
        if not hold and not leaving:
            free = max(0.0, one["limit"] - used)
            target = max(one["want"], (free + moved) * one["share"] / max(1, len(self.alive)))
            granted = max(0.0, min(free, target - moved))
            if one["whole"]:
                granted = max(0.0, math.floor(granted + moved + 0.000001) - moved)
        added = moved + one["forced"] + granted
        if added > 0:
            held[slice_] = held.get(slice_, 0.0) + added
        frees_in = max(0.0, (oldest + one["slices"] + 1) * one["slice_s"] - self.now)
        return [f"{slice_:d}", *(f"{each:.17g}" for each in (moved, granted, used + granted, frees_in))]
