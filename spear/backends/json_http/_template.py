"""The body of a request, with places to be filled.

A text that is nothing but `{name}` becomes the value of that name, of whatever type; where the request has none, the
key or item it stands for is left out. In a longer text the places become text. `{{` and `}}` are braces.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pydantic import JsonValue

from spear.ir import dump_json

_PIECE: Final = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_.-]*)\}|[{}]")
Lookup = Callable[[str], JsonValue]
"""From a name to its value; None = the request has none."""


@dataclass(frozen=True, slots=True)
class _Place:
    name: str


@dataclass(frozen=True, slots=True)
class _Text:
    parts: tuple[str | _Place, ...]


@dataclass(frozen=True, slots=True)
class Body:
    """A compiled template."""

    root: dict[str, object]
    names: frozenset[str]

    def filled(self, lookup: Lookup) -> dict[str, JsonValue]:
        filled = _fill(self.root, lookup)
        assert isinstance(filled, dict)
        return filled


def read_body(template: JsonValue, is_known: Callable[[str], bool], known: str) -> Body:
    """Raises ValueError for a place that is not `known`, and for a brace that begins none."""
    if not isinstance(template, dict):
        raise ValueError('must be a table: the body of a request, with places such as { prompt = "{last_user}" }')
    names: set[str] = set()
    root = _compile(template, names)
    for name in sorted(names):
        if not is_known(name):
            raise ValueError(f"has a place {{{name}}} that this operation does not have; it has {known}")
    assert isinstance(root, dict)
    return Body(root, frozenset(names))


def _compile(value: JsonValue, names: set[str]) -> object:
    if isinstance(value, dict):
        return {key: _compile(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [_compile(item, names) for item in value]
    return _compile_text(value, names) if isinstance(value, str) and ("{" in value or "}" in value) else value


def _compile_text(text: str, names: set[str]) -> object:
    parts: list[str | _Place] = []
    end = 0
    for match in _PIECE.finditer(text):
        parts.append(text[end : match.start()])
        end = match.end()
        if match[1] is not None:
            names.add(match[1])
            parts.append(_Place(match[1]))
        elif match[0] in {"{{", "}}"}:
            parts.append(match[0][0])
        else:
            raise ValueError("has a brace that begins or ends no place; a brace itself is written {{ or }}")
    parts.append(text[end:])
    kept = tuple(part for part in parts if part != "")
    return kept[0] if len(kept) == 1 else _Text(kept)


class _Nothing:
    """What is left out."""


_NOTHING: Final = _Nothing()


def _fill(template: object, lookup: Lookup) -> JsonValue | _Nothing:
    if isinstance(template, _Place):
        value = lookup(template.name)
        return _NOTHING if value is None else value
    if isinstance(template, _Text):
        return "".join(part if isinstance(part, str) else _text(lookup(part.name)) for part in template.parts)
    if isinstance(template, dict):
        filled = {key: _fill(item, lookup) for key, item in template.items()}
        return {key: item for key, item in filled.items() if not isinstance(item, _Nothing)}
    if isinstance(template, list):
        items = [_fill(item, lookup) for item in template]
        return [item for item in items if not isinstance(item, _Nothing)]
    return template  # type: ignore[return-value]  # what was JSON and had no place in it


def _text(value: JsonValue) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else dump_json(value).decode()
