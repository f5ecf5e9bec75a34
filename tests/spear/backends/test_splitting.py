"""Requests that are larger than their backend takes at once: what its adapter is asked, and what the caller gets."""

from __future__ import annotations

import base64
import hashlib
import struct
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from spear import open_runtime
from spear.backends import Adapter, Answer, Call, Finished, Host, _split_speech
from spear.backends._several import cut_for, invoke_all, stream_all
from spear.backends._split import batches
from spear.backends._split_speech import quiet_cuts, sentences
from spear.config import InstanceConfig
from spear.dialects.wav import read_wav, wav_bytes
from spear.ir import (
    AudioDelta,
    BackendError,
    CallerError,
    Capabilities,
    ContentDelta,
    Degradation,
    EmbeddingsRequest,
    EmbeddingsResult,
    ErrorCode,
    Failure,
    InlineMedia,
    Limits,
    MediaRef,
    Operation,
    RequestEnvelope,
    RequestPayload,
    SegmentEvent,
    SpeechSegment,
    SpeechToTextRequest,
    SpeechToTextResult,
    Started,
    StoredMedia,
    TextToSpeechRequest,
    TextToSpeechResult,
    Transport,
    Usage,
    UsageEvent,
    make_error,
)
from spear.media import MediaBytes
from tests.spear.backends._support import call

PARTIAL = Degradation(mode="allow", steps=("partial",))


class Shelf:
    """Media in memory: what the cutting needs of a store, without one."""

    def __init__(self) -> None:
        self.objects: dict[str, MediaBytes] = {}
        self.saved = 0

    async def save(self, data: bytes, mime: str, *, task_id: str | None) -> StoredMedia:
        await trio.lowlevel.checkpoint()
        self.saved += 1
        uri = f"smsfile://{self.saved}"
        self.objects[uri] = MediaBytes(data, mime)
        return StoredMedia(uri=uri, mime=mime, size=len(data), sha256=hashlib.sha256(data).hexdigest())

    async def load(self, ref: MediaRef, *, task_id: str | None, max_bytes: int | None = None) -> MediaBytes:
        await trio.lowlevel.checkpoint()
        if isinstance(ref, InlineMedia):
            return MediaBytes(ref.decode(), ref.mime)
        assert isinstance(ref, StoredMedia)
        return self.objects[ref.uri]

    async def delete(self, ref: StoredMedia) -> None:
        del self.objects[ref.uri]

    def write(self, mime: str, *, task_id: str | None) -> AbstractAsyncContextManager[Any]:
        raise NotImplementedError

    def read(self, ref: MediaRef, *, task_id: str | None) -> AbstractAsyncContextManager[Any]:
        raise NotImplementedError


class Teller:
    """An adapter that answers as `act` says and remembers what it was asked."""

    def __init__(self, act: Callable[[Any], Answer]) -> None:
        self.act = act
        self.asked: list[Any] = []

    async def invoke(self, request: RequestEnvelope, call: Call) -> Answer:
        await trio.lowlevel.checkpoint()
        self.asked.append(request.payload)
        return self.act(request.payload)

    @asynccontextmanager
    async def stream(self, request: RequestEnvelope, call: Call) -> AsyncGenerator[AsyncIterator[Any], None]:
        async def items() -> AsyncGenerator[Any, None]:
            answer = await self.invoke(request, call)
            yield Started(backend="one", model=answer.model)
            payload: Any = answer.payload
            if isinstance(payload, SpeechToTextResult):
                yield ContentDelta(delta=payload.text)
                for each in payload.segments:
                    yield SegmentEvent(start_s=each.start_s, end_s=each.end_s, text=each.text)
            else:
                data = (await SHELF.load(payload.audio, task_id=None)).data
                for start in range(0, len(data), 64):
                    audio = base64.b64encode(data[start : start + 64]).decode()
                    yield AudioDelta(audio=audio, format="wav")
            yield UsageEvent(usage=answer.usage)
            yield Finished(answer)

        async with aclosing(items()) as told:
            yield told


SHELF = Shelf()


def asking(payload: RequestPayload, **fields: Any) -> RequestEnvelope:
    return RequestEnvelope(operation=Operation(payload.kind), payload=payload, **fields)


