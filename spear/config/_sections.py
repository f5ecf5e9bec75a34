"""From a plain table to a section of the model, with every problem of it reported at its key.

The model is the only place that says which keys exist and what they take; this module turns its verdicts into
sentences. What TOML writes otherwise than the model holds it (durations) is converted here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from spear.ir import dump_json

from ._positions import Path
from ._read import describe
from ._report import Report, did_you_mean

SectionT = TypeVar("SectionT", bound=BaseModel)
Table = dict[str, Any]

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
SHORTEST_S: Final = 1e-6
"""Rates are worked out by division: what is nearly nothing makes them infinite."""
LONGEST_S: Final = 31_536_000.0
DURATION_FORM: Final = (
    'a number of seconds or a duration such as "500ms", "3s", "10m", "1.5h", "7d", from a microsecond up to a year'
)

_SECRET_KEYS = frozenset(
    {"api_key", "apikey", "api_key_env", "key", "token", "secret", "password", "authorization", "bearer", "auth"}
)


def table(report: Report, parent: Mapping[str, Any], path: Path, key: str) -> Table:
    """The table under `key`; empty where it is absent or, which is reported, no table."""
    value = parent.get(key, {})
    if isinstance(value, dict):
        return value
    hint = f"; expected a table: [{'.'.join(map(str, (*path, key)))}]"
    report.add((*path, key), f"is {describe(value)}{hint}")
    return {}


def tables(report: Report, parent: Mapping[str, Any], path: Path, key: str) -> Iterator[tuple[Path, Table]]:
    """The tables of the list under `key`, each with its path."""
    value = parent.get(key, [])
    hint = f"expected a list of tables, each under [[{'.'.join(map(str, (*path, key)))}]]"
    if not isinstance(value, list):
        report.add((*path, key), f"is {describe(value)}; {hint}")
        return
    for index, item in enumerate(value):
        at = (*path, key, index)
        if isinstance(item, dict):
            yield at, item
        else:
            report.add(at, f"is {describe(item)}; {hint}")


def only_known(report: Report, found: Table, path: Path, known: Collection[str], later: Collection[str] = ()) -> Table:
    """`found` without the keys that are not `known`, each of which is reported; those in `later` as settings that a
    later version will have."""
    kept: Table = {}
    for key, value in found.items():
        if key in known:
            kept[key] = value
        elif key in later:
            report.add((*path, key), "is not supported by this version; take it out")
        elif key.lower() in _SECRET_KEYS:
            report.add(
                (*path, key),
                "is not a setting here, and a key itself never stands in a configuration; name a credential instead",
            )
        else:
            report.add((*path, key), f"is not a known key{did_you_mean(key, known)}")
    return kept


def keys_of(model: type[BaseModel], *, without: Collection[str] = ("origin",)) -> frozenset[str]:
    return frozenset(model.model_fields) - frozenset(without)


def build(report: Report, model: type[SectionT], values: Table, path: Path) -> SectionT | None:
    """A `model` made of `values`, or None with its problems reported at their keys."""
    try:
        # As JSON: there a strict model still takes lists for tuples and strings for enumerations.
        return model.model_validate_json(dump_json(values))
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            report.add((*path, *detail["loc"]), _say(detail))
        return None


def durations(report: Report, values: Table, path: Path, keys: Collection[str], *, zero: bool = False) -> Table:
    """`values` with what stands under `keys` in seconds. What is no duration is reported and left out, as is a 0
    where `zero` is not allowed."""
    converted = dict(values)
    for key in keys:
        if key not in values:
            continue
        seconds = _seconds(values[key])
        if seconds is None or seconds > LONGEST_S or (seconds < SHORTEST_S and not (zero and seconds == 0)):
            bound = "0 (none) or " if zero else "more than 0: "
            report.add((*path, key), f"is {_shown_duration(values[key])}; expected {bound}{DURATION_FORM}")
            del converted[key]
        else:
            converted[key] = seconds
    return converted


def _seconds(value: object) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        try:
            return float(value)
        except OverflowError:
            return math.inf
    if isinstance(value, str) and (found := _DURATION.fullmatch(value.strip())):
        return float(found[1]) * _UNITS[found[2]]
    return None


def _shown_duration(value: object) -> str:
    return "a duration out of range" if isinstance(value, str) and _seconds(value) is not None else describe(value)


_EXPECTED: Final = {
    "string_type": "a string",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
}
_REQUIRED: Final = {
    "name": "a name of your choice",
    "id": "a name of your choice",
    "kind": 'a kind of backend such as "openai_chat" or "stub"',
    "hosting": '"local" or "remote"',
    "window": 'a duration such as "1h"',
}
_BOUNDS: Final = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


def _say(detail: ErrorDetails) -> str:
    kind, given, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "missing":
        hint = _REQUIRED.get(str(detail["loc"][-1]))
        return f"is missing; expected {hint}" if hint else "is missing"
    if kind == "extra_forbidden":
        return "is not a known key"
    if kind in _EXPECTED:
        return f"is {describe(given)}; expected {_EXPECTED[kind]}"
    if kind in {"enum", "literal_error"}:
        wrong = "none of the known names" if isinstance(given, str) else describe(given)
        return f"is {wrong}; expected {context['expected']}"
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        return f"is {describe(given)}; expected {words} {context[key]}"
    if kind == "string_too_short":
        return "is empty; expected a name"
    if kind == "string_too_long":
        return f"is too long; expected at most {context['max_length']} characters"
    return f"is {describe(given)}; {detail['msg'][0].lower()}{detail['msg'][1:]}"
