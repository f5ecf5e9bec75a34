"""Text to speech: bytes that go to the media store as they come, never whole in memory."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Final

from spear.backends._http import Received, broken_answer, json_of
from spear.backends._protocol import Answer, Call, Finished, StreamItem
from spear.dialects.openai_audio import ENOUGH, MIME_OF, speech_body, speech_format, whole_speech, wrong_speech
from spear.ir import (
    AudioDelta,
    RequestEnvelope,
    Started,
    TextToSpeechRequest,
    TextToSpeechResult,
    Usage,
    UsageEvent,
    dump_json,
)
from spear.media import MediaWriting

from ._operation import MAX_MEDIA, Operations
from ._told import check_error

_PIECE: Final = 48 * 1024
"""Bytes of one audio delta: 64 KiB in base64."""
_UNKNOWN: Final = "mp3"
"""What this dialect's servers send where nobody says what."""


class _Speech:
    """What has begun to come, and where it goes."""

    def __init__(self, kind: str, first: bytes, received: Received, writing: MediaWriting) -> None:
        self.kind = kind
        self._first = first
        self._received = received
        self._writing = writing
        self._size = 0

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Each as it has been stored."""
        data: bytes | None = self._first
        while data is not None:
            self._size += len(data)
            if self._size > MAX_MEDIA:
                raise broken_answer("response too large")
            await self._writing.write(data)
            yield data
            data = await self._received.more()

    async def answer(self, speech: TextToSpeechRequest) -> Answer:
        whole_speech(self._first, self.kind, self._size)
        stored = await self._writing.commit()
        return Answer(TextToSpeechResult(audio=stored), Usage(characters=len(speech.input), estimated=True))


async def speak(to: Operations, request: RequestEnvelope, speech: TextToSpeechRequest, call: Call) -> Answer:
    async with _begun(to, request, speech, call, stream=False) as begun, aclosing(begun.pieces()) as pieces:
        async for _ in pieces:
            pass
        return await begun.answer(speech)


@asynccontextmanager
async def stream_speech(
    to: Operations, request: RequestEnvelope, speech: TextToSpeechRequest, call: Call
) -> AsyncGenerator[AsyncIterator[StreamItem], None]:
    async with (
        _begun(to, request, speech, call, stream=True) as begun,
        aclosing(begun.pieces()) as pieces,
        aclosing(_deltas(to.client.instance.name, speech, begun, pieces)) as items,
    ):
        yield items


@asynccontextmanager
async def _begun(
    to: Operations, request: RequestEnvelope, speech: TextToSpeechRequest, call: Call, *, stream: bool
) -> AsyncGenerator[_Speech, None]:
    model = to.model(speech)
    body = dump_json(speech_body(speech, model=model, voice=to.options.voice))
    url = to.url("/audio/speech", model)
    async with to.client.post(url, body, call, streamed=stream, accept=b"*/*") as received:
        if received.is_json:
            check_error(await json_of(received, to.client.mask), to.client.redact)
            raise wrong_speech("it is JSON")
        first = await _first(received)
        kind = speech_format(first, speech.format, received.media_type) or _UNKNOWN
        async with to.media.write(MIME_OF[kind], task_id=request.task_id) as writing:
            yield _Speech(kind, first, received, writing)


async def _deltas(
    backend: str, speech: TextToSpeechRequest, begun: _Speech, pieces: AsyncIterator[bytes]
) -> AsyncGenerator[StreamItem, None]:
    yield Started(backend=backend)
    async for data in pieces:
        for start in range(0, len(data), _PIECE):
            yield AudioDelta(audio=base64.b64encode(data[start : start + _PIECE]).decode("ascii"), format=begun.kind)
    answer = await begun.answer(speech)
    yield UsageEvent(usage=answer.usage)
    yield Finished(answer)


async def _first(received: Received) -> bytes:
    """Enough to tell what it is."""
    data = b""
    while len(data) < ENOUGH and (more := await received.more()) is not None:
        received.first_event_came()
        data += more
    if not data:
        raise wrong_speech("it is empty")
    return data
