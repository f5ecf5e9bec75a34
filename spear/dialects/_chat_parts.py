"""What a message of the IR says, for dialects that do not take OpenAI's words as they are."""

from __future__ import annotations

from typing import NoReturn

from pydantic import JsonValue

from spear.ir import (
    AudioPart,
    CallerError,
    ChatMessage,
    ChatRequest,
    ContentPart,
    ErrorCode,
    ImagePart,
    InlineMedia,
    MalformedJson,
    Operation,
    RoutingError,
    TextPart,
    ToolCall,
    dump_json,
    invalid_request,
    make_error,
    parse_json,
)

from ._openai_message import Wire, part_from_wire


def parts_of(message: ChatMessage) -> tuple[ContentPart | Wire, ...]:
    """The content as parts. A part in OpenAI's words becomes a typed one; an object in other words stays as it is;
    what is neither a text nor a list of objects is told as JSON. Empty texts are left out."""
    if message.content_parts is not None:
        return tuple(part for part in message.content_parts if not (isinstance(part, TextPart) and not part.text))
    content = message.content
    if content is None or content == "":
        return ()
    if isinstance(content, str):
        return (TextPart(text=content),)
    if isinstance(content, list) and all(isinstance(item, dict) for item in content):
        return tuple(part for item in content if isinstance(item, dict) for part in _part(item))
    return (TextPart(text=dump_json(content).decode()),)


def _part(item: Wire) -> tuple[ContentPart | Wire, ...]:
    typed = part_from_wire(item)
    if isinstance(typed, TextPart) and not typed.text:
        return ()
    return (item if typed is None else typed,)


def text_of(message: ChatMessage) -> str:
    """The content as one text; what is no text is told as JSON, and there are no media in it."""
    if isinstance(message.content, str):
        return message.content
    texts = []
    for part in parts_of(message):
        if isinstance(part, TextPart):
            texts.append(part.text)
        elif isinstance(part, dict):
            texts.append(dump_json(part).decode())
    return "".join(texts)


def schema_of(request: ChatRequest) -> tuple[str, JsonValue]:
    """The type of answer that is wanted, and the schema where there is one; "text" where nothing is said."""
    wanted = request.response_format
    if wanted is not None:
        return wanted.type, (wanted.json_schema or {}).get("schema")
    raw = request.extra.get("response_format")  # one that has more keys than the typed field
    if not isinstance(raw, dict) or not isinstance(kind := raw.get("type"), str):
        return "text", None
    described = raw.get("json_schema")
    return kind, described.get("schema") if isinstance(described, dict) else None


def inline_image(part: ImagePart, field: str) -> InlineMedia:
    """Raises `CallerError` where the bytes are not there."""
    if isinstance(part.media, InlineMedia):
        return part.media
    raise invalid_request(field, "is an image by reference; its bytes are needed here")


def no_audio(part: AudioPart, field: str, dialect: str) -> NoReturn:
    message = f"{field}: {dialect} takes no audio in a message"
    raise RoutingError(make_error(ErrorCode.MISSING_CAPABILITIES, message, operation=Operation.CHAT_COMPLETIONS))


def arguments_of(call: ToolCall, field: str) -> dict[str, JsonValue]:
    """The arguments as the object they have to be where a dialect has no text for them. Raises `CallerError`."""
    text = call.function.arguments
    if not text.strip():
        return {}
    try:
        value = parse_json(text)
    except MalformedJson as error:
        raise _no_object(field, f"not JSON ({error})") from None
    if not isinstance(value, dict):
        raise _no_object(field, "JSON, but no object")
    return value


def _no_object(field: str, what: str) -> CallerError:
    return invalid_request(f"{field}.function.arguments", f"is {what}; this backend's dialect needs a JSON object")
