"""What a run came to, as it goes: in space that does not grow with the number of requests."""

from __future__ import annotations

from typing import Any, Final

from ._histogram import Histogram
from ._model import ModelledBackend

MOST_SLOTS: Final = 64
_QUANTILES: Final = (("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99), ("p999", 0.999))


class Slot:
    """Those requests that arrived within one stretch of time."""

    __slots__ = ("arrivals", "errors", "left", "ok", "seconds", "shares")

    def __init__(self) -> None:
        self.arrivals = self.ok = self.errors = self.left = 0
        self.seconds = Histogram()
        self.shares: dict[str, int] = {}

    def merge(self, other: Slot) -> None:
        self.arrivals += other.arrivals
        self.ok += other.ok
        self.errors += other.errors
        self.left += other.left
        self.seconds.merge(other.seconds)
        for name, count in other.shares.items():
            self.shares[name] = self.shares.get(name, 0) + count


class Tally:
    """`arrivals` = ok + errors + left once all have ended. `seconds` is from arrival to the answer's end, `first` to
    the first content of a stream; of those that went well. `reached` a backend: for the others nobody was called. Times
    of slots from the start."""

    __slots__ = (
        "arrivals",
        "errors",
        "first",
        "left",
        "ok",
        "reached",
        "seconds",
        "shares",
        "slots",
        "told_cost",
        "width",
    )

    def __init__(self, width: float = 0.25) -> None:
        self.arrivals = self.reached = self.ok = self.left = 0
        self.errors: dict[str, int] = {}
        self.seconds = Histogram()
        self.first = Histogram()
        self.shares: dict[str, int] = {}
        self.told_cost = 0.0
        self.width = width
        self.slots: list[Slot] = []

    def arrived(self, at: float) -> None:
        self.arrivals += 1
        self._slot(at).arrivals += 1

    def answered(self, at: float, seconds: float, backend: str, cost: float | None) -> None:
        self.ok += 1
        self.seconds.add(seconds)
        self.shares[backend] = self.shares.get(backend, 0) + 1
        self.told_cost += cost or 0.0
        slot = self._slot(at)
        slot.ok += 1
        slot.seconds.add(seconds)
        slot.shares[backend] = slot.shares.get(backend, 0) + 1

    def failed(self, at: float, code: str) -> None:
        self.errors[code] = self.errors.get(code, 0) + 1
        self._slot(at).errors += 1

    def gone(self, at: float) -> None:
        self.left += 1
        self._slot(at).left += 1

    def _slot(self, at: float) -> Slot:
        """Twice as wide ones as often as there would be too many."""
        while at >= self.width * MOST_SLOTS:
            for number in range(0, len(self.slots) - 1, 2):
                self.slots[number].merge(self.slots[number + 1])
            del self.slots[1::2]
            self.width *= 2
        number = int(at / self.width)
        while len(self.slots) <= number:
            self.slots.append(Slot())
        return self.slots[number]

    def result(self, backends: list[ModelledBackend], router: dict[str, int]) -> dict[str, Any]:
        """Plain values, in an order that is always the same."""
        calls = sum(each.calls for each in backends)
        return {
            "arrivals": self.arrivals,
            "ok": self.ok,
            "errors": dict(sorted(self.errors.items())),
            "left": self.left,
            "latency": _summary(self.seconds),
            "first_content": _summary(self.first),
            "reached": self.reached,
            "calls": calls,
            "extra_load": calls / self.reached - 1 if self.reached else None,
            "cost": sum(each.cost for each in backends),
            "told_cost": self.told_cost,
            "router": dict(sorted(router.items())),
            "backends": {each.name: self._backend(each) for each in backends},
            "over_time": [[round(number * self.width, 6), *_row(slot)] for number, slot in enumerate(self.slots)],
            "distribution": [[value, seen] for value, seen in self.seconds.cumulative()],
        }

    def _backend(self, each: ModelledBackend) -> dict[str, Any]:
        answers = self.shares.get(each.name, 0)
        return {
            "share": answers / self.ok if self.ok else None,
            "answers": answers,
            "calls": each.calls,
            "answered": each.answered,
            "left": each.left,
            "failed": dict(sorted(each.failed.items())),
            "cost": each.cost,
            "most_waiting": each.most_waiting,
        }


def _summary(seconds: Histogram) -> dict[str, float | None]:
    quantiles = {name: seconds.quantile(fraction) for name, fraction in _QUANTILES}
    return {"mean": seconds.mean, **quantiles, "max": seconds.most if seconds.count else None}


def _row(slot: Slot) -> list[Any]:
    """arrivals, ok, errors, left, p50, p95, p99, shares."""
    quantiles = [slot.seconds.quantile(fraction) for fraction in (0.5, 0.95, 0.99)]
    return [slot.arrivals, slot.ok, slot.errors, slot.left, *quantiles, dict(sorted(slot.shares.items()))]
