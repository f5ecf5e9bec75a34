"""The events of Anthropic's stream, to IR events and to the whole message.

    message_start, (content_block_start, content_block_delta*, content_block_stop)*, message_delta, message_stop

with pings anywhere. Events, blocks and deltas of types that are not known here are no error: the provider adds some.
"""

from __future__ import annotations

import io
from collections.abc import Callable

from pydantic import JsonValue

from spear.ir import (
    BackendError,
    ChatResult,
    ContentDelta,
    ErrorCode,
    Failure,
    MalformedJson,
    Operation,
    ReasoningDelta,
    Started,
    StreamEvent,
    ToolCallDelta,
    Usage,
    UsageEvent,
    make_error,
    parse_json,
    trusted,
)

from ._anthropic_answer import RAW_INPUT, is_error, result_from_anthropic, usage_from_anthropic
from ._openai_assembly import MAX_CHARACTERS, MAX_TOOL_CALLS, broken
from ._openai_message import Wire
from ._openai_stream import told_error
from ._provider_text import one_line

_content, _reasoning, _arguments = trusted(ContentDelta), trusted(ReasoningDelta), trusted(ToolCallDelta)
_TEXTS = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}


class _Block:
    """One block of content in the making."""

    def __init__(self, start: Wire, call_index: int) -> None:
        self.start = start
        self.type = start.get("type")
        self.call_index = call_index
        self.said = io.StringIO()
        self.wrote = False
        self.signatures: list[str] = []
        self.citations: list[JsonValue] = []

    def value(self) -> Wire:
        said = self.said.getvalue()
        if self.type == "tool_use":
            return {**self.start, RAW_INPUT: said}
        block = dict(self.start)
        key = "thinking" if self.type == "thinking" else "text"
        if self.type in {"text", "thinking"}:
            block[key] = said
        elif said:  # a call of the provider's own tools
            block["input"] = _parsed(said)
        if self.signatures:
            block["signature"] = "".join(self.signatures)
        if self.citations:
            block["citations"] = self.citations
        return block