def failing(
    failure: Failure = Failure.REQUEST, code: ErrorCode = ErrorCode.BACKEND_ERROR, **fields: Any
) -> BackendError:
    return BackendError(make_error(code, "no such word", **{"retryable": False, **fields}), failure)


def embed(payload: EmbeddingsRequest) -> Answer:
    vectors = tuple((float(len(text)), 1.0) for text in payload.input)
    return Answer(EmbeddingsResult(vectors=vectors, dimensions=2), Usage(input_tokens=len(vectors)), model="m")


async def ask(adapter: Adapter, request: RequestEnvelope, **limits: Any) -> Answer:
    cut = await cut_for(request, Limits(**limits), SHELF)
    assert cut is not None
    return await invoke_all(adapter, request, cut, call())


async def test_a_batch_is_cut_and_joined_in_order() -> None:
    adapter = Teller(embed)
    texts = tuple("x" * length for length in range(7))
    answer = await ask(adapter, asking(EmbeddingsRequest(input=texts, model="m")), max_batch=3)
    assert [len(each.input) for each in adapter.asked] == [3, 3, 1]
    assert isinstance(answer.payload, EmbeddingsResult)
    assert answer.payload.vectors == tuple((float(length), 1.0) for length in range(7))
    assert answer.payload.dimensions == 2
    assert (answer.usage.input_tokens, answer.model, answer.degraded) == (7, "m", ())


async def test_what_fits_is_not_cut() -> None:
    assert await cut_for(asking(EmbeddingsRequest(input=("a", "b"))), Limits(max_batch=2), SHELF) is None
    assert await cut_for(asking(EmbeddingsRequest(input=("a", "b"))), Limits(), SHELF) is None
    assert await cut_for(asking(TextToSpeechRequest(input="Hi.")), Limits(max_chars=3), SHELF) is None


async def test_one_request_does_not_become_any_number_of_calls() -> None:
    request = asking(EmbeddingsRequest(input=("a",) * 4097))
    with pytest.raises(CallerError, match="would take 4097 calls of this backend; at most 4096"):
        await cut_for(request, Limits(max_batch=1), SHELF)


def wrong_word(payload: EmbeddingsRequest) -> Answer:
    if "bad" in payload.input:
        raise failing()
    return embed(payload)


async def test_a_batch_that_fails_fails_the_request_and_says_where() -> None:
    request = asking(EmbeddingsRequest(input=("a", "b", "c", "bad", "e")))
    with pytest.raises(BackendError, match="inputs 2 to 3 of 5: no such word") as caught:
        await ask(Teller(wrong_word), request, max_batch=2)
    assert caught.value.failure is Failure.REQUEST


async def test_with_partial_the_item_that_is_wrong_is_found_and_told() -> None:
    request = asking(EmbeddingsRequest(input=("a", "bb", "bad", "dddd", "e")), degradation=PARTIAL)
    answer = await ask(Teller(wrong_word), request, max_batch=4)
    assert isinstance(answer.payload, EmbeddingsResult)
    assert answer.payload.vectors == ((1.0, 1.0), (2.0, 1.0), (), (4.0, 1.0), (1.0, 1.0))
    assert answer.payload.extra["errors"] == [{"index": 2, "code": "backend_error", "message": "no such word"}]
    assert answer.degraded == ("partial",)


async def test_with_partial_and_nothing_left_it_fails() -> None:
    request = asking(EmbeddingsRequest(input=("bad", "bad")), degradation=PARTIAL)
    with pytest.raises(BackendError, match="no such word"):
        await ask(Teller(wrong_word), request, max_batch=1)


