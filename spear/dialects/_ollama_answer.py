"""Ollama's answers, plain and streamed, to the IR."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Final

from pydantic import JsonValue

from spear.ir import (
    BackendError,
    ChatChoice,
    ChatMessage,
    ChatResult,
    ContentDelta,
    EmbeddingsRequest,
    EmbeddingsResult,
    ErrorCode,
    Failure,
    FunctionCall,
    Operation,
    ReasoningDelta,
    Started,
    StreamEvent,
    ToolCall,
    ToolCallDelta,
    Usage,
    UsageEvent,
    dump_json,
    make_error,
    trusted,
)

from ._openai_assembly import MAX_CHARACTERS, MAX_TOOL_CALLS, broken
from ._openai_message import Wire
from ._openai_stream import told_error
from ._provider_text import one_line
from .openai_embeddings import embeddings_of

_content, _reasoning = trusted(ContentDelta), trusted(ReasoningDelta)
_NOT_IN_AN_ID: Final = re.compile(r"[^A-Za-z0-9_-]")
_DURATIONS: Final = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")
_READ: Final = frozenset(
    {"message", "model", "created_at", "done", "done_reason", "prompt_eval_count", "eval_count", *_DURATIONS}
)


def result_from_ollama(value: JsonValue, *, request_id: str) -> tuple[ChatResult, Usage]:
    """Any JSON value; one without a message has no choices. Calls without an id get one made of `request_id`, so that
    no two of a conversation are the same. Durations, in nanoseconds, stand in the usage's `extra`."""
    if not isinstance(value, dict):
        return ChatResult(extra={"result": value}), Usage(estimated=True)
    extra: Wire = {key: item for key, item in value.items() if key not in _READ}
    message = value.get("message")
    if not isinstance(message, dict):
        return ChatResult(extra=dict(value)), Usage(estimated=True)
    read = _message(message, request_id)
    reason = value.get("done_reason")
    finish = "tool_calls" if read.tool_calls else reason if isinstance(reason, str) and reason else "stop"
    choice_extra: Wire = {"done_reason": reason} if read.tool_calls and reason not in (None, "stop") else {}
    head: Wire = {"id": f"chatcmpl-{request_id}", "object": "chat.completion"}
    created = _unix(value.get("created_at"))
    if created is not None:
        head["created"] = created
    if isinstance(model := value.get("model"), str):
        head["model"] = model
    choice = ChatChoice(index=0, message=read, finish_reason=finish, extra=choice_extra)
    return ChatResult(choices=(choice,), extra={**head, **extra}), _usage(value)


