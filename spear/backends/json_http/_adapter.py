"""The adapter: an IR request to one HTTP exchange as the options say it, and its answer to the IR."""

from __future__ import annotations

import base64
import binascii
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Final, NoReturn

from pydantic import JsonValue

from spear.backends._http import HttpClient, json_of, redacted, vectors_of
from spear.backends._kept import keep_all
from spear.backends._lacking import without
from spear.backends._protocol import Answer, Call, StreamItem
from spear.backends._resolve import with_inline_media
from spear.backends._whole import told_whole
from spear.dialects.openai_audio import MIME_OF, format_of, speech_format, whole_speech
from spear.dialects.openai_chat import fill_usage, message_from_wire, one_line, provider_error_text
from spear.dialects.openai_embeddings import embeddings_of
from spear.dialects.openai_images import MAX_PICTURES, checked_image
from spear.ir import (
    AudioDelta,
    BackendError,
    ChatChoice,
    ChatMessage,
    ChatRequest,
    ChatResult,
    ContentDelta,
    EmbeddingsRequest,
    EmbeddingsResult,
    ErrorCode,
    Failure,
    ImageRequest,
    ImageResult,
    ReasoningDelta,
    RequestEnvelope,
    ResultPayload,
    RoutingError,
    SpeechToTextRequest,
    SpeechToTextResult,
    StreamEvent,
    TextToSpeechRequest,
    TextToSpeechResult,
    ToolCallDelta,
    Usage,
    dump_json,
    make_error,
)
from spear.media import MediaBytes

from ._pointer import MISSING
from ._settings import OperationSettings, Settings
from ._values import unsaid, value_of

MAX_MEDIA: Final = 64 * 1024 * 1024
_MAX_BODY: Final = 96 * 1024 * 1024
"""Of an answer that has media in base64."""
_PIECE: Final = 65_536


class JsonAdapter:
    def __init__(self, client: HttpClient, settings: Settings) -> None:
        self._instance = client.instance
        self._client = client
        self._settings = settings

    async def invoke(self, request: RequestEnvelope, call: Call) -> Answer:
        settings = self._settings.operations.get(request.operation)
        if settings is None:
            message = f"the options of this backend do not describe {request.operation.value}"
            raise RoutingError(make_error(ErrorCode.MISSING_CAPABILITIES, message, operation=request.operation))
        degraded = without(request, unsaid(request.payload, settings.body.names), "the description of this backend")
        content = dump_json(await self._body(request, settings))
        url = self._client.url(settings.path)
        async with self._client.post(url, content, call, method=settings.method) as received:
            if isinstance(request.payload, EmbeddingsRequest):
                value = await vectors_of(received, self._client.mask, len(request.payload.input))
            elif isinstance(request.payload, ImageRequest | TextToSpeechRequest):
                value = await json_of(received, self._client.mask, limit=_MAX_BODY, exact=False)
            else:
                value = await json_of(received, self._client.mask)
        reading = _Reading(settings, value)
        if settings.error is not None and (told := settings.error.find(value)) not in (MISSING, None, False, ""):
            text = provider_error_text(redacted(told, self._client.redact))  # type: ignore[arg-type]
            reading.fail(one_line(f"error in an answer with status 200: {text}".rstrip(": ")))
        payload, usage = await self._read(request, reading)
        model = reading.text("answer_model") or ""
        return Answer(payload, usage, model, degraded, raw=value if self._client.host.debug_raw else None)

    @asynccontextmanager
    async def stream(self, request: RequestEnvelope, call: Call) -> AsyncGenerator[AsyncIterator[StreamItem], None]:
        """The whole answer, told at once: nothing is known of how such a server would stream."""
        answer = await self.invoke(request, call)
        sound = await self._sound(answer, request.task_id)
        async with aclosing(_items(self._instance.name, answer, sound)) as items:
            yield items

    async def _sound(self, answer: Answer, task_id: str | None) -> list[StreamEvent]:
        """What was said, in the pieces in which a stream tells it."""
        if not isinstance(answer.payload, TextToSpeechResult):
            return []
        data = (await self._client.host.media.load(answer.payload.audio, task_id=task_id)).data
        form = format_of(data) or ""
        pieces = (data[start : start + _PIECE] for start in range(0, len(data), _PIECE))
        return [AudioDelta(audio=base64.b64encode(piece).decode("ascii"), format=form) for piece in pieces]

    async def _body(self, request: RequestEnvelope, settings: OperationSettings) -> dict[str, JsonValue]:
        payload = request.payload
        model = (self._instance.model or "").strip() or payload.model.strip()
        names = settings.body.names
        media: MediaBytes | None = None
        if isinstance(payload, ChatRequest) and "messages" in names:
            payload = await with_inline_media(request, payload, self._client.host.media)
        elif isinstance(payload, SpeechToTextRequest):
            media = await self._client.host.media.load(payload.audio, task_id=request.task_id, max_bytes=MAX_MEDIA)

        def lookup(name: str) -> JsonValue:
            if media is not None and name in {"audio", "mime"}:
                return media.mime if name == "mime" else base64.b64encode(media.data).decode("ascii")
            return value_of(payload, name, model)

        return settings.body.filled(lookup)

    async def _read(self, request: RequestEnvelope, reading: _Reading) -> tuple[ResultPayload, Usage]:
        payload = request.payload
        media = self._client.host.media
        match payload:
            case ChatRequest():
                result = ChatResult(choices=(_choice(reading),), extra={"object": "chat.completion"})
                return result, fill_usage(reading.usage(), payload, result)
            case EmbeddingsRequest():
                return _embeddings(reading, payload)
            case ImageRequest():
                images = [checked_image(data, place) for place, data in enumerate(reading.images())]
                refs = await keep_all([(each.data, each.mime) for each in images], media, task_id=request.task_id)
                usage = reading.usage().model_copy(update={"images": len(refs)})
                return ImageResult(images=refs), usage
            case SpeechToTextRequest():
                duration = reading.number("duration_s")
                usage = reading.usage().model_copy(update={"audio_seconds": duration})
                text, language = reading.needed_text("text"), reading.text("detected_language")
                return SpeechToTextResult(text=text, language=language, duration_s=duration), usage
            case TextToSpeechRequest():
                data = reading.bytes_of(reading.needed_text("audio"), "audio")
                asked = payload.format if "format" in reading.settings.body.names else None
                speech_format(data, asked)
                whole_speech(data, kind := format_of(data), len(data))
                mime = MIME_OF.get(kind, reading.settings.mime)
                ref = await media.save(data, mime, task_id=request.task_id)
                usage = reading.usage().model_copy(update={"characters": len(payload.input)})
                return TextToSpeechResult(audio=ref), usage
            case _:
                raise AssertionError("the settings describe no other operation")


