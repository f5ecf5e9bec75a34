"""Requests that are larger than their backend takes in one call: as several, in order, and their answers as one.

Embeddings are cut by `max_batch` and `max_chars`, text to speech between sentences by `max_chars`, WAV audio at quiet
places by `max_audio_seconds`. What is cut and how it is joined stands here and in `_split_speech`; who calls, in
`_several`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from spear.ir import (
    BackendError,
    EmbeddingsRequest,
    EmbeddingsResult,
    ErrorCode,
    Failure,
    Json,
    Limits,
    RequestEnvelope,
    Usage,
    make_error,
    trusted,
)

from ._protocol import Answer

PARTIAL: Final = "partial"
"""The step of a request's `degradation`, named by it, that takes an answer without the items which failed."""

_result = trusted(EmbeddingsResult)


@dataclass(frozen=True, slots=True)
class Piece:
    """One call. `first` to `last` are what it is of the whole, by the unit that errors tell."""

    request: RequestEnvelope
    first: int
    last: int


Done = tuple[Piece, Answer | BackendError]
"""A piece, and what became of it."""


class Cut:
    """How one request was cut. `unit` is what its pieces are counted in."""

    unit: str
    whole: int
    pieces: list[Piece]

    def start_of(self, piece: Piece) -> float:
        """When it begins, in seconds, where pieces have a time."""
        return 0.0

    def halves(self, piece: Piece) -> Sequence[Piece]:
        """The same in two; none where it cannot be cut further."""
        return ()

    def took(self, answer: Answer) -> None:
        """One more has come. Raises `CallerError` where all together are more than one answer can be."""

    async def joined(self, done: Sequence[Done]) -> Answer:
        """One answer of them all, of which at least one is an answer."""
        raise NotImplementedError

    async def leave(self) -> None:
        """However it ended: what the pieces were kept in goes."""


def wants_partial(request: RequestEnvelope) -> bool:
    return request.degradation.mode == "allow" and PARTIAL in request.degradation.steps


class CutEmbeddings(Cut):
    unit = "inputs"

    def __init__(self, request: RequestEnvelope, payload: EmbeddingsRequest, limits: Limits) -> None:
        self._request = request
        self._payload = payload
        self.whole = len(payload.input)
        self.pieces = [self._piece(first, last) for first, last in batches(payload.input, limits)]

    def _piece(self, first: int, last: int) -> Piece:
        payload = self._payload.model_copy(update={"input": self._payload.input[first:last]})
        return Piece(self._request.model_copy(update={"payload": payload}), first, last - 1)

    def halves(self, piece: Piece) -> Sequence[Piece]:
        middle = (piece.first + piece.last + 1) // 2
        if middle == piece.first:
            return ()
        return self._piece(piece.first, middle), self._piece(middle, piece.last + 1)

    async def joined(self, done: Sequence[Done]) -> Answer:
        vectors: list[Any] = []
        errors: list[Json] = []
        encoded, dimensions = False, None
        for piece, answer in done:
            if isinstance(answer, BackendError):
                told = told_failure(answer)
                vectors += [None] * (piece.last - piece.first + 1)
                errors += [{"index": index, **told} for index in range(piece.first, piece.last + 1)]
                continue
            payload = answer.payload
            assert isinstance(payload, EmbeddingsResult)
            if dimensions is None:
                dimensions = payload.dimensions
            elif payload.dimensions not in {None, dimensions}:
                raise _broken(f"one batch has vectors of {dimensions} numbers, another of {payload.dimensions}")
            encoded = payload.base64 is not None
            vectors += payload.base64 if payload.base64 is not None else payload.vectors or ()
            if len(vectors) != piece.last + 1:
                asked, came = piece.last - piece.first + 1, len(vectors) - piece.first
                raise _broken(f"a batch of {asked} inputs came back as {came} vectors")
        nothing: Any = "" if encoded else ()
        found = tuple(nothing if each is None else each for each in vectors)
        given = answers_of(done)
        extra = dict(given[0].payload.extra)
        if errors:
            extra["errors"] = errors
        result = _result(
            vectors=None if encoded else found, base64=found if encoded else None, dimensions=dimensions, extra=extra
        )
        return joined_answer(given, result, partial=bool(errors))


def batches(texts: Sequence[str], limits: Limits) -> list[tuple[int, int]]:
    """Ranges of at most `max_batch` texts with `max_chars` characters together; one that is longer stands alone."""
    most, chars = limits.max_batch or len(texts) or 1, limits.max_chars
    if chars is None:
        return [(first, min(first + most, len(texts))) for first in range(0, len(texts), most)]
    ranges = []
    first = size = 0
    for index, text in enumerate(texts):
        if index > first and (index - first == most or size + len(text) > chars):
            ranges.append((first, index))
            first, size = index, 0
        size += len(text)
    return [*ranges, (first, len(texts))]


def answers_of(done: Sequence[Done]) -> list[Answer]:
    return [answer for _, answer in done if isinstance(answer, Answer)]


def told_failure(error: BackendError) -> dict[str, Json]:
    return {"code": error.code.value, "message": error.error.message}


def joined_answer(answers: Sequence[Answer], payload: Any, *, partial: bool = False) -> Answer:
    """`payload` with what the calls came to together."""
    degraded = dict.fromkeys(step for answer in answers for step in answer.degraded)
    if partial:
        degraded[PARTIAL] = None
    raw = [answer.raw for answer in answers]
    return Answer(
        payload=payload,
        usage=total([answer.usage for answer in answers]),
        model=answers[0].model,
        degraded=tuple(degraded),
        raw=None if all(each is None for each in raw) else raw,
    )


def total(usages: Sequence[Usage]) -> Usage:
    """Their sums. What one of them does not say is not known of all."""

    def of(name: str) -> Any:
        values = [getattr(usage, name) for usage in usages]
        return None if any(value is None for value in values) else sum(values)

    names = ("input_tokens", "output_tokens", "cached_tokens", "audio_seconds", "characters", "images")
    return Usage(**{name: of(name) for name in names}, estimated=any(usage.estimated for usage in usages))


def placed(error: BackendError, piece: Piece, cut: Cut) -> BackendError:
    """`error`, saying which piece it is about."""
    where = f"{cut.unit} {piece.first} to {piece.last} of {cut.whole}"
    told = error.error.model_copy(update={"message": f"{where}: {error.error.message}"})
    return BackendError(told, error.failure, status=error.status)


def _broken(what: str) -> BackendError:
    return BackendError(make_error(ErrorCode.BACKEND_ERROR, what), Failure.SERVER)
