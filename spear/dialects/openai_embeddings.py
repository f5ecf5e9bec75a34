"""OpenAI's embeddings dialect: POST …/embeddings.

An answer is taken only if it has one vector for each input, all of the same length and of finite numbers: a wrong
vector is not seen again until a search finds nothing. Vectors come in the order of their `index`, whatever the order of
the list. No loop over numbers in Python: a batch of 250 has some 400 000 of them.
"""

from __future__ import annotations

import array
import base64
import binascii
import math
import sys
from collections.abc import Sequence
from typing import Final

from pydantic import JsonValue

from spear.ir import EmbeddingsRequest, EmbeddingsResult, Operation, Usage, trusted

from ._broken import unusable
from ._openai_message import Wire

MAX_DIMENSIONS: Final = 65_536
_NUMBERS: Final = frozenset({int, float})
_OURS: Final = frozenset({"model", "input"})
_result, _usage = trusted(EmbeddingsResult), trusted(Usage)


def embeddings_body(request: EmbeddingsRequest, *, model: str) -> Wire:
    """The typed parameters, then `extra` over them, except that `extra` never decides model and input."""
    body: Wire = {"model": model, "input": list(request.input)}
    if request.dimensions is not None:
        body["dimensions"] = request.dimensions
    if request.encoding_format is not None:
        body["encoding_format"] = request.encoding_format
    for key, item in request.extra.items():
        if key not in _OURS:
            body[key] = item
    return body


def embeddings_from_body(value: JsonValue, request: EmbeddingsRequest) -> tuple[EmbeddingsResult, Usage]:
    """In the form that was asked for, whichever the server chose. Raises `BackendError` saying what is wrong."""
    if not isinstance(value, dict) or not isinstance(data := value.get("data"), list):
        raise _wrong("the answer has no list `data`")
    vectors = _in_order(data, len(request.input))
    wants_base64 = request.encoding_format == "base64"
    extra: Wire = {key: item for key, item in value.items() if key not in {"data", "usage"}}
    if wants_base64 and all(type(vector) is str for vector in vectors):
        texts = tuple(vector for vector in vectors if isinstance(vector, str))
        size = _same_length([_unpacked(text, place) for place, text in enumerate(texts)])
        return _result(base64=texts, dimensions=size, extra=extra), _usage_of(value, request)
    rows = tuple(_row(vector, place) for place, vector in enumerate(vectors))
    size = _same_length(rows)
    if wants_base64:
        return _result(base64=tuple(map(_packed, rows, range(len(rows)))), dimensions=size, extra=extra), _usage_of(
            value, request
        )
    return _result(vectors=rows, dimensions=size, extra=extra), _usage_of(value, request)


def embeddings_of(vectors: JsonValue, request: EmbeddingsRequest, extra: Wire) -> EmbeddingsResult:
    """The same checks and forms for vectors that come as a plain list, in the order of the inputs."""
    if not isinstance(vectors, list):
        raise _wrong("the answer has no list of vectors")
    data: list[JsonValue] = [{"embedding": vector} for vector in vectors]
    result, _ = embeddings_from_body({**extra, "data": data}, request)
    return result


def _in_order(data: list[JsonValue], expected: int) -> list[JsonValue]:
    if len(data) != expected:
        raise _wrong(f"{len(data)} vectors for {expected} inputs")
    placed: list[JsonValue] = [None] * expected
    for position, item in enumerate(data):
        if not isinstance(item, dict):
            raise _wrong(f"data[{position}] is not an object")
        index = item.get("index", position)
        if type(index) is not int or not 0 <= index < expected or placed[index] is not None:
            raise _wrong(f"data[{position}].index is not the place of an input, or comes twice")
        placed[index] = item.get("embedding")
        if placed[index] is None:
            raise _wrong(f"data[{position}] has no embedding")
    return placed


def _row(vector: JsonValue, place: int) -> tuple[float, ...]:
    if isinstance(vector, str):
        return tuple(_unpacked(vector, place))
    if not isinstance(vector, list):
        raise _wrong(f"vector {place} is neither a list nor base64")
    kinds = set(map(type, vector))
    if not kinds <= _NUMBERS:
        raise _wrong(f"vector {place} has something in it that is no number")
    try:
        row: tuple[float, ...] = tuple(vector) if kinds == {float} else tuple(map(float, vector))  # type: ignore[arg-type]
    except OverflowError:
        raise _wrong(f"vector {place} has a number that is not finite") from None
    _check_finite(row, place)
    return row


def _unpacked(text: str, place: int) -> array.array[float]:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _wrong(f"vector {place} is not base64") from None
    if len(data) % 4:
        raise _wrong(f"vector {place} has {len(data)} bytes, which are no 32-bit numbers")
    numbers = array.array("f", data)
    if sys.byteorder == "big":
        numbers.byteswap()
    _check_finite(numbers, place)
    return numbers


def _packed(row: Sequence[float], place: int) -> str:
    numbers = array.array("f", row)
    _check_finite(numbers, place)  # what was one may be none with 32 bits
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode("ascii")


def _check_finite(numbers: Sequence[float], place: int) -> None:
    """One sum says it: what is not finite stays so."""
    if not math.isfinite(sum(numbers)) and not all(map(math.isfinite, numbers)):
        raise _wrong(f"vector {place} has a number that is not finite")


def _same_length(rows: Sequence[Sequence[float]]) -> int:
    lengths = set(map(len, rows))
    if len(lengths) > 1:
        raise _wrong(f"vectors of different lengths: {', '.join(map(str, sorted(lengths)[:4]))}")
    size = lengths.pop() if lengths else 0
    if rows and not 0 < size <= MAX_DIMENSIONS:
        raise _wrong(f"vectors of {size} numbers; from 1 to {MAX_DIMENSIONS} can be used")
    return size


def _usage_of(value: Wire, request: EmbeddingsRequest) -> Usage:
    told = value.get("usage")
    count = told.get("prompt_tokens") if isinstance(told, dict) else None
    if not isinstance(told, dict) or type(count) is not int or count < 0:
        return _usage(input_tokens=-(-sum(map(len, request.input)) // 4), estimated=True)
    extra: Wire = {key: item for key, item in told.items() if key != "prompt_tokens"}
    return _usage(input_tokens=count, extra=extra)


def _wrong(what: str) -> Exception:
    return unusable(Operation.EMBEDDINGS, f"the embeddings cannot be used: {what}")
