"""Bytes to references: small data stays in the request, larger data goes to the media store."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from typing import Final

from spear.ir import (
    AudioPart,
    ChatMessage,
    ChatRequest,
    ImagePart,
    ImageRequest,
    InlineMedia,
    MediaRef,
    RequestEnvelope,
    SpeechToTextRequest,
)
from spear.media import MediaAccess

INLINE_BYTES: Final = 64 * 1024
"""The most that a request carries in place, where the host says nothing else (`media.max_inline_bytes`)."""


async def reference(
    data: bytes, mime: str, media: MediaAccess, *, task_id: str | None, inline_bytes: int = INLINE_BYTES
) -> MediaRef:
    """Raises `CallerError` where the store does not take it."""
    if len(data) <= inline_bytes:
        return InlineMedia(mime=mime, data=base64.b64encode(data).decode("ascii"))
    return await media.save(data, mime, task_id=task_id)


async def with_stored_media(
    request: RequestEnvelope, media: MediaAccess, *, inline_bytes: int = INLINE_BYTES
) -> RequestEnvelope:
    """The request with a stored object in place of all inline data that is too large; itself where there is none.
    Raises `CallerError` where the store does not take it."""

    async def stored(ref: MediaRef) -> MediaRef:
        if not isinstance(ref, InlineMedia) or len(ref.data) * 3 // 4 <= inline_bytes:
            return ref
        data = ref.decode()  # padding may have made it seem larger by two bytes
        if len(data) <= inline_bytes:
            return ref
        return await media.save(data, ref.mime, task_id=request.task_id)

    payload = request.payload
    changed: object = payload
    match payload:
        case ChatRequest():
            changed = await _chat(payload, stored)
        case ImageRequest():
            image = None if payload.image is None else await stored(payload.image)
            mask = None if payload.mask is None else await stored(payload.mask)
            if image is not payload.image or mask is not payload.mask:
                changed = payload.model_copy(update={"image": image, "mask": mask})
        case SpeechToTextRequest():
            audio = await stored(payload.audio)
            if audio is not payload.audio:
                changed = payload.model_copy(update={"audio": audio})
        case _:
            pass
    return request if changed is payload else request.model_copy(update={"payload": changed})


async def _chat(chat: ChatRequest, stored: Callable[[MediaRef], Awaitable[MediaRef]]) -> ChatRequest:
    if all(message.content_parts is None for message in chat.messages):
        return chat
    messages = [await _message(message, stored) for message in chat.messages]
    if all(new is old for new, old in zip(messages, chat.messages, strict=True)):
        return chat
    return chat.model_copy(update={"messages": tuple(messages)})


async def _message(message: ChatMessage, stored: Callable[[MediaRef], Awaitable[MediaRef]]) -> ChatMessage:
    parts = []
    changed = False
    for part in message.content_parts or ():
        if isinstance(part, ImagePart | AudioPart):
            ref = await stored(part.media)
            if ref is not part.media:
                part, changed = part.model_copy(update={"media": ref}), True
        parts.append(part)
    return message.model_copy(update={"content_parts": tuple(parts)}) if changed else message