def embeddings_from_ollama(value: JsonValue, request: EmbeddingsRequest) -> tuple[EmbeddingsResult, Usage]:
    """In the form that was asked for. Raises `BackendError` for anything but one sound vector for each input."""
    body = value if isinstance(value, dict) else {}
    extra: Wire = {"model": body["model"]} if isinstance(body.get("model"), str) else {}
    result = embeddings_of(body.get("embeddings"), request, extra)
    tokens = _count(body.get("prompt_eval_count"))
    if tokens is None:
        characters = sum(map(len, request.input))
        return result, Usage(input_tokens=-(-characters // 4), estimated=True, extra=_durations(body))
    return result, Usage(input_tokens=tokens, extra=_durations(body))


def _message(wire: Wire, request_id: str) -> ChatMessage:
    role, content, thinking, calls = (wire.get(key) for key in ("role", "content", "thinking", "tool_calls"))
    extra = {key: value for key, value in wire.items() if key not in {"role", "content", "thinking", "tool_calls"}}
    if isinstance(thinking, str) and thinking:
        extra["reasoning_content"] = thinking
    made = _calls(calls, request_id, 0)
    return ChatMessage(
        role=role if isinstance(role, str) and role else "assistant",
        content=None if made and content == "" else content,
        tool_calls=made,
        extra=extra,
    )


def _calls(value: JsonValue, request_id: str, first: int) -> tuple[ToolCall, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise broken("the answer's tool_calls are not a list")
    if first + len(value) > MAX_TOOL_CALLS:
        raise broken(f"answer too large: it has more than {MAX_TOOL_CALLS} tool calls")
    ours = _NOT_IN_AN_ID.sub("_", request_id)[-48:]  # other dialects take few characters in an id
    return tuple(_call(item, f"call_{ours}_{first + number}") for number, item in enumerate(value))


def _call(item: JsonValue, made_up: str) -> ToolCall:
    function = item.get("function") if isinstance(item, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(item, dict) or not isinstance(function, dict) or not isinstance(name, str):
        raise broken("a tool call of the answer has no function with a name")
    given, arguments = item.get("id"), function.get("arguments", {})
    return ToolCall(
        id=given if isinstance(given, str) and given else made_up,
        function=FunctionCall(
            name=name, arguments=arguments if isinstance(arguments, str) else dump_json(arguments).decode()
        ),
    )


def _usage(value: Wire) -> Usage:
    received, sent = _count(value.get("prompt_eval_count")), _count(value.get("eval_count"))
    return Usage(
        input_tokens=received,
        output_tokens=sent,
        estimated=received is None or sent is None,
        extra=_durations(value),
    )


def _durations(value: Wire) -> Wire:
    return {key: value[key] for key in _DURATIONS if key in value}


def _count(value: JsonValue) -> int | None:
    return value if type(value) is int and value >= 0 else None


def _unix(value: JsonValue) -> int | None:
    try:
        return int(datetime.fromisoformat(value).timestamp()) if isinstance(value, str) else None
    except (ValueError, OverflowError):
        return None


class OllamaStreamDecoder:
    """Feed it each line as a parsed JSON value, until `done`; then `finish` has the whole answer, the one that a
    plain request would have given. Raises `BackendError` like `ChatStreamDecoder`."""

    def __init__(
        self,
        *,
        backend: str,
        request_id: str,
        max_characters: int = MAX_CHARACTERS,
        clean: Callable[[str], str] = one_line,
    ) -> None:
        self._backend = backend
        self._request_id = request_id
        self._left = max_characters
        self._limit = max_characters
        self._clean = clean
        self._last: Wire = {}
        self._role = "assistant"
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._calls: list[ToolCall] = []
        self._beside: Wire = {}
        self._started = False
        self.done = False

    def feed(self, chunk: JsonValue) -> list[StreamEvent]:
        if not isinstance(chunk, dict):
            raise broken("a line of the stream is not an object")
        if chunk.get("error") is not None:
            raise told_error(chunk, "in the stream", self._clean)
        message = chunk.get("message")
        if message is not None and not isinstance(message, dict):
            raise broken("a line's message is not an object")
        events: list[StreamEvent] = []
        if not self._started:
            self._started = True
            model = chunk.get("model")
            named = model if isinstance(model, str) else ""
            events.append(Started(request_id=self._request_id, backend=self._backend, model=named))
        if message:
            self._take(message, events)
        if chunk.get("done") is True:
            self.done = True
            self._last = chunk
            usage = _usage(chunk)
            if not usage.estimated:
                events.append(UsageEvent(usage=usage))
        return events

    def finish(self) -> tuple[ChatResult, Usage]:
        if not self.done:
            error = make_error(
                ErrorCode.STREAM_TRUNCATED,
                "the backend's stream ended before its last line",
                operation=Operation.CHAT_COMPLETIONS,
            )
            raise BackendError(error, Failure.SERVER)
        message: Wire = {**self._beside, "role": self._role, "content": "".join(self._texts)}
        if self._thoughts:
            message["thinking"] = "".join(self._thoughts)
        if self._calls:
            message["tool_calls"] = [
                {"id": call.id, "function": {"name": call.function.name, "arguments": call.function.arguments}}
                for call in self._calls
            ]
        return result_from_ollama({**self._last, "message": message}, request_id=self._request_id)

    def _take(self, message: Wire, events: list[StreamEvent]) -> None:
        for key, value in message.items():
            if key == "content" and isinstance(value, str):
                if value:
                    self._pay(len(value))
                    self._texts.append(value)
                    events.append(_content(delta=value))
            elif key == "thinking" and isinstance(value, str):
                if value:
                    self._pay(len(value))
                    self._thoughts.append(value)
                    events.append(_reasoning(delta=value))
            elif key == "tool_calls":
                self._take_calls(value, events)
            elif key == "role":
                self._role = value if isinstance(value, str) and value else self._role
            elif value is not None:
                self._pay(len(dump_json(value)))
                self._beside[key] = value

    def _take_calls(self, value: JsonValue, events: list[StreamEvent]) -> None:
        for call in _calls(value, self._request_id, len(self._calls)):
            self._pay(1024 + len(call.function.name) + len(call.function.arguments))
            function = call.function
            events.append(
                ToolCallDelta(call_index=len(self._calls), id=call.id, name=function.name, arguments=function.arguments)
            )
            self._calls.append(call)

    def _pay(self, characters: int) -> None:
        self._left -= characters + 64
        if self._left < 0:
            raise broken(f"response too large: the stream holds more than {self._limit} characters")