class _Reading:
    """An answer, looked at by the pointers of its operation."""

    def __init__(self, settings: OperationSettings, value: JsonValue) -> None:
        self.settings = settings
        self._value = value

    def fail(self, what: str) -> NoReturn:
        raise BackendError(make_error(ErrorCode.BACKEND_ERROR, what), Failure.SERVER)

    def find(self, key: str) -> JsonValue:
        """None where it is not there, or not described."""
        pointer = self.settings.pointers.get(key)
        found = MISSING if pointer is None else pointer.find(self._value)
        return None if found is MISSING else found  # type: ignore[return-value]

    def text(self, key: str) -> str | None:
        found = self.find(key)
        return found if isinstance(found, str) else None

    def needed_text(self, key: str) -> str:
        found = self.find(key)
        if isinstance(found, list) and found and all(isinstance(each, str) for each in found):
            return "".join(each for each in found if isinstance(each, str))
        if not isinstance(found, str):
            self.fail(f"the answer has no text where options say that its {key} is")
        return found

    def number(self, key: str) -> float | None:
        found = self.find(key)
        if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found <= sys.float_info.max:
            return None
        return float(found)

    def count(self, key: str) -> int | None:
        found = self.find(key)
        return found if type(found) is int and found >= 0 else None

    def usage(self) -> Usage:
        received, sent = self.count("input_tokens"), self.count("output_tokens")
        return Usage(input_tokens=received, output_tokens=sent, estimated=received is None or sent is None)

    def bytes_of(self, text: str, what: str) -> bytes:
        if text.startswith("data:"):
            text = text.partition(",")[2]
        try:
            data = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            self.fail(f"the answer's {what} is not base64")
        if not data:
            self.fail(f"the answer's {what} is empty")
        return data

    def images(self) -> list[bytes]:
        found = self.find("images")
        texts = found if isinstance(found, list) else [found]
        if not texts or len(texts) > MAX_PICTURES:
            self.fail(f"the answer has {len(texts)} images; from 1 to {MAX_PICTURES} can be used")
        made = []
        for place, text in enumerate(texts):
            if not isinstance(text, str):
                self.fail("the answer has no text where options say that its images are")
            made.append(self.bytes_of(text, f"image {place}"))
        return made


def _embeddings(reading: _Reading, request: EmbeddingsRequest) -> tuple[EmbeddingsResult, Usage]:
    found = reading.find("vectors")
    if isinstance(found, list) and found and len(request.input) == 1 and not isinstance(found[0], list | str):
        found = [found]  # the one vector itself
    tokens = reading.count("input_tokens")
    if tokens is None:
        usage = Usage(input_tokens=-(-sum(map(len, request.input)) // 4), estimated=True)
    else:
        usage = Usage(input_tokens=tokens)
    return embeddings_of(found, request, {}), usage


def _choice(reading: _Reading) -> ChatChoice:
    wire: dict[str, JsonValue] = {"role": "assistant"}
    calls = reading.find("tool_calls")
    made = message_from_wire({"tool_calls": calls}).tool_calls if calls else ()
    if calls and not made:
        reading.fail("the answer's tool calls are not in OpenAI's words")
    if made:
        wire["tool_calls"] = calls
        if (said := reading.text("text")) is not None:
            wire["content"] = said
    else:
        wire["content"] = reading.needed_text("text")
    if reasoning := reading.text("reasoning"):
        wire["reasoning_content"] = reasoning
    reason = reading.text("finish_reason") or ("tool_calls" if made else "stop")
    message: ChatMessage = message_from_wire(wire)
    return ChatChoice(index=0, message=message, finish_reason=reason)


def _items(backend: str, answer: Answer, sound: list[StreamEvent]) -> AsyncGenerator[StreamItem, None]:
    deltas = sound
    payload = answer.payload
    message = payload.choices[0].message if isinstance(payload, ChatResult) and payload.choices else None
    if message is not None:
        if isinstance(reasoning := message.extra.get("reasoning_content"), str):
            deltas.append(ReasoningDelta(delta=reasoning))
        if text := message.text():
            deltas.append(ContentDelta(delta=text))
        for index, call in enumerate(message.tool_calls):
            function = call.function
            deltas.append(ToolCallDelta(call_index=index, id=call.id, name=function.name, arguments=function.arguments))
    elif isinstance(payload, SpeechToTextResult):
        deltas.append(ContentDelta(delta=payload.text))
    return told_whole(backend, answer, deltas)
