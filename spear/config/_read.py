"""From a source to a document: bytes, TOML or a mapping, to plain values with the line of each key."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, time
from pathlib import Path as FilePath
from typing import Any, Final

from spear.ir import ConfigError, Problem
from spear.secrets import Secret

from ._positions import Path, key_lines
from ._report import Report

MAX_BYTES: Final = 1_048_576
MAX_DEPTH: Final = 32

_AT_LINE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
_NAMES_A_KEY = re.compile(r"Cannot declare|Cannot mutate|Cannot redefine|Duplicate inline|Illegal char|invalid char")


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed source. `file` is empty and `lines` too where it was no file."""

    data: Mapping[str, Any]
    report: Report
    folder: FilePath = field(default_factory=FilePath)
    """What the paths written in the document are relative to."""


def read_file(path: FilePath) -> Document:
    """Read and parse. Raises `ConfigError` with the one problem that keeps it from being a TOML document."""
    file = str(path)
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a usable path"
        raise ConfigError([Problem(file, 0, "", f"cannot be read: {reason}")]) from None
    if len(data) > MAX_BYTES:
        raise ConfigError([Problem(file, 0, "", f"is larger than {MAX_BYTES} bytes, the limit of a configuration")])
    return parse(data, file=file, folder=path.parent)


def parse(data: bytes, *, file: str, folder: FilePath) -> Document:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError([Problem(file, line, "", "is not UTF-8, which TOML has to be")]) from None
    try:
        parsed = tomllib.loads(text)
    except RecursionError:
        raise ConfigError([Problem(file, 0, "", f"is nested deeper than {MAX_DEPTH}")]) from None
    except ValueError as error:  # TOMLDecodeError, or an integer too long to convert
        raise ConfigError([_syntax_problem(error, file, text)]) from None
    report = Report(file, key_lines(text))
    return Document(_plain_table(parsed, (), report), report, folder)


def read_mapping(source: Mapping[str, Any]) -> Document:
    report = Report("", {})
    return Document(_plain_table(source, (), report), report)


def plain_document(data: Mapping[str, Any], report: Report, folder: FilePath) -> Document:
    return Document(_plain_table(data, (), report), report, folder)


def _syntax_problem(error: ValueError, file: str, text: str) -> Problem:
    message = str(error)
    place = _AT_LINE.search(message)
    if place is None:
        return Problem(file, 0, "", "is not TOML: a number has too many digits")
    line = int(place[1]) if place[1] else text.count("\n") + 1
    what = message[: place.start()]
    # tomllib quotes keys and characters of the document in these; what stands there by mistake may be a secret.
    if _NAMES_A_KEY.search(what):
        what = "a character that may not stand here" if "char" in what else "this key or table is declared twice"
    return Problem(file, line, "", f"is not TOML: {what}")


def _plain_table(table: Mapping[Any, Any], path: Path, report: Report) -> dict[str, Any]:
    """`table` with only strings, numbers, booleans, lists and dicts in it. What is none of these is a problem, and left
    out."""
    plain: dict[str, Any] = {}
    for key, value in table.items():
        if not isinstance(key, str):
            report.add(path, f"has a key that is {describe(key)}; expected a string")
            continue
        if not _is_text(key):
            report.add(path, "has a key with a character that is no text (a lone surrogate)")
            continue
        kept = _plain((*path, key), value, report)
        if kept is not None:
            plain[key] = kept
    return plain


def _plain(path: Path, value: Any, report: Report) -> Any:
    if isinstance(value, Secret) and path[-1] == "base_url":
        return value
    if isinstance(value, str):
        if not _is_text(value):
            report.add(path, "has a character that is no text (a lone surrogate)")
            return None
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        report.add(path, "is not a finite number")
        return None
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping | Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        if len(path) >= MAX_DEPTH:
            report.add(path, f"is nested deeper than {MAX_DEPTH}")
            return None
        if isinstance(value, Mapping):
            return _plain_table(value, path, report)
        items = [_plain((*path, i), item, report) for i, item in enumerate(value)]
        return [item for item in items if item is not None]
    report.add(path, f"is {describe(value)}; no setting takes that")
    return None


def _is_text(value: str) -> bool:
    try:
        str(value).encode()
    except UnicodeEncodeError:
        return False
    return True


def describe(value: object) -> str:
    """What kind of value this is, never the value itself: it may be a secret in the wrong place."""
    match value:
        case None:
            return "nothing (null)"
        case bool():
            return "a boolean"
        case int():
            return f"{value}" if abs(value) < 10**15 else "a whole number with many digits"
        case float():
            return f"{value:g}"
        case str():
            return "a string"
        case Secret():
            return "a secret"
        case Mapping():
            return "a table"
        case date() | time():
            return "a date or time"
        case Sequence():
            return "a list"
        case _:
            return f"of type {type(value).__name__}"