class AnthropicStreamDecoder:
    """Feed it the data of each event as a parsed JSON value, until `done`; then `finish` has the whole answer, the one
    that a plain request would have given. Raises `BackendError` like `ChatStreamDecoder`."""

    def __init__(
        self,
        *,
        backend: str,
        request_id: str = "",
        max_characters: int = MAX_CHARACTERS,
        clean: Callable[[str], str] = one_line,
    ) -> None:
        self._backend = backend
        self._request_id = request_id
        self._limit = self._left = max_characters
        self._clean = clean
        self._message: Wire | None = None
        self._usage: Wire = {}
        self._blocks: dict[int, _Block] = {}
        self._calls = 0
        self.done = False

    def feed(self, event: JsonValue) -> list[StreamEvent]:
        if not isinstance(event, dict):
            raise broken("an event of the stream is not an object")
        if is_error(event):
            raise told_error(event, "in the stream", self._clean)
        match event.get("type"):
            case "content_block_delta":
                return self._delta(event)
            case "content_block_start":
                return self._start_block(event)
            case "content_block_stop":
                return self._stop_block(event)
            case "message_start":
                return self._start(event)
            case "message_delta":
                return self._end(event)
            case "message_stop":
                self._begun()
                self.done = True
        return []

    def finish(self) -> tuple[ChatResult, Usage]:
        if not self.done or self._message is None:
            error = make_error(
                ErrorCode.STREAM_TRUNCATED,
                "the backend's stream ended before its message_stop",
                operation=Operation.CHAT_COMPLETIONS,
            )
            raise BackendError(error, Failure.SERVER)
        content: list[JsonValue] = [self._blocks[index].value() for index in sorted(self._blocks)]
        return result_from_anthropic({**self._message, "content": content, "usage": self._usage or None})

    def _start(self, event: Wire) -> list[StreamEvent]:
        message = event.get("message")
        if not isinstance(message, dict) or self._message is not None:
            raise broken("a message_start without a message, or a second one")
        self._message = {key: value for key, value in message.items() if key not in {"content", "usage"}}
        self._take_usage(message.get("usage"))
        model = message.get("model")
        return [
            Started(request_id=self._request_id, backend=self._backend, model=model if isinstance(model, str) else "")
        ]

    def _begun(self) -> Wire:
        if self._message is None:
            raise broken("the stream does not begin with a message_start")
        return self._message

    def _start_block(self, event: Wire) -> list[StreamEvent]:
        self._begun()
        index, start = event.get("index"), event.get("content_block")
        if type(index) is not int or not isinstance(start, dict) or index in self._blocks:
            raise broken("a content_block_start has no block, or no index of its own")
        if not isinstance(start.get("type"), str):
            raise broken("a block of the stream has no type")
        if len(self._blocks) >= MAX_TOOL_CALLS:
            raise broken(f"answer too large: the stream has more than {MAX_TOOL_CALLS} blocks")
        self._pay(1024 + sum(len(item) for item in start.values() if isinstance(item, str)))
        block = self._blocks[index] = _Block(start, self._calls)
        if block.type == "tool_use":
            call_id, name = start.get("id"), start.get("name")
            if not isinstance(call_id, str) or not isinstance(name, str):
                raise broken("a tool_use block has no id or no name")
            self._calls += 1
            return [ToolCallDelta(call_index=block.call_index, id=call_id, name=name)]
        first = start.get("text") if block.type == "text" else start.get("thinking")
        return self._say(block, first) if isinstance(first, str) and block.type in {"text", "thinking"} else []

    def _delta(self, event: Wire) -> list[StreamEvent]:
        index, delta = event.get("index"), event.get("delta")
        block = self._blocks.get(index) if type(index) is int else None
        if block is None or not isinstance(delta, dict):
            raise broken("a content_block_delta belongs to no block, or has no delta")
        kind = delta.get("type")
        if isinstance(kind, str) and (key := _TEXTS.get(kind)) is not None:
            said = delta.get(key)
            if not isinstance(said, str):
                raise broken(f"a {kind} has no text")
            return self._say(block, said)
        if kind == "signature_delta" and isinstance(signature := delta.get("signature"), str):
            self._pay(64 + len(signature))
            block.signatures.append(signature)
        elif kind == "citations_delta":
            self._pay(1024)
            block.citations.append(delta.get("citation"))
        return []

    def _say(self, block: _Block, said: str) -> list[StreamEvent]:
        if not said:
            return []
        self._pay(len(said))
        block.said.write(said)
        block.wrote = True
        if block.type == "text":
            return [_content(delta=said)]
        if block.type == "thinking":
            return [_reasoning(delta=said)]
        return [_arguments(call_index=block.call_index, arguments=said)] if block.type == "tool_use" else []

    def _stop_block(self, event: Wire) -> list[StreamEvent]:
        index = event.get("index")
        block = self._blocks.get(index) if type(index) is int else None
        if block is None:
            raise broken("a content_block_stop belongs to no block")
        # A call without arguments comes without deltas.
        return self._say(block, "{}") if block.type == "tool_use" and not block.wrote else []

    def _end(self, event: Wire) -> list[StreamEvent]:
        message, delta = self._begun(), event.get("delta")
        if isinstance(delta, dict):
            message.update(delta)
        self._take_usage(event.get("usage"))
        usage = usage_from_anthropic(self._usage)
        return [] if usage.estimated or message.get("stop_reason") is None else [UsageEvent(usage=usage)]

    def _take_usage(self, value: JsonValue) -> None:
        """Counts are those so far; what is left out, or null, stays as it was."""
        if isinstance(value, dict):
            self._usage.update({key: item for key, item in value.items() if item is not None or key not in self._usage})

    def _pay(self, characters: int) -> None:
        self._left -= characters
        if self._left < 0:
            raise broken(f"response too large: the stream holds more than {self._limit} characters")


def _parsed(text: str) -> JsonValue:
    try:
        return parse_json(text)
    except MalformedJson:
        return text
