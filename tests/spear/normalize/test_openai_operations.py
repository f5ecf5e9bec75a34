"""The OpenAI-shaped ways of embeddings, images and speech, in and back."""

from __future__ import annotations

import base64
import json
import struct

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from spear.ir import (
    AudioDelta,
    BackendInfo,
    CallerError,
    Completed,
    ContentDelta,
    EmbeddingsResult,
    ErrorCode,
    ErrorEvent,
    ImageResult,
    InlineMedia,
    RequestEnvelope,
    ResponseEnvelope,
    Result,
    SegmentEvent,
    SpeechSegment,
    SpeechToTextResult,
    Started,
    StoredMedia,
    TextToSpeechResult,
    Usage,
    make_error,
)
from spear.normalize import (
    Form,
    FormFile,
    openai_embeddings_reply,
    openai_images_reply,
    openai_speech_bytes,
    openai_speech_events,
    openai_speech_reply,
    openai_speech_type,
    openai_transcription_events,
    openai_transcription_reply,
    request_from_openai,
    request_from_openai_embeddings,
    request_from_openai_image,
    request_from_openai_image_edit,
    request_from_openai_speech,
    request_from_openai_transcription,
)
from tests.spear.normalize.memory_media import MemoryMedia

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
WAV = b"RIFF\x24\0\0\0WAVEfmt " + bytes(30)
MP3 = b"ID3\x04" + bytes(30)
CANARY = "canary-7f3a"


def inline(data: bytes, mime: str) -> InlineMedia:
    return InlineMedia(mime=mime, data=base64.b64encode(data).decode())


def answered(request: RequestEnvelope, payload: object, **usage: object) -> ResponseEnvelope:
    return ResponseEnvelope(
        request_id=request.request_id,
        operation=request.operation,
        backend=BackendInfo(name="b", kind="k", model="own"),
        result=Result(payload=payload),
        usage=Usage(**usage),
    )


def failed(request: RequestEnvelope) -> ResponseEnvelope:
    error = make_error(ErrorCode.RATE_LIMITED, "slow down")
    return ResponseEnvelope(request_id=request.request_id, operation=request.operation, result=Result(error=error))


def refused(caught) -> str:
    assert caught.value.code == ErrorCode.INVALID_REQUEST
    assert CANARY not in caught.value.error.message
    return caught.value.error.message


# --- embeddings


def test_embeddings_in():
    body = {"model": "e", "input": ["a", "b"], "dimensions": 8, "encoding_format": "base64", "user": "u", "x": None}
    request = request_from_openai_embeddings(body, task_id="t", timeout_ms=9)
    payload = request.payload
    assert (payload.model, payload.input, payload.dimensions, payload.encoding_format) == ("e", ("a", "b"), 8, "base64")
    assert payload.extra == {"user": "u", "x": None}
    assert (request.task_id, request.timeout_ms, request.meta.source) == ("t", 9, "openai")
    assert request.requirements.required_features == ("supports_dimensions",)
    assert request.requirements.preferred_features == ("supports_batch",)
    assert request_from_openai_embeddings({"input": "a"}).payload.input == ("a",)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([], "body: must be an object, not an array"),
        ({}, "input: is missing"),
        ({"input": None}, "input: must be a string or an array of strings, not null"),
        ({"input": []}, "input: is empty"),
        ({"input": ""}, "input[0]: is empty"),
        ({"input": [1, 2]}, "input: arrays of tokens are not taken"),
        ({"input": [[1], [2]]}, "input: arrays of tokens are not taken"),
        ({"input": ["a", {}]}, "input[1]: must be a string, not an object"),
        ({"input": ["a", True]}, "input[1]: must be a string, not true or false"),
        ({"input": "a", "model": 3}, "model: must be a string, not an integer"),
        ({"input": "a", "dimensions": 0}, "dimensions: must be an integer, at least 1"),
        ({"input": "a", "dimensions": CANARY}, "dimensions: must be an integer, at least 1, not a string"),
        ({"input": "a", "encoding_format": CANARY}, "encoding_format: must be one of float, base64"),
        ({"input": ["a"] * 100_000}, "input: has 100000 texts, at most 2048"),
        ({"input": "a" * 10_000_000}, "input[0]: has 10000000 bytes, at most 1048576"),
        ({"input": ["é" * 500_000] * 17}, "input: has 17000000 bytes, at most 16777216"),
    ],
)
def test_embeddings_that_are_wrong(body, message):
    with pytest.raises(CallerError) as caught:
        request_from_openai_embeddings(body)
    assert message in refused(caught)


