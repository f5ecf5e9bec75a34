"""What a program asks for by name (`embed`, `image`, `transcribe`, `speak`) to a request.

The names of parameters are those of the payload's fields; `backend`, `timeout_ms` and `degradation` are the request's;
all others go to the backend as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError

from spear.config import ALL_STEPS
from spear.ir import (
    CallerError,
    Degradation,
    EmbeddingsRequest,
    ImageRequest,
    MalformedJson,
    Meta,
    Operation,
    RequestEnvelope,
    RequestPayload,
    Routing,
    SpeechToTextRequest,
    TextToSpeechRequest,
    check_json,
    invalid_request,
)

from ._limits import (
    MAX_EMBEDDING_BYTES,
    MAX_EMBEDDING_INPUT_BYTES,
    MAX_EMBEDDING_INPUTS,
    MAX_HINT_BYTES,
    MAX_IMAGES,
    MAX_PROMPT_BYTES,
    MAX_SPEECH_BYTES,
)
from ._requirements import requirements_of

_KIND_OF: Final[dict[Operation, type[Any]]] = {
    Operation.EMBEDDINGS: EmbeddingsRequest,
    Operation.IMAGE_GENERATION: ImageRequest,
    Operation.SPEECH_TO_TEXT: SpeechToTextRequest,
    Operation.TEXT_TO_SPEECH: TextToSpeechRequest,
}
_SIZE_SIDES: Final = (16, 8192)


def request_from_params(
    operation: Operation,
    params: Mapping[str, object],
    *,
    task_id: str | None = None,
    meta: Meta | None = None,
    stream: bool = False,
) -> RequestEnvelope:
    """Raises `CallerError` that names the parameter that is wrong."""
    rest = {key: value for key, value in params.items() if value is not None}
    backend, timeout_ms = rest.pop("backend", None), rest.pop("timeout_ms", None)
    if backend is not None and not isinstance(backend, str):
        raise invalid_request("backend", "must be a string")
    if timeout_ms is not None and (type(timeout_ms) is not int or timeout_ms < 1):
        raise invalid_request("timeout_ms", "must be an integer, at least 1")
    degradation = degradation_of(rest.pop("degradation", "reject"))
    kind = _KIND_OF[operation]
    extra: dict[str, object] = {}
    given: dict[str, object] = {}
    for key, value in rest.items():
        (given if key in kind.model_fields and key not in {"kind", "extra"} else extra)[key] = value
    for key, value in extra.items():
        try:
            check_json({key: value})
        except (MalformedJson, TypeError) as error:
            raise invalid_request(key, f"not JSON: {error}") from None
    payload = checked_payload(kind, {**given, "extra": extra})
    return RequestEnvelope(
        task_id=task_id,
        operation=operation,
        meta=meta if meta is not None else Meta(),
        routing=Routing(backend=backend or None),
        requirements=requirements_of(payload, stream=stream),
        degradation=degradation,
        timeout_ms=timeout_ms,
        payload=payload,
    )


def checked_payload(kind: type[Any], fields: dict[str, object]) -> RequestPayload:
    """The payload, within the limits of one request. Raises `CallerError` that names the field."""
    try:
        payload: RequestPayload = kind.model_validate(fields)
    except ValidationError as error:
        raise _named(error) from None
    match payload:
        case EmbeddingsRequest():
            _check_inputs(payload.input)
        case ImageRequest():
            _check_text(payload.prompt, "prompt", MAX_PROMPT_BYTES)
            _check_image(payload)
        case TextToSpeechRequest():
            _check_text(payload.input, "input", MAX_SPEECH_BYTES)
        case SpeechToTextRequest(prompt=str(hint)) if hint:
            _check_text(hint, "prompt", MAX_HINT_BYTES)
        case _:
            pass
    return payload


def degradation_of(value: object) -> Degradation:
    """`"reject"`, `"allow"`, or the steps that are allowed. Raises `CallerError`."""
    match value:
        case "reject":
            return Degradation()
        case "allow":
            return Degradation(mode="allow")
        case [*steps] if steps and all(isinstance(step, str) for step in steps):
            for n, step in enumerate(steps):
                if step not in ALL_STEPS:  # a misspelled one would never be taken, and nobody would know why
                    raise invalid_request(f"degradation[{n}]", f"is no step; there are: {', '.join(ALL_STEPS)}")
            return Degradation(mode="allow", steps=tuple(str(step) for step in steps))
        case _:
            raise invalid_request("degradation", 'must be "reject", "allow", or a list of names of steps')


def _named(error: ValidationError) -> CallerError:
    problem = error.errors(include_url=False, include_input=False)[0]
    field = ""
    for step in problem["loc"]:
        field += f"[{step}]" if isinstance(step, int) else f".{step}" if field else str(step)
    text = problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    said = "is missing" if problem["type"] == "missing" else text if text.startswith("must") else f"must be {text}"
    return invalid_request(field or "request", said)


def _check_inputs(texts: tuple[str, ...]) -> None:
    if not texts:
        raise invalid_request("input", "is empty, at least one text is needed")
    if len(texts) > MAX_EMBEDDING_INPUTS:
        raise invalid_request("input", f"has {len(texts)} texts, at most {MAX_EMBEDDING_INPUTS} go into one request")
    total = 0
    for index, text in enumerate(texts):
        total += _check_text(text, f"input[{index}]", MAX_EMBEDDING_INPUT_BYTES)
    if total > MAX_EMBEDDING_BYTES:
        raise invalid_request("input", f"has {total} bytes, at most {MAX_EMBEDDING_BYTES} go into one request")


def _check_text(text: str, field: str, most: int) -> int:
    """Its bytes in UTF-8."""
    if not text:
        raise invalid_request(field, "is empty")
    try:
        size = len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError:
        raise invalid_request(field, "is not valid Unicode: it has a lone surrogate") from None
    if size > most:
        raise invalid_request(field, f"has {size} bytes, at most {most} are allowed")
    return size


def _check_image(payload: ImageRequest) -> None:
    if payload.n is not None and payload.n > MAX_IMAGES:
        raise invalid_request("n", f"must be at most {MAX_IMAGES}")
    if payload.mask is not None and payload.image is None:
        raise invalid_request("mask", "needs an image beside it")
    if payload.size is None or payload.size == "auto":
        return
    low, high = _SIZE_SIDES
    sides = payload.size.split("x")
    if len(sides) != 2 or not all(
        side.isascii() and side.isdigit() and len(side) <= 5 and low <= int(side) <= high for side in sides
    ):
        raise invalid_request("size", f'must be "auto" or WIDTHxHEIGHT in pixels, each {low} to {high}')
