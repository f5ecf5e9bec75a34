"""References to bytes, just before they are sent."""

from __future__ import annotations

import base64
from typing import Final

from spear.ir import (
    AudioPart,
    CallerError,
    ChatMessage,
    ChatRequest,
    ErrorCode,
    ImagePart,
    InlineMedia,
    MediaRef,
    RequestEnvelope,
    make_error,
    trusted,
)
from spear.media import MediaAccess, MediaBytes

MAX_PART_BYTES: Final = 32 * 1024 * 1024
"""Of all media of one chat; more than any provider takes in one body. References are short: without a bound over all of
them, one request could name the same large object a thousand times."""

_inline = trusted(InlineMedia)


def inlined(media: MediaBytes) -> InlineMedia:
    return _inline(mime=media.mime, data=base64.b64encode(media.data).decode("ascii"))


async def with_inline_media(request: RequestEnvelope, chat: ChatRequest, media: MediaAccess) -> ChatRequest:
    """`chat` with the bytes of all stored and remote media in place of their references; itself where there are none.
    Raises `CallerError` for those that cannot be had."""
    if all(message.content_parts is None for message in chat.messages):
        return chat
    messages, room = [], MAX_PART_BYTES
    for message in chat.messages:
        changed, size = await _with_bytes(message, request.task_id, media, room)
        messages.append(changed)
        room -= size
    return chat.model_copy(update={"messages": tuple(messages)})


async def _with_bytes(
    message: ChatMessage, task_id: str | None, media: MediaAccess, room: int
) -> tuple[ChatMessage, int]:
    """The message, and how many bytes were put into it: at most `room`."""
    if message.content_parts is None:
        return message, 0
    parts, size = [], 0
    for part in message.content_parts:
        if isinstance(part, ImagePart | AudioPart) and not isinstance(part.media, InlineMedia):
            loaded = await _loaded(media, part.media, task_id, room - size)
            size += len(loaded.data)
            part = part.model_copy(update={"media": inlined(loaded)})
        parts.append(part)
    return message.model_copy(update={"content_parts": tuple(parts)}), size


async def _loaded(media: MediaAccess, ref: MediaRef, task_id: str | None, room: int) -> MediaBytes:
    try:
        return await media.load(ref, task_id=task_id, max_bytes=room)
    except CallerError as error:
        if error.code is not ErrorCode.MEDIA_TOO_LARGE or room == MAX_PART_BYTES:
            raise
        message = f"the images and sounds of a chat may have {MAX_PART_BYTES} bytes in all; these have more"
        raise CallerError(make_error(ErrorCode.MEDIA_TOO_LARGE, message)) from None
