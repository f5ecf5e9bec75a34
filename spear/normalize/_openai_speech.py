"""`/v1/audio/speech`, both ways. The answer is the recording itself, of the type its reply says."""

from __future__ import annotations

from base64 import b64decode
from dataclasses import dataclass
from typing import Final, Unpack

from pydantic import JsonValue

from spear.ir import (
    AudioDelta,
    CallerError,
    Completed,
    ErrorEvent,
    InlineMedia,
    RequestEnvelope,
    ResponseEnvelope,
    StreamEvent,
    TextToSpeechRequest,
    TextToSpeechResult,
    Usage,
    invalid_request,
)
from spear.media import MediaAccess

from ._openai_answer import openai_error
from ._openai_checks import Wire, a_string, checked_body, required, wrong
from ._openai_ways import OpenAIReply, Who, envelope, error_reply, must_be, taken
from ._operation_request import checked_payload

_FORMATS: Final = ("wav", "mp3", "pcm", "opus", "flac")
_MIMES: Final = {
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
    "pcm": "audio/L16",
    "opus": "audio/ogg",
    "flac": "audio/flac",
}


@dataclass(frozen=True, slots=True)
class Speech:
    """A request, and whether its answer is to be told as events (`stream_format` "sse") or as bare bytes."""

    request: RequestEnvelope
    events: bool


def request_from_openai_speech(body: JsonValue, *, stream: bool = False, **who: Unpack[Who]) -> Speech:
    """`stream`: the answer will be sent as it comes. Without `response_format` the backend chooses, as it does without
    `voice`. Raises `CallerError`."""
    rest = dict(checked_body(body))
    fields: dict[str, object] = {"input": a_string(required(rest, "input", ""), "input")}
    del rest["input"]
    fields["model"] = a_string(rest.pop("model", ""), "model")
    typed = taken(rest, ("voice", "response_format", "speed", "stream_format"))
    if "voice" in typed:
        fields["voice"] = a_string(typed["voice"], "voice")
    if "response_format" in typed:
        if typed["response_format"] not in _FORMATS:
            raise must_be("response_format", _FORMATS)
        fields["format"] = typed["response_format"]
    if "speed" in typed:
        speed = typed["speed"]
        if type(speed) not in {int, float}:
            raise wrong("speed", speed, "a number")
        if not 0.25 <= speed <= 4:  # type: ignore[operator]
            raise invalid_request("speed", "must be from 0.25 to 4")
        fields["speed"] = float(speed)  # type: ignore[arg-type]
    told = typed.get("stream_format", "audio")
    if told not in ("audio", "sse"):
        raise must_be("stream_format", ("audio", "sse"))
    payload = checked_payload(TextToSpeechRequest, {**fields, "extra": rest})
    return Speech(envelope(payload, stream=stream or told == "sse", **who), told == "sse")


async def openai_speech_reply(response: ResponseEnvelope, media: MediaAccess) -> OpenAIReply:
    """A recording that is not in the store any more is an error reply."""
    error = response.result.error
    if error is not None:
        return error_reply(error)
    result = response.result.payload
    if not isinstance(result, TextToSpeechResult):
        raise TypeError(f"a speech request was answered with {type(result).__name__}")
    audio = result.audio
    if isinstance(audio, InlineMedia):
        return OpenAIReply(200, audio.mime, audio.decode())
    try:
        loaded = await media.load(audio, task_id=None)
    except CallerError as missing:
        return error_reply(missing.error)
    return OpenAIReply(200, loaded.mime, loaded.data)


def openai_speech_type(event: AudioDelta) -> str:
    """The content type of a stream of bare bytes, by its first piece."""
    return _MIMES.get(event.format, "application/octet-stream")


def openai_speech_bytes(event: StreamEvent) -> bytes:
    """What a stream of bare bytes sends for `event`; nothing for those that carry no sound."""
    return b64decode(event.audio) if isinstance(event, AudioDelta) else b""


def openai_speech_events(event: StreamEvent) -> list[Wire]:
    """The events of a stream as its data; `speech.audio.done` or an error is the last."""
    match event:
        case AudioDelta(audio=audio):
            return [{"type": "speech.audio.delta", "audio": audio}]
        case Completed(response=response):
            return [{"type": "speech.audio.done", "usage": _usage(response.usage)}]
        case ErrorEvent(error=error):
            return [{"type": "error", **openai_error(error)[1]}]
        case _:
            return []


def _usage(usage: Usage) -> JsonValue:
    received, sent = usage.input_tokens or 0, usage.output_tokens or 0
    return {"input_tokens": received, "output_tokens": sent, "total_tokens": received + sent}
