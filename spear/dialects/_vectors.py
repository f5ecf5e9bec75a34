"""Vectors as backends write them, checked."""

from __future__ import annotations

import math

from pydantic import JsonValue

from spear.ir import BackendError, EmbeddingsResult, ErrorCode, Failure, Operation, make_error, trusted

_result = trusted(EmbeddingsResult)


def embeddings_of(value: JsonValue, count: int, extra: dict[str, JsonValue] | None = None) -> EmbeddingsResult:
    """A list of `count` vectors, all of one length, of finite numbers; anything else raises `BackendError`, which says
    what is wrong."""
    if not isinstance(value, list):
        raise wrong_vectors("the answer has no list of vectors")
    if len(value) != count:
        raise wrong_vectors(f"{len(value)} vectors for {count} inputs")
    vectors = tuple(_vector(item, index) for index, item in enumerate(value))
    lengths = {len(vector) for vector in vectors}
    if len(lengths) > 1:
        raise wrong_vectors(f"vectors of {len(lengths)} different lengths")
    dimensions = lengths.pop() if lengths else 0
    if not dimensions:
        raise wrong_vectors("vectors without numbers")
    return _result(vectors=vectors, dimensions=dimensions, extra=extra or {})


def _vector(value: JsonValue, index: int) -> tuple[float, ...]:
    if not isinstance(value, list):
        raise wrong_vectors(f"vector {index} is no list")
    kinds = set(map(type, value))
    if not kinds <= {float, int}:
        raise wrong_vectors(f"vector {index} has something that is no number")
    try:
        vector: tuple[float, ...] = tuple(map(float, value)) if int in kinds else tuple(value)  # type: ignore[arg-type]
        finite = math.isfinite(math.fsum(vector)) or all(map(math.isfinite, vector))
    except OverflowError:  # an integer that is no float, or a sum that is none
        finite = all(isinstance(item, float) and math.isfinite(item) for item in value)
    if not finite:
        raise wrong_vectors(f"vector {index} has a number that is not finite")
    return vector


def wrong_vectors(what: str) -> BackendError:
    error = make_error(ErrorCode.BACKEND_ERROR, f"unusable embeddings: {what}", operation=Operation.EMBEDDINGS)
    return BackendError(error, Failure.SERVER)
