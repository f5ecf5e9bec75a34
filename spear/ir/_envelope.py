"""The envelopes: who asks for what under which conditions, and who answered how."""

from __future__ import annotations

import os
import re
import time
from typing import Annotated, Final, Literal, Self

from pydantic import Field, JsonValue, ValidationError, model_validator
from pydantic_core import ErrorDetails

from ._errors import (
    Attempt,
    CallerError,
    CanonicalError,
    ErrorCode,
    error_to_exception,
    make_error,
)
from ._json import Json, MalformedJson, dump_json, parse_json
from ._model import VERSION, Model, Operation, Transport
from ._payloads import Extra, RequestPayload
from ._results import ResultPayload, Usage

Names = tuple[str, ...]


def new_request_id() -> str:
    """`req_` and 32 hex digits: 48 bits of milliseconds, 80 random bits; sorts by time, like a UUIDv7."""
    return f"req_{time.time_ns() // 1_000_000:012x}{os.urandom(10).hex()}"


class Meta(Model):
    trace_id: str | None = None
    span_id: str | None = None
    created_at_ms: Annotated[int, Field(ge=0)] | None = None
    source: str | None = None
    source_id: str | None = None
    """The caller's own name for the request, which need not be unique (`chatcmpl_1000` of a guest)."""
    session_id: str | None = None
    execution_id: str | None = None
    """The run of the guest that asks."""
    priority_class: str | None = None


class Routing(Model):
    """Wishes of the caller. They narrow what the host allows, never widen it. An empty allowlist allows all."""

    backend: str | None = None
    allowlist: Names = ()
    denylist: Names = ()
    region_hint: str | None = None
    cost_hint: str | None = None
    latency_hint: str | None = None


class Requirements(Model):
    """Derived from the payload by normalization, plus what the caller adds. `required_transports` means any of the
    list."""

    required_ops: tuple[Operation, ...] = ()
    required_features: Names = ()
    required_transports: tuple[Transport, ...] = ()
    preferred_backends: Names = ()
    preferred_features: Names = ()


class PolicySpec(Model):
    """A request's own selection policy; used only where the host's route allows that name."""

    name: str
    options: dict[str, Json] = Field(default_factory=dict)


class Degradation(Model):
    """What may be done less well rather than refused. With `allow` and no steps named, all steps are allowed."""

    mode: Literal["reject", "allow"] = "reject"
    steps: Names = ()


_NO_META = Meta()
_NO_ROUTING = Routing()
_NO_REQUIREMENTS = Requirements()
_NO_DEGRADATION = Degradation()


class RequestEnvelope(Model):
    version: int = VERSION
    request_id: Annotated[str, Field(min_length=1, max_length=256)] = Field(default_factory=new_request_id)
    task_id: str | None = None
    operation: Operation
    meta: Meta = _NO_META
    routing: Routing = _NO_ROUTING
    requirements: Requirements = _NO_REQUIREMENTS
    policy: PolicySpec | None = None
    degradation: Degradation = _NO_DEGRADATION
    timeout_ms: Annotated[int, Field(ge=1)] | None = None
    """One deadline for everything: queueing, attempts, streaming. None = the host's."""
    payload: RequestPayload
    extra: Extra = Field(default_factory=dict)

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.version != VERSION:
            raise ValueError(f"unsupported_version: version: must be {VERSION}")
        if self.payload.kind != self.operation.value:
            raise ValueError(
                f"payload_mismatch: payload.kind: is {self.payload.kind}, must be as operation, {self.operation.value}"
            )
        return self

    @property
    def model(self) -> str:
        """The model asked for, trimmed; empty where the caller leaves it to the host."""
        return self.payload.model.strip()


class BackendInfo(Model):
    """Who answered. Times in milliseconds from the arrival of the request; `generation` is that of the
    configuration."""

    name: str
    kind: str
    model: str = ""
    latency_ms: Annotated[float, Field(ge=0)] = 0.0
    first_event_ms: Annotated[float, Field(ge=0)] | None = None
    attempts: tuple[Attempt, ...] = ()
    degraded: Names = ()
    generation: Annotated[int, Field(ge=0)] = 0


