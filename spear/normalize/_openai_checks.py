"""What all OpenAI-shaped ways in check: a wrong type is a `CallerError` that names the field, never its value."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pydantic import JsonValue

from spear.ir import CallerError, MalformedJson, check_json, invalid_request

Wire = dict[str, JsonValue]

_NAMES: Final = {str: "a string", bool: "true or false", int: "an integer", float: "a number", list: "an array"}


def wrong(field: str, value: JsonValue, expected: str) -> CallerError:
    """Says the type that came, never the value: it may be private."""
    came = "null" if value is None else "an object" if isinstance(value, dict) else _NAMES.get(type(value), "this")
    right_type = came in expected or (came == "an integer" and expected == "a number")
    right_type = right_type or (came == "a string" and expected.startswith("one of"))
    return invalid_request(field, f"must be {expected}" if right_type else f"must be {expected}, not {came}")


def checked_body(body: JsonValue) -> Wire:
    """A program in this process may hand over what no JSON text could have held."""
    wire = an_object(body, "body")
    field = "body"
    try:
        check_json(dict.fromkeys(wire))
        for key, value in wire.items():
            field = key
            check_json(value)
    except MalformedJson as error:
        raise invalid_request(field, f"not JSON: {error}") from None
    return wire


def an_object(value: JsonValue, field: str) -> Wire:
    if not isinstance(value, dict):
        raise wrong(field, value, "an object")
    return value


def a_list(value: JsonValue, field: str) -> list[JsonValue]:
    if not isinstance(value, list):
        raise wrong(field, value, "an array")
    return value


def a_string(value: JsonValue, field: str) -> str:
    if not isinstance(value, str):
        raise wrong(field, value, "a string")
    return value


def optional_strings(wire: Wire, names: Iterable[str], field: str) -> None:
    for name in names:
        if wire.get(name) is not None:
            a_string(wire[name], f"{field}.{name}")


def required(wire: Wire, key: str, field: str) -> JsonValue:
    if key not in wire:
        raise invalid_request(f"{field}.{key}" if field else key, "is missing")
    return wire[key]
