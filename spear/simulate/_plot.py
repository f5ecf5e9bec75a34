"""One figure for the variants of a scenario, side by side. Needs the extra `simulate`; imported late."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from spear._extras import need

from ._scenario import Scenario

Result = Mapping[str, Any]
FORMATS: Final = (".png", ".svg")
_EXTRA: Final = "simulate"
# Okabe and Ito's colours, which people with any kind of colour vision can tell apart; and lines that print in grey.
_COLOURS: Final = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000", "#999999")
_LINES: Final = ("-", "--", "-.", ":")
_HATCHES: Final = ("", "//", "\\\\", "xx", "--", "||", "++", "/")
_TICKS: Final = (0.5, 0.9, 0.99, 0.999, 0.9999)
_MOST_BACKENDS: Final = 8
_STYLE: Final = {
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "spear",
    "svg.fonttype": "none",
}


def check_plot(path: Path) -> None:
    """Raises `MissingExtra` without matplotlib, ValueError where the name says no format that is known."""
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"{path.name}: expected a name that ends in {' or '.join(FORMATS)}")
    need("matplotlib", _EXTRA)


def plot(scenario: Scenario, results: Sequence[Result], path: Path) -> None:
    """Write the figure; the same results give the same bytes with the same matplotlib. Blocks."""
    check_plot(path)
    matplotlib = need("matplotlib", _EXTRA)
    figures = need("matplotlib.figure", _EXTRA)
    with matplotlib.rc_context(_STYLE):
        figure = figures.Figure(figsize=(11, 7.6), layout="constrained")
        figure.get_layout_engine().set(h_pad=0.08, w_pad=0.08, hspace=0.04)
        figure.suptitle(f"{scenario.title}: {results[0]['arrivals']:,} requests for each variant", fontsize=12)
        (tail, time), (share, bars) = figure.subplots(2, 2)
        _tail(tail, results)
        _over_time(time, results)
        _shares(share, results)
        _bars(bars, results)
        handles, labels = tail.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), frameon=False)
        metadata = {"Date": None} if path.suffix.lower() == ".svg" else {"Software": None}
        figure.savefig(path, dpi=110, metadata=metadata)


def _look(number: int) -> dict[str, Any]:
    return {
        "color": _COLOURS[number % len(_COLOURS)],
        "linestyle": _LINES[number % len(_LINES)],
        "linewidth": 1.6,
    }


def _tail(axes: Any, results: Sequence[Result]) -> None:
    """The distribution's upper end, stretched: each step to the right leaves a tenth as many requests."""
    for number, each in enumerate(results):
        points = _thinned(_stretched(each["distribution"]))
        if points:
            axes.plot([x for x, _ in points], [y for _, y in points], label=each["name"], **_look(number))
        else:
            axes.plot([], [], label=each["name"], **_look(number))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(left=1)
    axes.set_xticks([1 / (1 - tick) for tick in _TICKS], [f"p{tick * 100:g}" for tick in _TICKS])
    axes.xaxis.minorticks_off()
    axes.set_xlabel("percentile of answered requests")
    axes.set_ylabel("latency (s)")
    axes.set_title("Latency: the tail")
    _plain_numbers(axes.yaxis)


def _stretched(distribution: Sequence[tuple[float, int]]) -> list[tuple[float, float]]:
    """From how many answers one took longer than that; the last point is the longest of all, seen once."""
    if not distribution:
        return []
    total = distribution[-1][1]
    first = (1.0, distribution[0][0])  # a line, also where all answers took the same time
    return [first, *((total / max(1, total - seen), value) for value, seen in distribution)]


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Without those that nobody could tell from the one before: a figure with thousands of points is a large file."""
    kept = points[:1]
    for x, y in points[1:-1]:
        if x > kept[-1][0] * 1.03 or y > kept[-1][1] * 1.03:
            kept.append((x, y))
    return kept + points[1:][-1:]


def _over_time(axes: Any, results: Sequence[Result]) -> None:
    for number, each in enumerate(results):
        rows = [(row[0], row[7]) for row in each["over_time"] if row[7] is not None]
        axes.plot([at for at, _ in rows], [p99 for _, p99 in rows], **_look(number))
    axes.set_yscale("log")
    axes.set_xlabel("time of arrival (s, virtual)")
    axes.set_ylabel("p99 latency (s)")
    axes.set_title("Latency over time")
    _plain_numbers(axes.yaxis)


def _shares(axes: Any, results: Sequence[Result]) -> None:
    """Who answered, stacked; of many backends the largest."""
    totals: dict[str, float] = {}
    for each in results:
        for name, backend in each["backends"].items():
            totals[name] = totals.get(name, 0.0) + (backend["share"] or 0.0)
    shown = list(totals)
    if len(shown) > _MOST_BACKENDS:
        shown = sorted(totals, key=lambda name: -totals[name])[: _MOST_BACKENDS - 1]
    left = [0.0] * len(results)
    places = list(range(len(results)))
    for number, name in enumerate([*shown, "others"] if len(shown) < len(totals) else shown):
        widths = [100 * _share(each, name, shown) for each in results]
        axes.barh(
            places, widths, left=left, label=name, color=_COLOURS[number % len(_COLOURS)], edgecolor="white",
            hatch=_HATCHES[number % len(_HATCHES)], linewidth=0.5, height=0.6,
        )  # fmt: skip
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.set_yticks(places, [each["name"] for each in results])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("share of answers (%)")
    axes.set_title("Who answered")
    axes.legend(fontsize=7, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.16), frameon=False)


def _share(result: Result, name: str, shown: Sequence[str]) -> float:
    if name != "others":
        return float(result["backends"].get(name, {}).get("share") or 0.0)
    return sum(backend["share"] or 0.0 for each, backend in result["backends"].items() if each not in shown)


def _bars(axes: Any, results: Sequence[Result]) -> None:
    """Errors and extra load in per cent, cost against the dearest."""
    dearest = max((each["cost"] for each in results), default=0.0)
    groups = (
        ("requests without\nan answer (%)", [100 * _lost(each) for each in results]),
        ("extra load at\nbackends (%)", [100 * (each["extra_load"] or 0.0) for each in results]),
        ("cost (% of\nthe dearest)", [100 * each["cost"] / dearest if dearest else 0.0 for each in results]),
    )
    width = 0.8 / len(results)
    for number, _ in enumerate(results):
        places = [group + (number - (len(results) - 1) / 2) * width for group in range(len(groups))]
        heights = [values[number] for _, values in groups]
        drawn = axes.bar(
            places, heights, width * 0.92, color=_COLOURS[number % len(_COLOURS)], edgecolor="white",
            hatch=_HATCHES[number % len(_HATCHES)], linewidth=0.5,
        )  # fmt: skip
        many = len(results) > 4
        labels = [f"{height:.3g}" for height in heights]
        axes.bar_label(drawn, labels, fontsize=6 if many else 7, padding=2, rotation=90 if many else 0)
    axes.set_yscale("symlog", linthresh=1)
    axes.set_ylim(0, 1000)
    axes.set_yticks([0, 1, 10, 100], ["0", "1", "10", "100"])
    axes.minorticks_off()
    axes.set_xticks(range(len(groups)), [name for name, _ in groups])
    axes.grid(visible=False, axis="x")
    axes.set_ylabel("per cent")
    axes.set_title("What it costs")


def _lost(result: Result) -> float:
    return (result["arrivals"] - result["ok"]) / result["arrivals"] if result["arrivals"] else 0.0


def _plain_numbers(axis: Any) -> None:
    ticker = need("matplotlib.ticker", _EXTRA)
    axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(ticker.NullLocator())
