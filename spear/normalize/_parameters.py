"""Chat parameters to their typed fields.

A value goes to a typed field only where it fits exactly, that is, where it comes back out unchanged; an explicit null
does not, as None means absent.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, Literal, cast

from pydantic import JsonValue

from spear.ir import Generation, ResponseFormat

ToolChoice = Literal["none", "auto", "required"] | dict[str, JsonValue]
GenerationValue = str | int | float | bool | tuple[str, ...]


def _number(value: JsonValue) -> float | None:
    if type(value) is float and math.isfinite(value):
        return value
    # An integer that no float holds exactly would come out changed.
    return float(value) if type(value) is int and abs(value) <= 2**53 else None


def _integer(value: JsonValue) -> int | None:
    return value if type(value) is int else None


def _at_least(least: int) -> Callable[[JsonValue], int | None]:
    return lambda value: value if type(value) is int and value >= least else None


def _flag(value: JsonValue) -> bool | None:
    return value if type(value) is bool else None


def _text(value: JsonValue) -> str | None:
    return value if type(value) is str else None


def _stop(value: JsonValue) -> str | tuple[str, ...] | None:
    if type(value) is list and all(type(item) is str for item in value):
        return tuple(cast("list[str]", value))
    return _text(value)


# What a value must be, and how it is read: None where it does not fit.
_FIELDS: Final[dict[str, tuple[str, Callable[[JsonValue], GenerationValue | None]]]] = {
    "temperature": ("a number", _number),
    "top_p": ("a number", _number),
    "max_tokens": ("an integer, at least 0", _at_least(0)),
    "stop": ("a string or an array of strings", _stop),
    "seed": ("an integer", _integer),
    "presence_penalty": ("a number", _number),
    "frequency_penalty": ("a number", _number),
    "logprobs": ("true or false", _flag),
    "top_logprobs": ("an integer, at least 0", _at_least(0)),
    "n": ("an integer, at least 1", _at_least(1)),
    "user": ("a string", _text),
}
EXPECTED: Final = {name: expected for name, (expected, _) in _FIELDS.items()}
TOOL_CHOICES: Final = ("none", "auto", "required")


def split_generation(params: dict[str, JsonValue], *, stream: bool | None) -> tuple[Generation, dict[str, JsonValue]]:
    """The typed parameters, and all that did not fit."""
    typed: dict[str, GenerationValue] = {}
    rest: dict[str, JsonValue] = {}
    for name, value in params.items():
        field = _FIELDS.get(name)
        fitting = field[1](value) if field is not None else None
        if fitting is None:
            rest[name] = value
        else:
            typed[name] = fitting
    if stream is not None:
        typed["stream"] = stream
    return Generation.model_validate(typed), rest


def tool_choice_of(value: JsonValue) -> ToolChoice | None:
    if isinstance(value, dict) or (isinstance(value, str) and value in TOOL_CHOICES):
        return cast("ToolChoice", value)
    return None


def response_format_of(value: JsonValue) -> ResponseFormat | None:
    match value:
        case {"type": "text" | "json_object" | "json_schema" as kind, **rest} if not rest:
            return ResponseFormat(type=cast("Literal['text', 'json_object', 'json_schema']", kind))
        case {"type": "json_schema" as kind, "json_schema": dict(schema), **rest} if not rest:
            return ResponseFormat(type="json_schema", json_schema=schema)
        case _:
            return None
