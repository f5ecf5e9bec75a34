"""Whether an answer is the JSON that the request asked for. Pure, and bounded in steps: the schema is the caller's.

Checked are: type, enum, const, required, properties, additionalProperties, items, prefixItems, minimum and maximum
(exclusive, too), the lengths of strings, lists and objects, allOf, anyOf, oneOf, and `$ref` inside the schema. Not
checked are patterns and formats, because a caller's pattern can take for ever, and rarer keywords: they are taken as
kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from spear.ir import Json, MalformedJson, ResponseFormat, dump_json, parse_json

_MOST_STEPS: Final = 5000
_MOST_CHARS: Final = 1_000_000
"""Of the answer."""
_CHARS_A_STEP: Final = 64
"""Of JSON that is written in order to compare it."""
_DEEPEST: Final = 64


class TooMuch(Exception):
    """The schema or the value is too large to say in time."""


def conforms(text: str, wanted: ResponseFormat | None) -> bool | None:
    """None where no JSON was asked for, or where it cannot be said within the bounds."""
    if wanted is None or wanted.type == "text":
        return None
    if len(text) > _MOST_CHARS:
        return None
    try:
        value = parse_json(text)
    except MalformedJson:
        return False
    if wanted.type == "json_object":
        return isinstance(value, dict)
    schema = (wanted.json_schema or {}).get("schema", True)
    try:
        return _Check(schema).holds(value, schema, 0)
    except TooMuch:
        return None


def same_json(one: Json, other: Json) -> bool:
    """Equal as JSON values: 1 and 1.0 are, 1 and true are not."""
    return dump_json(plain_json(one), sort=True) == dump_json(plain_json(other), sort=True)


def plain_json(value: Json) -> Json:
    """The same value, whole numbers without a fraction."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: plain_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain_json(item) for item in value]
    return value


_TYPES: Final[Mapping[str, Callable[[Json], bool]]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: _is_number(value) and not isinstance(plain_json(value), float),
    "number": lambda value: _is_number(value),  # noqa: PLW0108 -- defined below
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}
_BOUNDS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "minimum": lambda value, bound: value >= bound,
    "maximum": lambda value, bound: value <= bound,
    "exclusiveMinimum": lambda value, bound: value > bound,
    "exclusiveMaximum": lambda value, bound: value < bound,
}
_LENGTHS: Final = (
    (str, "minLength", "maxLength"), (list, "minItems", "maxItems"), (dict, "minProperties", "maxProperties"),
)  # fmt: skip


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class _Check:
    def __init__(self, root: Json) -> None:
        self._root = root
        self._left = _MOST_STEPS

    def holds(self, value: Json, schema: Json, depth: int) -> bool:
        self._spend(1)
        if depth > _DEEPEST:
            raise TooMuch
        if not isinstance(schema, dict):
            return schema is not False
        return (
            self._itself(value, schema)
            and self._combined(value, schema, depth + 1)
            and (not isinstance(value, dict) or self._object(value, schema, depth + 1))
            and (not isinstance(value, list) or self._array(value, schema, depth + 1))
        )

    def _itself(self, value: Json, schema: Mapping[str, Json]) -> bool:
        kinds = schema.get("type")
        names = [kinds] if isinstance(kinds, str) else self._counted(kinds) if isinstance(kinds, list) else []
        known = [_TYPES[name] for name in names if isinstance(name, str) and name in _TYPES]
        if known and not any(each(value) for each in known):
            return False
        choices = schema.get("enum")
        if isinstance(choices, list) and not self._is_one_of(value, choices):
            return False
        if "const" in schema and not self._is_one_of(value, (schema["const"],)):
            return False
        if _is_number(value):
            return all(holds(value, schema[key]) for key, holds in _BOUNDS.items() if _is_number(schema.get(key)))
        return all(_long_enough(value, schema, *each) for each in _LENGTHS)

    def _combined(self, value: Json, schema: Mapping[str, Json], depth: int) -> bool:
        if "$ref" in schema and not self.holds(value, self._referred(schema["$ref"]), depth):
            return False
        for key, enough in (("allOf", all), ("anyOf", any), ("oneOf", _exactly_one)):
            parts = schema.get(key)
            if isinstance(parts, list) and not enough(self.holds(value, each, depth) for each in parts):
                return False
        return True

    def _object(self, value: Mapping[str, Json], schema: Mapping[str, Json], depth: int) -> bool:
        required, properties = schema.get("required"), schema.get("properties")
        if isinstance(required, list) and any(
            isinstance(key, str) and key not in value for key in self._counted(required)
        ):
            return False
        known = properties if isinstance(properties, dict) else {}
        # With patterns, which are not checked, nothing can be said of the other keys.
        others = True if "patternProperties" in schema else schema.get("additionalProperties", True)
        return all(self.holds(item, known.get(key, others), depth) for key, item in value.items())

    def _array(self, value: list[Json], schema: Mapping[str, Json], depth: int) -> bool:
        first = schema.get("prefixItems")
        first = first if isinstance(first, list) else []
        rest = schema.get("items", True)
        return all(
            self.holds(item, first[place] if place < len(first) else rest, depth) for place, item in enumerate(value)
        )

    def _is_one_of(self, value: Json, choices: Iterable[Json]) -> bool:
        """As `same_json`, with the value written once."""
        ours = self._written(value)
        return any(self._written(each) == ours for each in choices)

    def _written(self, value: Json) -> bytes:
        written = dump_json(plain_json(value), sort=True)
        self._spend(1 + len(written) // _CHARS_A_STEP)
        return written

    def _counted(self, parts: list[Json]) -> list[Json]:
        self._spend(len(parts))
        return parts

    def _spend(self, steps: int) -> None:
        self._left -= steps
        if self._left < 0:
            raise TooMuch

    def _referred(self, pointer: Json) -> Json:
        """A part of this very schema; whatever else is meant is taken as kept."""
        if not isinstance(pointer, str) or not pointer.startswith("#"):
            return True
        found = self._root
        self._spend(len(pointer) // _CHARS_A_STEP)
        for part in pointer[1:].split("/")[1:]:
            if not isinstance(found, dict):
                return True
            found = found.get(part.replace("~1", "/").replace("~0", "~"), True)
        return found


def _exactly_one(results: Iterable[bool]) -> bool:
    return sum(results) == 1


def _long_enough(value: Json, schema: Mapping[str, Json], kind: type, least: str, most: str) -> bool:
    if not isinstance(value, kind):
        return True
    low, high = schema.get(least), schema.get(most)
    size = len(value)  # type: ignore[arg-type]
    return (not _is_number(low) or size >= low) and (not _is_number(high) or size <= high)  # type: ignore[operator]
