"""What a call consumed and cost, also where the backend did not say or the stream broke."""

from __future__ import annotations

from spear.config import Price
from spear.ir import ChatResult, Operation, ResultPayload, Usage

from ._facts import Facts, estimate_tokens

_PER = 1_000_000
_MOST_TOKENS = 1_000_000_000
"""Of one call. A backend that says more does not know: taken at its word it would use up everybody's limits."""
TOKENS_BOTH_WAYS = frozenset({Operation.CHAT_COMPLETIONS})
_TOKENS_IN = frozenset({Operation.CHAT_COMPLETIONS, Operation.EMBEDDINGS})


def believable(usage: Usage) -> Usage:
    """`usage` without counts that no call can come to."""
    received, sent = usage.input_tokens or 0, usage.output_tokens or 0
    if received <= _MOST_TOKENS and sent <= _MOST_TOKENS:
        return usage
    update: dict[str, object] = {"estimated": True}
    if received > _MOST_TOKENS:
        update["input_tokens"] = None
    if sent > _MOST_TOKENS:
        update["output_tokens"] = None
    return usage.model_copy(update=update)


def settle_usage(usage: Usage, facts: Facts, output: ResultPayload | int, price: Price | None) -> Usage:
    """`usage` with the missing token counts estimated and flagged, and the cost of the configured price. `output` is
    what was answered, or how many characters of it."""
    usage = believable(usage)
    update: dict[str, object] = {}
    if usage.input_tokens is None and facts.operation in _TOKENS_IN:
        update = {"input_tokens": facts.input_tokens, "estimated": True}
    if usage.output_tokens is None and facts.operation in TOKENS_BOTH_WAYS:
        update |= {"output_tokens": estimate_tokens(_chars(output)), "estimated": True}
    if update:
        usage = usage.model_copy(update=update)
    if price is None or (usage.input_tokens is None and usage.output_tokens is None):
        return usage
    cost = ((usage.input_tokens or 0) * price.input + (usage.output_tokens or 0) * price.output) / _PER
    return usage.model_copy(update={"cost": cost})


def _chars(payload: ResultPayload | int) -> int:
    if isinstance(payload, int):
        return payload
    if not isinstance(payload, ChatResult):
        return 0
    return sum(
        len(choice.message.text()) + sum(len(call.function.arguments) for call in choice.message.tool_calls)
        for choice in payload.choices
        if choice.message is not None
    )