@pytest.mark.parametrize("answered", [0, 5])
async def test_with_partial_a_backend_that_is_down_is_left_alone(autojump_clock: Any, answered: int) -> None:
    def act(payload: EmbeddingsRequest) -> Answer:
        if len(teller.asked) > answered:
            raise failing(Failure.SERVER, retryable=True)
        return embed(payload)

    teller = Teller(act)
    request = asking(EmbeddingsRequest(input=("a",) * 500), degradation=PARTIAL)
    if not answered:
        with pytest.raises(BackendError, match="no such word"):
            await ask(teller, request, max_batch=1)
    else:
        answer = await ask(teller, request, max_batch=1)
        assert isinstance(answer.payload, EmbeddingsResult)
        assert answer.payload.vectors == ((1.0, 1.0),) * answered + ((),) * (500 - answered)
        errors = answer.payload.extra["errors"]
        assert isinstance(errors, list)
        assert [each["index"] for each in errors if isinstance(each, dict)] == list(range(answered, 500))
    assert len(teller.asked) <= answered + 6, "three more tries, and three in a row"


async def test_allowing_all_steps_does_not_allow_holes() -> None:
    request = asking(EmbeddingsRequest(input=("a", "bad")), degradation=Degradation(mode="allow"))
    with pytest.raises(BackendError, match="inputs 1 to 1 of 2"):
        await ask(Teller(wrong_word), request, max_batch=1)


@pytest.mark.parametrize(("fails", "calls"), [(1, 4), (4, None)])
async def test_a_passing_failure_loses_nothing(autojump_clock: Any, fails: int, calls: int | None) -> None:
    left = [fails]

    def act(payload: EmbeddingsRequest) -> Answer:
        if "c" in payload.input and left[0]:
            left[0] -= 1
            raise failing(Failure.RATE_LIMIT, ErrorCode.RATE_LIMITED, retryable=True, retry_after_ms=2000)
        return embed(payload)

    adapter = Teller(act)
    request = asking(EmbeddingsRequest(input=("a", "b", "c")))
    began = trio.current_time()
    if calls is None:
        with pytest.raises(BackendError, match="inputs 2 to 2 of 3"):
            await ask(adapter, request, max_batch=1)
        return
    await ask(adapter, request, max_batch=1)
    assert len(adapter.asked) == calls
    assert trio.current_time() - began == pytest.approx(2.0)


async def test_a_batch_with_too_few_vectors_is_no_answer() -> None:
    def act(payload: EmbeddingsRequest) -> Answer:
        return Answer(EmbeddingsResult(vectors=((1.0,),)), Usage())

    with pytest.raises(BackendError, match="a batch of 2 inputs came back as 1 vectors"):
        await ask(Teller(act), asking(EmbeddingsRequest(input=("a", "b", "c"))), max_batch=2)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.integers(1, 10), st.none() | st.integers(1, 20))
@settings(max_examples=50)
def test_batches_cover_all_and_keep_their_bounds(sizes: list[int], most: int, chars: int | None) -> None:
    texts = ["x" * size for size in sizes]
    ranges = batches(texts, Limits(max_batch=most, max_chars=chars))
    assert [index for first, last in ranges for index in range(first, last)] == list(range(len(texts)))
    for first, last in ranges:
        assert 1 <= last - first <= most
        assert chars is None or last - first == 1 or sum(sizes[first:last]) <= chars


@given(st.text("ab .!?\n。", max_size=80), st.integers(1, 30))
@settings(max_examples=50)
def test_sentences_lose_nothing_but_blanks(text: str, most: int) -> None:
    ranges = sentences(text, most)
    for first, last in ranges:
        assert last - first <= max(most, len(text) if not text.strip() else most)
    kept = "".join(text[first:last] for first, last in ranges)
    assert kept.split() == text.split() or "".join(kept.split()) == "".join(text.split())


@pytest.mark.parametrize("text", ["." * 262_144, '."' * 131_072, "." * 131_072 + '"' * 131_072, "!?" * 131_072])
def test_a_text_of_marks_is_cut_in_no_time(text: str) -> None:
    began = time.process_time()
    assert sum(last - first for first, last in sentences(text, 1000)) == len(text)
    assert time.process_time() - began < 2  # each mark looked at once more for every other: minutes


def test_sentences_stay_whole_where_they_fit() -> None:
    text = "One is here. Two is there! And the third one is rather longer than that."
    parts = [text[first:last] for first, last in sentences(text, 30)]
    assert parts == ["One is here. Two is there! ", "And the third one is rather ", "longer than that."]


