"""Spans of requests: what a program with OpenTelemetry sees."""

from __future__ import annotations

import json

import pytest
import trio
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

import spear
from spear.ir import ChatMessage, ChatRequest, Meta, Operation, RequestEnvelope
from spear.telemetry._spans import RequestSpans

STUB = {"name": "local", "kind": "stub", "hosting": "local", "model": "m"}


class Seen:
    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("test")

    def finished(self) -> dict[str, ReadableSpan]:
        return {each.name: each for each in self.exporter.get_finished_spans()}


@pytest.fixture
def seen() -> Seen:
    return Seen()


def request(**fields: object) -> RequestEnvelope:
    payload = ChatRequest(messages=(ChatMessage(role="user", content="a secret thought"),), model="m")
    return RequestEnvelope.model_validate({"operation": Operation.CHAT_COMPLETIONS, "payload": payload, **fields})


def parent_of(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


async def test_a_request_is_a_span_and_each_attempt_one_below_it(seen: Seen) -> None:
    async with spear.open_runtime({"spear": {"backends": [STUB]}}, observer=RequestSpans(seen.tracer)) as runtime:
        with seen.tracer.start_as_current_span("work") as work:
            response = await runtime.invoke(request())
    spans = seen.finished()
    assert set(spans) == {"work", "chat m", "attempt local"}
    chat, attempt = spans["chat m"], spans["attempt local"]
    assert parent_of(chat) == work.get_span_context().span_id
    assert parent_of(attempt) == chat.context.span_id
    assert chat.attributes is not None
    assert chat.attributes["gen_ai.request.model"] == "m"
    assert chat.attributes["gen_ai.usage.output_tokens"] == response.usage.output_tokens
    assert dict(attempt.attributes or {}) == {
        "spear.backend": "local", "spear.reason": "chosen", "spear.outcome": "ok",
    }  # fmt: skip
    assert chat.start_time is not None
    assert attempt.start_time is not None
    assert attempt.end_time is not None
    assert chat.end_time is not None
    assert chat.start_time <= attempt.start_time <= attempt.end_time <= chat.end_time + 1000
    assert "secret thought" not in json.dumps([json.loads(each.to_json()) for each in spans.values()])


async def test_a_failure_has_its_code(seen: Seen) -> None:
    async with spear.open_runtime({"spear": {"backends": [STUB]}}, observer=RequestSpans(seen.tracer)) as runtime:
        payload = ChatRequest(messages=(ChatMessage(role="user", content="hello"),), model="nobody has it")
        await runtime.invoke(RequestEnvelope(operation=Operation.CHAT_COMPLETIONS, payload=payload))
    (span,) = seen.finished().values()
    assert span.status.status_code is StatusCode.ERROR
    assert dict(span.attributes or {})["error.type"] == "no_candidate_backend"


async def test_the_parent_that_a_request_names(seen: Seen) -> None:
    known = Meta(trace_id="0af7651916cd43dd8448eb211c80319c", span_id="b7ad6b7169203331")
    async with spear.open_runtime({"spear": {"backends": [STUB]}}, observer=RequestSpans(seen.tracer)) as runtime:
        await runtime.invoke(request(meta=known))
        for wrong in ("", "x" * 32, "0" * 32, "0af7"):
            await runtime.invoke(request(meta=Meta(trace_id=wrong, span_id="b7ad6b7169203331")))
    chats = [each for each in seen.exporter.get_finished_spans() if each.name == "chat m"]
    assert f"{chats[0].context.trace_id:032x}" == known.trace_id
    assert parent_of(chats[0]) == int(known.span_id or "", 16)
    assert all(each.parent is None for each in chats[1:])


async def test_switched_on_by_the_configuration(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", seen.provider)
    for tracing in (False, True):
        async with (
            spear.open_runtime({"spear": {"tracing": tracing, "backends": [STUB]}}) as runtime,
            runtime.stream(request()) as events,
        ):
            async for _ in events:
                pass
        assert set(seen.finished()) == ({"chat m", "attempt local"} if tracing else set())


async def test_many_at_once_keep_their_own_parents(seen: Seen) -> None:
    async with spear.open_runtime({"spear": {"backends": [STUB]}}, observer=RequestSpans(seen.tracer)) as runtime:

        async def ask(number: int) -> None:
            with seen.tracer.start_as_current_span(f"work {number}"):
                await runtime.invoke(request(request_id=f"req_{number}"))

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(ask, number)
    spans = seen.exporter.get_finished_spans()
    works = {each.context.span_id: each.name for each in spans if each.name.startswith("work")}
    for each in spans:
        if each.name == "chat m":
            assert works[parent_of(each) or 0] == f"work {dict(each.attributes or {})['spear.request_id'][4:]}"  # type: ignore[index]
