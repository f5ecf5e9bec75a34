"""The media of a chat, in place of their references: bounded over the whole chat."""

from __future__ import annotations

import pytest

from spear.backends import _resolve
from spear.backends._resolve import with_inline_media
from spear.ir import (
    CallerError,
    ChatMessage,
    ChatRequest,
    ErrorCode,
    ImagePart,
    Operation,
    RequestEnvelope,
)
from spear.media import MediaStore

KIB = 1024


async def test_many_references_to_one_object_are_no_way_around_the_bound(monkeypatch):
    monkeypatch.setattr(_resolve, "MAX_PART_BYTES", 100 * KIB)
    store = MediaStore()
    try:
        ref = await store.save(bytes(30 * KIB), "image/png", task_id=None)

        async def resolved(*parts: int):
            messages = tuple(
                ChatMessage(role="user", content_parts=tuple(ImagePart(media=ref) for _ in range(count)))
                for count in parts
            )
            chat = ChatRequest(messages=messages)
            request = RequestEnvelope(operation=Operation.CHAT_COMPLETIONS, payload=chat)
            return await with_inline_media(request, chat, store)

        chat = await resolved(2, 1)
        assert [len(part.media.decode()) for part in chat.messages[0].content_parts] == [30 * KIB] * 2
        for counts in ((4,), (3, 1), (1, 1, 1, 1)):
            with pytest.raises(CallerError, match="of a chat may have 102400 bytes in all") as caught:
                await resolved(*counts)
            assert caught.value.code is ErrorCode.MEDIA_TOO_LARGE
    finally:
        store.close()
