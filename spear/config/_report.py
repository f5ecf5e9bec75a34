"""What a load found wrong, and how it is said: the place, the key, what is there and what would be right.

Values are never quoted: a key pasted into the wrong setting must not reach a log by way of the error about it. Keys
are, as long as they look like keys.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Mapping

from spear.ir import ConfigError, Problem

from ._model import Origin
from ._positions import Path

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_NOT_A_NAME = re.compile(r"^sk-|^[a-z]+://|(?=\S*\d)\S{25,}|^\S{41,}$", re.IGNORECASE)
MAX_PROBLEMS = 100
_LONGEST_NAME = 128


class Report:
    """Collects the problems and warnings of one source; `raise_if_any` ends the load."""

    def __init__(self, file: str, lines: Mapping[Path, int]) -> None:
        self.file = file
        self._lines = lines
        self._problems: list[Problem] = []
        self._warnings: list[Problem] = []

    def anew(self) -> Report:
        """An empty one of the same source."""
        return Report(self.file, self._lines)

    def add(self, path: Path, message: str) -> None:
        self._problems.append(self._at(path, message))

    def include(self, other: Report) -> None:
        """What was found in a file that this one names."""
        self._problems += other._problems
        self._warnings += other._warnings

    def add_problem(self, problem: Problem) -> None:
        self._problems.append(problem)

    def warn(self, path: Path, message: str) -> None:
        self._warnings.append(self._at(path, message))

    def origin(self, path: Path, keys: Collection[str] = ()) -> Origin:
        """Of a table, with the lines of those of its `keys` that are written."""
        found = tuple((key, line) for key in keys if (line := self._lines.get((*path, key))))
        return Origin(file=self.file, line=self.line(path), key=show_path(path), lines=found)

    def line(self, path: Path) -> int:
        """Of the key, or of the nearest table around it where the key itself is not written."""
        for end in range(len(path), 0, -1):
            if line := self._lines.get(path[:end]):
                return line
        return 0

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(map(str, self._warnings))

    @property
    def failed(self) -> bool:
        return bool(self._problems)

    def raise_if_any(self) -> None:
        if not self._problems:
            return
        ordered = sorted(self._problems, key=lambda problem: problem.line)
        more = len(ordered) - MAX_PROBLEMS
        if more > 0:
            ordered = [*ordered[:MAX_PROBLEMS], Problem(self.file, 0, "", f"and {more} more problems")]
        raise ConfigError(ordered)

    def _at(self, path: Path, message: str) -> Problem:
        return Problem(self.file, self.line(path), show_path(path), message)


def show_path(path: Path) -> str:
    """`("spear", "backends", 2, "weight")` as `spear.backends[2].weight`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{show_key(part)}" if text else show_key(part)
    return text


def show_key(key: str) -> str:
    if _NOT_A_NAME.search(key) or not key.isprintable():
        return "(a key not shown)"
    return key if _BARE.fullmatch(key) else json.dumps(key, ensure_ascii=False)


def did_you_mean(name: str, known: Collection[str], *, otherwise: str = "") -> str:
    """`; did you mean "x"?` for a near miss, else `; ` and what is known, if that is short enough to help. What is
    known may be another key's value that is wrong itself: only plain names are shown."""
    plain = {each for each in known if len(each) <= _LONGEST_NAME and each.isprintable()}
    near = difflib.get_close_matches(name[:64], sorted(plain), n=1, cutoff=0.6)
    if near:
        return f'; did you mean "{near[0]}"?'
    if known and len(known) <= 40:
        unshown = ["(a name not shown)"] if len(plain) < len(known) else []
        return f"; {otherwise or 'expected one of'} {', '.join([*sorted(plain), *unshown])}"
    return ""
