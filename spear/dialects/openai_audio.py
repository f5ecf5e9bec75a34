"""OpenAI's audio dialect: POST …/audio/transcriptions and …/translations (forms), …/audio/speech (JSON, bytes back)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from pydantic import JsonValue

from spear.ir import (
    BackendError,
    ContentDelta,
    ErrorCode,
    Failure,
    Operation,
    SegmentEvent,
    SpeechSegment,
    SpeechToTextRequest,
    SpeechToTextResult,
    StreamEvent,
    TextToSpeechRequest,
    Usage,
    dump_json,
    make_error,
)

from ._broken import unusable
from ._openai_message import Wire
from ._openai_stream import told_error
from ._provider_text import one_line
from ._recording import ENOUGH as ENOUGH
from ._recording import MIME_OF as MIME_OF
from ._recording import OTHER_FILES, WAV_HEAD, looks_like_text, missing_of_wav
from ._recording import file_name as file_name
from ._recording import format_of as format_of

MAX_SEGMENTS: Final = 100_000
"""Of one transcript."""
MAX_TRANSCRIPT: Final = 16 * 1024 * 1024
"""Characters."""
TEXT_FORMATS: Final = frozenset({"text", "srt", "vtt"})
_OURS: Final = frozenset({"model", "file", "stream", "translate"})

FormFields = list[tuple[str, str]]


def is_translation(request: SpeechToTextRequest) -> bool:
    return request.extra.get("translate") is True


def answer_format(request: SpeechToTextRequest, usual: str) -> str:
    """`response_format`: the caller's own, or what has the details that were asked for, or `usual`."""
    asked = request.extra.get("response_format")
    if isinstance(asked, str) and asked:
        return asked
    if request.diarization:
        return "diarized_json"
    return "verbose_json" if request.timestamps in {"segment", "word"} else usual


def transcription_fields(request: SpeechToTextRequest, *, model: str, answer: str, stream: bool) -> FormFields:
    """The form beside its file; `answer` is its `response_format`. Lists are sent as `name[]`, objects as JSON."""
    fields: dict[str, JsonValue] = {"model": model}
    if request.language is not None and not is_translation(request):
        fields["language"] = request.language
    if request.prompt is not None:
        fields["prompt"] = request.prompt
    if request.temperature is not None:
        fields["temperature"] = request.temperature
    fields["response_format"] = answer
    if request.timestamps in {"segment", "word"} and not is_translation(request):
        fields["timestamp_granularities"] = ["segment"] if request.timestamps == "segment" else ["word", "segment"]
    if request.diarization:
        fields["chunking_strategy"] = "auto"
    fields |= {key: item for key, item in request.extra.items() if key not in _OURS}
    if stream:
        fields["stream"] = True
    return form_fields(fields)


def form_fields(fields: Wire) -> FormFields:
    """Values as a form says them."""
    said: FormFields = []
    for key, value in fields.items():
        if isinstance(value, list):
            said += [(f"{key}[]", _as_text(item)) for item in value]
        elif value is not None:
            said.append((key, _as_text(value)))
    return said


def _as_text(value: JsonValue) -> str:
    return value if isinstance(value, str) else dump_json(value).decode()


def transcript_from_body(value: JsonValue) -> tuple[SpeechToTextResult, Usage]:
    """Of `json`, `verbose_json` and `diarized_json`. Raises `BackendError`."""
    if not isinstance(value, dict) or not isinstance(text := value.get("text"), str):
        raise wrong_transcript("the answer has no text")
    if len(text) > MAX_TRANSCRIPT:
        raise wrong_transcript(f"more than {MAX_TRANSCRIPT} characters")
    segments = _segments(value.get("segments"))
    language, duration = value.get("language"), _seconds(value.get("duration"))
    known = {"text", "usage"} | ({"segments"} if segments else set())
    known |= {"language"} if isinstance(language, str) else set()
    known |= {"duration"} if duration is not None else set()
    result = SpeechToTextResult(
        text=text,
        segments=segments,
        language=language if isinstance(language, str) else None,
        duration_s=duration,
        extra={key: item for key, item in value.items() if key not in known},
    )
    return result, transcript_usage(value.get("usage"), duration)


def transcript_usage(told: JsonValue, duration: float | None) -> Usage:
    if not isinstance(told, dict):
        return Usage(audio_seconds=duration, estimated=duration is None)
    seconds = _seconds(told.get("seconds"))
    received, sent = _count(told.get("input_tokens")), _count(told.get("output_tokens"))
    return Usage(
        input_tokens=received,
        output_tokens=sent,
        audio_seconds=duration if seconds is None else seconds,
        extra={key: item for key, item in told.items() if key not in {"seconds", "input_tokens", "output_tokens"}},
    )


def _segments(value: JsonValue) -> tuple[SpeechSegment, ...]:
    if not isinstance(value, list):
        return ()
    if len(value) > MAX_SEGMENTS:
        raise wrong_transcript(f"more than {MAX_SEGMENTS} segments")
    return tuple(_segment(item, f"segments[{place}]") for place, item in enumerate(value))


