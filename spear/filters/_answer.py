"""What a filter answered, as it came."""

from __future__ import annotations

from spear.ir import Json, MalformedJson, parse_json
from spear.router import FilterFailed


def parse_answer(data: bytes) -> Json:
    try:
        return parse_json(data)
    except MalformedJson as error:
        raise FilterFailed(f"its answer is no JSON: {error}") from None
