"""What a call consumed and cost, also where the backend did not say or the stream broke."""

from __future__ import annotations

from spear.config import Price
from spear.ir import ChatResult, ImageResult, Operation, ResultPayload, SpeechToTextResult, Usage

from ._facts import Facts, estimate_tokens

_PER = 1_000_000
_MOST_TOKENS = 1_000_000_000
"""Of one call. A backend that says more does not know: taken at its word it would use up everybody's limits."""
TOKENS_BOTH_WAYS = frozenset({Operation.CHAT_COMPLETIONS})
_OTHERS = frozenset({Operation.TEXT_TO_SPEECH, Operation.IMAGE_GENERATION, Operation.SPEECH_TO_TEXT})
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
    if facts.operation in _OTHERS:
        usage = _counted(usage, facts, output)
    if price is None:
        return usage
    known = usage.input_tokens is not None or usage.output_tokens is not None
    cost = ((usage.input_tokens or 0) * price.input + (usage.output_tokens or 0) * price.output) / _PER
    if price.beside_tokens:
        known = known or not (usage.characters is usage.images is usage.audio_seconds is None)
        cost += price.of_others(usage.characters or 0, usage.images or 0, usage.audio_seconds or 0)
    return usage.model_copy(update={"cost": cost}) if known else usage


def _counted(usage: Usage, facts: Facts, output: ResultPayload | int) -> Usage:
    """With the characters that were spoken, the images that came and the seconds that were heard, where the backend
    does not say."""
    update: dict[str, object] = {}
    if facts.operation is Operation.TEXT_TO_SPEECH and usage.characters is None:
        update["characters"] = facts.sizes.chars
    elif isinstance(output, ImageResult) and usage.images is None:
        update["images"] = len(output.images)
    elif isinstance(output, SpeechToTextResult) and usage.audio_seconds is None:
        update["audio_seconds"] = output.duration_s
    return usage.model_copy(update=update) if update else usage


def others_cost(facts: Facts, price: Price) -> float:
    """What a request is expected to cost beside its tokens. How long audio is nobody knows before it was heard."""
    characters = facts.sizes.chars if facts.operation is Operation.TEXT_TO_SPEECH else 0
    images = facts.sizes.images if facts.operation is Operation.IMAGE_GENERATION else 0
    return price.of_others(characters, images, 0)


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