@pytest.mark.parametrize("asked", [None, "float", "base64"])
@pytest.mark.parametrize("given", ["vectors", "base64"])
def test_embeddings_back(asked, given):
    body = {"input": ["a", "b"]} | ({} if asked is None else {"encoding_format": asked})
    request = request_from_openai_embeddings(body)
    vectors = ((0.5, -2.0), (1.0, 0.25))
    packed = tuple(base64.b64encode(struct.pack("<2f", *vector)).decode() for vector in vectors)
    result = EmbeddingsResult(vectors=vectors) if given == "vectors" else EmbeddingsResult(base64=packed)
    reply = openai_embeddings_reply(answered(request, result, input_tokens=4), request)
    told = json.loads(reply.body)
    expected = list(packed) if asked == "base64" else [list(vector) for vector in vectors]
    assert [each["embedding"] for each in told["data"]] == expected
    assert [each["index"] for each in told["data"]] == [0, 1]
    assert (told["object"], told["model"], told["usage"]) == ("list", "own", {"prompt_tokens": 4, "total_tokens": 4})
    assert (reply.status, reply.content_type) == (200, "application/json")


def test_embeddings_that_fit_no_base64():
    request = request_from_openai_embeddings({"input": "a", "encoding_format": "base64"})
    reply = openai_embeddings_reply(answered(request, EmbeddingsResult(vectors=((1e300,),))), request)
    assert (reply.status, json.loads(reply.body)["error"]["code"]) == (502, "backend_error")


# --- images


def test_image_in():
    body = {"prompt": "a cat", "n": 2, "size": "64x64", "quality": "low", "style": "vivid", "seed": 5}
    request = request_from_openai_image({**body, "model": "i", "response_format": "b64_json", "background": "clear"})
    dumped = request.payload.model_dump(exclude_none=True)
    assert dumped == {**body, "model": "i", "kind": "image_generation", "extra": {"background": "clear"}}
    assert request.requirements.required_features == ()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "prompt: is missing"),
        ({"prompt": ""}, "prompt: is empty"),
        ({"prompt": "x" * 131_073}, "prompt: has 131073 bytes, at most 131072"),
        ({"prompt": "a", "n": "2"}, "n: must be an integer, not a string"),
        ({"prompt": "a", "n": 0}, "n: must be greater than or equal to 1"),
        ({"prompt": "a", "n": True}, "n: must be an integer, not true or false"),
        ({"prompt": "a", "size": CANARY}, 'size: must be "auto" or WIDTHxHEIGHT'),
        ({"prompt": "a", "size": 64}, "size: must be a string, not an integer"),
        ({"prompt": "a", "response_format": "url"}, 'response_format: only "b64_json" is offered'),
        ({"prompt": "a", "response_format": {}}, 'response_format: only "b64_json" is offered'),
        ({"prompt": "a", "stream": True}, "stream: pictures are not streamed"),
    ],
)
def test_image_that_is_wrong(body, message):
    with pytest.raises(CallerError) as caught:
        request_from_openai_image(body)
    assert message in refused(caught)


