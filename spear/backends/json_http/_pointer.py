"""Where in an answer something stands: a JSON pointer (RFC 6901), in which `*` is each item of a list."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from pydantic import JsonValue

_WRONG_ESCAPE: Final = re.compile(r"~(?![01])")
_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,8}")


class _Missing:
    """What is not there; null may be."""


MISSING: Final = _Missing()
Found = JsonValue | _Missing


@dataclass(frozen=True, slots=True)
class Pointer:
    text: str
    steps: tuple[str, ...]

    def find(self, value: JsonValue) -> Found:
        """A pointer with `*` finds a list, of what each item has there; MISSING where one of them has nothing."""
        return _find(value, self.steps)


def read_pointer(text: JsonValue) -> Pointer:
    """Raises ValueError."""
    if not isinstance(text, str) or not (text == "" or text.startswith("/")):
        raise ValueError('must be a JSON pointer such as "/choices/0/text", or "" for the whole answer')
    if len(text) > 1024 or text.count("*") > 2:
        raise ValueError("is too long, or has more than two *")
    if _WRONG_ESCAPE.search(text):
        raise ValueError("has a ~ that is neither ~0 (for ~) nor ~1 (for /)")
    steps = text.split("/")[1:]
    return Pointer(text, tuple(step.replace("~1", "/").replace("~0", "~") for step in steps))


def _find(value: JsonValue, steps: tuple[str, ...]) -> Found:
    for number, step in enumerate(steps):
        if isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, list) and step == "*":
            found: list[JsonValue] = []
            for item in value:
                inner = _find(item, steps[number + 1 :])
                if isinstance(inner, _Missing):
                    return MISSING
                found.append(inner)
            return found
        elif isinstance(value, list) and _INDEX.fullmatch(step) and int(step) < len(value):
            value = value[int(step)]
        else:
            return MISSING
    return value
