"""A message of Anthropic's dialect to the IR, and its errors told in one line."""

from __future__ import annotations

from typing import Final

from pydantic import JsonValue

from spear.ir import ChatChoice, ChatMessage, ChatResult, FunctionCall, ToolCall, Usage, dump_json

from ._openai_assembly import MAX_TOOL_CALLS, broken
from ._openai_message import Wire

_FINISH: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_READ: Final = frozenset({"type", "role", "content", "stop_reason", "stop_sequence", "usage"})
RAW_INPUT: Final = "_partial_json"
"""In a `tool_use` block put together from a stream: its input as the model wrote it."""


def is_error(value: JsonValue) -> bool:
    """Of an answer or an event: in the provider's own words, or in those of a proxy before it."""
    return isinstance(value, dict) and (value.get("type") == "error" or value.get("error") is not None)


def result_from_anthropic(value: JsonValue) -> tuple[ChatResult, Usage]:
    """Any JSON value; one that is no message has no choices. Texts are joined; reasoning is in the message's `extra` as
    `reasoning_content`, and as signed `thinking_blocks`, which a request takes back; blocks of other types are there as
    `content_blocks`. The choice's `extra` has the provider's own `stop_reason`."""
    if not isinstance(value, dict):
        return ChatResult(extra={"result": value}), Usage(estimated=True)
    content = value.get("content")
    if not isinstance(content, list):
        return ChatResult(extra=dict(value)), Usage(estimated=True)
    reason = value.get("stop_reason")
    extra: Wire = {"stop_reason": reason}
    if value.get("stop_sequence") is not None:
        extra["stop_sequence"] = value["stop_sequence"]
    finish = _FINISH.get(reason, reason) if isinstance(reason, str) else None
    choice = ChatChoice(index=0, message=_message(content), finish_reason=finish, extra=extra)
    rest: Wire = {key: item for key, item in value.items() if key not in _READ}
    return ChatResult(choices=(choice,), extra={"object": "chat.completion", **rest}), usage_from_anthropic(
        value.get("usage")
    )


def _message(content: list[JsonValue]) -> ChatMessage:
    texts: list[str] = []
    thoughts: list[str] = []
    signed: list[JsonValue] = []
    others: list[JsonValue] = []
    calls: list[ToolCall] = []
    for block in content:
        match block:
            case {"type": "text", "text": str(text), **rest}:
                texts.append(text)
                if rest:  # citations
                    others.append(block)
            case {"type": "tool_use", "id": str(call_id), "name": str(name)}:
                calls.append(ToolCall(id=call_id, function=FunctionCall(name=name, arguments=_arguments(block))))
            case {"type": "thinking", "thinking": str(thought)}:
                thoughts.append(thought)
                signed.append(block)
            case {"type": "redacted_thinking"}:
                signed.append(block)
            case {"type": str()}:
                others.append(block)
            case _:
                raise broken("a block of the answer's content has no type")
    if len(calls) > MAX_TOOL_CALLS:
        raise broken(f"answer too large: it has more than {MAX_TOOL_CALLS} tool calls")
    extra: Wire = {}
    if thoughts:
        extra["reasoning_content"] = "".join(thoughts)
    if signed:
        extra["thinking_blocks"] = signed
    if others:
        extra["content_blocks"] = others
    said = "".join(texts) if texts or not calls else None
    return ChatMessage(role="assistant", content=said, tool_calls=tuple(calls), extra=extra)


def _arguments(block: object) -> str:
    assert isinstance(block, dict)
    raw = block.get(RAW_INPUT)
    return raw if isinstance(raw, str) else dump_json(block.get("input", {})).decode()


def usage_from_anthropic(value: JsonValue) -> Usage:
    """Tokens read from the provider's cache or written to it are input too, which its own `input_tokens` leaves out;
    `cached_tokens` are those that were read. The other keys stand in `extra` as they came."""
    if not isinstance(value, dict):
        return Usage(estimated=True)
    fresh, sent = _count(value.get("input_tokens")), _count(value.get("output_tokens"))
    read, written = _count(value.get("cache_read_input_tokens")), _count(value.get("cache_creation_input_tokens"))
    received = None if fresh is None else fresh + (read or 0) + (written or 0)
    return Usage(
        input_tokens=received,
        output_tokens=sent,
        cached_tokens=read,
        estimated=received is None or sent is None,
        extra={
            key: item
            for key, item in value.items()
            if key not in {"input_tokens", "output_tokens", "cache_read_input_tokens"}
        },
    )


def _count(value: JsonValue) -> int | None:
    return value if type(value) is int and value >= 0 else None
