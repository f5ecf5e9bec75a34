"""From a scenario's file to a `Scenario`; every problem with its file, line and key.

The file has two tables: `[simulate]`, read here, and `[spear]`, the configuration, read as every configuration is.
Where there is no `[spear]`, `simulate.config` names the file that has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from spear.config import Document, Report, Section, build, durations, only_known, parse, read_file, table, tables
from spear.config import Path as KeyPath

from ._compare import left_out, read_variants
from ._distribution import MEASURES, NEEDS, Distribution
from ._scenario import MOST_REQUESTS, Behaviour, Burst, Errors, Event, Ramp, RateLimit, Scenario, Traffic
from ._traffic import expected

Table = dict[str, Any]

_HERE: Final = ("title", "about", "seed", "requests", "duration", "traffic")
_TOP: Final = (*_HERE, "backends", "config", "compare")
LONGEST_S: Final = 31_536_000.0
"""Until the last arrival."""
_SECONDS: Final[dict[type[Section], tuple[str, ...]]] = {
    Traffic: ("timeout", "patience"),
    RateLimit: ("per",),
}
_SECONDS_OR_0: Final[dict[type[Section], tuple[str, ...]]] = {
    Ramp: ("at", "over"),
    Burst: ("at", "over"),
    Behaviour: ("per_token",),
    Errors: ("after",),
    Event: ("at", "until"),
}
_WITHIN: Final[dict[type[Section], dict[str, type[Section]]]] = {
    Traffic: {"ramps": Ramp, "bursts": Burst, "input_tokens": Distribution, "output_tokens": Distribution},
    Behaviour: {"latency": Distribution, "errors": Errors, "rate_limit": RateLimit, "events": Event},
    Event: {"errors": Errors},
}
_SHORT: Final[dict[type[Section], str]] = {Errors: "share"}
"""A number alone means a table with this key."""


def read_scenario(path: Path) -> Scenario:
    """Raises `ConfigError` with everything that is wrong. Blocks for as long as the files take."""
    return _read(read_file(path), path.stem)


def parse_scenario(data: bytes, *, file: str, folder: Path, only: Sequence[str] = ()) -> Scenario:
    """The same of a text that is there already; paths in it are relative to `folder`. `only` these variants, if there
    are any: by name, or the name of a policy for the configuration with that one."""
    return _read(parse(data, file=file, folder=folder), Path(file).stem, only)


def _read(document: Document, name: str, only: Sequence[str] = ()) -> Scenario:
    report, path = document.report, ("simulate",)
    for key in sorted(set(document.data) - {"simulate", "spear"}):
        report.add((key,), "is not a known table; a scenario has [simulate] and [spear]")
    if "simulate" not in document.data:
        report.add((), "has no table [simulate]")
        report.raise_if_any()
    top = only_known(report, table(report, document.data, (), "simulate"), path, _TOP)
    values: Table = {key: top[key] for key in _HERE if key in top}
    if "requests" not in top and "duration" not in top:
        report.add(path, "has neither `requests` nor `duration`; expected at least one of them")
    if isinstance(values.get("traffic"), dict):
        values["traffic"] = _tidy(report, Traffic, values["traffic"], (*path, "traffic"))
    values["behaviours"] = []
    scenario = build(report, Scenario, {"title": name, **durations(report, values, path, ("duration",)),
                                                "name": name, "variants": []}, path)  # fmt: skip
    if scenario is not None:
        _check_traffic(report, scenario.traffic, (*path, "traffic"))
        _check_whole(report, scenario, path)
    behaviours = [_behaviour(report, each, at) for at, each in tables(report, top, path, "backends")]
    report.raise_if_any()
    assert scenario is not None
    scenario = scenario.model_copy(update={"behaviours": tuple(each for each in behaviours if each is not None)})
    compare = list(tables(report, top, path, "compare"))
    configuration = _configuration(document, top)
    variants = read_variants(document, configuration, compare, scenario.behaviours, only)
    report.raise_if_any()
    outside = left_out(table(report, configuration.data, (), "spear"))
    return scenario.model_copy(update={"variants": variants, "left_out": outside})


def _configuration(document: Document, top: Table) -> Document:
    """Where `[spear]` is: in this file, or in the one that is named."""
    report, name = document.report, top.get("config")
    if name is None:
        if "spear" not in document.data:
            report.add((), "has no table [spear], and no simulate.config that names a file which has one")
    elif not isinstance(name, str) or not name:
        report.add(("simulate", "config"), "is no path; expected that of a configuration")
    elif "spear" in document.data:
        report.add(("simulate", "config"), "stands beside a table [spear]; expected one of them")
    report.raise_if_any()
    return document if name is None else read_file(document.folder / str(name))


def _behaviour(report: Report, values: Table, path: KeyPath) -> Behaviour | None:
    behaviour = build(report, Behaviour, _tidy(report, Behaviour, values, path), path)
    if behaviour is None:
        return None
    _check_distribution(report, behaviour.latency, (*path, "latency"))
    if behaviour.rate_limit is not None:
        _check_accounts(report, behaviour.rate_limit, (*path, "rate_limit", "accounts"))
    for number, event in enumerate(behaviour.events):
        if event.until is not None and event.until <= event.at:
            report.add((*path, "events", number, "until"), "is not after `at`")
    return behaviour


def _check_accounts(report: Report, limit: RateLimit, path: KeyPath) -> None:
    if limit.accounts and limit.by != "key":
        report.add(path, 'has no meaning without by = "key"')
    seen: set[str] = set()
    for key in (key for account in limit.accounts for key in account):
        if key in seen:
            report.add(path, f"has {key} twice")
        seen.add(key)


def _tidy(report: Report, model: type[Section], values: Table, path: KeyPath) -> Table:
    """Known keys only, durations in seconds, short forms written out; what is within it, too."""
    values = only_known(report, values, path, model.model_fields)
    values = durations(report, values, path, _SECONDS.get(model, ()))
    values = durations(report, values, path, _SECONDS_OR_0.get(model, ()), zero=True)
    if model is RateLimit and values.get("retry_after") not in (None, "exact", "none"):
        values = durations(report, values, path, ("retry_after",), zero=True)
    for key, inner in _WITHIN.get(model, {}).items():
        if key not in values:
            continue
        at, value = (*path, key), values[key]
        if isinstance(value, list):
            values[key] = [
                _tidy(report, inner, each, (*at, number)) if isinstance(each, dict) else each
                for number, each in enumerate(value)
            ]
            continue
        if inner is Distribution and not isinstance(value, dict):
            value = {"kind": "constant", "value": value}
        elif inner in _SHORT and not isinstance(value, dict):
            value = {_SHORT[inner]: value}
        if not isinstance(value, dict):
            continue  # the model says so
        if inner is Distribution and key == "latency":
            value = durations(report, value, at, MEASURES, zero=True)
        if isinstance(value, dict):  # else the model says what it should be
            values[key] = _tidy(report, inner, value, at)
    return values


def _check_traffic(report: Report, traffic: Traffic, path: KeyPath) -> None:
    for key in ("input_tokens", "output_tokens"):
        _check_distribution(report, getattr(traffic, key), (*path, key))
    ramps = sorted(traffic.ramps, key=lambda ramp: ramp.at)
    for before, after in pairwise(ramps):
        if after.at < before.at + before.over:
            report.add((*path, "ramps"), f"the ramp at {after.at:g} s begins before the one at {before.at:g} s ends")


def _check_whole(report: Report, scenario: Scenario, path: KeyPath) -> None:
    """What can be shown, and comes to an end."""
    for key in ("title", "about"):
        if not getattr(scenario, key).isprintable():
            report.add((*path, key), "has unprintable characters; expected one line of text")
    if scenario.duration is not None and scenario.requests is None:
        coming = expected(scenario.traffic, scenario.duration)
        if coming > MOST_REQUESTS:
            report.add((*path, "duration"), f"brings about {coming:.3g} requests; expected at most {MOST_REQUESTS}")
    if scenario.requests is not None and scenario.duration is None:
        coming = expected(scenario.traffic, LONGEST_S)
        if coming < scenario.requests:
            report.add((*path, "requests"), f"takes more than a year at this rate, which brings about {coming:.3g}")


def _check_distribution(report: Report, found: Distribution, path: KeyPath) -> None:
    needed = NEEDS[found.kind]
    for key in (*MEASURES, "sigma", "alpha"):
        given = getattr(found, key) is not None
        if given == (key in needed):
            continue
        if given:
            report.add((*path, key), f"has no meaning for {found.kind}, which has {' and '.join(needed)}")
        else:
            report.add((*path, key), f"is missing; {found.kind} needs {' and '.join(needed)}")
    if found.low is not None and found.high is not None and found.low > found.high:
        report.add((*path, "high"), f"is {found.high:g}; expected at least low, which is {found.low:g}")
