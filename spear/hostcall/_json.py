"""JSON over the guest border: strict on the way in, compact with sorted keys on the way out."""

from __future__ import annotations

import json
import re
from typing import Any, Final

import orjson

MAX_DEPTH: Final = 128


class Malformed(Exception):
    """Not JSON: bad syntax, NaN or Infinity, a lone surrogate, or nesting deeper than 128."""


def parse(text: bytes | str) -> Any:
    """Guest text as a value. Bad UTF-8 becomes U+FFFD first. The last of duplicate keys wins."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise Malformed(str(error)) from None
    # Only a text with that many brackets can be that deep, so the walk is rare.
    if text.count("[") + text.count("{") > MAX_DEPTH and _depth_exceeds(value, MAX_DEPTH):
        raise Malformed(f"nesting deeper than {MAX_DEPTH}")
    return value


def _depth_exceeds(value: Any, limit: int) -> bool:
    level: list[Any] = [value]
    for _ in range(limit):
        children: list[Any] = []
        for node in level:
            if isinstance(node, dict):
                children.extend(child for child in node.values() if isinstance(child, dict | list))
            elif isinstance(node, list):
                children.extend(child for child in node if isinstance(child, dict | list))
        if not children:
            return False
        level = children
    return True


_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)  # linear: it never goes back


def surely_over(text: bytes, max_values: int) -> bool:
    """Whether JSON text has more values than that, told from its punctuation without building them. False is no proof.

    Every comma outside of strings stands before a value, and every opening bracket is one; so no more than twice the
    number of values can be found.
    """
    if _punctuation(text) <= 2 * max_values:
        return False
    return _punctuation(_STRING.sub(b"", text)) > 2 * max_values


def _punctuation(text: bytes) -> int:
    return text.count(b",") + text.count(b"[") + text.count(b"{")


def count_values(value: Any, limit: int) -> int:
    """How many values there are in this one, itself included. Stops counting soon after `limit`."""
    count, rest = 1, [value] if isinstance(value, dict | list) else []
    while rest and count <= limit:
        node = rest.pop()
        children = node.values() if isinstance(node, dict) else node
        count += len(children)
        rest.extend(child for child in children if isinstance(child, dict | list))
    return count


def dump(value: Any) -> bytes:
    """UTF-8, compact, keys in ascending byte order, nothing escaped that need not be.

    Raises ValueError for what JSON cannot say.
    """
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        # Beyond orjson: integers over 64 bits, deep nesting, lone surrogates.
        try:
            text = json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False, allow_nan=False)
        except (TypeError, RecursionError) as error:
            raise ValueError(f"not representable as JSON: {error}") from None
        return text.encode("utf-8", "replace")
