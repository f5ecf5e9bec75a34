"""What a decision may look at: the facts of a request, never its content.

Sizes are estimates made for limits and budgets: a token is taken to be four characters, text counts one byte a
character. The keys that requests can be kept together by stand here only as hashes.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Final, NamedTuple

from spear.backends._split_speech import JOINABLE
from spear.ir import (
    AudioPart,
    ChatMessage,
    ChatRequest,
    EmbeddingsRequest,
    Feature,
    ImagePart,
    ImageRequest,
    InlineMedia,
    Json,
    MediaRef,
    Operation,
    RequestEnvelope,
    RequestPayload,
    SpeechToTextRequest,
    StoredMedia,
    TextToSpeechRequest,
)

from ._affinity import Affinity as Affinity
from ._affinity import hash_name as hash_name
from ._latency import Timing
from ._verdict import Verdict

_CHARS_PER_TOKEN: Final = 4
_MOST: Final = 1 << 53
"""Of any number that a caller names. More is as good as no bound, and arithmetic with it can overflow."""
_NAME_CHARS: Final = 128
"""Of a task or an execution, as far as it is kept. No configured task has a longer id."""
_DIGITS: Final = 15
_STREAM: Final = Feature.STREAM.value


class Sizes(NamedTuple):
    """`size` is an image's longer side in pixels; `format` and `voice` are what the caller names, else None."""

    chars: int = 0
    media_bytes: int = 0
    tool_chars: int = 0
    output_tokens: int = 0
    batch: int = 1
    images: int = 1
    size: int = 0
    format: str | None = None
    voice: str | None = None
    splits: bool = False
    """It may be sent in several calls, so that what one call takes at most is no reason to refuse it."""


class Facts(NamedTuple):
    operation: Operation
    model: str
    task_id: str | None
    backend: str | None
    allowlist: tuple[str, ...]
    denylist: tuple[str, ...]
    ops: tuple[Operation, ...]
    features: tuple[str, ...]
    transports: tuple[str, ...]
    preferred_backends: tuple[str, ...]
    preferred_features: tuple[str, ...]
    policy: str | None
    policy_options: tuple[str, ...]
    sizes: Sizes
    input_tokens: int
    """Estimated."""
    tokens: int
    """Estimated, input and the most that was allowed for the output."""
    affinity: Affinity
    execution_id: str | None = None
    """The run of the guest that asks."""
    degraded: tuple[str, ...] = ()
    """Why `model` is not the one that was asked for."""
    mirrored: bool = False
    """It is the host's own, in comparison: no task and no guest pays for it."""
    verdict: Verdict | None = None
    """What the route's external filter said, where there is one."""

    @property
    def timing(self) -> Timing:
        """Whose times this request's are to be compared with."""
        return self.operation, _STREAM in self.features

    @property
    def payload_bytes(self) -> int:
        sizes = self.sizes
        return sizes.chars + sizes.tool_chars + sizes.media_bytes


def facts_of(request: RequestEnvelope) -> Facts:
    routing, needs, policy = request.routing, request.requirements, request.policy
    sizes = _sizes(request.payload)
    input_tokens = estimate_tokens(sizes.chars + sizes.tool_chars)
    return Facts(
        operation=request.operation,
        model=request.model,
        task_id=_shortened(request.task_id),
        backend=routing.backend,
        allowlist=routing.allowlist,
        denylist=routing.denylist,
        ops=needs.required_ops,
        features=needs.required_features,
        transports=needs.required_transports,
        preferred_backends=needs.preferred_backends,
        preferred_features=needs.preferred_features,
        policy=None if policy is None else policy.name,
        policy_options=() if policy is None else tuple(policy.options),
        sizes=sizes,
        input_tokens=input_tokens,
        tokens=input_tokens + sizes.output_tokens,
        affinity=Affinity.of(request),
        execution_id=_shortened(request.meta.execution_id),
    )


def _shortened(name: str | None) -> str | None:
    """A longer one by its beginning and a digest: budgets keep thousands of them."""
    if name is None or len(name) <= _NAME_CHARS:
        return name
    digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return f"{name[: _NAME_CHARS - len(digest) - 1]}~{digest}"


def estimate_tokens(chars: int) -> int:
    """Rounded up."""
    return -(-chars // _CHARS_PER_TOKEN)


def _sizes(payload: RequestPayload) -> Sizes:
    match payload:
        case ChatRequest():
            return _chat_sizes(payload)
        case EmbeddingsRequest(input=texts):
            return Sizes(chars=sum(map(len, texts)), batch=len(texts), splits=True)
        case ImageRequest():
            media = _media_bytes(payload.image) + _media_bytes(payload.mask)
            return Sizes(
                chars=len(payload.prompt),
                media_bytes=media,
                images=min(payload.n or 1, _MOST),
                size=_longer_side(payload.size),
            )
        case SpeechToTextRequest():
            return Sizes(chars=len(payload.prompt or ""), media_bytes=_media_bytes(payload.audio))
        case TextToSpeechRequest():
            return Sizes(
                chars=len(payload.input),
                format=payload.format,
                voice=payload.voice,
                splits=not payload.ssml and payload.format in JOINABLE,
            )
        case _:
            session = payload.session
            return Sizes(chars=len(session.instructions or ""), format=session.output_audio_format, voice=session.voice)


def _chat_sizes(chat: ChatRequest) -> Sizes:
    chars = media = 0
    for message in chat.messages:
        content = message.content
        if type(content) is str:
            chars += len(content)
        elif content is not None:
            chars += json_chars(content)
        if message.content_parts is not None:
            chars += len(message.text())
            media += _parts_bytes(message)
        for call in message.tool_calls:
            chars += len(call.function.name) + len(call.function.arguments)
    tools = sum(map(json_chars, chat.tools)) if chat.tools else 0
    return Sizes(
        chars=chars, media_bytes=media, tool_chars=tools, output_tokens=min(chat.generation.max_tokens or 0, _MOST)
    )


def _parts_bytes(message: ChatMessage) -> int:
    parts = message.content_parts or ()
    return sum(_media_bytes(part.media) for part in parts if isinstance(part, ImagePart | AudioPart))


def json_chars(value: Json | Sequence[Json]) -> int:
    """The characters of all strings in a JSON value, keys included; other scalars count 4."""
    total, left = 0, [value]
    while left:
        each = left.pop()
        if isinstance(each, str):
            total += len(each)
        elif isinstance(each, dict):
            total += sum(map(len, each))
            left += each.values()
        elif isinstance(each, list | tuple):
            left += each
        else:
            total += 4
    return total


def _media_bytes(media: MediaRef | None) -> int:
    match media:
        case InlineMedia(data=data):
            return len(data) * 3 // 4
        case StoredMedia(size=size):
            return min(size or 0, _MOST)
        case _:
            return 0


def _longer_side(size: str | None) -> int:
    """`1024x768` -> 1024; what is no such text (`auto`) -> 0. A number that nobody would write is very large."""
    numbers = (size or "").lower().split("x")
    if not all(each.isascii() and each.isdigit() for each in numbers):
        return 0
    return max(int(each) if len(each) <= _DIGITS else _MOST for each in numbers)
