"""A ChatRequest as the body of POST …/chat/completions."""

from __future__ import annotations

from typing import Final

from pydantic import JsonValue

from spear.ir import ChatRequest, Generation

from ._openai_message import Wire, message_to_wire

_OURS: Final = frozenset({"model", "messages", "tools", "stream", "stream_options"})
_GENERATION: Final = tuple(name for name in Generation.model_fields if name != "stream")


def request_body(request: ChatRequest, *, model: str, stream: bool, stream_usage: bool) -> Wire:
    """The typed parameters, then `extra` over them at top level, except that `extra` never decides model, messages,
    tools or stream. `stream_options` exist only in a stream; there the caller's are kept and `include_usage` is set
    if `stream_usage`. `request.generation.stream` is not looked at: `stream` says what this attempt does.

    Raises `CallerError` for a content part that this dialect cannot say."""
    body: Wire = {
        "model": model,
        "messages": [message_to_wire(message, f"messages[{index}]") for index, message in enumerate(request.messages)],
    }
    if request.tools:
        body["tools"] = list(request.tools)
    generation = request.generation
    for name in _GENERATION:
        value: JsonValue | tuple[str, ...] = getattr(generation, name)
        if value is not None:
            body[name] = list(value) if isinstance(value, tuple) else value
    if request.tool_choice is not None:
        body["tool_choice"] = request.tool_choice
    if (wanted := request.response_format) is not None:
        body["response_format"] = (
            {"type": wanted.type}
            if wanted.json_schema is None
            else {"type": wanted.type, "json_schema": wanted.json_schema}
        )
    for key, item in request.extra.items():
        if key not in _OURS:
            body[key] = item
    if stream:
        body["stream"] = True
        asked = request.extra.get("stream_options")
        options: Wire = dict(asked) if isinstance(asked, dict) else {}
        if stream_usage:
            options["include_usage"] = True
        if options:
            body["stream_options"] = options
    return body
