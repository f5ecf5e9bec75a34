"""The events of a stream.

`started`, then deltas, then at most one `usage`, then exactly one of `completed` and `error`. A stream without a
terminal event is itself an error (`stream_truncated`); nobody invents a clean end. Non-empty content, reasoning,
tool-call and audio deltas, segments and `completed` bear content: the first of them commits the stream to its backend.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ._envelope import ResponseEnvelope
from ._errors import CanonicalError
from ._model import Model
from ._payloads import Extra
from ._results import Usage


class Started(Model):
    type: Literal["started"] = "started"
    request_id: str = ""
    backend: str
    model: str = ""
    extra: Extra = Field(default_factory=dict)


class ContentDelta(Model):
    type: Literal["content_delta"] = "content_delta"
    choice: int = 0
    delta: str


class ReasoningDelta(Model):
    type: Literal["reasoning_delta"] = "reasoning_delta"
    choice: int = 0
    delta: str


class ToolCallDelta(Model):
    """A fragment of a tool call. `id` and `name` come with the first fragment of a call."""

    type: Literal["tool_call_delta"] = "tool_call_delta"
    choice: int = 0
    call_index: int = 0
    id: str | None = None
    name: str | None = None
    arguments: str = ""


class AudioDelta(Model):
    """`audio` is standard base64."""

    type: Literal["audio_delta"] = "audio_delta"
    choice: int = 0
    audio: str
    format: str


class SegmentEvent(Model):
    """A piece of a transcript that will not change any more. Times in seconds from the beginning of the audio."""

    type: Literal["segment"] = "segment"
    start_s: float
    end_s: float
    text: str
    speaker: str | None = None


class UsageEvent(Model):
    type: Literal["usage"] = "usage"
    usage: Usage


class Completed(Model):
    """`response` is what the same request without streaming would have given."""

    type: Literal["completed"] = "completed"
    response: ResponseEnvelope


class ErrorEvent(Model):
    type: Literal["error"] = "error"
    error: CanonicalError
    usage: Usage | None = None
    """What is known to have been used before the stream broke."""


StreamEvent = Annotated[
    Started
    | ContentDelta
    | ReasoningDelta
    | ToolCallDelta
    | AudioDelta
    | SegmentEvent
    | UsageEvent
    | Completed
    | ErrorEvent,
    Field(discriminator="type"),
]


def bears_content(event: StreamEvent) -> bool:
    """Whether this event commits a stream to its backend."""
    match event:
        case ContentDelta(delta=delta) | ReasoningDelta(delta=delta):
            return delta != ""
        case ToolCallDelta():
            return bool(event.id or event.name or event.arguments)
        case AudioDelta(audio=audio):
            return audio != ""
        case Completed() | SegmentEvent():
            return True
        case _:
            return False