class Result(Model):
    """Exactly one of `payload` and `error`."""

    payload: ResultPayload | None = None
    error: CanonicalError | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.payload is None) == (self.error is None):
            raise ValueError("exactly one of payload and error must be given")
        return self


class ResponseEnvelope(Model):
    """`backend` is None where no backend answered; the error's attempts tell who was tried."""

    version: Literal[1] = 1
    request_id: str
    operation: Operation
    backend: BackendInfo | None = None
    result: Result
    usage: Usage = Usage()
    raw: Json = None
    """The backend's own JSON, only where the host turned that on for debugging."""

    def unwrap(self) -> ResultPayload:
        """The result's payload; raises the `SpearError` of the result's error."""
        if self.result.payload is not None:
            return self.result.payload
        assert self.result.error is not None
        raise error_to_exception(self.result.error)


def parse_request(data: bytes | str) -> RequestEnvelope:
    """A RequestEnvelope from JSON, or a `CallerError` that names each field that is wrong."""
    try:
        value = parse_json(data)
    except MalformedJson as error:
        raise CallerError(make_error(ErrorCode.INVALID_REQUEST, f"not JSON: {error}")) from None
    return validate_request(value)


def validate_request(value: JsonValue) -> RequestEnvelope:
    """A RequestEnvelope from a JSON value, or a `CallerError`. Types are strict: the string "3" is no number."""
    try:
        return RequestEnvelope.model_validate_json(dump_json(value))
    except ValidationError as error:
        raise CallerError(_explain(error, value)) from None
    except MalformedJson as error:
        raise CallerError(make_error(ErrorCode.INVALID_REQUEST, f"not JSON: {error}")) from None


def _explain(error: ValidationError, value: JsonValue) -> CanonicalError:
    """The problems by field, in one line, without repeating the caller's values."""
    problems = error.errors(include_url=False, include_input=False)
    by_place: dict[str, list[str]] = {}
    for problem in problems:
        for code in (ErrorCode.UNSUPPORTED_VERSION, ErrorCode.PAYLOAD_MISMATCH):
            if f"{code.value}: " in problem["msg"]:
                return make_error(code, problem["msg"].partition(f"{code.value}: ")[2])
        said = by_place.setdefault(_place(problem["loc"], value) or "request", [])
        if (text := _say(problem)) not in said:
            said.append(text)
    lines = [f"{place}: {' or '.join(said)}" for place, said in list(by_place.items())[:8]]
    more = f" (and {len(by_place) - 8} more)" if len(by_place) > 8 else ""
    return make_error(ErrorCode.INVALID_REQUEST, "; ".join(lines) + more)


_TAGS: Final = frozenset(
    {*Operation, "text", "image", "audio", "inline_base64", "sms_file", "http_url"}  # of payloads, parts and media
)


def _place(steps: tuple[int | str, ...], value: JsonValue) -> str:
    """`payload.messages[2].role`. Pydantic also puts the names of union members among the steps: those are no part of
    what the caller wrote, and are left out."""
    place = ""
    tagged = False  # the tag of the object at hand was passed: the same word again is a key
    for number, step in enumerate(steps):
        if isinstance(value, list) and isinstance(step, int):
            place += f"[{step}]"
            value = value[step] if step < len(value) else None
            tagged = False
        elif not isinstance(value, dict):
            continue
        elif not tagged and step in _TAGS and (value.get("kind") == step or value.get("type") == step):
            tagged = True
        elif step in value or number == len(steps) - 1:
            name = str(step)
            place += ("." if place else "") + (name if len(name) <= 64 else name[:64] + "…")
            value = value.get(name)
            tagged = False
    return place


def _say(problem: ErrorDetails) -> str:
    match problem["type"]:
        case "extra_forbidden":
            return "is not a known key"
        case "missing":
            return "is missing"
        case "union_tag_invalid":  # pydantic's own text would quote the tag
            return f"its {problem['ctx']['discriminator']} must be one of {problem['ctx']['expected_tags']}"
        case "union_tag_not_found":
            return f"its {problem['ctx']['discriminator']} is missing"
        case _:
            text = problem["msg"].removeprefix("Value error, ").replace("Input should", "must")
            return re.sub(r"\ba valid (?=[aeiou])", "an ", text).replace("a valid ", "a ")
