"""An observer that makes OpenTelemetry spans of finished requests: one for each, and one below it for each attempt.

Where they go is the program's business (its `TracerProvider`): this needs the API alone. Names and attributes follow
the OpenTelemetry semantic conventions for generative AI; what a request says or is answered is never among them. The
parent is the caller's current span, else the one that `meta.trace_id` and `meta.span_id` name.

Spans are made when a request has ended, from its own record of times. A failed request that was never sent anywhere has
no record of when it began: its span has no length.
"""

from __future__ import annotations

import re
import time
from typing import Final

from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    get_current_span,
    get_tracer,
    set_span_in_context,
)
from opentelemetry.util.types import AttributeValue

from spear._about import __version__
from spear.ir import Attempt, Meta, Operation, RequestEnvelope, ResponseEnvelope

_NS_PER_MS: Final = 1_000_000
_NAMES: Final = {
    Operation.CHAT_COMPLETIONS: "chat",
    Operation.EMBEDDINGS: "embeddings",
    Operation.IMAGE_GENERATION: "generate_content",
    Operation.SPEECH_TO_TEXT: "speech_to_text",
    Operation.TEXT_TO_SPEECH: "text_to_speech",
    Operation.REALTIME_VOICE: "realtime_voice",
}
_TRACE_ID: Final = re.compile(r"[0-9a-f]{32}")
_SPAN_ID: Final = re.compile(r"[0-9a-f]{16}")


class RequestSpans:
    def __init__(self, tracer: Tracer | None = None) -> None:
        """Without a `tracer` that of the global provider, whenever the program sets it."""
        self._tracer = tracer or get_tracer("spear", __version__)

    def __call__(self, request: RequestEnvelope, response: ResponseEnvelope) -> None:
        """Called in the task of whoever asked, right after the end."""
        error, backend = response.result.error, response.backend
        attempts = error.attempts if error is not None else backend.attempts if backend is not None else ()
        end = time.time_ns()
        took = backend.latency_ms if backend is not None else max((_end(each) for each in attempts), default=0.0)
        start = end - round(took * _NS_PER_MS)
        name = _NAMES[request.operation]
        span = self._tracer.start_span(
            f"{name} {request.model}".strip(),
            context=_parent(request.meta),
            kind=SpanKind.CLIENT,
            start_time=start,
            attributes={"gen_ai.operation.name": name, "spear.request_id": request.request_id},
        )
        if span.is_recording():
            span.set_attributes(_attributes(request, response))
            if error is not None:
                span.set_status(Status(StatusCode.ERROR, error.message))
            below = set_span_in_context(span)
            for attempt in attempts:
                self._attempt(attempt, start, below)
        span.end(end)

    def _attempt(self, attempt: Attempt, start: int, below: Context) -> None:
        attributes: dict[str, AttributeValue] = {
            "spear.backend": attempt.backend,
            "spear.reason": attempt.reason,
            "spear.outcome": attempt.outcome,
        }
        if attempt.key_id is not None:
            attributes["spear.key_id"] = attempt.key_id
        if attempt.error_code is not None:
            attributes["error.type"] = attempt.error_code.value
        began = start + round(attempt.started_ms * _NS_PER_MS)
        name = f"attempt {attempt.backend}"
        span = self._tracer.start_span(name, context=below, start_time=began, attributes=attributes)
        if attempt.outcome == "failed":
            span.set_status(StatusCode.ERROR)
        span.end(began + round(attempt.elapsed_ms * _NS_PER_MS))


def _end(attempt: Attempt) -> float:
    return attempt.started_ms + attempt.elapsed_ms


def _attributes(request: RequestEnvelope, response: ResponseEnvelope) -> dict[str, AttributeValue]:
    found: dict[str, AttributeValue] = {}
    if request.model:
        found["gen_ai.request.model"] = request.model
    if request.task_id is not None:
        found["spear.task_id"] = request.task_id
    backend, usage, error = response.backend, response.usage, response.result.error
    if backend is not None:
        found |= {"gen_ai.response.model": backend.model, "spear.backend": backend.name}
    if usage.input_tokens is not None:
        found["gen_ai.usage.input_tokens"] = usage.input_tokens
    if usage.output_tokens is not None:
        found["gen_ai.usage.output_tokens"] = usage.output_tokens
    if error is not None:
        found["error.type"] = error.code.value
    return found


def _parent(meta: Meta) -> Context | None:
    """None = whatever span is current where the observer is called."""
    if get_current_span().get_span_context().is_valid:
        return None
    trace, span = meta.trace_id or "", meta.span_id or ""
    if not (_TRACE_ID.fullmatch(trace) and _SPAN_ID.fullmatch(span)):
        return None
    context = SpanContext(int(trace, 16), int(span, 16), is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    return set_span_in_context(NonRecordingSpan(context)) if context.is_valid else None
