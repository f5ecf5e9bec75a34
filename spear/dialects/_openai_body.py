"""A chat.completion object, both ways, and usage.

`body_from_result(*result_from_body(x))` is value-equal to x for every object x, and to `{"result": x}` for every
other JSON value.
"""

from __future__ import annotations

from typing import Final

from pydantic import JsonValue

from spear.ir import ChatChoice, ChatMessage, ChatRequest, ChatResult, Usage, dump_json, trusted

from ._openai_message import Wire, message_from_wire, message_to_wire

_NO_COUNT: Final = Usage(estimated=True)
_usage = trusted(Usage)


def result_from_body(value: JsonValue) -> tuple[ChatResult, Usage]:
    """Any JSON value. `usage.estimated` where the body has no complete count (its `usage`, if any, is then in the
    result's `extra`); `fill_usage` puts an estimate there."""
    if type(value) is not dict:
        return ChatResult(choices=(), extra={"result": value}), _NO_COUNT
    choices: tuple[ChatChoice, ...] = ()
    usage = _NO_COUNT
    extra: Wire = {}
    for key, item in value.items():
        if key == "choices" and type(item) is list and item and all(type(choice) is dict for choice in item):
            choices = tuple(_choice_from_wire(choice) for choice in item if isinstance(choice, dict))
        elif key == "usage":
            usage = _usage_from_wire(item)
            if usage.estimated:
                extra[key] = item
        else:
            extra[key] = item
    return ChatResult(choices=choices, extra=extra), usage


def body_from_result(result: ChatResult, usage: Usage) -> Wire:
    """An estimate is not passed off as the backend's count: the body has a `usage` only where there is a real one."""
    body: Wire = {}
    if result.choices:
        body["choices"] = [_choice_to_wire(choice) for choice in result.choices]
    if not usage.estimated and usage.input_tokens is not None and usage.output_tokens is not None:
        body["usage"] = _usage_to_wire(usage)
    body.update(result.extra)
    return body


def _choice_from_wire(wire: Wire) -> ChatChoice:
    index: int | None = None
    message: ChatMessage | None = None
    reason: str | None = None
    extra: Wire = {}
    for key, value in wire.items():
        if key == "message" and type(value) is dict:
            message = message_from_wire(value)
        elif key == "index" and type(value) is int:
            index = value
        elif key == "finish_reason" and type(value) is str:
            reason = value
        else:
            extra[key] = value
    return ChatChoice(index=index, message=message, finish_reason=reason, extra=extra)


def _choice_to_wire(choice: ChatChoice) -> Wire:
    wire: Wire = {}
    if choice.index is not None:
        wire["index"] = choice.index
    if choice.message is not None:
        wire["message"] = message_to_wire(choice.message)
    if choice.finish_reason is not None:
        wire["finish_reason"] = choice.finish_reason
    wire.update(choice.extra)
    return wire


def _count(value: JsonValue) -> int | None:
    return value if type(value) is int and value >= 0 else None


def _usage_from_wire(value: JsonValue) -> Usage:
    """Estimated, with what counts there are, unless both of the counts that a chat has are given."""
    if type(value) is not dict:
        return _NO_COUNT
    received, sent = _count(value.get("prompt_tokens")), _count(value.get("completion_tokens"))
    if received is None or sent is None:
        return Usage(input_tokens=received, output_tokens=sent, estimated=True)
    extra: Wire = {key: item for key, item in value.items() if key not in {"prompt_tokens", "completion_tokens"}}
    cached = None
    details = extra.get("prompt_tokens_details")
    if type(details) is dict and (cached := _count(details.get("cached_tokens"))) is not None:
        extra["prompt_tokens_details"] = {key: item for key, item in details.items() if key != "cached_tokens"}
    return Usage(input_tokens=received, output_tokens=sent, cached_tokens=cached, estimated=False, extra=extra)


def _usage_to_wire(usage: Usage) -> Wire:
    wire: Wire = {"prompt_tokens": usage.input_tokens, "completion_tokens": usage.output_tokens, **usage.extra}
    details = wire.get("prompt_tokens_details", {})
    if usage.cached_tokens is not None and isinstance(details, dict):
        wire["prompt_tokens_details"] = {**details, "cached_tokens": usage.cached_tokens}
    return wire


def fill_usage(usage: Usage, request: ChatRequest, result: ChatResult) -> Usage:
    """`usage` with each missing token count estimated: a quarter of the characters, rounded up. A count that is there
    stays."""
    if usage.input_tokens is not None and usage.output_tokens is not None:
        return usage
    received = usage.input_tokens
    if received is None:
        received = _quarter(sum(map(_characters, request.messages)))
    sent = usage.output_tokens
    if sent is None:
        sent = _quarter(sum(_characters(choice.message) for choice in result.choices if choice.message))
    if not usage.model_fields_set:  # the usual case; a fresh model costs half of a copy
        return _usage(input_tokens=received, output_tokens=sent, estimated=True)
    return usage.model_copy(update={"input_tokens": received, "output_tokens": sent, "estimated": True})


def _quarter(characters: int) -> int:
    return -(-characters // 4)


def _characters(message: ChatMessage) -> int:
    """What a model reads or writes: text and the calls. Media count nothing here; free-form content counts as JSON."""
    text = message.text()
    if not text and message.content is not None and not isinstance(message.content, str):
        text = dump_json(message.content).decode()
    if not message.tool_calls:
        return len(text)
    return len(text) + sum(len(call.function.name) + len(call.function.arguments) for call in message.tool_calls)
