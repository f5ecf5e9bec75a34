"""Long texts cut between sentences, long audio cut at quiet places; their answers put together again."""

from __future__ import annotations

import base64
import re
from array import array
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

import trio

from spear.dialects.wav import BadAudio, Pcm, header_like, read_wav
from spear.ir import (
    BackendError,
    CallerError,
    ErrorCode,
    Failure,
    InlineMedia,
    Json,
    RequestEnvelope,
    SpearError,
    SpeechSegment,
    SpeechToTextRequest,
    SpeechToTextResult,
    StoredMedia,
    TextToSpeechRequest,
    TextToSpeechResult,
    make_error,
    trusted,
)
from spear.media import MediaAccess, MediaBytes

from ._protocol import Answer
from ._split import Cut, Done, Piece, answers_of, joined_answer, placed, told_failure

JOINABLE: Final = frozenset({None, "wav", "pcm", "mp3"})
"""Formats of speech whose pieces can be put together without decoding them."""
_SENTENCE: Final = re.compile(r".+?(?:(?<![.!?…])[.!?…]++[\"'”’)\]]*+\s++|[。！？]++|\n++|\Z)", re.DOTALL)
"""Each run of marks is looked at once, from its beginning: a text of nothing but full stops must not take hours."""
_BLANK: Final = re.compile(r"\s")
_QUIET_S: Final = 0.02
_SEARCHED: Final = 0.25
"""The share of a piece, at its end, in which a quiet place is looked for."""

MAX_JOINED_BYTES: Final = 64 * 1024 * 1024
"""Of all pieces of one speech, which are in memory to be joined."""

_inline = trusted(InlineMedia)


class CutText(Cut):
    unit = "characters"

    def __init__(
        self, request: RequestEnvelope, payload: TextToSpeechRequest, max_chars: int, media: MediaAccess
    ) -> None:
        self._task_id = request.task_id
        self._media = media
        self._kept: list[StoredMedia] = []
        self.whole = len(payload.input)
        self.pieces = []
        for first, last in sentences(payload.input, max_chars):
            part = payload.model_copy(update={"input": payload.input[first:last]})
            self.pieces.append(Piece(request.model_copy(update={"payload": part}), first, last - 1))

    def took(self, answer: Answer) -> None:
        assert isinstance(answer.payload, TextToSpeechResult)
        audio = answer.payload.audio
        if isinstance(audio, StoredMedia):
            self._kept.append(audio)
        if sum(each.size or 0 for each in self._kept) > MAX_JOINED_BYTES:
            message = f"the speech of the text has more than {MAX_JOINED_BYTES} bytes"
            raise CallerError(make_error(ErrorCode.MEDIA_TOO_LARGE, message))

    async def leave(self) -> None:
        with trio.CancelScope(shield=True):  # some milliseconds each
            for each in self._kept:
                with suppress(SpearError):  # a disk that fails now: it goes when it expires
                    await self._media.delete(each)

    async def joined(self, done: Sequence[Done]) -> Answer:
        given = answers_of(done)
        for piece, answer in done:
            if isinstance(answer, BackendError):  # speech that lacks a sentence is no answer
                raise placed(answer, piece, self)
        loaded: list[MediaBytes] = []
        for answer in given:
            assert isinstance(answer.payload, TextToSpeechResult)
            loaded.append(await self._media.load(answer.payload.audio, task_id=self._task_id))
        data = await trio.to_thread.run_sync(join_audio, loaded)
        audio = await self._media.save(data, loaded[0].mime, task_id=self._task_id)
        lengths = [answer.payload.duration_s for answer in given if isinstance(answer.payload, TextToSpeechResult)]
        known = [length for length in lengths if length is not None]
        duration = sum(known) if len(known) == len(lengths) else None
        extra: dict[str, Json] = {**given[0].payload.extra, "pieces": len(given)}
        return joined_answer(given, TextToSpeechResult(audio=audio, duration_s=duration, extra=extra))


def sentences(text: str, max_chars: int) -> list[tuple[int, int]]:
    """Ranges of whole sentences of at most `max_chars` characters together. A sentence that is longer is cut at its
    last blank that fits, and without one, anywhere."""
    ranges: list[tuple[int, int]] = []
    first = end = 0
    for match in _SENTENCE.finditer(text):
        if match.end() - first > max_chars and end > first:
            ranges.append((first, end))
            first = end
        while match.end() - first > max_chars:
            cut = _last_blank(text, first, first + max_chars)
            ranges.append((first, cut))
            first = cut
        end = match.end()
    if end > first:
        ranges.append((first, end))
    return [(one, other) for one, other in ranges if text[one:other].strip()] or [(0, len(text))]


def _last_blank(text: str, first: int, last: int) -> int:
    for index in range(last, first + 1, -1):
        if text[index - 1].isspace():
            return index
    return last


