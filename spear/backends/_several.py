"""Calls an adapter once for each piece of a request that it would not take whole, one after the other.

A piece after the first that fails for a passing reason is sent once more; the pieces before it are not lost then.
What fails for good fails the request, with the place in its message, unless the request names the step `partial`:
then what failed is told item by item in the answer, and a batch that the backend calls wrong is halved to find the
item that is.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import trio

from spear.dialects.wav import BadAudio, header_like, read_wav, without_samples
from spear.ir import (
    AudioDelta,
    BackendError,
    ContentDelta,
    EmbeddingsRequest,
    ErrorCode,
    Failure,
    Limits,
    RequestEnvelope,
    SegmentEvent,
    SpeechToTextRequest,
    Started,
    TextToSpeechRequest,
    UsageEvent,
    invalid_request,
    make_error,
)
from spear.media import MediaAccess

from ._protocol import Adapter, Answer, Call, Finished, StreamItem
from ._split import Cut, CutEmbeddings, Done, Piece, answers_of, placed, wants_partial
from ._split_speech import JOINABLE, CutAudio, CutText, moved

_AGAIN: Final = 3
"""How often pieces of one request are sent once more, in all."""
MAX_CALLS: Final = 4096
"""For one request: its rate counts it once."""
_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 10.0
_MOST_HALVES: Final = 64
_MOST_IN_A_ROW: Final = 3
"""Pieces that fail one after the other for reasons of the backend's; then it is down, and the rest is not sent."""
_ITS_FAULT: Final = frozenset({Failure.REQUEST, Failure.CONTEXT_WINDOW, Failure.REFUSED})


def splits(limits: Limits) -> bool:
    """Whether anything might have to be cut."""
    return not (limits.max_batch is limits.max_chars is limits.max_audio_seconds is None)


async def cut_for(request: RequestEnvelope, limits: Limits, media: MediaAccess) -> Cut | None:
    """How to send it in several calls; None where one call is enough, or nothing else is possible."""
    payload = request.payload
    cut: Cut | None = None
    match payload:
        case EmbeddingsRequest():
            cut = CutEmbeddings(request, payload, limits)
        case TextToSpeechRequest() if limits.max_chars and len(payload.input) > limits.max_chars:
            if not payload.ssml and payload.format in JOINABLE:
                cut = CutText(request, payload, limits.max_chars, media)
        case SpeechToTextRequest() if limits.max_audio_seconds:
            cut = await _cut_audio(request, payload, limits.max_audio_seconds, media)
    if cut is None or len(cut.pieces) <= 1:
        return None
    if len(cut.pieces) > MAX_CALLS:
        raise invalid_request(
            "payload", f"would take {len(cut.pieces)} calls of this backend; at most {MAX_CALLS} are made"
        )
    return cut


async def _cut_audio(
    request: RequestEnvelope, payload: SpeechToTextRequest, most_s: int, media: MediaAccess
) -> Cut | None:
    loaded = await media.load(payload.audio, task_id=request.task_id)
    try:
        pcm = read_wav(loaded.data)
    except BadAudio:
        return None  # how long it is, is for the backend to find out
    if pcm.seconds <= most_s:
        return None
    make = partial(CutAudio, request, payload, pcm, most_s)
    return await trio.to_thread.run_sync(make)


async def invoke_all(adapter: Adapter, request: RequestEnvelope, cut: Cut, call: Call) -> Answer:
    try:
        return await _invoke_all(adapter, request, cut, call)
    finally:
        await cut.leave()


async def _invoke_all(adapter: Adapter, request: RequestEnvelope, cut: Cut, call: Call) -> Answer:
    takes_partial = wants_partial(request)
    done: list[Done] = []
    left = list(reversed(cut.pieces))
    again, halves, in_a_row = _AGAIN, _MOST_HALVES, 0
    while left:
        piece = left.pop()
        try:
            answer = await adapter.invoke(piece.request, call)
            done.append((piece, answer))
            cut.took(answer)
            in_a_row = 0
        except BackendError as error:
            if again and done and error.error.retryable:
                again -= 1
                left.append(piece)
                await _pause(error, call)
                continue
            if not takes_partial:
                raise placed(error, piece, cut) from None
            smaller = cut.halves(piece) if halves and error.failure in _ITS_FAULT else ()
            if smaller:
                halves -= 1
                left += reversed(smaller)
                continue
            done.append((piece, error))
            in_a_row = 0 if error.failure in _ITS_FAULT else in_a_row + 1
            if in_a_row == _MOST_IN_A_ROW:
                done += [(unsent, error) for unsent in reversed(left)]
                break
    first = done[0][1]
    if isinstance(first, BackendError) and not answers_of(done):
        raise first
    return await cut.joined(done)


async def stream_all(adapter: Adapter, cut: Cut, call: Call, send: Callable[[StreamItem], Awaitable[None]]) -> None:
    """The pieces' events, one after the other, as those of one stream. A piece that fails ends it."""
    done: list[Done] = []
    try:
        for piece in cut.pieces:
            try:
                answer = await _stream_piece(adapter, piece, cut, call, send)
            except BackendError as error:
                raise placed(error, piece, cut) from None
            done.append((piece, answer))
            cut.took(answer)
        whole = await cut.joined(done)
    finally:
        await cut.leave()
    await send(UsageEvent(usage=whole.usage))
    await send(Finished(whole))


async def _stream_piece(
    adapter: Adapter, piece: Piece, cut: Cut, call: Call, send: Callable[[StreamItem], Awaitable[None]]
) -> Answer:
    """All but its usage and its end, and of all pieces one beginning."""
    part = _Part(piece, cut)
    answer: Answer | None = None
    async with adapter.stream(piece.request, call) as items:
        async for item in items:  # to its end, which gives the connection back
            if isinstance(item, Finished):
                answer = item.answer
            elif not isinstance(item, UsageEvent) and not (isinstance(item, Started) and piece.first):
                await send(part.of(item))
    if answer is not None:
        return answer
    error = make_error(ErrorCode.STREAM_TRUNCATED, "the backend's stream ended without its end")
    raise BackendError(error, Failure.SERVER)


class _Part:
    """The events of one piece, as those of the whole stream."""

    def __init__(self, piece: Piece, cut: Cut) -> None:
        self._first = piece.first == 0
        self._moved_by = cut.start_of(piece)
        self._began = False

    def of(self, item: StreamItem) -> StreamItem:
        match item:
            case SegmentEvent():
                return moved(item, self._moved_by) if self._moved_by else item
            case ContentDelta(delta=text) if not self._began and text:
                self._began = True
                return item if self._first else item.model_copy(update={"delta": f" {text}"})
            case AudioDelta(audio=audio) if not self._began and audio:
                self._began = True
                return item.model_copy(update={"audio": self._headed(audio)})
            case _:
                return item

    def _headed(self, audio: str) -> str:
        """Of WAV files one after the other only the first has a header, which does not know how much will come."""
        data = base64.b64decode(audio)
        try:
            form, start = without_samples(data)
        except BadAudio:
            return audio
        header = header_like(form, None) if self._first else b""
        return base64.b64encode(header + data[start:]).decode("ascii")


async def _pause(error: BackendError, call: Call) -> None:
    """Raises `error` where the deadline comes first."""
    asked = error.error.retry_after_ms
    seconds = _PAUSE_S if asked is None else asked / 1000
    if seconds > _LONGEST_PAUSE_S or trio.current_time() + seconds >= call.deadline:
        raise error
    await trio.sleep(seconds)
