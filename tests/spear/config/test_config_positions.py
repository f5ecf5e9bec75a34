"""The scanner against tomllib: same paths, and each on the line where it is written."""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from spear.config._positions import key_lines

KEYS = st.one_of(
    st.sampled_from(["a", "b", "name", "weight", "x-y", "_1", "22"]),
    st.text(st.characters(codec="utf-8", exclude_characters="\x7f", exclude_categories=["Cs"]), max_size=4),
)
LEAVES = st.sampled_from(["basic", "literal", "long", "long_literal", "number", "date"])
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(["table", "dotted", "inline"]), st.dictionaries(KEYS, inner, max_size=4)),
        st.tuples(st.just("array"), st.lists(inner, max_size=4)),
        st.tuples(st.just("tables"), st.lists(st.dictionaries(KEYS, inner, max_size=3), min_size=1, max_size=3)),
    ),
    max_leaves=14,
)


class Writer:
    """Writes a structure as TOML in the forms that it asks for; every leaf has a marker of its own."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw
        self.count = 0

    def document(self, root: dict[str, Any]) -> str:
        return self.table(root, [])

    def table(self, table: dict[str, Any], path: list[str]) -> str:
        text = ""
        headed = []
        for key, value in table.items():
            form = value[0] if isinstance(value, tuple) else ""
            if form == "table" or form == "tables":
                headed.append((key, value))
            elif form == "dotted" and value[1] and all(not isinstance(v, tuple) for v in value[1].values()):
                for inner, leaf in value[1].items():
                    text += f"{self.key(key)} . {self.key(inner)} = {self.leaf(leaf)}{self.end()}"
            else:
                text += f"{self.indent()}{self.key(key)}={self.inline(value)}{self.end()}"
        for key, (form, content) in headed:
            header = ".".join(self.key(part) for part in [*path, key])
            if form == "table":
                text += f"[ {header} ]{self.end()}" + self.table(content, [*path, key])
            else:
                for item in content:
                    text += f"{self.indent()}[[{header}]]{self.end()}" + self.table(item, [*path, key])
        return text

    def inline(self, value: Any) -> str:
        if not isinstance(value, tuple):
            return self.leaf(value)
        form, content = value
        if form == "tables":
            content = [("inline", item) for item in content]
        if isinstance(content, list):
            items = [self.inline(item) + self.gap() for item in content]
            tail = self.draw(st.sampled_from(["", ","])) if items else ""
            return "[" + self.gap() + ("," + self.gap()).join(items) + tail + self.gap() + "]"
        return "{" + ", ".join(f" {self.key(k)} = {self.inline(v)} " for k, v in content.items()) + "}"

    def leaf(self, kind: str) -> str:
        self.count += 1
        mark = f"m{self.count}m"
        more = self.draw(st.sampled_from(["", "]", "}", ",", "#", " = ", "'", '\\"', "\\\\", "[["]))
        match kind:
            case "basic":
                return f'"{mark}{more}"'
            case "literal":
                return f"'{mark}{more.replace(chr(39), '')}'"
            case "long":
                return f'"""{mark}{more}\n[x]\ny = "1"\\\n  ""\\""""'
            case "long_literal":
                return f"'''{mark}{more.replace(chr(39), '')}\n# no comment\n[[z]]\n''''"
            case "number":
                return str(1_000_000 + self.count)
            case _:
                return "1979-05-27 07:32:00Z"

    def key(self, key: str) -> str:
        if re.fullmatch(r"[A-Za-z0-9_-]+", key) and self.draw(st.booleans()):
            return key
        if "'" not in key and key.isprintable() and self.draw(st.booleans()):
            return f"'{key}'"
        return json.dumps(key, ensure_ascii=self.draw(st.booleans()) and max(map(ord, key), default=0) < 0x10000)

    def gap(self) -> str:
        return self.draw(st.sampled_from(["", " ", "\n", " # c ] , \n\t", "\r\n"]))

    def indent(self) -> str:
        return self.draw(st.sampled_from(["", "  ", "\n# [comment]\n", "\r\n\t"]))

    def end(self) -> str:
        return self.draw(st.sampled_from(["\n", " # x = 1\n", "\r\n", "\n\n"]))


@st.composite
def documents(draw: st.DrawFn) -> str:
    return Writer(draw).document(draw(st.dictionaries(KEYS, VALUES, max_size=5)))


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> Any:
    if path:
        yield path, value
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from leaves(item, (*path, index))


@settings(max_examples=150, deadline=None)
@given(documents())
def test_every_path_of_tomllib_has_its_line(text: str) -> None:
    try:
        parsed = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        assume(False)
    lines = key_lines(text)
    rows = text.replace("\r\n", "\n").split("\n")
    for path, value in leaves(parsed):
        assert path in lines, f"{path} has no line"
        mark = value.split("m")[1] if isinstance(value, str) and value.startswith("m") else None
        if mark is not None:
            assert f"m{mark}m" in rows[lines[path] - 1]
        elif isinstance(value, int):
            assert str(value) in rows[lines[path] - 1]


@settings(max_examples=60, deadline=None)
@given(documents(), st.data())
def test_it_knows_no_path_that_is_not_there(text: str, data: st.DataObject) -> None:
    try:
        parsed = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        assume(False)
    assert set(key_lines(text)) == {path for path, _ in leaves(parsed)}


@given(st.text())
@example("a = [" * 5000)
@example("a = {b = " * 5000)
@example("[" * 5000)
@example('"\\U00110000" = 1')
@example('a = "\\')
@example("a = '''")
def test_no_text_makes_it_raise(text: str) -> None:
    assert all(line >= 1 for line in key_lines(text).values())


@given(documents(), st.data())
def test_no_damaged_document_makes_it_raise(text: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(text)))
    cut = data.draw(st.integers(0, 5))
    put = data.draw(st.sampled_from(["", "[", "]", '"', "'", "{", "}", "=", "\n", ".", "\\", '"""', "#"]))
    key_lines(text[:at] + put + text[at + cut :])


@pytest.mark.parametrize(
    ("text", "path", "line"),
    [
        ("a = 1\nb = 2\n", ("b",), 2),
        ("# c\n\n[t]\nx = 1\n", ("t", "x"), 4),
        ("[[t]]\nx = 1\n[[t]]\nx = 2\n", ("t", 1, "x"), 4),
        ("[[t]]\n[[t.u]]\n[[t.u]]\ny = 1\n[[t]]\n[[t.u]]\ny = 2", ("t", 1, "u", 0, "y"), 7),
        ("[[t]]\n[t.s]\nq = 1\n", ("t", 0, "s", "q"), 3),
        ('a."b.c".d = 1\n', ("a", "b.c", "d"), 1),
        ("l = [\n 1,\n # two\n 2,\n]\nm = 3", ("l", 1), 4),
        ("l = [\n { a = 1 },\n { a = 2 },\n]\n", ("l", 1, "a"), 3),
        ('s = """\n[x]\ny = 1\n"""\nz = 1', ("z",), 5),
        ("a = { b = { c = 1 } }", ("a", "b", "c"), 1),
        ("[x.y.z]\nk = 1\n[x]\nj = 1", ("x", "j"), 4),
    ],
)
def test_by_example(text: str, path: tuple[str | int, ...], line: int) -> None:
    tomllib.loads(text)
    assert key_lines(text)[path] == line


def test_implied_tables_stand_on_the_line_of_the_first_header() -> None:
    lines = key_lines("\n[x.y.z]\n[x]\n")
    assert (lines["x",], lines["x", "y"], lines["x", "y", "z"]) == (2, 2, 2)
