"""The kind and its adapter.

Options: `voice`, for requests that name none (a language such as "en-us", a name of `espeak-ng --voices`, either with
`+` and a variant such as "en-us+f3"; default "en-us"). `limits.max_chars` is 10 000 by default, and 100 000 at most.
"""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from spear.backends._local import (
    BadAudio,
    limit,
    may,
    not_done_here,
    only_known,
    read_wav,
    wav_bytes,
    wav_header,
)
from spear.backends._protocol import Adapter, Answer, Call, Finished, Host, StreamItem
from spear.config import InstanceConfig
from spear.ir import (
    AudioDelta,
    Capabilities,
    Feature,
    Hosting,
    Limits,
    Operation,
    RequestEnvelope,
    Started,
    TextToSpeechRequest,
    TextToSpeechResult,
    Transport,
    Usage,
    UsageEvent,
    invalid_request,
)
from spear.ir import Failure as _Failure
from spear.media import MediaAccess

from ._process import INSTALL, TooMuch, failed, find_program, run
from ._sentences import sentences
from ._ssml import BadSsml, clean_ssml
from ._voices import Voices, read_voices

FORMATS: Final = ("wav", "pcm")
MAX_CHARS: Final = 10_000
MOST_CHARS: Final = 100_000
MAX_BYTES: Final = 64 * 1024 * 1024
"""Of the samples of one answer: 25 minutes."""
_WORDS: Final = 175
"""A minute, at speed 1."""
_RATE: Final = 22_050
_MODEL: Final = "espeak-ng"
_VOICE: Final = re.compile(r"[A-Za-z0-9_.,()'\-]{1,64}(\+[A-Za-z0-9_\-]{1,32})?")
_LISTING: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class _Order:
    """What is to be said, and how."""

    pieces: tuple[str, ...]
    arguments: tuple[str, ...]
    format: str
    chars: int
    degraded: tuple[str, ...]


class _Espeak:
    def __init__(self, instance: InstanceConfig, media: MediaAccess) -> None:
        self._name = instance.name
        self._model = (instance.model or "").strip() or _MODEL
        self._media = media
        self._voice = _voice(instance)
        self._max_chars = _max_chars(instance)
        self._voices: Voices | None = None

    async def invoke(self, request: RequestEnvelope, call: Call) -> Answer:
        order = await self._order(request)
        samples = bytearray()
        for piece in order.pieces:
            samples += await _say(order, piece, MAX_BYTES - len(samples))
        return await self._answer(request, order, bytes(samples))

    @asynccontextmanager
    async def stream(self, request: RequestEnvelope, call: Call) -> AsyncGenerator[AsyncIterator[StreamItem], None]:
        order = await self._order(request)
        async with aclosing(self._items(request, order)) as items:
            yield items

    async def _items(self, request: RequestEnvelope, order: _Order) -> AsyncGenerator[StreamItem, None]:
        yield Started(backend=self._name, model=self._model)
        samples = bytearray()
        for piece in order.pieces:
            said = await _say(order, piece, MAX_BYTES - len(samples))
            if said:
                head = wav_header(_RATE, None) if order.format == "wav" and not samples else b""
                samples += said
                yield AudioDelta(audio=base64.b64encode(head + said).decode("ascii"), format=order.format)
        answer = await self._answer(request, order, bytes(samples))
        yield UsageEvent(usage=answer.usage)
        yield Finished(answer)

    async def _answer(self, request: RequestEnvelope, order: _Order, samples: bytes) -> Answer:
        if not samples:
            raise invalid_request("input", "has nothing in it that can be said")
        seconds = len(samples) / (2 * _RATE)
        if order.format == "wav":
            data, mime = wav_bytes(samples, _RATE), "audio/wav"
        else:
            data, mime = samples, f"audio/L16;rate={_RATE}"
        audio = await self._media.save(data, mime, task_id=request.task_id)
        usage = Usage(characters=order.chars, audio_seconds=seconds)
        result = TextToSpeechResult(audio=audio, duration_s=seconds)
        return Answer(result, usage, model=self._model, degraded=order.degraded)

    async def _order(self, request: RequestEnvelope) -> _Order:
        wanted = request.payload
        if not isinstance(wanted, TextToSpeechRequest):
            raise not_done_here(request, "espeak does text_to_speech only")
        form = wanted.format or "wav"
        if form not in FORMATS:
            raise not_done_here(request, f"format: is {form}; espeak makes {' and '.join(FORMATS)}")
        if len(wanted.input) > self._max_chars:
            message = f"has {len(wanted.input)} characters; this backend says at most {self._max_chars} in a request"
            raise invalid_request("input", message)
        voice, degraded = await self._find_voice(request, wanted.voice)
        speed = str(min(max(round(_WORDS * (wanted.speed or 1.0)), 80), 700))  # it does no less than 80
        arguments = ("--stdin", "--stdout", "-b", "1", "-v", voice, "-s", speed, *(("-m",) if wanted.ssml else ()))
        pieces = (_markup(wanted.input),) if wanted.ssml else tuple(sentences(wanted.input))
        return _Order(pieces, arguments, form, len(wanted.input), degraded)

    async def _find_voice(self, request: RequestEnvelope, wanted: str | None) -> tuple[str, tuple[str, ...]]:
        voices = await self._all_voices()
        default = voices.find(self._voice)
        if default is None:
            raise failed(f"espeak-ng has no voice {self._voice!r}, which options.voice names", _Failure.SERVER)
        if wanted is None:
            return default, ()
        found = voices.find(wanted) if len(wanted) <= 100 else None
        if found is not None:
            return found, ()
        if may(request, "default_voice"):
            return default, ("default_voice",)
        languages = ", ".join(sorted(code for code in voices.languages if code.startswith(("en", "de", "fr", "es"))))
        message = f"voice: espeak-ng has none called {wanted[:64]!r}; a language does, such as {languages}"
        raise not_done_here(request, message)

    async def _all_voices(self) -> Voices:
        if self._voices is None:
            tables = [await run([option], b"", most=_LISTING) for option in ("--voices", "--voices=variant")]
            self._voices = read_voices(*(table.decode("utf-8", "replace") for table in tables))
        return self._voices


