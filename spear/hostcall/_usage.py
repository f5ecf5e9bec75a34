"""Counting tokens: per response for the guest, per execution for the host."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from spear.hostcall._chat_port import ChatReply, ChatSnapshot


@dataclass(frozen=True, slots=True)
class Usage:
    """What an execution has used so far. `estimated` once any part of it was estimated. `cost` is in the unit of the
    host's configuration."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0
    estimated: bool = False

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.requests + other.requests,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cost + other.cost,
            self.estimated or other.estimated,
        )


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a guest sees of one or more backend calls."""

    prompt: int = 0
    completion: int = 0
    total: int = 0

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(self.prompt + other.prompt, self.completion + other.completion, self.total + other.total)

    def metrics(self) -> dict[str, int]:
        return {
            "completion_tokens": self.completion,
            "prompt_tokens": self.prompt,
            "total_tokens": self.total,
        }


def measure(session: ChatSnapshot, reply: ChatReply) -> tuple[Tokens, Usage]:
    """The tokens of one call: the provider's numbers, else a quarter of the characters, rounded up."""
    if reply.failed:
        return Tokens(), Usage(requests=1)
    usage: Mapping[str, Any] = reply.usage or {}
    prompt = _count(usage, "input_tokens", "prompt_tokens")
    completion = _count(usage, "output_tokens", "completion_tokens")
    estimated = bool(usage.get("estimated")) or prompt is None or completion is None
    if prompt is None:
        prompt = _quarter(message.get("content") for message in session.messages)
    if completion is None:
        completion = _quarter(_answers(reply.body))
    total = _count(usage, "total_tokens")
    tokens = Tokens(prompt, completion, prompt + completion if total is None else total)
    cost = usage.get("cost")
    return tokens, Usage(1, prompt, completion, float(cost) if isinstance(cost, int | float) else 0.0, estimated)


def _count(usage: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        value = usage.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
    return None


def _quarter(texts: Iterable[Any]) -> int:
    return math.ceil(sum(len(text) for text in texts if isinstance(text, str)) / 4)


def _answers(body: Mapping[str, Any]) -> Iterable[Any]:
    choices = body.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        message = choice.get("message") if isinstance(choice, dict) else None
        if isinstance(message, dict):
            yield message.get("content")