async def test_image_edit_in():
    media = MemoryMedia()
    large = PNG + bytes(70_000)
    files = [FormFile("image[]", large, "image/jpeg", "a.jpg"), FormFile("mask", PNG, None, None)]
    form = Form({"prompt": ["more"], "n": ["2"], "model": ["i"], "user": ["u"], "tags[]": ["a", "b"]}, files)
    request = await request_from_openai_image_edit(form, media, task_id="t")
    payload = request.payload
    assert (payload.prompt, payload.n, payload.extra) == ("more", 2, {"user": "u", "tags": ["a", "b"]})
    assert payload.image == StoredMedia(uri="smsfile://0", mime="image/png", size=len(large))
    assert media.kept["smsfile://0"] == (large, "image/png", "t")
    assert payload.mask == inline(PNG, "image/png")
    assert set(request.requirements.required_features) == {"supports_image_input", "supports_mask"}


@pytest.mark.parametrize(
    ("fields", "files", "message"),
    [
        ({}, [FormFile("image", PNG)], "prompt: is missing"),
        ({"prompt": ["a"]}, [], "image: is missing"),
        ({"prompt": ["a"]}, [FormFile("image", b"")], "image: is empty"),
        ({"prompt": ["a"]}, [FormFile("image", WAV, "image/png")], "image: is audio/wav by its first bytes"),
        ({"prompt": ["a"]}, [FormFile("image", b"?", "text/plain")], "its type is given as text/plain"),
        ({"prompt": ["a"]}, [FormFile("image", PNG)] * 2, "image: 2 files are given, one is taken"),
        ({"prompt": ["a"]}, [FormFile(CANARY[:6], PNG)], "is a file; files here are: image, mask"),
        ({"prompt": ["a"], "image": ["x"]}, [], "image: must be a file, not a text"),
        ({"prompt": ["a", "b"]}, [FormFile("image", PNG)], "prompt: is given more than once"),
        ({"prompt": ["a"], "n": [CANARY]}, [FormFile("image", PNG)], "n: must be an integer, at least 0"),
        ({"prompt": ["a"], "x": ["y"] * 64}, [FormFile("image", PNG)], "body: has 65 fields, at most 64"),
        ({"prompt": ["\ud800"]}, [FormFile("image", PNG)], "prompt: is not valid UTF-8"),
    ],
)
async def test_image_edit_that_is_wrong(fields, files, message):
    media = MemoryMedia()
    with pytest.raises(CallerError) as caught:
        await request_from_openai_image_edit(Form(fields, files), media)
    assert message in refused(caught)
    assert media.kept == {}


async def test_images_back():
    media = MemoryMedia()
    request = request_from_openai_image({"prompt": "a"})
    stored = await media.save(PNG, "image/png", task_id=None)
    result = ImageResult(images=(stored, inline(b"x", "image/png")))
    reply = await openai_images_reply(answered(request, result, input_tokens=3, output_tokens=4), media, created=7)
    told = json.loads(reply.body)
    assert [base64.b64decode(each["b64_json"]) for each in told["data"]] == [PNG, b"x"]
    assert (told["created"], told["usage"]["total_tokens"]) == (7, 7)
    gone = ImageResult(images=(StoredMedia(uri="smsfile://none"),))
    reply = await openai_images_reply(answered(request, gone), media, created=7)
    assert (reply.status, json.loads(reply.body)["error"]["code"]) == (404, "media_not_found")


# --- transcriptions


def recording(data: bytes = WAV, **fields: list[str]) -> Form:
    return Form(fields, [FormFile("file", data, "audio/mpeg", "a.mp3")])


@pytest.mark.parametrize(
    ("fields", "timestamps"),
    [
        ({}, None),
        ({"response_format": ["text"]}, None),
        ({"response_format": ["srt"]}, "segment"),
        ({"response_format": ["verbose_json"]}, "segment"),
        ({"response_format": ["verbose_json"], "timestamp_granularities[]": ["word"]}, "word"),
        ({"response_format": ["verbose_json"], "timestamp_granularities": ["segment", "word"]}, "word"),
    ],
)
async def test_transcription_in(fields, timestamps):
    form = recording(
        **{"model": ["w"], "language": ["en"], "temperature": ["0.5"], "include[]": ["logprobs"], **fields}
    )
    asked = await request_from_openai_transcription(form, MemoryMedia())
    payload = asked.request.payload
    assert (payload.model, payload.language, payload.temperature, payload.timestamps) == ("w", "en", 0.5, timestamps)
    assert payload.audio == inline(WAV, "audio/wav")  # by its bytes, whatever the form says
    assert payload.extra == {"include": "logprobs"}
    assert ("supports_timestamps" in asked.request.requirements.required_features) == (timestamps is not None)


