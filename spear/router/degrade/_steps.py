"""The steps. Each takes a requirement away by asking for less."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from spear.ir import (
    Feature,
    ImageRequest,
    Operation,
    RequestEnvelope,
    RequestPayload,
    SpeechToTextRequest,
    TextToSpeechRequest,
)

from ._chat import merge_system, tools_by_prompt

_TAG: Final = re.compile(r"<[^<>]*>")
_BREAK: Final = re.compile(r"<(?:break|/p|/s|/sentence|/paragraph)\b[^<>]*>")
_BLANKS: Final = re.compile(r"[ \t]+")


class Step(NamedTuple):
    """`rewrite` gives the payload that asks for less; None where there is nothing to take away. `features` are no
    longer required then."""

    name: str
    features: frozenset[str]
    rewrite: Callable[[RequestEnvelope], RequestPayload | None]


def _payload(request: RequestEnvelope, **update: Any) -> RequestPayload:
    return request.payload.model_copy(update=update)


def _mask_to_text(request: RequestEnvelope) -> RequestPayload | None:
    payload = request.payload
    if not isinstance(payload, ImageRequest) or payload.mask is None:
        return None
    return _payload(request, image=None, mask=None)


def _drop_timestamps(request: RequestEnvelope) -> RequestPayload | None:
    payload = request.payload
    if not isinstance(payload, SpeechToTextRequest) or payload.timestamps in {None, "none"}:
        return None
    return _payload(request, timestamps=None)


def _strip_ssml(request: RequestEnvelope) -> RequestPayload | None:
    payload = request.payload
    if not isinstance(payload, TextToSpeechRequest) or not payload.ssml:
        return None
    text = plain_text(payload.input)
    return _payload(request, input=text, ssml=None) if text else None


def plain_text(ssml: str) -> str:
    """What is to be said, without how. Never parsed as XML, so that no entity of its own can unfold."""
    said, *comments = ssml.split("<!--")
    said += "".join(each.partition("-->")[2] for each in comments)
    text = _TAG.sub("", _BREAK.sub(" ", said))
    return _BLANKS.sub(" ", html.unescape(text)).strip()


def _default_voice(request: RequestEnvelope) -> RequestPayload | None:
    payload = request.payload
    if not isinstance(payload, TextToSpeechRequest) or payload.voice is None:
        return None
    return _payload(request, voice=None)


def _step(name: str, rewrite: Callable[[RequestEnvelope], RequestPayload | None], *features: Feature) -> Step:
    return Step(name, frozenset(feature.value for feature in features), rewrite)


# In the order in which they are taken where several are needed.
STEPS: Final[dict[Operation, tuple[Step, ...]]] = {
    Operation.CHAT_COMPLETIONS: (
        _step("tools_by_prompt", tools_by_prompt, Feature.TOOLS),
        _step("merge_system", merge_system, Feature.SYSTEM_ROLE),
    ),
    Operation.IMAGE_GENERATION: (_step("mask_to_text", _mask_to_text, Feature.MASK, Feature.IMAGE_INPUT),),
    Operation.SPEECH_TO_TEXT: (_step("drop_timestamps", _drop_timestamps, Feature.TIMESTAMPS),),
    Operation.TEXT_TO_SPEECH: (
        _step("strip_ssml", _strip_ssml, Feature.SSML),
        _step("default_voice", _default_voice, Feature.VOICES),
    ),
}
