"""One figure for the variants of a scenario, side by side. Needs the extra `simulate`; imported late."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from spear._extras import need

from ._compare import model_names
from ._scenario import Scenario

Result = Mapping[str, Any]
FORMATS: Final = (".png", ".svg")
_EXTRA: Final = "simulate"
# Okabe and Ito's colours, which people with any kind of colour vision can tell apart; and lines that print in grey.
_COLOURS: Final = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000", "#999999")
_LINES: Final = ("-", "--", "-.", ":")
# Tol's muted ones for backends, so that nobody takes a backend for a variant.
_MUTED: Final = ("#88CCEE", "#332288", "#DDCC77", "#117733", "#CC6677", "#44AA99", "#882255", "#BBBBBB")
_HATCHES: Final = ("", "//", "\\\\", "xx", "--", "||", "++", "/")
_FIRST: Final = 0.01
"""The fastest answers are no part of a tail; one of them would take half of the axis."""
_TICKS: Final = (0.5, 0.9, 0.99, 0.999, 0.9999)
_MOST_BACKENDS: Final = 8
_STYLE: Final = {
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "text.parse_math": False,  # titles and names are anybody's
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
        figure = figures.Figure(figsize=(11, 11), layout="constrained")
        figure.get_layout_engine().set(h_pad=0.08, w_pad=0.08, hspace=0.03)
        figure.suptitle(f"{scenario.title}: {results[0]['arrivals']:,} requests for each variant", fontsize=12)
        (tail, time), (lost, first), (share, bars) = figure.subplots(3, 2)
        _tail(tail, results)
        _over_time(time, results)
        _lost_over_time(lost, results)
        _first_over_time(first, scenario, results)
        _shares(share, results)
        _bars(bars, results)
        handles, labels = tail.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=_columns(labels), frameon=False)
        metadata = {"Date": None} if path.suffix.lower() == ".svg" else {"Software": None}
        figure.savefig(path, dpi=110, metadata=metadata)


def _columns(labels: Sequence[str]) -> int:
    """Rows of a legend as even as they can be, within the figure's width."""
    most = max(1, min(5, 120 // (max(map(len, labels)) + 6)))
    rows = -(-len(labels) // most)
    return -(-len(labels) // rows)


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
    right = max([1 / (1 - _TICKS[1]), *(line.get_xdata()[-1] for line in axes.lines if len(line.get_xdata()))]) * 1.2
    axes.set_xlim(1, right)
    ticks = [tick for tick in _TICKS if 1 / (1 - tick) <= right]
    axes.set_xticks([1 / (1 - tick) for tick in ticks], [f"p{tick * 100:g}" for tick in ticks])
    axes.xaxis.minorticks_off()
    axes.set_xlabel("percentile of answered requests")
    axes.set_ylabel("latency (s)")
    axes.set_title("Latency: the tail")
    _plain_numbers(axes.yaxis)


def _stretched(distribution: Sequence[tuple[float, int]]) -> list[tuple[float, float]]:
    """Of how many answers one took longer than that, from `_FIRST` on; the last point is the longest answer."""
    if not distribution:
        return []
    total = distribution[-1][1]
    shown = [(total / max(1, total - seen), value) for value, seen in distribution if seen > _FIRST * total]
    return [(1 / (1 - _FIRST), shown[0][1]), *shown]  # a line, also where all answers took the same time


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


def _lost_over_time(axes: Any, results: Sequence[Result]) -> None:
    for number, each in enumerate(results):
        rows = [(row[0], 100 * (row[1] - row[2]) / row[1]) for row in each["over_time"] if row[1]]
        axes.plot([at for at, _ in rows], [share for _, share in rows], **_look(number))
    axes.set_ylim(-2, 102)
    axes.set_xlabel("time of arrival (s, virtual)")
    axes.set_ylabel("of those that arrived (%)")
    axes.set_title("Requests without an answer over time")


def _first_over_time(axes: Any, scenario: Scenario, results: Sequence[Result]) -> None:
    """What the first modelled backend answered, with all its copies: whether it is left alone, and when it is not any
    more. Where it is the only one, how many came."""
    first = scenario.behaviours[0]
    names = model_names(first)
    alone = len(scenario.behaviours) == 1
    for number, each in enumerate(results[:1] if alone else results):
        if alone:
            width = each["over_time"][1][0] if len(each["over_time"]) > 1 else 1.0
            rows = [(row[0], row[1] / width) for row in each["over_time"]]
        else:
            rows = [
                (row[0], 100 * sum(row[8].get(name, 0) for name in names) / row[2])
                for row in each["over_time"]
                if row[2]
            ]
        look = {"color": "#444444"} if alone else _look(number)
        axes.plot([at for at, _ in rows], [value for _, value in rows], **look)
    axes.set_xlabel("time of arrival (s, virtual)")
    if alone:
        axes.set_ylim(bottom=0)
        axes.set_ylabel("requests per second")
        axes.set_title("What arrived")
        return
    axes.set_ylim(-2, 102)
    axes.set_ylabel("share of answers (%)")
    axes.set_title(f"Answered by “{first.name}” over time")


def _shares(axes: Any, results: Sequence[Result]) -> None:
    """Who answered, stacked; of many backends the largest."""
    totals: dict[str, float] = {}
    for each in results:
        for name, backend in each["backends"].items():
            totals[name] = totals.get(name, 0.0) + (backend["share"] or 0.0)
    shown = list(totals)
    if len(shown) > _MOST_BACKENDS:
        largest = sorted(totals, key=lambda name: -totals[name])[: _MOST_BACKENDS - 1]
        shown = [name for name in totals if name in largest]
    left = [0.0] * len(results)
    places = list(range(len(results)))
    for number, name in enumerate([*shown, "others"] if len(shown) < len(totals) else shown):
        widths = [100 * _share(each, name, shown) for each in results]
        axes.barh(
            places, widths, left=left, label=name, color=_MUTED[number % len(_MUTED)], edgecolor="white",
            hatch=_HATCHES[number % len(_HATCHES)], linewidth=0.5, height=0.6,
        )  # fmt: skip
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.set_yticks(places, [each["name"] for each in results])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("share of answers (%)")
    axes.set_title("Who answered")
    axes.legend(fontsize=7, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.18), frameon=False)


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
        labels = [_short(height) for height in heights]
        axes.bar_label(drawn, labels, fontsize=6 if many else 7, padding=2, rotation=90 if many else 0)
    axes.set_yscale("symlog", linthresh=1)
    axes.set_ylim(0, 1000)
    axes.set_yticks([0, 1, 10, 100], ["0", "1", "10", "100"])
    axes.minorticks_off()
    axes.set_xticks(range(len(groups)), [name for name, _ in groups])
    axes.grid(visible=False, axis="x")
    axes.set_ylabel("per cent")
    axes.set_title("What it costs")


def _short(value: float) -> str:
    """Two digits, so that the labels of neighbours have room; little is not nothing."""
    if value >= 10 or value == 0:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:.2f}" if value >= 0.005 else "<0.01"


def _lost(result: Result) -> float:
    return (result["arrivals"] - result["ok"]) / result["arrivals"] if result["arrivals"] else 0.0


def _plain_numbers(axis: Any) -> None:
    ticker = need("matplotlib.ticker", _EXTRA)
    low, high = axis.get_view_interval()
    narrow = high < 6 * low
    axis.set_major_locator(ticker.LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 7) if narrow else (1, 2, 5)))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(ticker.NullLocator())
