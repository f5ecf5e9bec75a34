"""All operations of one instance, each by its payload."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

from spear.backends._protocol import Answer, Call, StreamItem
from spear.backends._whole import told_whole
from spear.ir import (
    ChatRequest,
    EmbeddingsRequest,
    ErrorCode,
    ImageRequest,
    RequestEnvelope,
    RoutingError,
    SpeechToTextRequest,
    TextToSpeechRequest,
    make_error,
)

from ._chat import ChatAdapter
from ._embeddings import embed
from ._images import draw
from ._operation import Operations
from ._speech import speak, stream_speech
from ._transcription import stream_transcript, transcribe


class OpenAIAdapter:
    def __init__(self, operations: Operations) -> None:
        self._to = operations
        self._chat = ChatAdapter(operations.client, operations.place)

    async def invoke(self, request: RequestEnvelope, call: Call) -> Answer:
        match request.payload:
            case ChatRequest():
                return await self._chat.invoke(request, call)
            case EmbeddingsRequest() as embeddings:
                return await embed(self._to, request, embeddings, call)
            case ImageRequest() as image:
                return await draw(self._to, request, image, call)
            case SpeechToTextRequest() as speech:
                return await transcribe(self._to, request, speech, call)
            case TextToSpeechRequest() as speech:
                return await speak(self._to, request, speech, call)
            case _:
                raise _cannot(request)

    @asynccontextmanager
    async def stream(self, request: RequestEnvelope, call: Call) -> AsyncGenerator[AsyncIterator[StreamItem], None]:
        """Embeddings and images have nothing to tell before they are whole."""
        match request.payload:
            case ChatRequest():
                streamed = self._chat.stream(request, call)
            case SpeechToTextRequest() as speech:
                streamed = stream_transcript(self._to, request, speech, call)
            case TextToSpeechRequest() as speech:
                streamed = stream_speech(self._to, request, speech, call)
            case _:
                answer = await self.invoke(request, call)
                async with aclosing(told_whole(self._to.client.instance.name, answer)) as items:
                    yield items
                return
        async with streamed as items:
            yield items


def _cannot(request: RequestEnvelope) -> RoutingError:
    message = f"this kind of backend does not do {request.operation}"
    return RoutingError(make_error(ErrorCode.MISSING_CAPABILITIES, message, operation=request.operation))
