"""What a call consumed and cost, also where the backend did not say or the stream broke."""

from __future__ import annotations

from spear.config import Price
from spear.ir import ChatResult, Operation, ResultPayload, Usage

from ._facts import Facts, estimate_tokens

_PER = 1_000_000
TOKENS_BOTH_WAYS = frozenset({Operation.CHAT_COMPLETIONS})
_TOKENS_IN = frozenset({Operation.CHAT_COMPLETIONS, Operation.EMBEDDINGS})


def settle_usage(usage: Usage, facts: Facts, output: ResultPayload | int, price: Price | None) -> Usage:
    """`usage` with the missing token counts estimated and flagged, and the cost of the configured price. `output` is
    what was answered, or how many characters of it."""
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
