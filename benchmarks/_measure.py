"""Side by side: every case once per round, in an order that rotates; medians of the ratios within a round.

A machine that slows down slows a whole round down, so the ratios of a round hold where absolute times do not.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import trio


@dataclass(frozen=True)
class Row:
    what: str
    value: float  # median, in `unit`
    unit: str
    against: str | None = None
    ratio: float | None = None  # median of the paired ratios
    reach: float | None = None  # at most this ratio

    @property
    def verdict(self) -> str:
        if self.reach is None or self.ratio is None:
            return ""
        return "pass" if self.ratio <= self.reach else "MISS"


def pin_to_one_core() -> int:
    """Use one core only, so that threads compared with tasks get no second one. Returns its number."""
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    return core


def rounds(cases: Mapping[str, Callable[[], float]], count: int) -> dict[str, list[float]]:
    """Run all cases `count` times, interleaved. A case returns its own figure (e.g. seconds per operation)."""
    names = list(cases)
    figures: dict[str, list[float]] = {name: [] for name in names}
    for number in range(count):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            figures[name].append(cases[name]())
    return figures


def row(
    figures: Mapping[str, list[float]],
    what: str,
    against: str | None = None,
    reach: float | None = None,
    *,
    scale: float = 1e6,
    unit: str = "µs",
) -> Row:
    value = statistics.median(figures[what]) * scale
    if against is None:
        return Row(what, value, unit)
    ratio = statistics.median(a / b for a, b in zip(figures[what], figures[against], strict=True))
    return Row(what, value, unit, against, ratio, reach)


def arguments(description: str | None, default_rounds: int) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=default_rounds)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser.parse_args()


def report(title: str, rows: list[Row], *, as_json: bool) -> None:
    """Print the rows; a missed reach makes the exit status 1."""
    if as_json:
        print(json.dumps({"title": title, "rows": [asdict(r) | {"verdict": r.verdict} for r in rows]}))
    else:
        print(f"\n{title}")
        print(f"{'what':<46} {'median':>12} {'ratio':>8} {'reach':>7}        against")
        for r in rows:
            ratio = "" if r.ratio is None else f"{r.ratio:.3f}"
            reach = "" if r.reach is None else f"≤ {r.reach:g}"
            print(f"{r.what:<46} {r.value:>9.2f} {r.unit:<2} {ratio:>8} {reach:>7} {r.verdict:<6} {r.against or ''}")
    if any(r.verdict == "MISS" for r in rows):
        sys.exit(1)


async def ping_pong(clock: Callable[[], float], times: int) -> float:
    """Two memory channels, two tasks: what everything here is measured against. Seconds for each round trip."""
    to_send, to_receive = trio.open_memory_channel[int](64)
    back_send, back_receive = trio.open_memory_channel[int](64)

    async def echo() -> None:
        async with to_receive, back_send:
            async for number in to_receive:
                await back_send.send(number)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(echo)
        async with to_send:
            start = clock()
            for number in range(times):
                await to_send.send(number)
                await back_receive.receive()
            return (clock() - start) / times
    raise AssertionError
