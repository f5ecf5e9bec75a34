"""An OpenAI chat request to a request. Strict: a wrong type is a `CallerError` that names the field, never its value;
unknown keys are kept."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pydantic import JsonValue

from spear.dialects.openai_chat import message_from_wire, part_from_wire
from spear.ir import (
    CallerError,
    ChatMessage,
    ChatRequest,
    ContentPart,
    MalformedJson,
    Meta,
    Operation,
    RequestEnvelope,
    Routing,
    check_json,
    invalid_request,
)

from ._parameters import EXPECTED, TOOL_CHOICES, response_format_of, split_generation, tool_choice_of
from ._requirements import requirements_of

Wire = dict[str, JsonValue]

_NAMES: Final = {str: "a string", bool: "true or false", int: "an integer", float: "a number", list: "an array"}


def request_from_openai(
    body: JsonValue,
    *,
    task_id: str | None = None,
    timeout_ms: int | None = None,
    routing: Routing | None = None,
    meta: Meta | None = None,
) -> RequestEnvelope:
    """`model` may be missing or blank: then the host chooses. A parameter that is null counts as not given and is
    passed on. Raises `CallerError`."""
    wire = _checked(body)
    rest = {key: value for key, value in wire.items() if key not in {"model", "messages"}}
    stream = _stream(rest)
    tools = _tools(rest)
    generation, extra = split_generation(rest, stream=stream)
    for name, expected in EXPECTED.items():
        if extra.get(name) is not None:
            raise _wrong(name, extra[name], expected)
    tool_choice = tool_choice_of(extra.get("tool_choice"))
    if tool_choice is not None:
        del extra["tool_choice"]
    elif extra.get("tool_choice") is not None:
        raise _wrong("tool_choice", extra["tool_choice"], f"one of {', '.join(TOOL_CHOICES)}, or an object")
    _check_response_format(extra.get("response_format"))
    response_format = response_format_of(extra.get("response_format"))
    if response_format is not None:
        del extra["response_format"]
    payload = ChatRequest(
        model=_string(wire.get("model", ""), "model"),
        messages=_messages(wire),
        tools=tools,
        tool_choice=tool_choice,
        generation=generation,
        response_format=response_format,
        extra=extra,
    )
    return RequestEnvelope(
        task_id=task_id,
        operation=Operation.CHAT_COMPLETIONS,
        meta=meta if meta is not None else Meta(source="openai"),
        routing=routing if routing is not None else Routing(),
        requirements=requirements_of(payload, stream=bool(stream)),
        timeout_ms=timeout_ms,
        payload=payload,
    )


def _wrong(field: str, value: JsonValue, expected: str) -> CallerError:
    """Says the type that came, never the value: it may be private."""
    came = "null" if value is None else "an object" if isinstance(value, dict) else _NAMES.get(type(value), "this")
    right_type = came in expected or (came == "an integer" and expected == "a number")
    right_type = right_type or (came == "a string" and expected.startswith("one of"))
    return invalid_request(field, f"must be {expected}" if right_type else f"must be {expected}, not {came}")


def _checked(body: JsonValue) -> Wire:
    """A program in this process may hand over what no JSON text could have held."""
    wire = _object(body, "body")
    field = "body"
    try:
        check_json(dict.fromkeys(wire))
        for key, value in wire.items():
            field = key
            check_json(value)
    except MalformedJson as error:
        raise invalid_request(field, f"not JSON: {error}") from None
    return wire


def _object(value: JsonValue, field: str) -> Wire:
    if not isinstance(value, dict):
        raise _wrong(field, value, "an object")
    return value


def _list(value: JsonValue, field: str) -> list[JsonValue]:
    if not isinstance(value, list):
        raise _wrong(field, value, "an array")
    return value


def _string(value: JsonValue, field: str) -> str:
    if not isinstance(value, str):
        raise _wrong(field, value, "a string")
    return value


def _optional_strings(wire: Wire, names: Iterable[str], field: str) -> None:
    for name in names:
        if wire.get(name) is not None:
            _string(wire[name], f"{field}.{name}")


def _required(wire: Wire, key: str, field: str) -> JsonValue:
    if key not in wire:
        raise invalid_request(f"{field}.{key}" if field else key, "is missing")
    return wire[key]


def _stream(rest: Wire) -> bool | None:
    """Takes `stream` out; a null stays with the parameters that are passed on."""
    options = rest.get("stream_options")
    if options is not None:
        _object(options, "stream_options")
    value = rest.get("stream")
    if value is None:
        return None
    if not isinstance(value, bool):
        raise _wrong("stream", value, "true or false")
    del rest["stream"]
    return value


def _tools(rest: Wire) -> tuple[Wire, ...]:
    if rest.get("tools") is None:
        return ()
    tools = []
    for index, item in enumerate(_list(rest["tools"], "tools")):
        field = f"tools[{index}]"
        tool = _object(item, field)
        if _string(_required(tool, "type", field), f"{field}.type") == "function":
            function = _object(_required(tool, "function", field), f"{field}.function")
            _string(_required(function, "name", f"{field}.function"), f"{field}.function.name")
        tools.append(tool)
    del rest["tools"]
    return tuple(tools)


def _check_response_format(value: JsonValue) -> None:
    if value is None:
        return
    wanted = _object(value, "response_format")
    kind = _string(_required(wanted, "type", "response_format"), "response_format.type")
    if kind == "json_schema":
        _object(_required(wanted, "json_schema", "response_format"), "response_format.json_schema")


def _messages(wire: Wire) -> tuple[ChatMessage, ...]:
    items = _list(_required(wire, "messages", ""), "messages")
    if not items:
        raise invalid_request("messages", "is empty, at least one message is needed")
    return tuple(_message(item, f"messages[{index}]") for index, item in enumerate(items))


def _message(item: JsonValue, field: str) -> ChatMessage:
    wire = _object(item, field)
    if not _string(_required(wire, "role", field), f"{field}.role"):
        raise invalid_request(f"{field}.role", "is empty")
    _optional_strings(wire, ("name", "tool_call_id"), field)
    if wire.get("tool_calls") is not None:
        _check_calls(_list(wire["tool_calls"], f"{field}.tool_calls"), f"{field}.tool_calls")
    message = message_from_wire(wire)
    content = wire.get("content")
    if content is None or isinstance(content, str):
        return message
    if not isinstance(content, list):
        raise _wrong(f"{field}.content", content, "a string or an array of parts")
    parts = _parts(content, f"{field}.content")
    # One part that has no exact typed form keeps the whole list as it came, in order.
    return message if parts is None else message.model_copy(update={"content": None, "content_parts": parts})


def _check_calls(calls: list[JsonValue], field: str) -> None:
    for index, item in enumerate(calls):
        place = f"{field}[{index}]"
        call = _object(item, place)
        _string(_required(call, "id", place), f"{place}.id")
        if _string(_required(call, "type", place), f"{place}.type") != "function":
            continue
        function = _object(_required(call, "function", place), f"{place}.function")
        for key in ("name", "arguments"):
            _string(_required(function, key, f"{place}.function"), f"{place}.function.{key}")


def _parts(content: list[JsonValue], field: str) -> tuple[ContentPart, ...] | None:
    typed: list[ContentPart] = []
    complete = True
    for index, item in enumerate(content):
        _check_part(_object(item, f"{field}[{index}]"), f"{field}[{index}]")
        part = part_from_wire(item)
        if part is None:
            complete = False
        else:
            typed.append(part)
    return tuple(typed) if complete else None


def _check_part(part: Wire, field: str) -> None:
    match _string(_required(part, "type", field), f"{field}.type"):
        case "text":
            _string(_required(part, "text", field), f"{field}.text")
        case "image_url":
            image = _object(_required(part, "image_url", field), f"{field}.image_url")
            url = _string(_required(image, "url", f"{field}.image_url"), f"{field}.image_url.url")
            _check_url({"type": "image_url", "image_url": {"url": url}}, f"{field}.image_url.url")
        case "input_audio":
            audio = _object(_required(part, "input_audio", field), f"{field}.input_audio")
            for key in ("data", "format"):
                _string(_required(audio, key, f"{field}.input_audio"), f"{field}.input_audio.{key}")


def _check_url(part: Wire, field: str) -> None:
    if part_from_wire(part) is None:
        raise invalid_request(field, "must be an http: or https: URL, or a data: URL with a MIME type and base64 data")
