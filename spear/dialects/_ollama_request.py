"""Requests in Ollama's own dialect: POST /api/chat and /api/embed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pydantic import JsonValue

from spear.ir import AudioPart, ChatMessage, ChatRequest, EmbeddingsRequest, ImagePart, TextPart, dump_json

from ._chat_parts import arguments_of, inline_image, no_audio, parts_of, schema_of
from ._openai_message import Wire

_OPTION_OF: Final = {
    "temperature": "temperature",
    "top_p": "top_p",
    "seed": "seed",
    "stop": "stop",
    "max_tokens": "num_predict",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
}
_TOP: Final = frozenset({"keep_alive", "think", "format", "truncate", "shift", "logprobs", "top_logprobs"})
"""Of the caller's other parameters, those that do not stand in `options`."""
_OURS: Final = frozenset({"model", "messages", "tools", "stream", "input"})
_OPENAI_ONLY: Final = frozenset(
    {"stream_options", "parallel_tool_calls", "store", "metadata", "tool_choice", "response_format"}
)
"""What Ollama has no word for, and what says nothing about the answer."""
_EFFORTS: Final = frozenset({"none", "low", "medium", "high"})


def ollama_body(
    request: ChatRequest, *, model: str, stream: bool, defaults: Mapping[str, JsonValue] | None = None
) -> Wire:
    """`defaults` are those of the instance: the keys of the body that the caller may decide otherwise.

    Raises `CallerError` for tool arguments that are no object and for media that were not resolved, `RoutingError`
    for audio."""
    body: Wire = {"model": model, "messages": _messages(request.messages), "stream": stream}
    if request.tools and request.tool_choice != "none":
        body["tools"] = list(request.tools)
    options: Wire = {}
    for name, option in _OPTION_OF.items():
        value: JsonValue | tuple[str, ...] = getattr(request.generation, name)
        if value is not None:
            options[option] = [value] if name == "stop" and isinstance(value, str) else _plain(value)
    if request.generation.logprobs is not None:
        body["logprobs"] = request.generation.logprobs
    if request.generation.top_logprobs is not None:
        body["top_logprobs"] = request.generation.top_logprobs
    kind, schema = schema_of(request)
    if kind in {"json_object", "json_schema"}:
        body["format"] = schema if kind == "json_schema" and schema is not None else "json"
    return _with_extra(body, options, request.extra, defaults or {})


def ollama_embed_body(
    request: EmbeddingsRequest, *, model: str, defaults: Mapping[str, JsonValue] | None = None
) -> Wire:
    body: Wire = {"model": model, "input": list(request.input)}
    if request.dimensions is not None:
        body["dimensions"] = request.dimensions
    given = {key: value for key, value in (defaults or {}).items() if key != "think"}
    rest = {key: value for key, value in request.extra.items() if key not in {"user", "encoding_format"}}
    return _with_extra(body, {}, rest, given)


def _with_extra(body: Wire, options: Wire, extra: Wire, defaults: Mapping[str, JsonValue]) -> Wire:
    """Typed parameters before the caller's others, these before the instance's."""
    default_options, own_options = defaults.get("options"), extra.get("options")
    merged: Wire = dict(default_options) if isinstance(default_options, dict) else {}
    top: Wire = {key: value for key, value in defaults.items() if key != "options"}
    for key, value in extra.items():
        if value is None:
            continue
        if key == "reasoning_effort" and isinstance(value, str) and value in _EFFORTS:
            top["think"] = value if value != "none" else False
        elif key == "max_completion_tokens":
            merged["num_predict"] = value
        elif key in _TOP:
            top[key] = value
        elif key not in _OURS and key not in _OPENAI_ONLY and key != "options":
            merged[key] = value
    if isinstance(own_options, dict):
        merged.update(own_options)
    merged.update(options)
    whole = {**top, **body}
    if merged:
        whole["options"] = merged
    return whole


def _plain(value: JsonValue | tuple[str, ...]) -> JsonValue:
    return list(value) if isinstance(value, tuple) else value


def _messages(messages: tuple[ChatMessage, ...]) -> list[JsonValue]:
    names: dict[str, str] = {}  # of the tools, by the latest call of that id
    wire: list[JsonValue] = []
    for index, message in enumerate(messages):
        for call in message.tool_calls:
            names[call.id] = call.function.name
        wire.append(_message(message, names, f"messages[{index}]"))
    return wire


def _message(message: ChatMessage, names: Mapping[str, str], field: str) -> Wire:
    texts: list[str] = []
    images: list[JsonValue] = []
    for number, part in enumerate(parts_of(message)):
        place = f"{field}.content[{number}]"
        if isinstance(part, TextPart):
            texts.append(part.text)
        elif isinstance(part, ImagePart):
            images.append(inline_image(part, place).data)
        elif isinstance(part, AudioPart):
            no_audio(part, place, "Ollama")
        else:
            texts.append(dump_json(part).decode())
    wire: Wire = {"role": "system" if message.role == "developer" else message.role, "content": "".join(texts)}
    if images:
        wire["images"] = images
    thinking = message.extra.get("reasoning_content")
    if isinstance(thinking, str) and thinking:
        wire["thinking"] = thinking
    if message.tool_calls:
        calls: list[JsonValue] = []
        for number, call in enumerate(message.tool_calls):
            arguments = arguments_of(call, f"{field}.tool_calls[{number}]")
            function: Wire = {"name": call.function.name, "arguments": arguments}
            calls.append({"id": call.id, "function": function})
        wire["tool_calls"] = calls
    if message.tool_call_id is not None:
        wire["tool_call_id"] = message.tool_call_id
        if name := message.name or names.get(message.tool_call_id, ""):
            wire["tool_name"] = name
    return wire
