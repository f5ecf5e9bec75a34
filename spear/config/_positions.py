"""Where each key of a TOML document stands: a scan for lines, nothing else.

`tomllib` gives values without positions. This scanner gives positions without values: it knows as much of TOML's
grammar as is needed to follow keys, and leaves the judgement of a document to `tomllib`. For a document that `tomllib`
accepts, every key and every element has a line; for any other text the scan gives what it found up to the first thing
it did not understand. It never raises.
"""

from __future__ import annotations

import contextlib
import re
from bisect import bisect_right
from collections.abc import Mapping

Path = tuple[str | int, ...]

_BLANK = re.compile(r"[ \t]*")
_BLANK_AND_NEWLINES = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR = re.compile(r"[^,\]}\n#]*")
_ESCAPE = re.compile(r'\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|x([0-9A-Fa-f]{2})|([btnfre"\\]))')
_SIMPLE = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", "e": "\x1b", '"': '"', "\\": "\\"}
# Delimiters of the four kinds of strings, and what stands between them. Up to two quotes more may end a long string.
_STRINGS = (
    ('"""', re.compile(r'"""(?:[^"\\]|\\.|"(?!""))*"""("{0,2})', re.DOTALL)),
    ("'''", re.compile(r"'''(?:[^']|'(?!''))*'''('{0,2})", re.DOTALL)),
    ('"', re.compile(r'"((?:[^"\\\n]|\\.)*)"')),
    ("'", re.compile(r"'([^'\n]*)'")),
)


def key_lines(text: str) -> Mapping[Path, int]:
    """The line, from 1, of every key, table and element of `text`, by its path: `("a", 0, "b")` for `a[0].b`. A table
    that several headers open has the line of the first."""
    scan = _Scan(text.replace("\r\n", "\n"))
    with contextlib.suppress(_NotUnderstood):  # the caller has tomllib's own error, with its line
        scan.document()
    return scan.lines


class _NotUnderstood(Exception):
    pass


class _Scan:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[Path, int] = {}
        self._newlines = [i for i, char in enumerate(text) if char == "\n"]
        self._lengths: dict[Path, int] = {}  # how many tables each array of tables has so far

    def document(self) -> None:
        table: Path = ()
        while self._skip(_BLANK_AND_NEWLINES):
            if self._next("[["):
                table = self._header("]]")
            elif self._next("["):
                table = self._header("]")
            else:
                self._pair(table)

    def _header(self, end: str) -> Path:
        line = self._line()
        self._skip(_BLANK)
        *outer, last = self._key()
        self._expect(end)
        path: Path = ()
        for part in outer:
            path = self._enter((*path, part), line)
        path = (*path, last)
        if end == "]":
            self.lines.setdefault(path, line)
            return path
        index = self._lengths.get(path, 0)
        self._lengths[path] = index + 1
        self.lines.setdefault(path, line)
        self.lines[*path, index] = line
        return (*path, index)

    def _enter(self, path: Path, line: int) -> Path:
        """The table that `path` means inside a header: of an array of tables, the last."""
        self.lines.setdefault(path, line)
        length = self._lengths.get(path)
        return (*path, length - 1) if length else path

    def _pair(self, table: Path) -> Path:
        """A key and `=`, and at the top level of a table its value too."""
        path = self._key_and_equals(table)
        self._value(path)
        return path

    def _key_and_equals(self, table: Path) -> Path:
        line = self._line()
        path = table
        for part in self._key():
            path = (*path, part)
            self.lines.setdefault(path, line)
        self._expect("=")
        self._skip(_BLANK)
        return path

    def _key(self) -> list[str]:
        parts = [self._key_part()]
        self._skip(_BLANK)
        while self._next("."):
            self._skip(_BLANK)
            parts.append(self._key_part())
            self._skip(_BLANK)
        return parts

    def _key_part(self) -> str:
        for quote, pattern in _STRINGS[2:]:
            if self._peek(quote):
                found = pattern.match(self.text, self.at)
                if found is None:
                    raise _NotUnderstood
                self.at = found.end()
                return _ESCAPE.sub(_unescape, found[1]) if quote == '"' else found[1]
        found = _BARE_KEY.match(self.text, self.at)
        if found is None:
            raise _NotUnderstood
        self.at = found.end()
        return found[0]

    def _value(self, path: Path) -> None:
        """One value of any depth; the stack is a list, so that depth costs no frames."""
        open_: list[tuple[str, Path, int]] = []  # closing bracket, path, index of the next element
        while True:
            if self._next("["):
                open_.append(("]", path, 0))
            elif self._next("{"):
                open_.append(("}", path, 0))
            else:
                self._scalar()
                self._skip(_BLANK_AND_NEWLINES if open_ else _BLANK)
                if open_ and not self._next(",") and not self._peek(open_[-1][0]):
                    raise _NotUnderstood
            entered = self._element(open_)
            if entered is None:
                return
            path = entered

    def _element(self, open_: list[tuple[str, Path, int]]) -> Path | None:
        """Close what ends here, then enter the next element: its path, or None where the whole value has ended."""
        while open_:
            self._skip(_BLANK_AND_NEWLINES)
            end, path, index = open_[-1]
            if self._next(end):
                open_.pop()
                self._skip(_BLANK_AND_NEWLINES if open_ else _BLANK)
                if open_ and not self._next(",") and not self._peek(open_[-1][0]):
                    raise _NotUnderstood
                continue
            if end == "}":
                return self._key_and_equals(path)
            open_[-1] = (end, path, index + 1)
            self.lines.setdefault((*path, index), self._line())
            return (*path, index)
        return None

    def _scalar(self) -> None:
        pattern = next((pattern for quote, pattern in _STRINGS if self._peek(quote)), _SCALAR)
        found = pattern.match(self.text, self.at)
        if found is None or found.end() == self.at:
            raise _NotUnderstood
        self.at = found.end()

    def _skip(self, pattern: re.Pattern[str]) -> bool:
        found = pattern.match(self.text, self.at)
        if found is not None:
            self.at = found.end()
        return self.at < len(self.text)

    def _peek(self, token: str) -> bool:
        return self.text.startswith(token, self.at)

    def _next(self, token: str) -> bool:
        if self._peek(token):
            self.at += len(token)
            return True
        return False

    def _expect(self, token: str) -> None:
        self._skip(_BLANK)
        if not self._next(token):
            raise _NotUnderstood

    def _line(self) -> int:
        return bisect_right(self._newlines, self.at - 1) + 1


def _unescape(found: re.Match[str]) -> str:
    code = found[1] or found[2] or found[3]
    if code is None:
        return _SIMPLE[found[4]]
    number = int(code, 16)
    if number > 0x10FFFF:
        raise _NotUnderstood
    return chr(number)
