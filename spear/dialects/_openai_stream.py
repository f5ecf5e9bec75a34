"""The chunks of an OpenAI stream, to IR events and to the whole answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pydantic import JsonValue

from spear.ir import (
    AudioDelta,
    BackendError,
    ChatResult,
    ContentDelta,
    ErrorCode,
    Failure,
    Operation,
    ReasoningDelta,
    Started,
    StreamEvent,
    ToolCallDelta,
    Usage,
    UsageEvent,
    make_error,
    trusted,
)

from ._openai_assembly import MAX_CHARACTERS, Budget, Choice, Growing, broken
from ._openai_body import result_from_body
from ._openai_message import Wire
from ._provider_text import one_line, provider_error_text

_SIMPLE: Final = frozenset({str, int, type(None)})
_content_delta = trusted(ContentDelta)
_reasoning_delta = trusted(ReasoningDelta)


class ChatStreamDecoder:
    """Feed it each chunk as a parsed JSON value; it gives the events, and at the end the whole answer.

    `feed` and `finish` raise `BackendError`: for a chunk that is no chunk, for an error that the server puts into the
    stream, for an answer of more than `max_characters`, and, in `finish`, for a stream that was cut off. `clean`
    makes a provider's text fit to show: pass one that also replaces secrets. `audio_format` is what the request asked
    for; chunks do not say it.
    """

    def __init__(
        self,
        *,
        backend: str,
        request_id: str = "",
        audio_format: str = "",
        max_characters: int = MAX_CHARACTERS,
        clean: Callable[[str], str] = one_line,
    ) -> None:
        self._backend = backend
        self._request_id = request_id
        self._audio_format = audio_format
        self._clean = clean
        self._budget = Budget(max_characters)
        self._beside = Growing(self._budget, grow_text=False, grow_lists=False)
        self._choices: dict[int, Choice] = {}
        self._usage: JsonValue = None
        self._has_usage = False
        self._started = False
        self._usage_told = False

    def feed(self, chunk: JsonValue) -> list[StreamEvent]:
        """`Started` with the first chunk, then deltas; one `UsageEvent`, where usage comes once all choices ended."""
        if not isinstance(chunk, dict):
            raise broken("a chunk of the stream is not an object")
        if chunk.get("error") is not None or chunk.get("object") == "error":
            raise told_error(chunk, "in the stream", self._clean)
        choices = chunk.get("choices")
        if choices is not None and not isinstance(choices, list):
            raise broken("a chunk's choices are not a list")
        events: list[StreamEvent] = []
        self._take_beside(chunk)
        if not self._started:
            self._started = True
            model = chunk.get("model")
            events.append(
                Started(
                    request_id=self._request_id, backend=self._backend, model=model if isinstance(model, str) else ""
                )
            )
        for position, choice in enumerate(choices or ()):
            self._take_choice(position, choice, events)
        self._tell_usage(chunk.get("usage"), events)
        return events

    def finish(self, done_marker: bool) -> tuple[ChatResult, Usage]:
        """The whole answer; to be called when the stream ended cleanly or with `[DONE]` (`done_marker`). Without the
        marker, each choice must have had its finish_reason."""
        ended = bool(self._choices) and all(choice.finished for choice in self._choices.values())
        if not (done_marker or ended):
            error = make_error(
                ErrorCode.STREAM_TRUNCATED,
                "the backend's stream ended before its end mark",
                operation=Operation.CHAT_COMPLETIONS,
            )
            raise BackendError(error, Failure.SERVER)
        body = self._beside.value()
        if body.get("object") == "chat.completion.chunk":
            body["object"] = "chat.completion"
        body["choices"] = [self._choices[index].value() for index in sorted(self._choices)]
        if self._has_usage:
            body["usage"] = self._usage
        return result_from_body(body)

    def _take_beside(self, chunk: Wire) -> None:
        beside = self._beside
        for key, value in chunk.items():
            if key == "usage":
                self._has_usage = True
                if value is not None:
                    self._usage = value
            elif key != "choices" and not (type(value) in _SIMPLE and beside.has(key, value)):
                beside.merge(key, value)

    def _take_choice(self, position: int, wire: JsonValue, events: list[StreamEvent]) -> None:
        if not isinstance(wire, dict):
            raise broken("a choice of a chunk is not an object")
        given = wire.get("index")
        index = given if type(given) is int else position
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = Choice(index, self._budget)
        for key, value in wire.items():
            if key == "finish_reason" and isinstance(value, str) and value:
                choice.finished = True
            elif key in {"index", "delta"} or (value is None and choice.beside.has(key, None)):
                continue
            elif key == "finish_reason" and choice.finished:
                continue  # an empty reason after the real one is what some servers send
            choice.beside.merge(key, value)
        delta = wire.get("delta")
        if isinstance(delta, dict):
            self._take_delta(choice, delta, events)
        elif delta is not None:
            raise broken("a chunk's delta is not an object")

    def _take_delta(self, choice: Choice, delta: Wire, events: list[StreamEvent]) -> None:
        told_reasoning = False
        for key, value in delta.items():
            if key == "tool_calls" and value is not None:
                self._take_calls(choice, value, events)
                continue
            if key == "role" and not value:
                continue
            choice.message.merge(key, value)
            if key == "content" and (text := _spoken(value)):
                events.append(_content_delta(choice=choice.index, delta=text))
            elif key in {"reasoning_content", "reasoning"} and isinstance(value, str) and value:
                if not told_reasoning:  # some servers send the same text under both names
                    events.append(_reasoning_delta(choice=choice.index, delta=value))
                told_reasoning = True
            elif key == "audio" and isinstance(value, dict) and isinstance(data := value.get("data"), str) and data:
                events.append(AudioDelta(choice=choice.index, audio=data, format=self._audio_format))

    def _take_calls(self, choice: Choice, value: JsonValue, events: list[StreamEvent]) -> None:
        if not isinstance(value, list):
            raise broken("a delta's tool_calls are not a list")
        for wire in value:
            if not isinstance(wire, dict):
                raise broken("a delta's tool call is not an object")
            call = choice.call_for(wire)
            before = (call.id, call.name)
            added = call.merge(wire)
            events.append(
                ToolCallDelta(
                    choice=choice.index,
                    call_index=call.number,
                    id=call.id if call.id != before[0] else None,
                    name=call.name if call.name != before[1] else None,
                    arguments=added,
                )
            )

    def _tell_usage(self, value: JsonValue, events: list[StreamEvent]) -> None:
        if value is None or self._usage_told or not all(choice.finished for choice in self._choices.values()):
            return
        _, usage = result_from_body({"usage": value})
        if not usage.estimated:
            self._usage_told = True
            events.append(UsageEvent(usage=usage))


def told_error(told: Wire, where: str, clean: Callable[[str], str]) -> BackendError:
    """The error object that `told` is or has, found in the place `where`: the status was 200, so its code is all there
    is to go by. `clean` takes out of its text what nobody may see."""
    error = told.get("error")
    text = clean(provider_error_text(error if error is not None else told))
    code, failure = _classify(error if isinstance(error, dict) else told)
    message = f"error {where}: {text}" if text else f"error {where}"
    return BackendError(make_error(code, message, operation=Operation.CHAT_COMPLETIONS), failure)


def _classify(error: Wire) -> tuple[ErrorCode, Failure]:
    words = {str(error.get(key)) for key in ("code", "type")}
    if words & {"429", "rate_limit_exceeded", "rate_limit_error"}:
        return ErrorCode.RATE_LIMITED, Failure.RATE_LIMIT
    if words & {"content_filter", "content_policy_violation"}:
        return ErrorCode.CONTENT_REFUSED, Failure.REFUSED
    if "context_length_exceeded" in words:
        return ErrorCode.BACKEND_ERROR, Failure.CONTEXT_WINDOW
    if words & {"400", "404", "413", "422", "invalid_request_error"}:
        return ErrorCode.BACKEND_ERROR, Failure.REQUEST
    if words & {"401", "403", "authentication_error", "permission_error", "invalid_api_key"}:
        return ErrorCode.BACKEND_ERROR, Failure.AUTH
    return ErrorCode.BACKEND_ERROR, Failure.SERVER


def _spoken(content: JsonValue) -> str:
    """The text that a content delta adds; some servers stream a list of parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
    return "".join(text for text in texts if isinstance(text, str))