async def _say(order: _Order, piece: str, most: int) -> bytes:
    """Its samples; none where nothing of it can be said."""
    try:
        wav = await run(order.arguments, piece.encode(), most=most)
        return read_wav(wav).data if len(wav) > len(wav_header(_RATE, None)) else b""
    except TooMuch:
        message = f"is more than {MAX_BYTES // (2 * _RATE) // 60} minutes of speech"
        raise invalid_request("input", message) from None
    except BadAudio as error:
        raise failed(f"espeak-ng wrote no audio: {error}", _Failure.SERVER) from None


def _markup(text: str) -> str:
    try:
        return clean_ssml(text)
    except BadSsml as error:
        raise invalid_request("input", f"{error}; it is markup, as ssml says") from None


class _EspeakKind:
    name = "espeak"
    capabilities = Capabilities(
        ops=(Operation.TEXT_TO_SPEECH,),
        features=(Feature.STREAM, Feature.VOICES, Feature.FORMATS, Feature.SSML),
        transports=(Transport.IN_PROCESS,),
        limits=Limits(max_chars=MAX_CHARS, supported_formats=FORMATS),
        hosting=Hosting.LOCAL,
    )

    def check(self, instance: InstanceConfig) -> None:
        only_known(instance, "voice")
        _voice(instance)
        _max_chars(instance)
        if find_program() is None:
            raise ValueError(INSTALL)

    def open(self, instance: InstanceConfig, host: Host) -> AbstractAsyncContextManager[Adapter]:
        return _open(instance, host.media)


@asynccontextmanager
async def _open(instance: InstanceConfig, media: MediaAccess) -> AsyncGenerator[Adapter, None]:
    yield _Espeak(instance, media)


def _voice(instance: InstanceConfig) -> str:
    value = instance.options.get("voice", "en-us")
    if not isinstance(value, str) or not _VOICE.fullmatch(value):
        raise ValueError('options.voice: must be a voice of espeak-ng, such as "en-us" or "en-us+f3"')
    return value


def _max_chars(instance: InstanceConfig) -> int:
    return limit(instance, "max_chars", MAX_CHARS, MOST_CHARS)


KIND = _EspeakKind()
