"""An OpenAI chat request to a request. Strict: a wrong type is a `CallerError` that names the field, never its value;
unknown keys are kept."""

from __future__ import annotations

from typing import Final

from pydantic import JsonValue, ValidationError

from spear.dialects.openai_chat import message_from_wire, part_from_wire
from spear.ir import (
    AudioPart,
    ChatMessage,
    ChatRequest,
    ContentPart,
    ImagePart,
    Meta,
    Operation,
    RequestEnvelope,
    Routing,
    dump_json,
    invalid_request,
)

from ._openai_checks import Wire, a_list, a_string, an_object, checked_body, optional_strings, required, wrong
from ._parameters import EXPECTED, TOOL_CHOICES, response_format_of, split_generation, tool_choice_of
from ._requirements import requirements_of

_KINDS: Final = frozenset({"inline_base64", "sms_file", "http_url"})


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
    wire = checked_body(body)
    rest = {key: value for key, value in wire.items() if key not in {"model", "messages"}}
    stream = _stream(rest)
    tools = _tools(rest)
    generation, extra = split_generation(rest, stream=stream)
    for name, expected in EXPECTED.items():
        if extra.get(name) is not None:
            raise wrong(name, extra[name], expected)
    tool_choice = tool_choice_of(extra.get("tool_choice"))
    if tool_choice is not None:
        del extra["tool_choice"]
    elif extra.get("tool_choice") is not None:
        raise wrong("tool_choice", extra["tool_choice"], f"one of {', '.join(TOOL_CHOICES)}, or an object")
    _check_response_format(extra.get("response_format"))
    response_format = response_format_of(extra.get("response_format"))
    if response_format is not None:
        del extra["response_format"]
    payload = ChatRequest(
        model=a_string(wire.get("model", ""), "model"),
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


def _stream(rest: Wire) -> bool | None:
    """Takes `stream` out; a null stays with the parameters that are passed on."""
    options = rest.get("stream_options")
    if options is not None:
        an_object(options, "stream_options")
    value = rest.get("stream")
    if value is None:
        return None
    if not isinstance(value, bool):
        raise wrong("stream", value, "true or false")
    del rest["stream"]
    return value


def _tools(rest: Wire) -> tuple[Wire, ...]:
    if rest.get("tools") is None:
        return ()
    tools = []
    for index, item in enumerate(a_list(rest["tools"], "tools")):
        field = f"tools[{index}]"
        tool = an_object(item, field)
        if a_string(required(tool, "type", field), f"{field}.type") == "function":
            function = an_object(required(tool, "function", field), f"{field}.function")
            a_string(required(function, "name", f"{field}.function"), f"{field}.function.name")
        tools.append(tool)
    del rest["tools"]
    return tuple(tools)


def _check_response_format(value: JsonValue) -> None:
    if value is None:
        return
    wanted = an_object(value, "response_format")
    kind = a_string(required(wanted, "type", "response_format"), "response_format.type")
    if kind == "json_schema":
        an_object(required(wanted, "json_schema", "response_format"), "response_format.json_schema")


def _messages(wire: Wire) -> tuple[ChatMessage, ...]:
    items = a_list(required(wire, "messages", ""), "messages")
    if not items:
        raise invalid_request("messages", "is empty, at least one message is needed")
    return tuple(_message(item, f"messages[{index}]") for index, item in enumerate(items))


def _message(item: JsonValue, field: str) -> ChatMessage:
    wire = an_object(item, field)
    if not a_string(required(wire, "role", field), f"{field}.role"):
        raise invalid_request(f"{field}.role", "is empty")
    optional_strings(wire, ("name", "tool_call_id"), field)
    if wire.get("tool_calls") is not None:
        _check_calls(a_list(wire["tool_calls"], f"{field}.tool_calls"), f"{field}.tool_calls")
    message = message_from_wire(wire)
    content = wire.get("content")
    if content is None or isinstance(content, str):
        return message
    if not isinstance(content, list):
        raise wrong(f"{field}.content", content, "a string or an array of parts")
    parts = _parts(content, f"{field}.content")
    # One part that has no exact typed form keeps the whole list as it came, in order.
    return message if parts is None else message.model_copy(update={"content": None, "content_parts": parts})


def _check_calls(calls: list[JsonValue], field: str) -> None:
    for index, item in enumerate(calls):
        place = f"{field}[{index}]"
        call = an_object(item, place)
        a_string(required(call, "id", place), f"{place}.id")
        if a_string(required(call, "type", place), f"{place}.type") != "function":
            continue
        function = an_object(required(call, "function", place), f"{place}.function")
        for key in ("name", "arguments"):
            a_string(required(function, key, f"{place}.function"), f"{place}.function.{key}")


def _parts(content: list[JsonValue], field: str) -> tuple[ContentPart, ...] | None:
    typed: list[ContentPart] = []
    complete = True
    for index, item in enumerate(content):
        _check_part(an_object(item, f"{field}[{index}]"), f"{field}[{index}]")
        part = _own_part(item, f"{field}[{index}]") or part_from_wire(item)
        if part is None:
            complete = False
        else:
            typed.append(part)
    return tuple(typed) if complete else None


def _own_part(item: JsonValue, field: str) -> ContentPart | None:
    """A part as guests write it, `{"type": "image", "media": {"kind": …}}`: it can refer to stored media."""
    if not isinstance(item, dict) or item.get("type") not in {"image", "audio"} or "media" not in item:
        return None
    try:
        part: ImagePart | AudioPart
        part = (ImagePart if item["type"] == "image" else AudioPart).model_validate_json(dump_json(item))
    except ValidationError as error:
        place = ".".join(str(step) for step in error.errors()[0]["loc"] if step not in _KINDS)
        raise invalid_request(f"{field}.{place}", "is no part of a reference to media as it should be") from None
    return part


def _check_part(part: Wire, field: str) -> None:
    match a_string(required(part, "type", field), f"{field}.type"):
        case "text":
            a_string(required(part, "text", field), f"{field}.text")
        case "image_url":
            image = an_object(required(part, "image_url", field), f"{field}.image_url")
            url = a_string(required(image, "url", f"{field}.image_url"), f"{field}.image_url.url")
            _check_url({"type": "image_url", "image_url": {"url": url}}, f"{field}.image_url.url")
        case "input_audio":
            audio = an_object(required(part, "input_audio", field), f"{field}.input_audio")
            for key in ("data", "format"):
                a_string(required(audio, key, f"{field}.input_audio"), f"{field}.input_audio.{key}")


def _check_url(part: Wire, field: str) -> None:
    if part_from_wire(part) is None:
        raise invalid_request(field, "must be an http: or https: URL, or a data: URL with a MIME type and base64 data")
