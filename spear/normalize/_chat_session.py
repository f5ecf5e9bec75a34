"""A guest's chat session to a request. Nothing a guest wrote is an error here: what does not fit passes through to the
backend, which may judge it, and a host key of the wrong type counts as not given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import JsonValue, TypeAdapter

from spear.dialects.openai_chat import message_from_wire
from spear.ir import (
    ChatMessage,
    ChatRequest,
    ContentPart,
    Degradation,
    MalformedJson,
    Meta,
    Operation,
    RequestEnvelope,
    Routing,
    parse_json,
)

from ._parameters import response_format_of, split_generation, tool_choice_of
from ._requirements import requirements_of

# Decided or used by the host; never sent to a backend. Keys that start with "mcp." are the host's, too.
HOST_KEYS: Final = frozenset(
    {
        "model",
        "backend",
        "timeout_ms",
        "degradation",
        "tool_arena_ptr",
        "tool_arena_len",
        "max_tool_output_bytes",
        "max_iterations",
        "max_total_tool_calls",
        "max_tool_calls",
        "messages",
        "tools",
        "stream",
        "stream_options",
    }
)

_PARTS: Final[TypeAdapter[tuple[ContentPart, ...]]] = TypeAdapter(tuple[ContentPart, ...])


@dataclass(frozen=True, slots=True)
class ChatSession:
    """What a guest put into a session: messages as objects (role, content or content_parts, and tool_calls,
    tool_call_id, name where set), the JSON text of each tool as the guest wrote it (the host's own behind them), and
    all parameters."""

    fd: int
    messages: Sequence[Mapping[str, JsonValue]]
    tools: Sequence[str]
    params: Mapping[str, JsonValue]


def request_from_session(session: ChatSession, *, task_id: str | None, stream: bool = False) -> RequestEnvelope:
    params = session.params
    model, backend = params.get("model"), params.get("backend")
    rest = {key: value for key, value in params.items() if key not in HOST_KEYS and not key.startswith("mcp.")}
    generation, extra = split_generation(rest, stream=True if stream else None)
    tool_choice = tool_choice_of(extra.get("tool_choice"))
    if tool_choice is not None:
        del extra["tool_choice"]
    response_format = response_format_of(extra.get("response_format"))
    if response_format is not None:
        del extra["response_format"]
    payload = ChatRequest(
        model=model if isinstance(model, str) else "",
        messages=tuple(_message(message) for message in session.messages),
        tools=tuple(tool for text in session.tools if (tool := tool_from_text(text)) is not None),
        tool_choice=tool_choice,
        generation=generation,
        response_format=response_format,
        extra=extra,
    )
    return RequestEnvelope(
        task_id=task_id,
        operation=Operation.CHAT_COMPLETIONS,
        meta=Meta(source="cchat", source_id=f"chatcmpl_{session.fd}"),
        # No backend can have the empty name: the guest that sets it means none in particular.
        routing=Routing(backend=backend if isinstance(backend, str) and backend else None),
        requirements=requirements_of(payload, stream=stream, tools=bool(session.tools)),
        degradation=_degradation(params.get("degradation")),
        timeout_ms=_timeout_ms(params.get("timeout_ms")),
        payload=payload,
    )


def _message(said: Mapping[str, JsonValue]) -> ChatMessage:
    wire = dict(said)
    parts = wire.pop("content_parts", None)
    message = message_from_wire(wire)
    return message if parts is None else message.model_copy(update={"content_parts": _PARTS.validate_python(parts)})


def tool_from_text(text: str) -> dict[str, JsonValue] | None:
    """The schema to send, or None for what is no JSON object. A bare `{name, …}` is wrapped; an object that is neither
    that nor complete is left for the backend to judge."""
    try:
        tool = parse_json(text)
    except MalformedJson:
        return None
    if not isinstance(tool, dict):
        return None
    if "name" in tool and not ("type" in tool and "function" in tool):
        return {"type": "function", "function": tool}
    return tool


def _timeout_ms(value: JsonValue) -> int | None:
    """0 counts as none: a deadline that has passed before the call could only ever fail, and 0 for "no limit" is what
    C programs write."""
    return value if type(value) is int and value > 0 else None


def _degradation(value: JsonValue) -> Degradation:
    match value:
        case "allow":
            return Degradation(mode="allow")
        case [*steps] if steps and all(isinstance(step, str) for step in steps):
            return Degradation(mode="allow", steps=tuple(str(step) for step in steps))
        case _:
            return Degradation()
