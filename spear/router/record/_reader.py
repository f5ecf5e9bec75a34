"""The lines of decision logs, whatever stands there: records, or why a line is none.

A process that was killed may leave half a line; a disk, anything. Each such line is named and skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from pydantic import ValidationError

from spear.ir import MalformedJson, dump_json, parse_json

from ._decision import DecisionRecord
from ._generation import VERSION, GenerationRecord

LONGEST_LINE: Final = 67_108_864
_LONGEST_PLACE: Final = 200
_NUMBERED: Final = re.compile(r"(.*)\.(\d+)")
_KINDS: Final[dict[str, type[GenerationRecord | DecisionRecord]]] = {
    "generation": GenerationRecord,
    "decision": DecisionRecord,
}

Record = GenerationRecord | DecisionRecord


class Place(NamedTuple):
    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Unreadable(NamedTuple):
    """A line that is no record of this version. It names the reason, and quotes nothing."""

    place: Place
    reason: str

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}"


def read_records(file: BinaryIO, name: str) -> Iterator[tuple[Place, Record] | Unreadable]:
    """Raises OSError where `file` cannot be read; nothing else, whatever it holds. Empty lines are nothing."""
    number = 0
    while line := file.readline(LONGEST_LINE):
        number += 1
        place = Place(name, number)
        ended = line.endswith(b"\n")
        if not ended and len(line) == LONGEST_LINE:
            yield Unreadable(place, f"longer than {LONGEST_LINE} bytes")
            while (rest := file.readline(LONGEST_LINE)) and not rest.endswith(b"\n"):
                pass
            continue
        if not line.strip():
            continue
        record = _parse(line)
        if not isinstance(record, str):
            yield place, record
        elif ended:
            yield Unreadable(place, record)
        else:
            yield Unreadable(place, "an unfinished last line, as a process leaves it that was killed")


def _parse(line: bytes) -> Record | str:
    try:
        value = parse_json(line)
    except MalformedJson as error:
        return f"not JSON: {error}"
    if not isinstance(value, dict):
        return "not a JSON object"
    version, kind = value.get("v"), value.get("kind")
    if version != VERSION or isinstance(version, bool | float):
        shown = version if isinstance(version, int) and abs(version) < 10**9 else "something else"
        return f"of version {shown}; this Spear reads version {VERSION}" if "v" in value else "no record: it has no `v`"
    model = _KINDS.get(kind) if isinstance(kind, str) else None
    if model is None:
        return f"of no known kind; known: {', '.join(_KINDS)}"
    try:
        return model.model_validate_json(dump_json(value))
    except (ValidationError, MalformedJson) as error:
        return _reason(error)


def _reason(error: ValidationError | MalformedJson) -> str:
    if isinstance(error, MalformedJson):
        return f"not JSON: {error}"
    first = error.errors(include_url=False, include_input=False)[0]
    return f"not a whole record: {place_of(error)}: {first['msg'][:_LONGEST_PLACE]}"


def place_of(error: ValidationError) -> str:
    """Where the first thing that is wrong stands in a record. Keys are the file's: they are cut, and may hold
    anything."""
    first = error.errors(include_url=False, include_input=False)[0]
    return ".".join(map(str, first["loc"]))[:_LONGEST_PLACE] or "the whole"


def in_order(paths: Iterable[Path]) -> list[Path]:
    """The older before the newer where one file was rotated: `x.2`, `x.1`, `x`. Others stay as they are."""
    listed = list(dict.fromkeys(paths))
    given = {path: at for at, path in reversed(list(enumerate(listed)))}

    def key(path: Path) -> tuple[int, int]:
        base, number = _base(path)
        first = min(at for each, at in given.items() if _base(each)[0] == base)
        return first, -number

    return sorted(listed, key=key)


def _base(path: Path) -> tuple[Path, int]:
    found = _NUMBERED.fullmatch(path.name)
    return (path, 0) if found is None else (path.with_name(found[1] or path.name), int(found[2][:9]))
