"""JSON at the borders: strict in, lossless through.

Rules: NaN, Infinity, numbers no float can hold, lone surrogates and nesting deeper than 128 are malformed; the last
of duplicate keys wins; integers keep every digit. orjson does the work wherever it agrees with these rules, the
standard library elsewhere.
"""

from __future__ import annotations

import json
import math
from typing import Annotated, Final, cast

import orjson
from pydantic import JsonValue, PlainValidator, WithJsonSchema

MAX_DEPTH: Final = 128

# orjson turns an integer beyond 64 bits into a float; a text without such digit runs is its own.
_DIGITS: Final = bytes(48 if 48 <= byte < 58 else byte for byte in range(256))
_BOXES: Final = frozenset({dict, list})
_LONG_NUMBER: Final = b"0" * 19


class MalformedJson(ValueError):
    """The text is not JSON by the rules of this module; the message says why, never quotes the text."""


def parse_json(text: bytes | str, *, exact: bool = True) -> JsonValue:
    """Parse, or raise `MalformedJson`. Not `exact`, integers beyond 64 bits become floats: for lists of numbers, whose
    long fractions would go the slow way for nothing."""
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    deep = data.count(b"[") + data.count(b"{") > MAX_DEPTH
    value: JsonValue
    try:
        value = orjson.loads(data) if not exact or _LONG_NUMBER not in data.translate(_DIGITS) else _parse_exactly(data)
    except RecursionError:
        raise MalformedJson(f"nested deeper than {MAX_DEPTH}") from None
    except ValueError as error:
        raise MalformedJson(_reason(error)) from None
    if deep and not _within_depth(value):
        raise MalformedJson(f"nested deeper than {MAX_DEPTH}")
    return value


def dump_json(value: object, *, sort: bool = False) -> bytes:
    """Compact UTF-8 JSON; with `sort`, keys in ascending byte order. Raises `MalformedJson` for what JSON cannot
    say."""
    try:
        text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS if sort else None)
    except TypeError:  # an integer beyond 64 bits, a lone surrogate, or something that is no JSON at all
        return _dump_exactly(value, sort)
    if b"null" in text:  # orjson writes null for what is not finite, instead of refusing it
        _refuse(value)
    return text


def _dump_exactly(value: object, sort: bool) -> bytes:
    try:
        _refuse(value)
        return json.dumps(value, separators=(",", ":"), sort_keys=sort, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError:
        raise MalformedJson("nested too deeply") from None
    except (TypeError, ValueError) as error:
        raise MalformedJson(_reason(error)) from None


def _refuse(value: object) -> None:
    """Raise for what the two writers let pass: numbers that are not finite, keys that are no strings."""
    if isinstance(value, float) and not math.isfinite(value):
        raise MalformedJson("a number that is not finite")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise MalformedJson("an object key must be a string")
            _refuse(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _refuse(item)


def check_json(value: object) -> JsonValue:
    """Return `value` if it is a JSON value by the rules of this module, else raise `MalformedJson`."""
    _check(value, 0)
    return value  # type: ignore[return-value]


def _parse_exactly(data: bytes) -> JsonValue:
    value: JsonValue = json.loads(data.decode(), parse_constant=_no_constant)
    _check(value, 0)
    return value


def _no_constant(name: str) -> float:
    raise MalformedJson(f"{name} is not JSON")


def _check(value: object, depth: int) -> None:
    # `type() is`, not isinstance: this runs for every node of every free-form value.
    kind = type(value)
    if kind is str:
        _check_text(cast("str", value))
    elif kind is dict or kind is list:
        if depth >= MAX_DEPTH:
            raise MalformedJson(f"nested deeper than {MAX_DEPTH}")
        if kind is list:
            for item in cast("list[object]", value):
                _check(item, depth + 1)
            return
        for key, item in cast("dict[object, object]", value).items():
            if type(key) is not str:
                raise MalformedJson(f"an object key is {type(key).__name__}, it must be a string")
            _check_text(key)
            _check(item, depth + 1)
    elif kind is float:
        if not math.isfinite(cast("float", value)):
            raise MalformedJson("a number that is not finite")
    elif value is not None and kind is not int and kind is not bool:
        raise MalformedJson(f"{kind.__name__} is not a JSON type")


def _check_text(text: str) -> None:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise MalformedJson("a lone surrogate in a string") from None


def _within_depth(value: JsonValue) -> bool:
    # Breadth first: a level holds the lists and objects that stand equally deep.
    level: list[JsonValue] = [value]
    for _ in range(MAX_DEPTH + 1):
        boxes = [box for box in level if isinstance(box, dict | list)]
        if not boxes:
            return True
        level = []
        for box in boxes:
            inner = box.values() if isinstance(box, dict) else box
            if not _BOXES.isdisjoint(map(type, inner)):  # a list of a thousand numbers is passed over at once
                level += inner
    return False


def _reason(error: Exception) -> str:
    if isinstance(error, MalformedJson):
        return str(error)
    if isinstance(error, UnicodeError):
        return "not UTF-8"
    if isinstance(error, json.JSONDecodeError):  # orjson's error too
        return f"{error.msg} at byte {error.pos}"
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


# A JSON value in a model's field. Pydantic's own JsonValue walks every value through Python-level unions; this walks
# it once.
Json = Annotated[JsonValue, PlainValidator(check_json), WithJsonSchema({})]