async def test_translation_in_and_streamed():
    media = MemoryMedia()
    asked = await request_from_openai_transcription(recording(stream=["true"]), media, translate=True)
    assert asked.request.payload.extra == {"translate": True}
    assert asked.request.requirements.required_features == ("supports_stream",)
    with pytest.raises(CallerError, match="language: a translation is always into English"):
        await request_from_openai_transcription(recording(language=["de"]), media, translate=True)


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (Form({}), "file: is missing"),
        (recording(b""), "file: is empty"),
        (recording(PNG), "file: is image/png by its first bytes; a recording is needed"),
        (recording(response_format=[CANARY]), "response_format: must be one of json, text, srt, verbose_json, vtt"),
        (recording(temperature=[CANARY]), "temperature: must be a number from 0 to 2"),
        (recording(temperature=["nan"]), "temperature: must be a number from 0 to 2"),
        (recording(stream=["yes"]), "stream: must be true or false"),
        (recording(stream=["true"], response_format=["srt"]), "stream: cannot be had as srt"),
        (recording(timestamp_granularities=["word"]), "needs response_format verbose_json"),
        (recording(timestamp_granularities=[CANARY]), "timestamp_granularities: must be one of word, segment"),
    ],
)
async def test_transcription_that_is_wrong(form, message):
    media = MemoryMedia()
    with pytest.raises(CallerError) as caught:
        await request_from_openai_transcription(form, media)
    assert message in refused(caught)
    assert media.kept == {}


async def test_a_recording_that_the_store_refuses():
    with pytest.raises(CallerError) as caught:
        await request_from_openai_transcription(recording(WAV + bytes(70_000)), MemoryMedia(most=65_537))
    assert caught.value.code == ErrorCode.MEDIA_TOO_LARGE


SEGMENTS = (
    SpeechSegment(start_s=0.0, end_s=1.5, text=" hi -->"),
    SpeechSegment(start_s=1.5, end_s=2.0, text="you", speaker="A"),
)
HEARD = SpeechToTextResult(text="hi you", segments=SEGMENTS, language="en", duration_s=2.0)


@pytest.mark.parametrize(
    ("form", "kind", "body"),
    [
        ("text", "text/plain; charset=utf-8", "hi you\n"),
        (
            "srt",
            "text/plain; charset=utf-8",
            "1\n00:00:00,000 --> 00:00:01,500\nhi -->\n\n2\n00:00:01,500 --> 00:00:02,000\nA: you\n\n",
        ),
        (
            "vtt",
            "text/vtt; charset=utf-8",
            "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nhi --&gt;\n\n00:00:01.500 --> 00:00:02.000\nA: you\n\n",
        ),
        ("json", "application/json", '{"text":"hi you","usage":{"type":"duration","seconds":2}}'),
    ],
)
async def test_transcription_back(form, kind, body):
    asked = await request_from_openai_transcription(recording(response_format=[form]), MemoryMedia())
    reply = openai_transcription_reply(answered(asked.request, HEARD, audio_seconds=1.2), asked)
    assert (reply.status, reply.content_type, reply.body.decode()) == (200, kind, body)


