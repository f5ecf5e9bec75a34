"""What an external filter is asked: facts of the request and the candidates as they are now, as plain JSON values.

Nothing of it is secret: no key, no address, nothing that requests are kept together by. What the request says is in it
only where the host has configured that, and then not more than so many bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from spear.config import FilterConfig
from spear.ir import (
    ChatRequest,
    EmbeddingsRequest,
    ImageRequest,
    Json,
    RequestEnvelope,
    RequestPayload,
    SpeechToTextRequest,
    TextToSpeechRequest,
)

from ._facts import Facts
from ._instance import Instance

VERSION: Final = 1


def question_of(
    config: FilterConfig, request: RequestEnvelope, facts: Facts, candidates: Sequence[Instance], tau: float, now: float
) -> dict[str, Json]:
    sizes = facts.sizes
    question: dict[str, Json] = {
        "version": VERSION,
        "filter": config.name,
        "request": {
            "id": request.request_id,
            "operation": facts.operation.value,
            "model": facts.model,
            "task": facts.task_id,
            "policy": facts.policy,
        },
        "requirements": {
            "operations": [each.value for each in facts.ops],
            "features": list(facts.features),
            "transports": list(facts.transports),
            "preferred_backends": list(facts.preferred_backends),
            "preferred_features": list(facts.preferred_features),
        },
        "lists": {"backend": facts.backend, "allow": list(facts.allowlist), "deny": list(facts.denylist)},
        "sizes": {
            "input_tokens": facts.input_tokens,
            "output_tokens": sizes.output_tokens,
            "chars": sizes.chars,
            "media_bytes": sizes.media_bytes,
            "batch": sizes.batch,
            "images": sizes.images,
        },
        "candidates": [_candidate(each, facts, tau, now) for each in candidates],
    }
    if config.content is not None:
        question["content"] = content_of(request.payload, config.content.max_bytes)
    return question


def _candidate(instance: Instance, facts: Facts, tau: float, now: float) -> dict[str, Json]:
    estimate, price = instance.estimate(facts.timing, tau), instance.price
    return {
        "name": instance.name,
        "kind": instance.kind_name,
        "hosting": instance.config.hosting.value,
        "model": instance.own_model,
        "region": instance.config.region,
        "weight": instance.weight,
        "priority": instance.priority,
        "inflight": instance.inflight,
        "queued": instance.queued,
        "state": _state(instance, now),
        "latency_ms": None if estimate is None else round(estimate.mean * 1000, 3),
        "price": None if price is None else {"input": price.input, "output": price.output},
    }


def _state(instance: Instance, now: float) -> str:
    if instance.weight == 0:
        return "drained"
    return instance.status if instance.status != "running" else instance.health.state(now)


def content_of(payload: RequestPayload, max_bytes: int) -> dict[str, Json]:
    """The texts of a request, the newest first kept where not all have room; no media, no tools."""
    kept: list[Json] = []
    left, truncated = max_bytes, False
    for role, text in _newest_first(payload):
        if not text:
            continue
        # Cut before it is encoded: a character has at least one byte.
        data = text[: left + 1].encode("utf-8", "replace")
        if len(data) > left:
            truncated = True
            data = data[:left]
        if data:
            kept.append({"role": role, "text": data.decode("utf-8", "ignore")})
        left -= len(data)
        if truncated:
            break
    kept.reverse()
    return {"parts": kept, "truncated": truncated}


def _newest_first(payload: RequestPayload) -> Iterator[tuple[str, str]]:
    match payload:
        case ChatRequest(messages=messages):
            for message in reversed(messages):
                yield message.role, message.text()
        case EmbeddingsRequest(input=texts):
            for text in reversed(texts):
                yield "input", text
        case ImageRequest(prompt=text) | TextToSpeechRequest(input=text):
            yield "input", text
        case SpeechToTextRequest(prompt=prompt):
            yield "input", prompt or ""
        case _:
            yield "system", payload.session.instructions or ""
