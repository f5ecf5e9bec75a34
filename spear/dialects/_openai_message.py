"""One message of OpenAI's chat dialect, its tool calls and its content parts, both ways.

Rule of both ways: `to_wire(from_wire(x))` is value-equal to x. What has a typed field and fits it exactly goes there;
everything else stands in `extra`, which is laid over the typed keys on the way back. So a typed field that the wire
did not have must not appear on the wire: an empty role is an absent one, and a list of tool calls of which one does
not fit stays in `extra` as a whole.
"""

from __future__ import annotations

from typing import Final

from pydantic import JsonValue, ValidationError

from spear.ir import (
    AudioPart,
    ChatMessage,
    ContentPart,
    FunctionCall,
    ImagePart,
    InlineMedia,
    StoredMedia,
    TextPart,
    ToolCall,
    UrlMedia,
    invalid_request,
)

Wire = dict[str, JsonValue]

_FORMAT_OF_MIME: Final = {"audio/mpeg": "mp3", "audio/x-wav": "wav", "audio/wave": "wav"}
_MIME_OF_FORMAT: Final = {"mp3": "audio/mpeg"}


def message_from_wire(wire: Wire) -> ChatMessage:
    """Any object. `role` is empty where the wire has none; typed content parts are not made of `content`."""
    role = ""
    content: JsonValue = None
    calls: tuple[ToolCall, ...] = ()
    call_id: str | None = None
    name: str | None = None
    extra: Wire = {}
    for key, value in wire.items():
        if key == "content" and value is not None:
            content = value
        elif key == "tool_calls" and (fitting := _calls_from_wire(value)) is not None:
            calls = fitting
        elif type(value) is not str:
            extra[key] = value
        elif key == "role" and value:
            role = value
        elif key == "tool_call_id":
            call_id = value
        elif key == "name":
            name = value
        else:
            extra[key] = value
    return ChatMessage(
        role=role,
        content=content,
        content_parts=None,
        tool_calls=calls,
        tool_call_id=call_id,
        name=name,
        extra=extra,
    )


def message_to_wire(message: ChatMessage, field: str = "message") -> Wire:
    """Raises `CallerError`, naming `field`, where a content part cannot be said in this dialect."""
    wire: Wire = {}
    if message.role:
        wire["role"] = message.role
    if message.content is not None:
        wire["content"] = message.content
    elif message.content_parts is not None:
        wire["content"] = [
            part_to_wire(part, f"{field}.content[{index}]") for index, part in enumerate(message.content_parts)
        ]
    if message.name is not None:
        wire["name"] = message.name
    if message.tool_calls:
        wire["tool_calls"] = [_call_to_wire(call) for call in message.tool_calls]
    if message.tool_call_id is not None:
        wire["tool_call_id"] = message.tool_call_id
    wire.update(message.extra)
    return wire


def _calls_from_wire(value: JsonValue) -> tuple[ToolCall, ...] | None:
    """None where the whole does not fit; the empty list does not, as it could not be told from an absent one."""
    if type(value) is not list or not value:
        return None
    calls = []
    for item in value:
        call = _call_from_wire(item)
        if call is None:
            return None
        calls.append(call)
    return tuple(calls)


def _call_from_wire(item: JsonValue) -> ToolCall | None:
    if type(item) is not dict:
        return None
    call_id, kind, function = item.get("id"), item.get("type"), item.get("function")
    if type(call_id) is not str or type(kind) is not str or type(function) is not dict:
        return None
    name, arguments = function.get("name"), function.get("arguments")
    if type(name) is not str or type(arguments) is not str:
        return None
    return ToolCall(
        id=call_id,
        type=kind,
        function=FunctionCall(
            name=name,
            arguments=arguments,
            extra={key: value for key, value in function.items() if key not in {"name", "arguments"}},
        ),
        extra={key: value for key, value in item.items() if key not in {"id", "type", "function"}},
    )


def _call_to_wire(call: ToolCall) -> Wire:
    function: Wire = {"name": call.function.name, "arguments": call.function.arguments}
    function.update(call.function.extra)
    wire: Wire = {"id": call.id, "type": call.type, "function": function}
    wire.update(call.extra)
    return wire


def part_to_wire(part: ContentPart, field: str = "part") -> Wire:
    """Inline media becomes a data: URL or `input_audio`. Raises `CallerError` for media that must be resolved into
    bytes first, and for audio by URL, which the dialect does not have."""
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    media = part.media
    if isinstance(media, StoredMedia):
        raise invalid_request(field, "refers to stored media; inline_base64 is needed here")
    if isinstance(part, ImagePart):
        url = media.url if isinstance(media, UrlMedia) else f"data:{media.mime};base64,{media.data}"
        image: Wire = {"url": url}
        if part.detail is not None:
            image["detail"] = part.detail
        return {"type": "image_url", "image_url": image}
    if isinstance(media, UrlMedia):
        raise invalid_request(field, "audio by URL cannot be sent to this backend; inline_base64 is needed")
    kind = _FORMAT_OF_MIME.get(media.mime, media.mime.partition("/")[2])
    return {"type": "input_audio", "input_audio": {"data": media.data, "format": kind}}


def part_from_wire(wire: JsonValue) -> ContentPart | None:
    """The typed part that says the same, or None where there is none that says exactly the same."""
    if not isinstance(wire, dict):
        return None
    try:
        part = _read_part(wire)
    except ValidationError:
        return None
    return part if part is not None and part_to_wire(part) == wire else None


def _read_part(wire: Wire) -> ContentPart | None:
    match wire:
        case {"type": "text", "text": str(text)}:
            return TextPart(text=text)
        case {"type": "image_url", "image_url": {"url": str(url), **rest}}:
            media: InlineMedia | UrlMedia
            if url.startswith("data:"):
                mime, _, data = url.removeprefix("data:").partition(";base64,")
                media = InlineMedia(mime=mime, data=data)
            else:
                media = UrlMedia(url=url)
            return ImagePart.model_validate({"media": media, **rest})
        case {"type": "input_audio", "input_audio": {"data": str(data), "format": str(kind)}}:
            return AudioPart(media=InlineMedia(mime=_MIME_OF_FORMAT.get(kind, f"audio/{kind}"), data=data))
        case _:
            return None
