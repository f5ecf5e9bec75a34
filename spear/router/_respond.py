"""Envelopes that the router makes: the request as one instance gets it, who answered, the response of a failure."""

from __future__ import annotations

from collections.abc import Sequence

from spear.backends import Answer
from spear.ir import (
    Attempt,
    BackendInfo,
    CanonicalError,
    RealtimeRequest,
    RequestEnvelope,
    ResponseEnvelope,
    Result,
    Usage,
    trusted,
)

from ._leg import Leg

# The backend's actor has checked what an adapter gave.
_backend_info, _result, _response = trusted(BackendInfo), trusted(Result), trusted(ResponseEnvelope)


def backend_info(
    leg: Leg, answer: Answer, arrived: float, now: float, attempts: Sequence[Attempt], generation: int
) -> BackendInfo:
    first = leg.first_event_at
    return _backend_info(
        name=leg.instance.name,
        kind=leg.instance.kind_name,
        model=answer.model or leg.request.model,
        latency_ms=max(0.0, (now - arrived) * 1000),
        first_event_ms=None if first is None else max(0.0, (first - arrived) * 1000),
        attempts=tuple(attempts),
        degraded=(*leg.plan.facts.degraded, *answer.degraded) if leg.plan.facts.degraded else answer.degraded,
        generation=generation,
    )


def ok_response(
    request: RequestEnvelope, backend: BackendInfo, answer: Answer, usage: Usage, *, raw: bool
) -> ResponseEnvelope:
    """With the backend's own JSON where `raw` is asked for, which is checked here."""
    make = ResponseEnvelope if raw else _response
    return make(
        request_id=request.request_id,
        operation=request.operation,
        backend=backend,
        result=_result(payload=answer.payload),
        usage=usage,
        raw=answer.raw if raw else None,
    )


def failed_response(request: RequestEnvelope, error: CanonicalError) -> ResponseEnvelope:
    return ResponseEnvelope(request_id=request.request_id, operation=request.operation, result=Result(error=error))


def send_model(request: RequestEnvelope, model: str) -> RequestEnvelope:
    """`request` asking for `model`, the backend's own name for it."""
    payload = request.payload
    if payload.model == model:
        return request
    changed: object
    if isinstance(payload, RealtimeRequest):
        changed = payload.model_copy(update={"session": payload.session.model_copy(update={"model": model})})
    else:
        changed = payload.model_copy(update={"model": model})
    return request.model_copy(update={"payload": changed})
