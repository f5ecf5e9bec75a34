"""The pure part of automatic tool calling: limits, what the model asked for, and what is appended to the session.

Rule: nothing here calls, waits, or changes anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from spear.hostcall import _json
from spear.hostcall._limits import MIB


@dataclass(frozen=True, slots=True)
class LoopLimits:
    max_iterations: int
    max_total_tool_calls: int
    max_tool_output_bytes: int
    arena_ptr: int
    arena_len: int


def loop_limits(params: Mapping[str, Any]) -> LoopLimits:
    """Read from the session's parameters in every round. A value of the wrong type means the default."""
    return LoopLimits(
        max_iterations=_uint(params, 8, 128, "max_iterations"),
        max_total_tool_calls=_uint(params, 32, 10_000, "max_total_tool_calls", "max_tool_calls"),
        max_tool_output_bytes=_uint(params, 65_536, MIB, "max_tool_output_bytes"),
        arena_ptr=_int(params.get("tool_arena_ptr")),
        arena_len=_int(params.get("tool_arena_len")),
    )


def _uint(params: Mapping[str, Any], default: int, clamp: int, *names: str) -> int:
    for name in names:
        value = params.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return min(value, clamp)
    return default


def _int(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


@dataclass(frozen=True, slots=True)
class ToolCall:
    id: str
    type: str
    name: str
    arguments: str


def requested_calls(body: Mapping[str, Any]) -> tuple[ToolCall, ...]:
    """The calls that the answer asks for; empty if it is final. One malformed call makes the whole answer final."""
    message = answer_message(body)
    calls = message.get("tool_calls") if message is not None else None
    if not isinstance(calls, list):
        return ()
    found: list[ToolCall] = []
    for call in calls:
        parsed = _call(call)
        if parsed is None:
            return ()
        found.append(parsed)
    return tuple(found)


def _call(call: Any) -> ToolCall | None:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        return None
    identifier, kind, name, arguments = (
        call.get("id"),
        call.get("type"),
        function.get("name"),
        function.get("arguments"),
    )
    if isinstance(arguments, dict):
        arguments = _json.dump(arguments).decode()
    if isinstance(identifier, str) and isinstance(kind, str) and isinstance(name, str) and isinstance(arguments, str):
        return ToolCall(identifier, kind, name, arguments)
    return None


def answer_message(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """`choices[0].message`, if there is one."""
    choices = body.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, dict) else None
    return message if isinstance(message, dict) else None


def assistant_message(message: Mapping[str, Any], calls: tuple[ToolCall, ...] = ()) -> dict[str, Any]:
    """What is appended to the session for an answer: role, content as is, name, and the calls of a tool round."""
    role, name = message.get("role"), message.get("name")
    appended: dict[str, Any] = {
        "role": role if isinstance(role, str) else "assistant",
        "content": message.get("content"),
    }
    if name is not None:
        appended["name"] = name
    if calls:
        appended["tool_calls"] = [
            {"id": call.id, "type": call.type, "function": {"name": call.name, "arguments": call.arguments}}
            for call in calls
        ]
    return appended


def tool_message(call: ToolCall, content: str) -> dict[str, Any]:
    return {"role": "tool", "content": content, "tool_call_id": call.id}


# The contents of failed calls, and the bodies of loops that ended early.

NOT_EXECUTED: Final = _json.dump({"error": {"code": "tool_call_limit", "message": "not executed"}}).decode()
CANCELLED: Final = _json.dump({"error": {"code": "cancelled", "message": "not executed"}}).decode()
TOO_MANY_ITERATIONS: Final = {"error": {"code": "tool_call_limit", "message": "exceeded max_iterations"}}
TOO_MANY_CALLS: Final = {"error": {"code": "tool_call_limit", "message": "exceeded max_total_tool_calls"}}
SESSION_TOO_LARGE: Final = {"error": {"message": "Invalid request: session too large"}}
SESSION_CLOSED: Final = {"error": {"message": "Invalid request: session closed"}}


def tool_failed(rc: int) -> str:
    return _json.dump({"error": {"code": "tool_exec_failed", "message": f"tool rc: {rc}"}}).decode()


MCP_FAILED: Final = '{"error":{"code":"mcp_tool_failed","message":'


def mcp_failed(text: str) -> str:
    return _json.dump({"error": {"code": "mcp_tool_failed", "message": text}}).decode()


def unknown_tool(name: str) -> str:
    return _json.dump({"error": {"code": "unknown_tool", "message": f"unknown tool: {name}"}}).decode()