async def test_verbose_transcription_back():
    fields = {"response_format": ["verbose_json"]}
    asked = await request_from_openai_transcription(recording(**fields), MemoryMedia(), translate=True)
    told = json.loads(openai_transcription_reply(answered(asked.request, HEARD), asked).body)
    assert (told["task"], told["language"], told["duration"], told["text"]) == ("translate", "en", 2.0, "hi you")
    assert told["segments"] == [
        {"id": 0, "start": 0.0, "end": 1.5, "text": " hi -->"},
        {"id": 1, "start": 1.5, "end": 2.0, "text": "you", "speaker": "A"},
    ]
    fields["timestamp_granularities"] = ["word"]
    asked = await request_from_openai_transcription(recording(**fields), MemoryMedia())
    told = json.loads(openai_transcription_reply(answered(asked.request, HEARD), asked).body)
    assert told["words"][1] == {"word": "you", "start": 1.5, "end": 2.0}
    assert "segments" not in told


async def test_transcription_events():
    asked = await request_from_openai_transcription(recording(stream=["true"]), MemoryMedia())
    done = answered(asked.request, HEARD, input_tokens=3, output_tokens=2)
    events = [
        Started(backend="b"),
        ContentDelta(delta="hi"),
        SegmentEvent(start_s=0.0, end_s=1.0, text="hi"),
        Completed(response=done),
        ErrorEvent(error=make_error(ErrorCode.TIMEOUT, "late")),
    ]
    told = [data for event in events for data in openai_transcription_events(event)]
    assert [data["type"] for data in told] == [
        "transcript.text.delta", "transcript.text.segment", "transcript.text.done", "error",
    ]  # fmt: skip
    assert told[2] == {
        "type": "transcript.text.done",
        "text": "hi you",
        "usage": {"type": "tokens", "input_tokens": 3, "output_tokens": 2, "total_tokens": 5},
    }
    assert told[3]["error"]["code"] == "timeout"


# --- speech


def test_speech_in():
    body = {"model": "s", "input": "hi", "voice": "v", "response_format": "mp3", "speed": 2, "instructions": "slow"}
    asked = request_from_openai_speech(body)
    payload = asked.request.payload
    assert (payload.model, payload.input, payload.voice, payload.format, payload.speed) == ("s", "hi", "v", "mp3", 2.0)
    assert (payload.extra, asked.events) == ({"instructions": "slow"}, False)
    assert asked.request.requirements.required_features == ("supports_voices",)
    asked = request_from_openai_speech({"input": "hi", "stream_format": "sse"})
    assert (asked.events, asked.request.requirements.required_features) == (True, ("supports_stream",))
    assert asked.request.payload.format is None


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "input: is missing"),
        ({"input": ""}, "input: is empty"),
        ({"input": "x" * 10_000_000}, "input: has 10000000 bytes, at most 262144"),
        ({"input": "x", "voice": {"id": CANARY}}, "voice: must be a string, not an object"),
        ({"input": "x", "response_format": "aac"}, "response_format: must be one of wav, mp3, pcm, opus, flac"),
        ({"input": "x", "speed": 9}, "speed: must be from 0.25 to 4"),
        ({"input": "x", "speed": True}, "speed: must be a number, not true or false"),
        ({"input": "x", "speed": 10**400}, "speed: must be from 0.25 to 4"),
        ({"input": "x", "stream_format": CANARY}, "stream_format: must be one of audio, sse"),
        ({"input": "x", "stream_format": {}}, "stream_format: must be one of audio, sse"),
    ],
)
def test_speech_that_is_wrong(body, message):
    with pytest.raises(CallerError) as caught:
        request_from_openai_speech(body)
    assert message in refused(caught)


async def test_speech_back():
    media = MemoryMedia()
    request = request_from_openai_speech({"input": "a"}).request
    stored = await media.save(MP3, "audio/mpeg", task_id=None)
    for audio, mime, data in ((stored, "audio/mpeg", MP3), (inline(WAV, "audio/wav"), "audio/wav", WAV)):
        reply = await openai_speech_reply(answered(request, TextToSpeechResult(audio=audio)), media)
        assert (reply.status, reply.content_type, reply.body) == (200, mime, data)
    reply = await openai_speech_reply(failed(request), media)
    assert (reply.status, json.loads(reply.body)["error"]["type"]) == (429, "rate_limit_error")


