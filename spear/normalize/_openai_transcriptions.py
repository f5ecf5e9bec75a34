"""`/v1/audio/transcriptions` and `/v1/audio/translations`, both ways.

A translation is a request for speech_to_text whose `payload.extra["translate"]` is True. How the answer is to look is
no matter of the backend's: it stays beside the request, and asks for times where it needs them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, Unpack, cast

from pydantic import JsonValue

from spear.ir import (
    Completed,
    ContentDelta,
    ErrorEvent,
    RequestEnvelope,
    ResponseEnvelope,
    SegmentEvent,
    SpeechSegment,
    SpeechToTextRequest,
    SpeechToTextResult,
    StreamEvent,
    Usage,
    invalid_request,
)
from spear.media import MediaAccess

from ._media_type import media_type
from ._openai_answer import openai_error
from ._openai_checks import Wire
from ._openai_ways import (
    Form,
    OpenAIReply,
    Who,
    envelope,
    error_reply,
    flag,
    form_fields,
    form_file,
    json_reply,
    left_over,
    must_be,
    one,
)
from ._operation_request import checked_payload
from ._stored import INLINE_BYTES, reference
from ._subtitles import as_srt, as_vtt

ResponseForm = Literal["json", "text", "srt", "verbose_json", "vtt"]

TRANSLATE: Final = "translate"
_FORMS: Final = ("json", "text", "srt", "verbose_json", "vtt")
_TEXT: Final = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Transcription:
    """A request, and how its answer is to look."""

    request: RequestEnvelope
    form: ResponseForm
    granularities: tuple[str, ...]
    stream: bool


async def request_from_openai_transcription(
    form: Form,
    media: MediaAccess,
    *,
    translate: bool = False,
    inline_bytes: int = INLINE_BYTES,
    **who: Unpack[Who],
) -> Transcription:
    """`translate`: of `/translations`. Raises `CallerError`; a larger recording is stored for the task that asks."""
    rest = form_fields(form, ("file",))
    file = form_file(form, "file")
    if file is None:
        raise invalid_request("file", "is missing")
    mime = media_type(file.data, "file", "audio", said=file.mime, name=file.name)
    wanted = one(rest, "response_format") or "json"
    if wanted not in _FORMS:
        raise must_be("response_format", _FORMS)
    stream = flag(rest, "stream")
    if stream and wanted not in {"json", "text"}:
        raise invalid_request("stream", f"cannot be had as {wanted}; json and text can")
    granularities = _granularities(rest.pop("timestamp_granularities", []), wanted)
    fields: dict[str, object] = {
        "model": one(rest, "model") or "",
        "temperature": _temperature(one(rest, "temperature")),
    }
    fields |= {name: value for name in ("language", "prompt") if (value := one(rest, name)) is not None}
    if translate and "language" in fields:
        raise invalid_request("language", "a translation is always into English; leave it out")
    if granularities:
        fields["timestamps"] = "word" if "word" in granularities else "segment"
    extra = left_over(rest) | ({TRANSLATE: True} if translate else {})
    task_id = who.get("task_id")
    fields["audio"] = await reference(file.data, mime, media, task_id=task_id, inline_bytes=inline_bytes)
    payload = checked_payload(SpeechToTextRequest, {**fields, "extra": extra})
    return Transcription(envelope(payload, stream=stream, **who), cast("ResponseForm", wanted), granularities, stream)


def _granularities(given: list[str], wanted: str) -> tuple[str, ...]:
    for each in given:
        if each not in {"word", "segment"}:
            raise must_be("timestamp_granularities", ("word", "segment"))
    if given and wanted != "verbose_json":
        raise invalid_request("timestamp_granularities", "needs response_format verbose_json")
    if given:
        return tuple(dict.fromkeys(given))
    return ("segment",) if wanted in {"srt", "vtt", "verbose_json"} else ()


def _temperature(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 2:
        raise invalid_request("temperature", "must be a number from 0 to 2")
    return value


def openai_transcription_reply(response: ResponseEnvelope, asked: Transcription) -> OpenAIReply:
    error = response.result.error
    if error is not None:
        return error_reply(error)
    result = _result_of(response)
    match asked.form:
        case "text":
            return OpenAIReply(200, _TEXT, (result.text + "\n").encode())
        case "srt":
            return OpenAIReply(200, _TEXT, as_srt(result).encode())
        case "vtt":
            return OpenAIReply(200, "text/vtt; charset=utf-8", as_vtt(result).encode())
        case "json":
            body: Wire = {"text": result.text}
        case _:
            body = _verbose(result, asked)
    if (usage := _usage(response.usage)) is not None:
        body["usage"] = usage
    return json_reply(body)


def _verbose(result: SpeechToTextResult, asked: Transcription) -> Wire:
    """Words or segments: the backend times one of the two, words where both were asked for."""
    payload = asked.request.payload
    assert isinstance(payload, SpeechToTextRequest)
    task = "translate" if payload.extra.get(TRANSLATE) is True else "transcribe"
    body: Wire = {"task": task, "language": result.language, "duration": result.duration_s, "text": result.text}
    if "word" in asked.granularities:
        body["words"] = [
            {"word": each.text.strip(), "start": each.start_s, "end": each.end_s} for each in result.segments
        ]
    else:
        body["segments"] = [_segment(number, each) for number, each in enumerate(result.segments)]
    return body


def _segment(number: int, segment: SpeechSegment) -> JsonValue:
    told: Wire = {"id": number, "start": segment.start_s, "end": segment.end_s, "text": segment.text}
    if segment.speaker is not None:
        told["speaker"] = segment.speaker
    return told


def openai_transcription_events(event: StreamEvent) -> list[Wire]:
    """The events of a stream as its data; `transcript.text.done` or an error is the last."""
    match event:
        case ContentDelta(delta=delta):
            return [{"type": "transcript.text.delta", "delta": delta}]
        case SegmentEvent(start_s=start, end_s=end, text=text, speaker=speaker):
            return [{"type": "transcript.text.segment", "start": start, "end": end, "text": text, "speaker": speaker}]
        case Completed(response=response):
            done: Wire = {"type": "transcript.text.done", "text": _result_of(response).text}
            if (usage := _usage(response.usage)) is not None:
                done["usage"] = usage
            return [done]
        case ErrorEvent(error=error):
            return [{"type": "error", **openai_error(error)[1]}]
        case _:
            return []


def _result_of(response: ResponseEnvelope) -> SpeechToTextResult:
    result = response.result.payload
    if not isinstance(result, SpeechToTextResult):
        raise TypeError(f"a transcription was answered with {type(result).__name__}")
    return result


def _usage(usage: Usage) -> JsonValue:
    if usage.input_tokens is not None and not usage.estimated:
        received, sent = usage.input_tokens, usage.output_tokens or 0
        counts: Wire = {"type": "tokens", "input_tokens": received, "output_tokens": sent}
        return counts | {"total_tokens": received + sent}
    return None if usage.audio_seconds is None else {"type": "duration", "seconds": math.ceil(usage.audio_seconds)}
