"""Results for people: one row for each variant, then who answered, then what went wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

Result = Mapping[str, Any]
Rows = list[tuple[str, ...]]
COLUMNS: Final = ("variant", "ok", "errors", "p50", "p95", "p99", "p99.9", "mean", "extra load", "cost")
_MOST_BACKENDS: Final = 12


def summary(results: Iterable[Result]) -> Rows:
    """Under `COLUMNS`. Times are of answered requests, from arrival to the end of the answer."""
    return [
        (
            each["name"],
            str(each["ok"]),
            _percent((each["arrivals"] - each["ok"]) / each["arrivals"] if each["arrivals"] else None),
            *(_seconds(each["latency"][name]) for name in ("p50", "p95", "p99", "p999", "mean")),
            _percent(each["extra_load"]),
            _money(each["cost"]),
        )
        for each in results
    ]


def shares(results: Sequence[Result]) -> tuple[tuple[str, ...], Rows]:
    """Of the answers that went well; headings and rows. Of many backends only the spread."""
    names = list(dict.fromkeys(name for each in results for name in each["backends"]))
    if len(names) <= _MOST_BACKENDS:
        return ("share of answers", *names), [
            (each["name"], *(_percent(each["backends"].get(name, {}).get("share")) for name in names))
            for each in results
        ]
    rows: Rows = []
    for each in results:
        found = sorted(backend["share"] or 0.0 for backend in each["backends"].values())
        rows.append((each["name"], _percent(found[0]), _percent(found[len(found) // 2]), _percent(found[-1])))
    return ("share of answers", "least", "median", "most"), rows


def troubles(results: Iterable[Result]) -> Rows:
    """Variant, what, how often: errors that callers saw, callers that left, failed calls at the backends."""
    rows: Rows = []
    for each in results:
        rows += [(each["name"], f"callers saw {code}", str(count)) for code, count in each["errors"].items()]
        if each["left"]:
            rows.append((each["name"], "callers left", str(each["left"])))
        failed: dict[str, int] = {}
        for backend in each["backends"].values():
            for kind, count in backend["failed"].items():
                failed[kind] = failed.get(kind, 0) + count
        rows += [(each["name"], f"backends failed: {kind}", str(count)) for kind, count in sorted(failed.items())]
    return rows


def _seconds(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value * 100:.1f} %"


def _money(value: float) -> str:
    return f"{value:.2f}"