def test_speech_events():
    request = request_from_openai_speech({"input": "a"}).request
    piece = AudioDelta(audio=base64.b64encode(WAV).decode(), format="wav")
    done = Completed(response=answered(request, TextToSpeechResult(audio=inline(WAV, "audio/wav"))))
    assert openai_speech_type(piece) == "audio/wav"
    assert b"".join(map(openai_speech_bytes, (Started(backend="b"), piece, done))) == WAV
    told = [data["type"] for event in (piece, done) for data in openai_speech_events(event)]
    assert told == ["speech.audio.delta", "speech.audio.done"]


# --- any bytes at all


KEYS = ("input", "prompt", "model", "n", "size", "speed", "voice", "dimensions", "encoding_format", "response_format",
        "stream", "stream_format", "seed", "language", "temperature", "timestamp_granularities[]")  # fmt: skip
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["auto", "wav", "srt"])
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=2))
BODIES = st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=3), JSON, max_size=6) | JSON
TEXTS = st.text(max_size=8) | st.sampled_from(["1", "true", "word", "verbose_json"])
FORMS = st.builds(
    Form,
    st.dictionaries(st.sampled_from(KEYS), st.lists(TEXTS, max_size=3), max_size=6),
    st.lists(
        st.builds(
            FormFile,
            st.sampled_from(["file", "image", "mask", "image[]"]),
            st.sampled_from([PNG, WAV, MP3, b"", b"RIFF", b"\xff\xfb"]) | st.binary(max_size=12),
            st.none() | st.text(max_size=12) | st.just("audio/wav"),
            st.none() | st.text(max_size=8),
        ),
        max_size=3,
    ),
)


def names_a_field(error: CallerError) -> bool:
    return error.code == ErrorCode.INVALID_REQUEST and ": " in error.error.message


@settings(max_examples=50, deadline=None)
@given(BODIES)
def test_any_body_is_a_request_or_an_error_that_names_a_field(body):
    for way in (request_from_openai_embeddings, request_from_openai_image, request_from_openai_speech):
        failure = None
        try:
            way(body)
        except CallerError as error:
            failure = error
        assert failure is None or names_a_field(failure)


@settings(max_examples=50, deadline=None)
@given(FORMS)
def test_any_form_is_a_request_or_an_error_that_names_a_field(form):
    async def both() -> None:
        for way in (request_from_openai_image_edit, request_from_openai_transcription):
            media, failure = MemoryMedia(), None
            try:
                await way(form, media)
            except CallerError as error:
                failure = error
            assert failure is None or (names_a_field(failure) and media.kept == {})

    trio.run(both)


URLS = st.builds("{}{}{}".format, st.sampled_from(["data:", "data:image/png", "https://", "smsfile://", ""]),
                 st.sampled_from([";base64,", ",", "/", ""]), st.text("AQ=+/ \n%é", max_size=12))  # fmt: skip
MEDIA = st.fixed_dictionaries({"kind": st.sampled_from(["inline_base64", "sms_file", "http_url", "x"]) | SCALARS},
                              optional={"mime": SCALARS, "data": SCALARS, "uri": URLS, "url": URLS})  # fmt: skip
PARTS = st.one_of(
    st.fixed_dictionaries({"type": st.just("image_url"), "image_url": st.fixed_dictionaries({"url": URLS})}),
    st.fixed_dictionaries({"type": st.sampled_from(["image", "audio"]), "media": MEDIA | JSON}),
    st.fixed_dictionaries({"type": st.just("input_audio"), "input_audio": st.dictionaries(
        st.sampled_from(["data", "format"]), SCALARS, max_size=2)}),
)  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(st.lists(PARTS, min_size=1, max_size=3))
def test_any_part_is_taken_or_named(parts):
    failure = None
    try:
        request_from_openai({"messages": [{"role": "user", "content": parts}]})
    except CallerError as error:
        failure = error
    assert failure is None or names_a_field(failure)
