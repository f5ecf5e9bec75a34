"""What a template may ask of a request, by operation."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from pydantic import JsonValue

from spear.backends._lacking import lacking
from spear.dialects.anthropic import schema_of
from spear.dialects.openai_chat import message_to_wire
from spear.ir import (
    ChatMessage,
    ChatRequest,
    EmbeddingsRequest,
    Operation,
    RequestPayload,
    invalid_request,
)

EXTRA: Final = "extra."
"""`{extra.top_k}` is the caller's own parameter `top_k`."""
_GENERATION: Final = (
    "temperature", "top_p", "max_tokens", "stop", "seed", "presence_penalty", "frequency_penalty", "n", "user",
)  # fmt: skip
_NO_PLACE: Final = ("logprobs", "top_logprobs")
_SAID_OTHERWISE: Final = frozenset({"model", "input", "text", "audio", "mime"})
NAMES: Final = {
    Operation.CHAT_COMPLETIONS: (
        "model", "messages", "system", "last_user", "transcript", "tools", "tool_choice", "schema", *_GENERATION,
    ),
    Operation.EMBEDDINGS: ("model", "input", "text", "dimensions"),
    Operation.IMAGE_GENERATION: ("model", "prompt", "n", "size", "quality", "style", "seed"),
    Operation.SPEECH_TO_TEXT: ("model", "audio", "mime", "language", "prompt", "temperature"),
    Operation.TEXT_TO_SPEECH: ("model", "input", "voice", "format", "speed"),
}  # fmt: skip


def is_known(operation: Operation, name: str) -> bool:
    return name in NAMES[operation] or (name.startswith(EXTRA) and len(name) > len(EXTRA))


def unsaid(payload: RequestPayload, names: Collection[str]) -> tuple[str, ...]:
    """What the request asks for, in typed fields, and the template has no place for."""
    if isinstance(payload, ChatRequest):
        missing = [*lacking(payload, (name for name in (*_GENERATION, *_NO_PLACE) if name not in names))]
        if payload.tool_choice not in (None, "auto") and "tool_choice" not in names:
            missing.append("tool_choice")
        if (kind := schema_of(payload)[0]) != "text" and not (kind == "json_schema" and "schema" in names):
            missing.append("response_format")
        return tuple(missing)
    fields = (name for name in NAMES[Operation(payload.kind)] if name not in _SAID_OTHERWISE and name not in names)
    return tuple(name for name in fields if (value := getattr(payload, name)) is not None and (name, value) != ("n", 1))


def value_of(payload: RequestPayload, name: str, model: str) -> JsonValue:
    """None where the request has none. `audio` and `mime` are for whoever has the bytes. Raises `CallerError`."""
    if name == "model":
        return model or None
    if name.startswith(EXTRA):
        return payload.extra.get(name.removeprefix(EXTRA))
    if isinstance(payload, ChatRequest):
        return _of_chat(payload, name)
    if isinstance(payload, EmbeddingsRequest) and name == "text":
        if len(payload.input) != 1:
            raise invalid_request("input", "has more than one text, and this backend takes one at a time")
        return payload.input[0]
    value: JsonValue | tuple[str, ...] = getattr(payload, name)
    return list(value) if isinstance(value, tuple) else value


def _of_chat(chat: ChatRequest, name: str) -> JsonValue:
    match name:
        case "messages":
            return [message_to_wire(message, f"messages[{at}]") for at, message in enumerate(chat.messages)]
        case "system":
            return "\n\n".join(each.text() for each in chat.messages if _is_system(each)) or None
        case "last_user":
            return next((each.text() for each in reversed(chat.messages) if each.role == "user"), None)
        case "transcript":
            return "\n".join(f"{each.role}: {each.text()}" for each in chat.messages if not _is_system(each))
        case "tools":
            return list(chat.tools) or None
        case "tool_choice":
            return chat.tool_choice
        case "schema":
            return schema_of(chat)[1]
    value: JsonValue | tuple[str, ...] = getattr(chat.generation, name)
    return list(value) if isinstance(value, tuple) else value


def _is_system(message: ChatMessage) -> bool:
    return message.role in {"system", "developer"}
