"""From the events of a backend's stream to those that a guest reads; what all of them have in common, the queue adds.

Rule: nothing here waits or changes anything.
"""

from __future__ import annotations

from typing import Any

from spear.hostcall._tool_plan import ToolCall
from spear.hostcall._usage import Tokens
from spear.ir import AudioDelta, ContentDelta, ReasoningDelta, Started, StreamEvent, ToolCallDelta


def delta_event(event: StreamEvent) -> dict[str, Any] | None:
    """None for what a guest does not get in this form: the usage, the end, and what is no part of a chat."""
    kind = type(event)
    if kind is ContentDelta or kind is ReasoningDelta:
        assert isinstance(event, ContentDelta | ReasoningDelta)
        return {"type": event.type, "choice": event.choice, "delta": event.delta}
    match event:
        case ToolCallDelta():
            return {
                "type": event.type,
                "arguments": event.arguments,
                "call_index": event.call_index,
                "choice": event.choice,
                "id": event.id,
                "name": event.name,
            }
        case AudioDelta():
            return {"type": event.type, "audio": event.audio, "choice": event.choice, "format": event.format}
        case Started():
            return {"type": event.type, "backend": event.backend, "model": event.model}
        case _:
            return None


def tool_call_event(call: ToolCall) -> dict[str, Any]:
    return {"type": "tool_call", "arguments": call.arguments, "id": call.id, "name": call.name}


def tool_result_event(call: ToolCall, content: str, is_error: bool) -> dict[str, Any]:
    return {"type": "tool_result", "content": content, "id": call.id, "is_error": is_error, "name": call.name}


def usage_event(tokens: Tokens) -> dict[str, Any]:
    return {"type": "usage", **tokens.metrics()}


def completed_event(body: dict[str, Any]) -> dict[str, Any]:
    choices = body.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    reason = first.get("finish_reason") if isinstance(first, dict) else None
    return {"type": "completed", "finish_reason": reason if isinstance(reason, str) else None, "response": body}
