"""The steps of chat: tools told in words and read out of the answer, system messages merged into the first user one.

A model that was not trained for tools may call none, or write what is no call: its answer is then a text.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from pydantic import JsonValue

from spear.backends import Answer
from spear.ir import (
    ChatChoice,
    ChatMessage,
    ChatRequest,
    ChatResult,
    Feature,
    FunctionCall,
    MalformedJson,
    RequestEnvelope,
    RequestPayload,
    TextPart,
    ToolCall,
    dump_json,
    parse_json,
)

TOOLS_BY_PROMPT: Final = "tools_by_prompt"
_SYSTEM: Final = frozenset({"system", "developer"})
_MOST_CALLS: Final = 64
_HOW: Final = """You can call tools. To do so, answer with one JSON object of this form and with nothing else:
{"tool_calls": [{"name": "<name of a tool>", "arguments": {<its arguments>}}]}
Otherwise answer in plain text. These are the tools, each with the JSON Schema of its arguments:
"""


def tools_by_prompt(request: RequestEnvelope) -> RequestPayload | None:
    """None for a stream, too: what looks like a text could turn out to be a call."""
    chat = request.payload
    if not isinstance(chat, ChatRequest) or not chat.tools:
        return None
    if Feature.STREAM.value in request.requirements.required_features:
        return None
    told = ChatMessage(role="system", content=_HOW + "\n".join(map(_described, chat.tools)) + _choice(chat))
    messages = (told, *map(_in_words, chat.messages))
    return chat.model_copy(update={"tools": (), "tool_choice": None, "messages": messages})


def _described(tool: dict[str, JsonValue]) -> str:
    return dump_json(tool.get("function", tool)).decode()


def _choice(chat: ChatRequest) -> str:
    match chat.tool_choice:
        case "required":
            return "\nYou must call a tool."
        case "none":
            return "\nDo not call a tool this time."
        case {"function": {"name": str(name)}}:
            return f"\nYou must call the tool {name}."
        case _:
            return ""


def _in_words(message: ChatMessage) -> ChatMessage:
    """Earlier calls and their results as the model has been told to write them, or as somebody would tell it."""
    if message.role == "tool":
        which = message.name or message.tool_call_id or ""
        return ChatMessage(role="user", content=f"Result of the tool call {which}: {message.text()}")
    if not message.tool_calls:
        return message
    calls: list[JsonValue] = [
        {"id": call.id, "name": call.function.name, "arguments": _as_value(call.function.arguments)}
        for call in message.tool_calls
    ]
    text = dump_json({"tool_calls": calls}).decode()
    said = message.text()
    return ChatMessage(role=message.role, content=f"{said}\n{text}" if said else text)


def _as_value(arguments: str) -> JsonValue:
    try:
        return parse_json(arguments)
    except MalformedJson:
        return arguments


def merge_system(request: RequestEnvelope) -> RequestPayload | None:
    chat = request.payload
    if not isinstance(chat, ChatRequest):
        return None
    text = "\n\n".join(message.text() for message in chat.messages if message.role in _SYSTEM)
    if not text:
        return None
    rest = [message for message in chat.messages if message.role not in _SYSTEM]
    first = next((index for index, message in enumerate(rest) if message.role == "user"), None)
    if first is None:
        rest.insert(0, ChatMessage(role="user", content=text))
    else:
        rest[first] = _begun(rest[first], text)
    return chat.model_copy(update={"messages": tuple(rest)})


def _begun(message: ChatMessage, text: str) -> ChatMessage:
    """`message` with `text` before what it says."""
    update: dict[str, object]
    if message.content_parts is not None:
        update = {"content_parts": (TextPart(text=text + "\n\n"), *message.content_parts)}
    elif isinstance(message.content, list):
        update = {"content": [{"type": "text", "text": text + "\n\n"}, *message.content]}
    elif isinstance(message.content, str) and message.content:
        update = {"content": f"{text}\n\n{message.content}"}
    else:
        update = {"content": text}
    return message.model_copy(update=update)


def restored(answer: Answer, degraded: Sequence[str]) -> Answer:
    """The answer as one to the request before its tools were told in words: calls where the text is one."""
    result = answer.payload
    if TOOLS_BY_PROMPT not in degraded or not isinstance(result, ChatResult):
        return answer
    choices = tuple(map(_with_calls, result.choices))
    return replace(answer, payload=result.model_copy(update={"choices": choices}))


def _with_calls(choice: ChatChoice) -> ChatChoice:
    calls = () if choice.message is None else calls_in(choice.message.text())
    if choice.message is None or not calls:
        return choice
    message = choice.message.model_copy(update={"content": None, "content_parts": None, "tool_calls": calls})
    return choice.model_copy(update={"message": message, "finish_reason": "tool_calls"})


def _unfenced(text: str) -> str:
    """Models like to put JSON into a fenced block."""
    if not (text.startswith("```") and text.endswith("```") and len(text) > 6):
        return text
    language, _, inside = text[3:-3].partition("\n")
    return inside.strip() if language.strip() in {"", "json"} else text


def calls_in(text: str) -> tuple[ToolCall, ...]:
    """The calls, where the whole text is nothing else; else none."""
    text = _unfenced(text.strip())
    if not text.startswith("{"):
        return ()
    try:
        said = parse_json(text)
    except MalformedJson:
        return ()
    items = said.get("tool_calls") if isinstance(said, dict) and len(said) == 1 else None
    if not isinstance(items, list) or not 0 < len(items) <= _MOST_CALLS:
        return ()
    calls = []
    for item in items:
        if not isinstance(item, dict) or not isinstance(name := item.get("name"), str) or not name:
            return ()
        given = item.get("arguments", {})
        arguments = given if isinstance(given, str) else dump_json(given).decode()
        calls.append(ToolCall(id=f"call_{os.urandom(8).hex()}", function=FunctionCall(name=name, arguments=arguments)))
    return tuple(calls)
