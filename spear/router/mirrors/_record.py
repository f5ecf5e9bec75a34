"""What is kept of one mirrored request: measures, and text only where the configuration says so."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from spear.ir import MalformedJson, dump_json, parse_json

NAME_CHARS = 256
Name = Annotated[str, Field(max_length=NAME_CHARS)]
Share = Annotated[float, Field(ge=0, le=1)]
Least0 = Annotated[float, Field(ge=0)]


class MirrorRecord(BaseModel):
    """None: not known, or it does not apply. Times in milliseconds from the send of that attempt; differences are the
    mirror's less the primary's. An outcome is `ok`, an error's code, `left` (the primary's caller did) or `unfinished`
    (the primary's end was not waited for: the mirror had failed, or its time was over). `compared` is True where both
    are `ok`."""

    # Unknown keys are let pass: a file may be a later version's.
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)

    v: Literal[1] = 1
    time: Name
    """UTC, ISO 8601, of the record."""
    request_id: Name
    generation: Annotated[int, Field(ge=0)] = 0
    operation: Name
    model: Name = ""
    """The one that was asked for."""
    streamed: bool = False
    primary: Name
    mirror: Name
    primary_model: Name = ""
    mirror_model: Name = ""
    primary_outcome: Name
    mirror_outcome: Name
    compared: bool = False
    text_similarity: Share | None = None
    text_cut: bool = False
    """Only the beginning of a text was compared."""
    tool_names_equal: bool | None = None
    tool_arguments_equal: bool | None = None
    primary_schema_valid: bool | None = None
    mirror_schema_valid: bool | None = None
    primary_finish_reason: Name | None = None
    mirror_finish_reason: Name | None = None
    primary_latency_ms: Least0 | None = None
    mirror_latency_ms: Least0 | None = None
    latency_difference_ms: float | None = None
    primary_first_event_ms: Least0 | None = None
    mirror_first_event_ms: Least0 | None = None
    primary_output_tokens: Annotated[int, Field(ge=0)] | None = None
    mirror_output_tokens: Annotated[int, Field(ge=0)] | None = None
    primary_cost: Least0 | None = None
    mirror_cost: Least0 | None = None
    cost_difference: float | None = None
    prompt: str | None = None
    primary_text: str | None = None
    mirror_text: str | None = None


class BadRecord(ValueError):
    """A line is no record; the message says why, without quoting it."""


def write_record(record: MirrorRecord) -> bytes:
    """One line of JSON, without what is None."""
    return dump_json(record.model_dump(exclude_none=True)) + b"\n"


def read_record(line: bytes) -> MirrorRecord:
    """Raises `BadRecord`."""
    try:
        value = parse_json(line)
    except MalformedJson as error:
        raise BadRecord(f"is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadRecord("is not a JSON object")
    try:
        return MirrorRecord.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(map(str, first["loc"]))[:NAME_CHARS]
        raise BadRecord(f"{key}: {first['msg']}") from None