def _segment(item: JsonValue, where: str) -> SpeechSegment:
    if not isinstance(item, dict) or not isinstance(text := item.get("text"), str):
        raise wrong_transcript(f"{where} has no text")
    start, end = _seconds(item.get("start")), _seconds(item.get("end"))
    if start is None or end is None or end < start:
        raise wrong_transcript(f"{where} has no beginning and end in seconds")
    speaker = item.get("speaker")
    return SpeechSegment(start_s=start, end_s=end, text=text, speaker=speaker if isinstance(speaker, str) else None)


def _seconds(value: JsonValue) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        seconds = float(value)  # some servers write numbers as texts
    except (ValueError, OverflowError):
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _count(value: JsonValue) -> int | None:
    return value if type(value) is int and value >= 0 else None


class TranscriptDecoder:
    """The events of a streamed transcription: `feed` each, then `finish`. Both raise `BackendError`."""

    def __init__(self, *, clean: Callable[[str], str] = one_line) -> None:
        self._clean = clean
        self._said: list[str] = []
        self._size = 0
        self._segments: list[SpeechSegment] = []
        self._done: Wire | None = None

    def feed(self, event: JsonValue) -> list[StreamEvent]:
        if not isinstance(event, dict):
            raise wrong_transcript("an event of the stream is not an object")
        kind = event.get("type")
        if event.get("error") is not None or kind == "error":
            raise told_error(event, "in the stream", self._clean)
        if kind == "transcript.text.delta" and isinstance(delta := event.get("delta"), str):
            self._take(len(delta))
            self._said.append(delta)
            return [ContentDelta(delta=delta)] if delta else []
        if kind == "transcript.text.segment":
            segment = _segment(event, "a segment of the stream")
            self._take(len(segment.text))
            self._segments.append(segment)
            if len(self._segments) > MAX_SEGMENTS:
                raise wrong_transcript(f"more than {MAX_SEGMENTS} segments")
            return [SegmentEvent(**segment.model_dump())]
        if kind == "transcript.text.done":
            self._done = event
        return []  # other kinds are news that nobody asked for

    def finish(self) -> tuple[SpeechToTextResult, Usage]:
        """Only the `done` event makes it whole."""
        if self._done is None:
            message = "the backend's stream ended before its end mark"
            error = make_error(ErrorCode.STREAM_TRUNCATED, message, operation=Operation.SPEECH_TO_TEXT)
            raise BackendError(error, Failure.SERVER)
        said = {"text": "".join(self._said), **{key: item for key, item in self._done.items() if key != "type"}}
        result, usage = transcript_from_body(said)
        return result.model_copy(update={"segments": result.segments or tuple(self._segments)}), usage

    def _take(self, characters: int) -> None:
        self._size += characters
        if self._size > MAX_TRANSCRIPT:
            raise wrong_transcript(f"more than {MAX_TRANSCRIPT} characters")


def speech_body(request: TextToSpeechRequest, *, model: str, voice: str) -> Wire:
    """`voice` where the request names none: the dialect has no default of its own."""
    body: Wire = {"model": model, "input": request.input, "voice": request.voice or voice}
    if request.format is not None:
        body["response_format"] = request.format
    if request.speed is not None:
        body["speed"] = request.speed
    for key, item in request.extra.items():
        if key not in {"model", "input", "stream_format"}:
            body[key] = item
    return body


def speech_format(data: bytes, asked: str | None, said: str = "") -> str:
    """Of speech, by its first bytes; where they have no mark, what was asked for, empty if nothing was. `said` is its
    content type, which is no evidence of what it is. Raises `BackendError` for what is not what was asked for, or is
    no speech."""
    seen = format_of(data)
    if asked == "pcm" and seen in {"mp3", "aac"}:  # samples may look like anything
        seen = ""
    if seen:
        if asked is not None and asked != seen:
            raise wrong_speech(f"{asked} was asked for, and it is {seen}")
        return seen
    if asked in {"wav", "opus", "flac"}:
        raise wrong_speech(f"{asked} was asked for, and it does not begin like that")
    if said.startswith("text/") or said == "application/json" or looks_like_text(data):
        raise wrong_speech("it is text")
    if data.startswith(OTHER_FILES):
        raise wrong_speech("it is a file of another kind")
    return asked or ""


def whole_speech(beginning: bytes, kind: str, size: int) -> None:
    """Raises `BackendError` for a WAV that is not all there, or has nothing in it."""
    if kind == "wav" and size <= WAV_HEAD:
        raise wrong_speech("a WAV without sound")
    if missing := missing_of_wav(beginning, size):
        raise wrong_speech(f"a WAV that breaks off, {missing} bytes before its end")


def wrong_transcript(what: str) -> Exception:
    return unusable(Operation.SPEECH_TO_TEXT, f"the transcript cannot be used: {what}")


def wrong_speech(what: str) -> Exception:
    return unusable(Operation.TEXT_TO_SPEECH, f"the speech cannot be used: {what}")