def tone(seconds: float, rate: int = 8000, *, quiet_at: float | None = None) -> bytes:
    count = int(seconds * rate)
    quiet = None if quiet_at is None else int(quiet_at * rate)
    samples = [
        0 if quiet is not None and abs(index - quiet) < rate // 40 else (3000 if index % 8 < 4 else -3000)
        for index in range(count)
    ]
    data = struct.pack(f"<{count}h", *samples)
    return wav_bytes(data, rate)


def test_audio_is_cut_where_it_is_quiet() -> None:
    pcm = read_wav(tone(5, quiet_at=1.8))
    (first, second, *rest) = quiet_cuts(pcm, 2)
    assert first[1] / 16000 == pytest.approx(1.8, abs=0.03)
    assert second[0] == first[1]
    assert [*rest][-1][1] == len(pcm.data)


def hear(payload: SpeechToTextRequest) -> Answer:
    assert isinstance(payload.audio, InlineMedia)
    seconds = read_wav(payload.audio.decode()).seconds
    segment = SpeechSegment(start_s=0.0, end_s=seconds, text=f"{seconds:.1f}")
    return Answer(
        SpeechToTextResult(text=f" {seconds:.1f}", segments=(segment,), language="en"), Usage(audio_seconds=seconds)
    )


async def test_long_audio_is_heard_in_parts_with_its_boundaries() -> None:
    audio = await SHELF.save(tone(5, quiet_at=1.8), "audio/wav", task_id=None)
    answer = await ask(Teller(hear), asking(SpeechToTextRequest(audio=audio)), max_audio_seconds=2)
    result = answer.payload
    assert isinstance(result, SpeechToTextResult)
    assert result.text.startswith("1.8 ")
    assert result.duration_s == pytest.approx(5)
    bounds = result.extra["boundaries_s"]
    assert isinstance(bounds, list)
    assert [each.start_s for each in result.segments] == [0.0, *bounds]
    assert result.segments[-1].end_s == pytest.approx(5.0)
    assert answer.usage.audio_seconds == pytest.approx(5.0)


async def test_parts_of_audio_that_fail_are_told_with_their_times() -> None:
    def act(payload: SpeechToTextRequest) -> Answer:
        answer = hear(payload)
        if isinstance(answer.payload, SpeechToTextResult) and answer.payload.text == " 1.0":
            raise failing()
        return answer

    audio = await SHELF.save(tone(5), "audio/wav", task_id=None)
    request = asking(SpeechToTextRequest(audio=audio), degradation=PARTIAL)
    answer = await ask(Teller(act), request, max_audio_seconds=2)
    errors = answer.payload.extra["errors"]
    assert isinstance(errors, list)
    assert isinstance(errors[0], dict)
    assert errors[0]["end_s"] == pytest.approx(5)
    assert answer.degraded == ("partial",)


async def test_audio_that_is_no_wav_goes_as_it_is() -> None:
    audio = await SHELF.save(b"OggS whatever", "audio/ogg", task_id=None)
    assert await cut_for(asking(SpeechToTextRequest(audio=audio)), Limits(max_audio_seconds=1), SHELF) is None


class Speaker(Teller):
    def __init__(self) -> None:
        super().__init__(self._say)

    async def invoke(self, request: RequestEnvelope, call: Call) -> Answer:
        payload = request.payload
        assert isinstance(payload, TextToSpeechRequest)
        self.asked.append(payload.input)
        audio = await SHELF.save(tone(len(payload.input) / 100), "audio/wav", task_id=None)
        return Answer(
            TextToSpeechResult(audio=audio, duration_s=len(payload.input) / 100), Usage(characters=len(payload.input))
        )

    def _say(self, payload: Any) -> Answer:
        raise NotImplementedError


SPEECH = "One is here. Two is there! Three."


async def test_long_text_is_spoken_by_sentences() -> None:
    adapter = Speaker()
    before = set(SHELF.objects)
    answer = await ask(adapter, asking(TextToSpeechRequest(input=SPEECH, format="wav")), max_chars=15)
    assert adapter.asked == ["One is here. ", "Two is there! ", "Three."]
    assert isinstance(answer.payload, TextToSpeechResult)
    whole = (await SHELF.load(answer.payload.audio, task_id=None)).data
    assert read_wav(whole).seconds == pytest.approx(0.33)
    assert answer.usage.characters == len(SPEECH)
    assert set(SHELF.objects) - before == {answer.payload.audio.uri}  # its pieces have gone


