"""References to bytes, just before they are sent."""

from __future__ import annotations

import base64
from typing import Final

from spear.ir import AudioPart, ChatMessage, ChatRequest, ImagePart, InlineMedia, RequestEnvelope, trusted
from spear.media import MediaAccess, MediaBytes

MAX_PART_BYTES: Final = 32 * 1024 * 1024
"""Of the media of one chat message; more than any provider takes in one body."""

_inline = trusted(InlineMedia)


def inlined(media: MediaBytes) -> InlineMedia:
    return _inline(mime=media.mime, data=base64.b64encode(media.data).decode("ascii"))


async def with_inline_media(request: RequestEnvelope, chat: ChatRequest, media: MediaAccess) -> ChatRequest:
    """`chat` with the bytes of all stored and remote media in place of their references; itself where there are none.
    Raises `CallerError` for those that cannot be had."""
    if all(message.content_parts is None for message in chat.messages):
        return chat
    messages = [await _with_bytes(message, request.task_id, media) for message in chat.messages]
    return chat.model_copy(update={"messages": tuple(messages)})


async def _with_bytes(message: ChatMessage, task_id: str | None, media: MediaAccess) -> ChatMessage:
    if message.content_parts is None:
        return message
    parts = []
    for part in message.content_parts:
        if isinstance(part, ImagePart | AudioPart) and not isinstance(part.media, InlineMedia):
            loaded = await media.load(part.media, task_id=task_id, max_bytes=MAX_PART_BYTES)
            part = part.model_copy(update={"media": inlined(loaded)})
        parts.append(part)
    return message.model_copy(update={"content_parts": tuple(parts)})