def join_audio(pieces: Sequence[MediaBytes]) -> bytes:
    """One file of them all; raises `BackendError` where they do not go together."""
    mimes = {piece.mime.partition(";")[0].strip().lower() for piece in pieces}
    if not all(piece.data[:4] == b"RIFF" for piece in pieces):
        if len(mimes) != 1 or not mimes & {"audio/l16", "audio/pcm", "audio/mpeg", "audio/mp3"}:
            raise _broken(f"pieces of speech of type {', '.join(sorted(mimes))} cannot be joined")
        return b"".join(piece.data for piece in pieces)
    try:
        parsed = [read_wav(piece.data) for piece in pieces]
    except BadAudio as error:
        raise _broken(f"a piece of speech is no good WAV file: {error}") from None
    if len({replace(each, data=b"") for each in parsed}) > 1:
        raise _broken("pieces of speech came in different formats")
    samples = b"".join(each.data for each in parsed)
    return header_like(parsed[0], len(samples)) + samples


class CutAudio(Cut):
    """Times are counted in milliseconds."""

    unit = "ms"

    def __init__(self, request: RequestEnvelope, payload: SpeechToTextRequest, pcm: Pcm, most_s: int) -> None:
        self.whole = round(pcm.seconds * 1000)
        self.pieces = []
        self._starts: dict[int, float] = {}
        for first, last in quiet_cuts(pcm, most_s):
            piece = header_like(pcm, last - first) + pcm.data[first:last]
            audio = _inline(mime="audio/wav", data=base64.b64encode(piece).decode("ascii"))
            start_s, end_s = (at / pcm.frame_bytes / pcm.rate for at in (first, last))
            begins = round(start_s * 1000)
            self._starts[begins] = start_s
            part = payload.model_copy(update={"audio": audio})
            self.pieces.append(Piece(request.model_copy(update={"payload": part}), begins, round(end_s * 1000)))

    def start_of(self, piece: Piece) -> float:
        return self._starts[piece.first]

    async def joined(self, done: Sequence[Done]) -> Answer:
        texts: list[str] = []
        segments: list[SpeechSegment] = []
        errors: list[Json] = []
        given = answers_of(done)
        for piece, answer in done:
            if isinstance(answer, BackendError):
                errors.append({"start_s": piece.first / 1000, "end_s": piece.last / 1000, **told_failure(answer)})
                continue
            payload = answer.payload
            assert isinstance(payload, SpeechToTextResult)
            texts.append(payload.text.strip())
            segments += [moved(segment, self.start_of(piece)) for segment in payload.segments]
        first = given[0].payload
        assert isinstance(first, SpeechToTextResult)
        extra: dict[str, Json] = {**first.extra, "boundaries_s": [self.start_of(piece) for piece in self.pieces[1:]]}
        if errors:
            extra["errors"] = errors
        result = SpeechToTextResult(
            text=" ".join(text for text in texts if text),
            segments=tuple(segments),
            language=first.language,
            duration_s=self.whole / 1000,
            extra=extra,
        )
        return joined_answer(given, result, partial=bool(errors))


def moved(segment: Any, seconds: float) -> Any:
    """A segment, or the event of one, later by so much."""
    return segment.model_copy(update={"start_s": segment.start_s + seconds, "end_s": segment.end_s + seconds})


def quiet_cuts(pcm: Pcm, most_s: int) -> list[tuple[int, int]]:
    """Ranges of bytes of at most `most_s` seconds: each is cut at the quietest fiftieth of a second in its last
    quarter, so that words stay whole where there are pauses."""
    ranges = []
    frame, end = pcm.frame_bytes, len(pcm.data)
    longest = most_s * pcm.rate * frame
    first = 0
    while end - first > longest:
        cut = _quietest(pcm, first + longest - int(longest * _SEARCHED) // frame * frame, first + longest)
        ranges.append((first, cut))
        first = cut
    return [*ranges, (first, end)]


def _quietest(pcm: Pcm, first: int, last: int) -> int:
    """The middle of the window with the smallest peak; the end where samples are not 16-bit integers."""
    if pcm.bits != 16 or pcm.floats:
        return last
    window = max(1, int(pcm.rate * _QUIET_S)) * pcm.frame_bytes
    best, found = None, last
    for start in range(first, last - window + 1, window):
        samples = array("h", pcm.data[start : start + window])
        loudest, lowest = max(samples), min(samples)
        peak = max(loudest, -lowest)
        if best is None or peak <= best:
            best, found = peak, start + window // 2 // pcm.frame_bytes * pcm.frame_bytes
    return found


def _broken(what: str) -> BackendError:
    return BackendError(make_error(ErrorCode.BACKEND_ERROR, what), Failure.SERVER)