async def test_speech_of_too_many_bytes_ends_before_all_of_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_split_speech, "MAX_JOINED_BYTES", len(tone(0.2)))
    adapter, before = Speaker(), set(SHELF.objects)
    with pytest.raises(CallerError, match="the speech of the text has more than") as caught:
        await ask(adapter, asking(TextToSpeechRequest(input=SPEECH, format="wav")), max_chars=15)
    assert caught.value.code is ErrorCode.MEDIA_TOO_LARGE
    assert len(adapter.asked) == 2
    assert set(SHELF.objects) == before


@pytest.mark.parametrize("text", ["!" * 250_000, '!"' * 100_000, "!" + '"' * 250_000, "\n" * 250_000, "? " * 100_000])
def test_no_text_takes_long_to_cut(text: str) -> None:
    began = time.process_time()
    ranges = sentences(text, 1000)
    assert time.process_time() - began < 2  # it was minutes
    assert all(0 < last - first <= 1000 for first, last in ranges) or not text.strip()


async def collected(adapter: Adapter, request: RequestEnvelope, **limits: Any) -> list[Any]:
    cut = await cut_for(request, Limits(**limits), SHELF)
    assert cut is not None
    items: list[Any] = []

    async def send(item: Any) -> None:
        await trio.lowlevel.checkpoint()
        items.append(item)

    await stream_all(adapter, cut, call(), send)
    return items


async def test_a_stream_of_parts_is_one_stream() -> None:
    items = await collected(Speaker(), asking(TextToSpeechRequest(input=SPEECH, format="wav")), max_chars=15)
    assert [type(item).__name__ for item in items if not isinstance(item, AudioDelta)] == [
        "Started", "UsageEvent", "Finished",
    ]  # fmt: skip
    heard = b"".join(base64.b64decode(item.audio) for item in items if isinstance(item, AudioDelta))
    assert heard.count(b"RIFF") == 1
    assert read_wav(heard).seconds == pytest.approx(0.33)


async def test_a_streamed_transcript_of_parts_has_moved_segments() -> None:
    audio = await SHELF.save(tone(5, quiet_at=1.8), "audio/wav", task_id=None)
    items = await collected(Teller(hear), asking(SpeechToTextRequest(audio=audio)), max_audio_seconds=2)
    answer = items[-1].answer
    segments = [item for item in items if isinstance(item, SegmentEvent)]
    assert [each.start_s for each in segments] == [each.start_s for each in answer.payload.segments]
    text = "".join(item.delta for item in items if isinstance(item, ContentDelta))
    assert text.split() == answer.payload.text.split()


class TellerKind:
    name = "teller"
    capabilities = Capabilities(
        ops=(Operation.EMBEDDINGS,), transports=(Transport.IN_PROCESS,), limits=Limits(max_batch=4)
    )

    def __init__(self) -> None:
        self.adapter = Teller(embed)

    def check(self, instance: InstanceConfig) -> None: ...

    @asynccontextmanager
    async def open(self, instance: InstanceConfig, host: Host) -> AsyncGenerator[Adapter, None]:
        yield self.adapter


@pytest.mark.parametrize(("limits", "sizes"), [({}, [4, 4, 2]), ({"max_batch": 5}, [5, 5])])
async def test_through_the_runtime_by_the_limits_of_kind_or_instance(limits: dict[str, int], sizes: list[int]) -> None:
    kind = TellerKind()
    config = {"spear": {"backends": [{"name": "one", "kind": "teller", "hosting": "local", "limits": limits}]}}
    async with open_runtime(config, kinds={"teller": kind}) as runtime:
        response = await runtime.invoke(asking(EmbeddingsRequest(input=("a",) * 10)))
    payload = response.unwrap()
    assert isinstance(payload, EmbeddingsResult)
    assert payload.vectors == ((1.0, 1.0),) * 10
    assert [len(each.input) for each in kind.adapter.asked] == sizes
