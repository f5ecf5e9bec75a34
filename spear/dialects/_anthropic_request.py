"""A ChatRequest as the body of POST /v1/messages.

The shape is another one: the system's words stand beside the messages, content is a list of blocks, calls and their
results are blocks among others, and the results of one turn stand together in the user's next message.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pydantic import JsonValue

from spear.ir import (
    AudioPart,
    ChatMessage,
    ChatRequest,
    ImagePart,
    TextPart,
    invalid_request,
)

from ._chat_parts import arguments_of, inline_image, no_audio, parts_of, schema_of
from ._openai_message import Wire

IMAGES: Final = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
_OURS: Final = frozenset({"model", "messages", "system", "tools", "stream"})
_OPENAI_ONLY: Final = frozenset(
    {"stream_options", "parallel_tool_calls", "store", "max_completion_tokens", "reasoning_effort", "response_format"}
)
"""Said in other words here, or saying nothing about the answer."""
_EFFORTS: Final = frozenset({"low", "medium", "high", "xhigh", "max"})


def anthropic_body(request: ChatRequest, *, model: str, stream: bool, defaults: Mapping[str, JsonValue]) -> Wire:
    """`defaults` are keys of the body that the caller may decide otherwise; `max_tokens` has to be among them.

    Raises `CallerError` for what cannot be said at all: no message but the system's, tool arguments that are no
    object, images of other types or without their bytes; `RoutingError` for audio."""
    body: Wire = {key: value for key, value in defaults.items() if value is not None}
    for key, value in request.extra.items():
        if key not in _OURS and key not in _OPENAI_ONLY and value is not None:
            body[key] = value
    body["model"] = model
    system, messages = _conversation(request.messages)
    if not messages:
        raise invalid_request("messages", "has nothing for the model to answer: a user's or an assistant's text")
    if system:
        body["system"] = system
    body["messages"] = messages
    _add_generation(request, body)
    if request.tools:
        body["tools"] = [_tool(tool, f"tools[{index}]") for index, tool in enumerate(request.tools)]
        choice = _tool_choice(request)
        if choice is not None:
            body["tool_choice"] = choice
    config = _output_config(request)
    if config:
        own = body.get("output_config")
        body["output_config"] = {**(own if isinstance(own, dict) else {}), **config}
    if stream:
        body["stream"] = True
    return body


def _add_generation(request: ChatRequest, body: Wire) -> None:
    generation = request.generation
    most = generation.max_tokens
    if most is None and type(asked := request.extra.get("max_completion_tokens")) is int:
        most = asked
    if most is not None:
        body["max_tokens"] = most
    if generation.temperature is not None:
        body["temperature"] = generation.temperature
    if generation.top_p is not None:
        body["top_p"] = generation.top_p
    if generation.stop is not None:
        body["stop_sequences"] = [generation.stop] if isinstance(generation.stop, str) else list(generation.stop)
    if generation.user is not None:
        body["metadata"] = {"user_id": generation.user}


def _output_config(request: ChatRequest) -> Wire:
    config: Wire = {}
    kind, schema = schema_of(request)
    if kind == "json_schema":
        config["format"] = {"type": "json_schema", "schema": schema if schema is not None else {"type": "object"}}
    effort = request.extra.get("reasoning_effort")
    if isinstance(effort, str) and effort in _EFFORTS:
        config["effort"] = effort
    return config


def _tool(tool: Wire, field: str) -> Wire:
    """A function in OpenAI's words, or a tool of the provider's own, as it is."""
    function = tool.get("function")
    if tool.get("type") != "function" or not isinstance(function, dict):
        return tool
    schema = function.get("parameters")
    if schema is not None and not isinstance(schema, dict):
        raise invalid_request(f"{field}.function.parameters", "must be a JSON schema, an object")
    wire: Wire = {"name": function.get("name"), "input_schema": schema or {"type": "object"}}
    if function.get("description") is not None:
        wire["description"] = function["description"]
    if function.get("strict") is True:
        wire["strict"] = True
    if (cache := tool.get("cache_control")) is not None:
        wire["cache_control"] = cache
    return wire


def _tool_choice(request: ChatRequest) -> Wire | None:
    asked = request.tool_choice
    choice: Wire | None = None
    one = request.extra.get("parallel_tool_calls") is False
    if isinstance(asked, dict):
        function = asked.get("function")
        named = function.get("name") if asked.get("type") == "function" and isinstance(function, dict) else None
        choice = {"type": "tool", "name": named} if isinstance(named, str) else dict(asked)
    elif asked is not None or one:
        choice = {"type": {"none": "none", "required": "any"}.get(asked or "", "auto")}
    if choice is not None and one and choice["type"] in {"auto", "any", "tool"}:
        choice["disable_parallel_tool_use"] = True
    return choice


def _conversation(messages: tuple[ChatMessage, ...]) -> tuple[JsonValue, list[JsonValue]]:
    """What the system says, and the turns; messages of the same side that follow each other are one turn. The results
    of tools stand first in theirs."""
    system: list[JsonValue] = []
    turns: list[tuple[str, list[JsonValue]]] = []
    for index, message in enumerate(messages):
        field = f"messages[{index}]"
        if message.role in {"system", "developer"}:
            system += _blocks(message, field)
            continue
        side = "assistant" if message.role == "assistant" else "user"
        blocks = _turn(message, field)
        if not blocks:
            continue
        if turns and turns[-1][0] == side:
            turns[-1][1].extend(blocks)
        else:
            turns.append((side, blocks))
    for side, blocks in turns:
        if side == "user":
            blocks.sort(key=_after_results)
    if turns and turns[-1][0] == "assistant":
        _end_without_blanks(turns[-1][1])
    wire: list[JsonValue] = [{"role": side, "content": _short(blocks)} for side, blocks in turns if blocks]
    return _short(system), wire


def _after_results(block: JsonValue) -> bool:
    return not (isinstance(block, dict) and block.get("type") == "tool_result")


def _end_without_blanks(blocks: list[JsonValue]) -> None:
    """The beginning of an answer may not end in blanks."""
    last = blocks[-1]
    if isinstance(last, dict) and last.get("type") == "text" and isinstance(text := last.get("text"), str):
        blocks.pop()
        if text := text.rstrip():
            blocks.append({**last, "text": text})


def _short(blocks: list[JsonValue]) -> JsonValue:
    """One plain text as a string."""
    match blocks:
        case [{"type": "text", "text": str(text), **rest}] if not rest:
            return text
        case _:
            return blocks


def _turn(message: ChatMessage, field: str) -> list[JsonValue]:
    if message.role == "tool":
        return [_result(message, field)]
    blocks = _thinking(message) if message.role == "assistant" else []
    blocks += _blocks(message, field)
    for number, call in enumerate(message.tool_calls):
        block: Wire = {
            "type": "tool_use",
            "id": call.id,
            "name": call.function.name,
            "input": arguments_of(call, f"{field}.tool_calls[{number}]"),
        }
        blocks.append(block)
    return blocks


def _result(message: ChatMessage, field: str) -> Wire:
    if message.tool_call_id is None:
        raise invalid_request(f"{field}.tool_call_id", "is missing; a tool's result names the call it belongs to")
    block: Wire = {"type": "tool_result", "tool_use_id": message.tool_call_id}
    content = _short(_blocks(message, field))
    if content != []:
        block["content"] = content
    if message.extra.get("is_error") is True:
        block["is_error"] = True
    return block


def _thinking(message: ChatMessage) -> list[JsonValue]:
    """As it was signed: reasoning without a signature is not taken back."""
    kept = message.extra.get("thinking_blocks")
    return [block for block in kept if isinstance(block, dict)] if isinstance(kept, list) else []


def _blocks(message: ChatMessage, field: str) -> list[JsonValue]:
    blocks: list[JsonValue] = []
    for number, part in enumerate(parts_of(message)):
        place = f"{field}.content[{number}]"
        if isinstance(part, TextPart):
            blocks.append({"type": "text", "text": part.text})
        elif isinstance(part, ImagePart):
            blocks.append(_image(part, place))
        elif isinstance(part, AudioPart):
            no_audio(part, place, "Anthropic's dialect")
        else:
            blocks.append(part)
    cache = message.extra.get("cache_control")
    if cache is not None and blocks and isinstance(last := blocks[-1], dict):
        blocks[-1] = {**last, "cache_control": cache}
    return blocks


def _image(part: ImagePart, field: str) -> Wire:
    media = inline_image(part, field)
    if media.mime not in IMAGES:
        raise invalid_request(field, f"is an image of another type than {', '.join(sorted(IMAGES))}")
    return {"type": "image", "source": {"type": "base64", "media_type": media.mime, "data": media.data}}
