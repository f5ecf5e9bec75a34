"""Taking up a stream that broke off after it had begun: what was said so far, the request for the rest, the whole.

Pure. The text so far goes to another instance as the beginning of the assistant's own message (a *prefill*), and what
that one adds is added. What cannot be handed on so (tool calls, audio, several choices, an answer that must be JSON) is
not continued; reasoning is left behind, since nobody takes up another's.
"""

from __future__ import annotations

from typing import NamedTuple

from spear.ir import (
    AudioDelta,
    ChatMessage,
    ChatRequest,
    ChatResult,
    ContentDelta,
    RequestEnvelope,
    ResponseEnvelope,
    Result,
    StreamEvent,
    ToolCallDelta,
    Usage,
)

from ._facts import estimate_tokens

CONTINUED = "continued"
"""In `degraded`, and the reason of an attempt."""


class SoFar:
    """What the consumer of one stream has been sent, by however many instances."""

    __slots__ = ("_texts", "_usable", "first_event_at")

    def __init__(self, request: RequestEnvelope) -> None:
        payload = request.payload
        self._usable = (
            isinstance(payload, ChatRequest)
            and (payload.generation.n or 1) == 1
            and (payload.response_format is None or payload.response_format.type == "text")
        )
        self._texts: list[str] = []
        self.first_event_at: float | None = None

    def add(self, event: StreamEvent) -> None:
        match event:
            case ContentDelta(choice=0, delta=text):
                self._texts.append(text)
            case ContentDelta() | ToolCallDelta() | AudioDelta():
                self._usable = False
            case _:
                return

    @property
    def text(self) -> str:
        return "".join(self._texts)

    @property
    def usable(self) -> bool:
        """Whether the rest can be asked for."""
        return self._usable and any(self._texts)


def rest_of(request: RequestEnvelope, text: str) -> RequestEnvelope:
    """`request`, the one of the caller, for what is missing. What was said is taken off `max_tokens`, estimated."""
    payload = request.payload
    assert isinstance(payload, ChatRequest)
    update: dict[str, object] = {"messages": (*payload.messages, ChatMessage(role="assistant", content=text))}
    most = payload.generation.max_tokens
    if most is not None:
        left = max(1, most - estimate_tokens(len(text)))
        update["generation"] = payload.generation.model_copy(update={"max_tokens": left})
    return request.model_copy(update={"payload": payload.model_copy(update=update)})


class Before(NamedTuple):
    """What those that broke off have said and used."""

    text: str
    usage: Usage
    first_event_at: float | None


def whole(response: ResponseEnvelope, before: Before, arrived: float) -> ResponseEnvelope:
    """The response to the rest as that to all of it."""
    backend, result = response.backend, response.result
    assert backend is not None
    update: dict[str, object] = {"degraded": (*backend.degraded, CONTINUED)}
    if before.first_event_at is not None:
        update["first_event_ms"] = max(0.0, (before.first_event_at - arrived) * 1000)
    if isinstance(result.payload, ChatResult):
        result = Result(payload=_joined(result.payload, before.text))
    return response.model_copy(
        update={
            "backend": backend.model_copy(update=update),
            "result": result,
            "usage": add_usage(before.usage, response.usage),
        }
    )


def _joined(result: ChatResult, said: str) -> ChatResult:
    if not result.choices:
        return result
    first, *others = result.choices
    message = first.message or ChatMessage(role="assistant")
    content = said + message.text()
    message = message.model_copy(update={"content": content, "content_parts": None})
    return result.model_copy(update={"choices": (first.model_copy(update={"message": message}), *others)})


def add_usage(one: Usage, other: Usage) -> Usage:
    """Both together: unknown counts as nothing where the other is known."""
    update: dict[str, object] = {"estimated": one.estimated or other.estimated}
    for name in ("input_tokens", "output_tokens", "cached_tokens", "cost"):
        known = [value for value in (getattr(one, name), getattr(other, name)) if value is not None]
        update[name] = sum(known) if known else None
    return other.model_copy(update=update)
