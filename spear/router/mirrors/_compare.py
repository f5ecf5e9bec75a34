"""Two answers to one request, compared, and the record of it. Pure.

Of several choices the first is compared. Tool calls are compared without their order and without their ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from spear.ir import (
    ChatRequest,
    ChatResult,
    EmbeddingsRequest,
    ImageRequest,
    Json,
    MalformedJson,
    RequestEnvelope,
    ResultPayload,
    SpeechToTextRequest,
    SpeechToTextResult,
    TextToSpeechRequest,
    ToolCall,
    Usage,
    dump_json,
    parse_json,
)
from spear.router._facts import Facts
from spear.router._usage import settle_usage

from ._conform import conforms, plain_json
from ._record import NAME_CHARS, MirrorRecord
from ._side import OK, Side
from ._similarity import is_cut

_REASON_CHARS = 64


class Comparison(NamedTuple):
    """Named as in the record."""

    text_similarity: float | None = None
    text_cut: bool = False
    tool_names_equal: bool | None = None
    tool_arguments_equal: bool | None = None
    primary_schema_valid: bool | None = None
    mirror_schema_valid: bool | None = None
    primary_finish_reason: str | None = None
    mirror_finish_reason: str | None = None


def texts_of(primary: Side, mirror: Side) -> tuple[str, str] | None:
    """What is to be compared as text, which takes its time; None where there is nothing."""
    if primary.answer is None or mirror.answer is None:
        return None
    ours, theirs = text_of(primary.answer.payload), text_of(mirror.answer.payload)
    return None if ours is None or theirs is None else (ours, theirs)


def compare(request: RequestEnvelope, primary: Side, mirror: Side, similarity: float | None) -> Comparison:
    """`similarity` is that of `texts_of`. What cannot be compared is None: an image, a vector, a missing answer."""
    texts = texts_of(primary, mirror)
    if primary.answer is None or mirror.answer is None or texts is None:
        return Comparison()
    found = Comparison(similarity, text_cut=any(map(is_cut, texts)))
    ours, theirs = primary.answer.payload, mirror.answer.payload
    if not isinstance(ours, ChatResult) or not isinstance(theirs, ChatResult):
        return found
    wanted = request.payload.response_format if isinstance(request.payload, ChatRequest) else None
    calls, others = _calls(ours), _calls(theirs)
    named = bool(calls or others)
    names = sorted(each.function.name for each in calls) == sorted(each.function.name for each in others)
    return found._replace(
        tool_names_equal=names if named else None,
        tool_arguments_equal=(names and _said(calls) == _said(others)) if named else None,
        primary_schema_valid=conforms(texts[0], wanted),
        mirror_schema_valid=conforms(texts[1], wanted),
        primary_finish_reason=_reason(ours),
        mirror_finish_reason=_reason(theirs),
    )


def record_of(
    request: RequestEnvelope,
    facts: Facts,
    primary: Side,
    mirror: Side,
    found: Comparison,
    *,
    time: str,
    generation: int,
) -> MirrorRecord:
    ours, theirs = usage_of(primary, facts), usage_of(mirror, facts)
    our_cost, their_cost = None if ours is None else ours.cost, None if theirs is None else theirs.cost
    return MirrorRecord(
        time=time,
        request_id=request.request_id,
        generation=generation,
        operation=request.operation.value,
        model=facts.model[:NAME_CHARS],
        streamed=facts.timing[1],
        primary=primary.backend,
        mirror=mirror.backend,
        primary_model=primary.model[:NAME_CHARS],
        mirror_model=mirror.model[:NAME_CHARS],
        primary_outcome=primary.outcome,
        mirror_outcome=mirror.outcome,
        compared=primary.outcome == mirror.outcome == OK,
        text_similarity=found.text_similarity,
        text_cut=found.text_cut,
        tool_names_equal=found.tool_names_equal,
        tool_arguments_equal=found.tool_arguments_equal,
        primary_schema_valid=found.primary_schema_valid,
        mirror_schema_valid=found.mirror_schema_valid,
        primary_finish_reason=found.primary_finish_reason,
        mirror_finish_reason=found.mirror_finish_reason,
        primary_latency_ms=_ms(primary.elapsed),
        mirror_latency_ms=_ms(mirror.elapsed),
        latency_difference_ms=_less(_ms(mirror.elapsed), _ms(primary.elapsed)),
        primary_first_event_ms=_ms(primary.first_event),
        mirror_first_event_ms=_ms(mirror.first_event),
        primary_output_tokens=None if ours is None else ours.output_tokens,
        mirror_output_tokens=None if theirs is None else theirs.output_tokens,
        primary_cost=our_cost,
        mirror_cost=their_cost,
        cost_difference=_less(their_cost, our_cost),
    )


def text_of(payload: ResultPayload) -> str | None:
    """The text of an answer; None where it has none to compare."""
    match payload:
        case ChatResult():
            return payload.text
        case SpeechToTextResult():
            return payload.text
        case _:
            return None


def prompt_of(request: RequestEnvelope) -> str:
    """What was asked, for people: of a chat its last message."""
    match request.payload:
        case ChatRequest(messages=messages):
            return messages[-1].text() if messages else ""
        case EmbeddingsRequest(input=texts):
            return texts[0] if texts else ""
        case ImageRequest(prompt=text) | TextToSpeechRequest(input=text):
            return text
        case SpeechToTextRequest(prompt=hint):
            return hint or ""
        case _:
            return ""


def usage_of(side: Side, facts: Facts) -> Usage | None:
    """What the call used; None where nobody knows."""
    if side.answer is None:
        return None
    return settle_usage(side.answer.usage, facts, side.answer.payload, side.price)


def _calls(result: ChatResult) -> Sequence[ToolCall]:
    message = result.choices[0].message if result.choices else None
    return () if message is None else message.tool_calls


def _said(calls: Sequence[ToolCall]) -> list[tuple[str, bytes]]:
    return sorted((each.function.name, _arguments(each.function.arguments)) for each in calls)


def _arguments(text: str) -> bytes:
    """As a JSON value; what is none stays the text that it is."""
    value: Json
    try:
        value = plain_json(parse_json(text))
    except MalformedJson:
        return b"not JSON: " + text.encode("utf-8", "surrogatepass")
    return dump_json(value, sort=True)


def _reason(result: ChatResult) -> str | None:
    reason = result.finish_reason
    return None if reason is None else reason[:_REASON_CHARS]


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(max(0.0, seconds) * 1000, 3)


def _less(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other
