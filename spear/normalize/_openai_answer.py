"""A response to OpenAI's body or error object, and stream events to chunks."""

from __future__ import annotations

from typing import Final

from pydantic import JsonValue

from spear.dialects.openai_chat import body_from_result, message_to_wire, one_line
from spear.ir import (
    HTTP_STATUS,
    AudioDelta,
    CanonicalError,
    ChatChoice,
    ChatResult,
    Completed,
    ContentDelta,
    ErrorCode,
    ErrorEvent,
    ReasoningDelta,
    ResponseEnvelope,
    SegmentEvent,
    Started,
    StreamEvent,
    ToolCallDelta,
    Usage,
    UsageEvent,
)

Body = dict[str, JsonValue]

_TYPES: Final = {
    ErrorCode.RATE_LIMITED: "rate_limit_error",
    ErrorCode.BUDGET_EXCEEDED: "insufficient_quota",
    ErrorCode.TIMEOUT: "timeout_error",
}


def openai_body_from_response(response: ResponseEnvelope, *, model: str, created: int) -> tuple[int, Body]:
    """HTTP status and body. What an OpenAI client needs and the backend left out is filled in: `id`, `object`,
    `created` (Unix seconds), `model` (the requested one) and the total of a usage."""
    error = response.result.error
    if error is not None:
        return openai_error(error)
    result = response.result.payload
    if not isinstance(result, ChatResult):
        raise TypeError(f"a chat request was answered with {type(result).__name__}")
    own = body_from_result(result, response.usage)
    body: Body = {
        "id": _completion_id(response.request_id),
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [],
        **own,
    }
    if "usage" in own and not response.usage.estimated:
        body["usage"] = _usage(response.usage, own["usage"])
    return 200, body


def openai_error(error: CanonicalError) -> tuple[int, Body]:
    """HTTP status and error object. The message is one line, and `code` is Spear's own."""
    status = HTTP_STATUS[error.code]
    kind = _TYPES.get(error.code, "invalid_request_error" if status < 500 else "server_error")
    return status, {
        "error": {"message": one_line(error.message), "type": kind, "param": None, "code": error.code.value}
    }


def _completion_id(request_id: str) -> str:
    return f"chatcmpl-{request_id}"


def _usage(usage: Usage, wire: JsonValue) -> JsonValue:
    if isinstance(wire, dict) and "total_tokens" not in wire:
        return {**wire, "total_tokens": (usage.input_tokens or 0) + (usage.output_tokens or 0)}
    return wire


class OpenAIChunks:
    """The chunks of one stream. `feed` each event; `completed` gives what no delta carried, each choice's end and,
    with `include_usage`, the usage; `error` gives an error object in place of an end. The end mark `[DONE]` is the
    caller's to send, after `completed` only."""

    def __init__(self, *, request_id: str, model: str, created: int, include_usage: bool = False) -> None:
        self._head: Body = {
            "id": _completion_id(request_id),
            "object": "chat.completion.chunk",
            "created": created,
            "model": model,
        }
        self._include_usage = include_usage
        self._opened: set[int] = set()
        self._said: set[tuple[int, str]] = set()

    def feed(self, event: StreamEvent) -> list[Body]:
        match event:
            case ContentDelta(choice=choice, delta=delta):
                return self._delta(choice, "content", {"content": delta})
            case ReasoningDelta(choice=choice, delta=delta):
                return self._delta(choice, "reasoning", {"reasoning_content": delta})
            case AudioDelta(choice=choice, audio=audio):
                return self._delta(choice, "audio", {"audio": {"data": audio}})
            case ToolCallDelta():
                return self._delta(event.choice, "tool_calls", {"tool_calls": [_call_delta(event)]})
            case Completed(response=response):
                return self._end(response)
            case ErrorEvent(error=error):
                return [openai_error(error)[1]]
            case Started() | UsageEvent() | SegmentEvent():
                return []

    def _delta(self, choice: int, what: str, delta: Body) -> list[Body]:
        self._said.add((choice, what))
        if choice not in self._opened:
            self._opened.add(choice)
            delta = {"role": "assistant", **delta}
        return [self._chunk([{"index": choice, "delta": delta, "finish_reason": None}])]

    def _chunk(self, choices: list[JsonValue]) -> Body:
        chunk: Body = {**self._head, "choices": choices}
        if self._include_usage:
            chunk["usage"] = None
        return chunk

    def _end(self, response: ResponseEnvelope) -> list[Body]:
        if response.result.error is not None:
            return [openai_error(response.result.error)[1]]
        result = response.result.payload
        choices = result.choices if isinstance(result, ChatResult) else ()
        chunks: list[Body] = []
        for position, choice in enumerate(choices):
            index = position if choice.index is None else choice.index
            if rest := self._unsaid(index, choice):
                chunks += self._delta(index, "rest", rest)
            end: Body = {"index": index, "delta": {}, "finish_reason": choice.finish_reason, **choice.extra}
            chunks.append(self._chunk([end]))
        usage = body_from_result(ChatResult(), response.usage).get("usage")
        if self._include_usage and usage is not None:
            chunks.append({**self._head, "choices": [], "usage": _usage(response.usage, usage)})
        return chunks

    def _unsaid(self, index: int, choice: ChatChoice) -> Body:
        """What of the message no delta carried: refusals, annotations, and whatever a backend that does not stream
        said at once."""
        if choice.message is None:
            return {}
        rest = message_to_wire(choice.message)
        rest.pop("role", None)
        said = {what for number, what in self._said if number == index}
        if "content" in said or rest.get("content") is None:
            rest.pop("content", None)
        if "reasoning" in said:
            rest.pop("reasoning_content", None)
            rest.pop("reasoning", None)
        audio = rest.get("audio")
        if "audio" in said and isinstance(audio, dict):
            rest["audio"] = {key: value for key, value in audio.items() if key != "data"}
        calls = rest.pop("tool_calls", None)
        if "tool_calls" not in said and isinstance(calls, list) and calls:
            rest["tool_calls"] = [
                {"index": number, **call} if isinstance(call, dict) else call for number, call in enumerate(calls)
            ]
        return {key: value for key, value in rest.items() if value is not None}


def _call_delta(event: ToolCallDelta) -> Body:
    function: Body = {}
    if event.name is not None:
        function["name"] = event.name
    function["arguments"] = event.arguments
    call: Body = {"index": event.call_index, "function": function}
    if event.id is not None:
        call = {"index": event.call_index, "id": event.id, "type": "function", "function": function}
    return call
