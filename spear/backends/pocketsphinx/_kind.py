"""The kind and its adapter.

Options: `workers`, processes at a time (1 to 16, default 2; each takes about 100 MiB). `limits.max_audio_seconds` is
600 by default, and 3600 at most.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from spear.backends._local import (
    BadAudio,
    Pcm,
    Pool,
    Worker,
    broken,
    integer,
    limit,
    not_done_here,
    only_known,
    read_wav,
    start_worker,
)
from spear.backends._protocol import Adapter, Answer, Call, Finished, Host, StreamItem
from spear.config import InstanceConfig
from spear.ir import (
    Capabilities,
    Feature,
    Hosting,
    Limits,
    Operation,
    RequestEnvelope,
    SegmentEvent,
    SpeechSegment,
    SpeechToTextRequest,
    SpeechToTextResult,
    Started,
    Transport,
    Usage,
    UsageEvent,
    invalid_request,
)
from spear.media import MediaAccess, MediaBytes

MAX_SECONDS: Final = 600
MOST_SECONDS: Final = 3600
MAX_BYTES: Final = 128 * 1024 * 1024
"""Of an audio file."""
START_SECONDS: Final = 30.0
HANG_SECONDS: Final = 20.0
HANG_FACTOR: Final = 5.0
"""A worker that has not ended after `HANG_SECONDS` and so many times the length of the audio hangs. It needs about a
third of that length on a machine of 2020."""
_COMMAND: Final = (sys.executable, "-P", str(Path(__file__).with_name("_worker.py")))
_MODEL: Final = "pocketsphinx-en-us"
_WAV_MIMES: Final = frozenset({"audio/wav", "audio/x-wav", "audio/wave", "audio/vnd.wave", "audio/*"})


@dataclass(frozen=True, slots=True)
class _Order:
    samples: bytes
    seconds: float
    timestamps: str


class _Pocketsphinx:
    def __init__(self, instance: InstanceConfig, media: MediaAccess, pool: Pool) -> None:
        self._name = instance.name
        self._model = (instance.model or "").strip() or _MODEL
        self._media = media
        self._pool = pool
        self._max_seconds = _max_seconds(instance)

    async def invoke(self, request: RequestEnvelope, call: Call) -> Answer:
        order = await self._order(request)
        pieces: list[_Piece] = []
        async with self._pool.lease() as worker:
            hearing = _Hearing(worker, order)
            await hearing.begin()
            while piece := await hearing.next_piece():
                pieces.append(piece)
        return self._answer(order, pieces)

    @asynccontextmanager
    async def stream(self, request: RequestEnvelope, call: Call) -> AsyncGenerator[AsyncIterator[StreamItem], None]:
        order = await self._order(request)
        async with self._pool.lease() as worker, aclosing(self._items(worker, order)) as items:
            yield items

    async def _items(self, worker: Worker, order: _Order) -> AsyncGenerator[StreamItem, None]:
        yield Started(backend=self._name, model=self._model)
        pieces: list[_Piece] = []
        hearing = _Hearing(worker, order)
        await hearing.begin()
        while piece := await hearing.next_piece():
            pieces.append(piece)
            for each in _segments(piece, order.timestamps):
                yield SegmentEvent(start_s=each.start_s, end_s=each.end_s, text=each.text)
        answer = self._answer(order, pieces)
        yield UsageEvent(usage=answer.usage)
        yield Finished(answer)

    async def _order(self, request: RequestEnvelope) -> _Order:
        wanted = request.payload
        if not isinstance(wanted, SpeechToTextRequest):
            raise not_done_here(request, "pocketsphinx does speech_to_text only")
        language = (wanted.language or "en").lower().replace("_", "-")
        if language not in {"en", "english"} and not language.startswith("en-"):
            raise not_done_here(request, f"language: is {language[:32]!r}; pocketsphinx knows English only")
        if wanted.diarization:
            raise not_done_here(request, "diarization: pocketsphinx does not tell speakers apart")
        pcm = _read(await self._media.load(wanted.audio, task_id=request.task_id, max_bytes=MAX_BYTES))
        if pcm.seconds > self._max_seconds:
            message = f"is {pcm.seconds:.0f} s long; this backend takes at most {self._max_seconds} s in a request"
            raise invalid_request("audio", message)
        samples = await trio.to_thread.run_sync(_converted, pcm)
        return _Order(samples, pcm.seconds, wanted.timestamps or "segment")

    def _answer(self, order: _Order, pieces: list[_Piece]) -> Answer:
        told = [segment for piece in pieces for segment in _segments(piece, order.timestamps)]
        text = " ".join(piece.text for piece in pieces if piece.words)
        result = SpeechToTextResult(text=text, segments=tuple(told), language="en", duration_s=order.seconds)
        return Answer(result, Usage(audio_seconds=order.seconds), model=self._model)


@dataclass(frozen=True, slots=True)
class _Piece:
    """Speech without a pause in it. Times in seconds."""

    start: float
    end: float
    words: tuple[tuple[str, float, float], ...]

    @property
    def text(self) -> str:
        return " ".join(word for word, _, _ in self.words)


class _Hearing:
    """One audio at one worker. Each of these raises `BackendError` where the worker hangs, dies or talks nonsense."""

    def __init__(self, worker: Worker, order: _Order) -> None:
        self._worker = worker
        self._samples = order.samples
        self._deadline = trio.current_time() + HANG_SECONDS + HANG_FACTOR * order.seconds

    async def begin(self) -> None:
        with trio.move_on_at(self._deadline) as scope:
            await self._worker.give(self._samples)
        if scope.cancelled_caught:
            raise broken("it hangs")

    async def next_piece(self) -> _Piece | None:
        message = None
        with trio.move_on_at(self._deadline) as scope:
            message = await self._worker.next_piece()
        if scope.cancelled_caught:
            raise broken("it hangs")
        return None if message is None else _piece(message)


def _piece(message: dict[str, Any]) -> _Piece:
    try:
        words = tuple((str(word), float(start), float(end)) for word, start, end in message["words"])
        return _Piece(float(message["start"]), float(message["end"]), words)
    except (KeyError, TypeError, ValueError):
        raise broken("it talks nonsense") from None


def _segments(piece: _Piece, timestamps: str) -> Iterator[SpeechSegment]:
    if timestamps == "word":
        for word, start, end in piece.words:
            yield SpeechSegment(start_s=start, end_s=end, text=word)
    elif timestamps == "segment" and piece.words:
        yield SpeechSegment(start_s=piece.start, end_s=piece.end, text=piece.text)


def _read(media: MediaBytes) -> Pcm:
    try:
        pcm = read_wav(media.data)
    except BadAudio as error:
        raise invalid_request("audio", str(error)) from None
    said = media.mime.partition(";")[0].strip().lower()
    if said.startswith(("audio/", "video/")) and said not in _WAV_MIMES:
        raise invalid_request("audio", f"says {said[:64]} and is audio/wav")
    return pcm


def _converted(pcm: Pcm) -> bytes:
    from ._samples import speech_samples  # numpy: late

    return speech_samples(pcm, trio.from_thread.check_cancelled)


class _PocketsphinxKind:
    name = "pocketsphinx"
    capabilities = Capabilities(
        ops=(Operation.SPEECH_TO_TEXT,),
        features=(Feature.STREAM, Feature.TIMESTAMPS, Feature.LANGUAGE),
        transports=(Transport.IN_PROCESS,),
        limits=Limits(max_audio_seconds=MAX_SECONDS, supported_formats=("wav",)),
        hosting=Hosting.LOCAL,
    )

    def check(self, instance: InstanceConfig) -> None:
        only_known(instance, "workers")
        _workers(instance)
        _max_seconds(instance)

    def open(self, instance: InstanceConfig, host: Host) -> AbstractAsyncContextManager[Adapter]:
        return _open(instance, host.media)


@asynccontextmanager
async def _open(instance: InstanceConfig, media: MediaAccess) -> AsyncGenerator[Adapter, None]:
    pool = Pool(_workers(instance), START_SECONDS, partial(start_worker, _COMMAND))
    try:
        yield _Pocketsphinx(instance, media, pool)
    finally:
        await pool.close()


def _workers(instance: InstanceConfig) -> int:
    return integer(instance, "workers", 2, 1, 16)


def _max_seconds(instance: InstanceConfig) -> int:
    return limit(instance, "max_audio_seconds", MAX_SECONDS, MOST_SECONDS)


KIND = _PocketsphinxKind()
