"""Speech to text: a form with the recording, and its transcript, whole or as it comes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager

from pydantic import JsonValue

from spear.backends._http import FormFile, Received, broken_answer, json_of, multipart, payloads_of, redacted
from spear.backends._http._client import Payloads
from spear.backends._protocol import Answer, Call, Finished, StreamItem
from spear.backends._whole import told_whole
from spear.dialects.openai_audio import (
    MAX_TRANSCRIPT,
    TEXT_FORMATS,
    TranscriptDecoder,
    answer_format,
    file_name,
    is_translation,
    transcript_from_body,
    transcription_fields,
)
from spear.ir import (
    ContentDelta,
    RequestEnvelope,
    SegmentEvent,
    SpeechToTextRequest,
    SpeechToTextResult,
    Started,
    StreamEvent,
    Usage,
    UsageEvent,
    invalid_request,
)

from ._operation import Operations
from ._told import check_error, model_of


async def transcribe(to: Operations, request: RequestEnvelope, speech: SpeechToTextRequest, call: Call) -> Answer:
    wanted = answer_format(speech, to.options.transcription_format)
    async with await _post(to, request, speech, call, wanted, stream=False) as received:
        return await _whole(to, received, wanted)


@asynccontextmanager
async def stream_transcript(
    to: Operations, request: RequestEnvelope, speech: SpeechToTextRequest, call: Call
) -> AsyncGenerator[AsyncIterator[StreamItem], None]:
    """A server that cannot stream answers whole; translations are never streamed."""
    wanted = answer_format(speech, to.options.transcription_format)
    stream = not is_translation(speech) and wanted not in TEXT_FORMATS
    async with await _post(to, request, speech, call, wanted, stream=stream) as received:
        if received.media_type == "text/event-stream":
            payloads = payloads_of(received)
            async with aclosing(payloads), aclosing(_events(to, payloads, received)) as events:
                yield events
            return
        answer = await _whole(to, received, wanted)
        assert isinstance(answer.payload, SpeechToTextResult)
        async with aclosing(told_whole(to.client.instance.name, answer, _told(answer.payload))) as whole:
            yield whole


async def _post(
    to: Operations, request: RequestEnvelope, speech: SpeechToTextRequest, call: Call, wanted: str, *, stream: bool
) -> AbstractAsyncContextManager[Received]:
    model = to.model(speech)
    loaded = await to.load(speech.audio, request)
    if not loaded.data:
        raise invalid_request("audio", "is empty")
    fields = transcription_fields(speech, model=model, answer=wanted, stream=stream)
    kind, content = multipart(fields, [FormFile("file", file_name(loaded.mime), loaded.mime, loaded.data)])
    url = to.url("/audio/translations" if is_translation(speech) else "/audio/transcriptions", model)
    accept = b"text/event-stream" if stream else b"*/*"
    return to.client.post(url, content, call, streamed=stream, content_type=kind, accept=accept)


async def _whole(to: Operations, received: Received, wanted: str) -> Answer:
    if wanted in TEXT_FORMATS and not received.is_json:
        body, whole = await received.read(MAX_TRANSCRIPT)
        if not whole:
            raise broken_answer("response too large")
        try:
            text = to.client.mask(body).decode()
        except UnicodeDecodeError:
            raise broken_answer("the transcript is not UTF-8") from None
        return Answer(SpeechToTextResult(text=text), Usage(estimated=True))
    value = await json_of(received, to.client.mask)
    check_error(value, to.client.redact)
    result, usage = transcript_from_body(value)
    return Answer(result, usage, model_of(value), raw=value if to.client.host.debug_raw else None)


async def _events(to: Operations, payloads: Payloads, received: Received) -> AsyncGenerator[StreamItem, None]:
    decoder = TranscriptDecoder()
    yield Started(backend=to.client.instance.name)
    async for payload, at_end in payloads:
        if payload == b"[DONE]":
            break
        received.first_event_came()
        for event in decoder.feed(_event(to, payload, at_end=at_end)):
            yield event
    result, usage = decoder.finish()
    yield UsageEvent(usage=usage)
    yield Finished(Answer(result, usage))


def _event(to: Operations, payload: bytes, *, at_end: bool) -> JsonValue:
    value = to.client.parsed(payload, at_end=at_end)
    if isinstance(value, dict) and (value.get("error") is not None or value.get("type") == "error"):
        return redacted(value, to.client.redact)
    return value


def _told(result: SpeechToTextResult) -> list[StreamEvent]:
    """Segments say more than the text; a transcript without them is one delta."""
    said: list[StreamEvent] = [ContentDelta(delta=result.text)] if result.text else []
    return said + [SegmentEvent(**segment.model_dump()) for segment in result.segments]
