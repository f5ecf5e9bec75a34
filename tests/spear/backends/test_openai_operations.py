"""All operations of kinds `openai` and `azure_openai` against a real server: what is sent, and what comes of it."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from spear.backends import Adapter, Answer, Finished, Host, StreamItem, find_kind
from spear.ir import (
    AudioDelta,
    AudioPart,
    CallerError,
    ChatMessage,
    ChatResult,
    ContentDelta,
    EmbeddingsRequest,
    EmbeddingsResult,
    ImagePart,
    ImageRequest,
    ImageResult,
    InlineMedia,
    MediaRef,
    Operation,
    RequestEnvelope,
    RequestPayload,
    SegmentEvent,
    SpeechToTextRequest,
    SpeechToTextResult,
    Started,
    StoredMedia,
    TextToSpeechRequest,
    TextToSpeechResult,
    UsageEvent,
)
from spear.secrets import Secret
from tests.servers._operations import png, vector, wav
from tests.servers.fault_server import FaultServer
from tests.spear.backends._memory_media import MemoryMedia
from tests.spear.backends._support import CANARY, ask, call, instance

LIMIT = 20.0


@asynccontextmanager
async def opened(
    server: FaultServer, media: MemoryMedia | None = None, *, kind: str = "openai", **fields: Any
) -> AsyncIterator[Adapter]:
    base_url = server.root_url if kind == "azure_openai" else server.base_url
    configured = instance(kind=kind, base_url=base_url, **fields)
    host = Host(redact=(Secret(CANARY),), media=media or MemoryMedia())
    with trio.fail_after(LIMIT):
        async with find_kind(kind).open(configured, host) as adapter:
            yield adapter


def asking(payload: RequestPayload) -> RequestEnvelope:
    return RequestEnvelope(operation=Operation(payload.kind), payload=payload, task_id="a-task")


async def told(adapter: Adapter, payload: RequestPayload) -> tuple[list[StreamItem], Answer]:
    async with adapter.stream(asking(payload), call()) as stream:
        *items, last = [item async for item in stream]
    assert isinstance(last, Finished)
    assert isinstance(items[0], Started)
    assert isinstance(items[-1], UsageEvent)
    assert items[-1].usage == last.answer.usage
    return items[1:-1], last.answer


def inline(data: bytes, mime: str) -> InlineMedia:
    return InlineMedia(mime=mime, data=base64.b64encode(data).decode())


# --- embeddings


async def test_a_vector_for_each_text_in_their_order(fault_server: FaultServer) -> None:
    texts = ("one", "two words", "漢字")
    async with opened(fault_server) as adapter:
        answer = await adapter.invoke(asking(EmbeddingsRequest(input=texts, dimensions=5)), call())
    assert isinstance(answer.payload, EmbeddingsResult)
    assert answer.payload.vectors == tuple(tuple(vector(text, 5)) for text in texts)
    assert answer.payload.dimensions == 5
    assert (answer.usage.input_tokens, answer.usage.estimated) == (4, False)
    assert answer.model == "test-model"
    (request,) = fault_server.requests()
    assert request["json"] == {"model": "test-model", "input": list(texts), "dimensions": 5}
    assert request["path"] == "/v1/embeddings"


@pytest.mark.parametrize("encoding", ["float", "base64"])
async def test_the_caller_gets_the_form_that_it_asked_for_however_vectors_travel(
    fault_server: FaultServer, encoding: str
) -> None:
    async with opened(fault_server, options={"embeddings_encoding": encoding}) as adapter:
        plain = await adapter.invoke(asking(EmbeddingsRequest(input=("x",))), call())
        packed = await adapter.invoke(asking(EmbeddingsRequest(input=("x",), encoding_format="base64")), call())
    assert isinstance(plain.payload, EmbeddingsResult)
    assert isinstance(packed.payload, EmbeddingsResult)
    assert plain.payload.vectors == (tuple(vector("x", 8)),)
    assert packed.payload.base64 is not None
    assert struct.unpack("<8f", base64.b64decode(packed.payload.base64[0])) == tuple(vector("x", 8))
    sent = [request["json"].get("encoding_format") for request in fault_server.requests()]
    assert sent == [None if encoding == "float" else "base64", "base64"]


async def test_a_server_that_knows_only_floats_still_gives_base64(fault_server: FaultServer) -> None:
    fault_server.script(operation="embeddings", body='{"data":[{"index":0,"embedding":[0.5, -1]}]}')
    async with opened(fault_server) as adapter:
        answer = await adapter.invoke(asking(EmbeddingsRequest(input=("x",), encoding_format="base64")), call())
    assert isinstance(answer.payload, EmbeddingsResult)
    assert answer.payload.base64 is not None
    assert struct.unpack("<2f", base64.b64decode(answer.payload.base64[0])) == (0.5, -1.0)
    assert answer.usage.estimated


# --- images


async def test_pictures_go_to_the_store(fault_server: FaultServer) -> None:
    media = MemoryMedia()
    async with opened(fault_server, media) as adapter:
        request = ImageRequest(prompt="a red disc", n=2, size="24x24", seed=7)
        answer = await adapter.invoke(asking(request), call())
    assert isinstance(answer.payload, ImageResult)
    assert len(answer.payload.images) == 2
    for ref in answer.payload.images:
        assert isinstance(ref, StoredMedia)
        assert ref.mime == "image/png"
        assert media.objects[ref.uri].data.startswith(b"\x89PNG")
    assert answer.payload.extra["revised_prompts"] == ["a red disc, please"] * 2
    assert (answer.usage.images, answer.usage.input_tokens, answer.usage.output_tokens) == (2, 3, 100)
    (sent,) = fault_server.requests()
    assert sent["json"] == {
        "model": "test-model", "prompt": "a red disc", "n": 2, "size": "24x24", "seed": 7, "response_format": "b64_json"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("model", "option", "sent"),
    [
        ("dall-e-3", "auto", "b64_json"),
        ("gpt-image-1", "auto", None),
        ("gpt-image-1", "b64_json", "b64_json"),
        ("x", "none", None),
        ("x", "url", "url"),
    ],
)
async def test_the_form_of_pictures_that_is_asked_for(
    fault_server: FaultServer, model: str, option: str, sent: str | None
) -> None:
    async with opened(fault_server, model=model, options={"image_response_format": option}) as adapter:
        await adapter.invoke(asking(ImageRequest(prompt="x")), call())
    assert fault_server.requests()[0]["json"].get("response_format") == sent


async def test_an_edit_sends_the_stored_picture_and_its_mask(fault_server: FaultServer) -> None:
    media = MemoryMedia()
    picture = await media.save(png(8, 8), "image/png", task_id=None)
    request = ImageRequest(prompt="more red", image=picture, mask=inline(png(4, 4), "image/png"), n=1)
    async with opened(fault_server, media) as adapter:
        answer = await adapter.invoke(asking(request), call())
    assert isinstance(answer.payload, ImageResult)
    (sent,) = fault_server.requests()
    assert sent["path"] == "/v1/images/edits"
    assert 'name="mask"; filename="mask.png"' in sent["body"]
    assert 'name="n"\r\n\r\n1\r\n' in sent["body"]


async def test_a_picture_by_address_is_fetched_where_the_host_allows_it(fault_server: FaultServer) -> None:
    media = MemoryMedia()
    media.remote["http://pictures.example/1.png"] = await _bytes(png(4, 4))
    for _ in range(2):
        fault_server.script(operation="generations", body='{"data":[{"url":"http://pictures.example/1.png"}]}')
    async with opened(fault_server, media) as adapter:
        answer = await adapter.invoke(asking(ImageRequest(prompt="x")), call())
        assert isinstance(answer.payload, ImageResult)
        assert len(media.objects) == 1
        media.remote.clear()
        with pytest.raises(Exception, match=r"only an address.*media_not_allowed"):
            await adapter.invoke(asking(ImageRequest(prompt="x")), call())


async def test_a_mask_without_a_picture_is_the_callers_mistake(fault_server: FaultServer) -> None:
    async with opened(fault_server) as adapter:
        with pytest.raises(CallerError, match="mask"):
            await adapter.invoke(asking(ImageRequest(prompt="x", mask=inline(png(1, 1), "image/png"))), call())
    assert fault_server.counts()["total"] == 0


async def _bytes(data: bytes) -> Any:
    media = MemoryMedia()
    return media.objects[(await media.save(data, "image/png", task_id=None)).uri]


# --- speech to text


async def test_a_recording_is_uploaded_byte_for_byte(fault_server: FaultServer) -> None:
    media = MemoryMedia()
    spoken = wav(0.5)
    ref = await media.save(spoken, "audio/wav", task_id=None)
    request = SpeechToTextRequest(audio=ref, language="de", prompt="names: Ärzte", temperature=0.25)
    async with opened(fault_server, media) as adapter:
        answer = await adapter.invoke(asking(request), call())
    assert isinstance(answer.payload, SpeechToTextResult)
    assert answer.payload.text == f"{len(spoken)} bytes of audio/wav called audio.wav in de"
    assert answer.usage.audio_seconds == pytest.approx(0.5)
    assert not answer.usage.estimated
    (sent,) = fault_server.requests()
    assert sent["path"] == "/v1/audio/transcriptions"
    assert 'name="prompt"\r\n\r\nnames: Ärzte\r\n' in sent["body"]
    assert 'name="temperature"\r\n\r\n0.25\r\n' in sent["body"]


async def test_a_recording_of_many_megabytes_is_uploaded_whole(fault_server: FaultServer) -> None:
    spoken = bytes(range(256)) * (8 * 1024 * 4)
    media = MemoryMedia()
    ref = await media.save(spoken, "audio/x-unknown", task_id=None)
    async with opened(fault_server, media) as adapter:
        answer = await adapter.invoke(asking(SpeechToTextRequest(audio=ref)), call())
    assert isinstance(answer.payload, SpeechToTextResult)
    assert answer.payload.text.startswith(f"{len(spoken)} bytes of audio/x-unknown called audio.bin")


@pytest.mark.parametrize(
    ("fields", "sent"),
    [
        ({"timestamps": "segment"}, ["verbose_json", 'name="timestamp_granularities[]"\r\n\r\nsegment\r\n']),
        ({"timestamps": "word"}, ["verbose_json", "\r\n\r\nword\r\n"]),
        ({"diarization": True}, ["diarized_json", 'name="chunking_strategy"\r\n\r\nauto\r\n']),
    ],
)
async def test_segments(fault_server: FaultServer, fields: dict[str, Any], sent: list[str]) -> None:
    request = SpeechToTextRequest(audio=inline(wav(1), "audio/wav"), **fields)
    async with opened(fault_server) as adapter:
        answer = await adapter.invoke(asking(request), call())
    assert isinstance(answer.payload, SpeechToTextResult)
    first, second = answer.payload.segments
    assert (first.start_s, first.end_s, second.end_s) == (0.0, 0.5, 1.0)
    assert first.text + second.text == answer.payload.text
    assert (first.speaker, answer.payload.duration_s, answer.payload.language) == ("A", 1.0, "english")
    for each in sent:
        assert each in fault_server.requests()[0]["body"]


async def test_a_translation_goes_to_its_own_place(fault_server: FaultServer) -> None:
    audio: MediaRef = inline(wav(0.1), "audio/wav")
    async with opened(fault_server) as adapter:
        request = SpeechToTextRequest(audio=audio, language="de", extra={"translate": True})
        answer = await adapter.invoke(asking(request), call())
        _, streamed = await told(adapter, request)
    assert isinstance(answer.payload, SpeechToTextResult)
    assert answer.payload.text.startswith("translated ")
    assert answer.payload == streamed.payload
    for sent in fault_server.requests():
        assert sent["path"] == "/v1/audio/translations"
        assert "language" not in sent["body"]
        assert "translate" not in sent["body"].replace("translations", "")


async def test_a_transcript_as_it_comes(fault_server: FaultServer) -> None:
    request = SpeechToTextRequest(audio=inline(wav(0.25), "audio/wav"))
    async with opened(fault_server) as adapter:
        items, answer = await told(adapter, request)
        plain = await adapter.invoke(asking(request), call())
    assert "".join(item.delta for item in items if isinstance(item, ContentDelta)) == answer.payload.text  # type: ignore[union-attr]
    assert len(items) > 3
    assert answer.payload.text == plain.payload.text  # type: ignore[union-attr]
    assert answer.usage == plain.usage


async def test_a_server_that_cannot_stream_transcripts(fault_server: FaultServer) -> None:
    body = '{"text":"a b","segments":[{"start":0,"end":1,"text":"a"},{"start":"1","end":"2.5","text":" b"}]}'
    fault_server.script(operation="transcriptions", body=body)
    async with opened(fault_server) as adapter:
        items, answer = await told(adapter, SpeechToTextRequest(audio=inline(wav(0.1), "audio/wav")))
    assert items[0] == ContentDelta(delta="a b")
    assert [(item.start_s, item.end_s) for item in items[1:] if isinstance(item, SegmentEvent)] == [(0, 1), (1, 2.5)]
    assert answer.usage.estimated


@pytest.mark.parametrize("form", ["text", "srt", "vtt"])
async def test_a_transcript_that_is_asked_for_as_text(fault_server: FaultServer, form: str) -> None:
    request = SpeechToTextRequest(audio=inline(wav(0.1), "audio/wav"), extra={"response_format": form})
    async with opened(fault_server) as adapter:
        answer = await adapter.invoke(asking(request), call())
        _, streamed = await told(adapter, request)
    assert answer.payload.text.endswith("called audio.wav")  # type: ignore[union-attr]
    assert streamed.payload == answer.payload


async def test_an_empty_recording_is_not_sent(fault_server: FaultServer) -> None:
    async with opened(fault_server) as adapter:
        with pytest.raises(CallerError, match="audio: is empty"):
            await adapter.invoke(asking(SpeechToTextRequest(audio=inline(b"", "audio/wav"))), call())
    assert fault_server.counts()["total"] == 0


# --- text to speech


@pytest.mark.parametrize("form", [None, "wav", "mp3", "pcm"])
async def test_speech_goes_to_the_store_plain_and_as_it_comes(fault_server: FaultServer, form: Any) -> None:
    media = MemoryMedia()
    text = "Good morning, all of you."
    request = TextToSpeechRequest(input=text, format=form, voice="verse", speed=1.5)
    async with opened(fault_server, media) as adapter:
        answer = await adapter.invoke(asking(request), call())
        items, streamed = await told(adapter, request)
    assert isinstance(answer.payload, TextToSpeechResult)
    assert isinstance(answer.payload.audio, StoredMedia)
    assert streamed.payload == answer.payload  # the same bytes: the store is by content
    stored = media.objects[answer.payload.audio.uri]
    assert stored.data[-100:] == wav(0.05 * len(text))[-100:]
    assert stored.mime == {"wav": "audio/wav", "pcm": "audio/L16;rate=24000"}.get(form, "audio/mpeg")
    assert all(isinstance(item, AudioDelta) and len(item.audio) <= 65_536 for item in items)
    assert b"".join(base64.b64decode(item.audio) for item in items if isinstance(item, AudioDelta)) == stored.data
    assert answer.usage.characters == len(text)
    assert media.left == 0
    assert fault_server.requests()[0]["json"].get("response_format") == form


async def test_the_configured_voice_where_none_is_asked_for(fault_server: FaultServer) -> None:
    async with opened(fault_server, options={"voice": "af_sky"}) as adapter:
        await adapter.invoke(asking(TextToSpeechRequest(input="x")), call())
        await adapter.invoke(asking(TextToSpeechRequest(input="x", voice="other")), call())
    assert [sent["json"]["voice"] for sent in fault_server.requests()] == ["af_sky", "other"]


async def test_a_large_piece_of_speech_comes_in_small_ones(fault_server: FaultServer) -> None:
    sound = b"RIFF\0\0\0\0WAVE" + bytes(300_000)
    fault_server.script(operation="speech", body_base64=base64.b64encode(sound).decode(), content_type="audio/wav")
    async with opened(fault_server) as adapter:
        items, _ = await told(adapter, TextToSpeechRequest(input="x", format="wav"))
    assert all(len(item.audio) <= 65_536 for item in items if isinstance(item, AudioDelta))
    assert b"".join(base64.b64decode(item.audio) for item in items if isinstance(item, AudioDelta)) == sound


# --- chat


async def test_media_in_messages_become_bytes(fault_server: FaultServer) -> None:
    media = MemoryMedia()
    picture = await media.save(png(2, 2), "image/png", task_id=None)
    sound = await media.save(wav(0.01), "audio/wav", task_id=None)
    parts = (ImagePart(media=picture, detail="low"), AudioPart(media=sound))
    request = ask(messages=(ChatMessage(role="user", content_parts=parts),))
    async with opened(fault_server, media) as adapter:
        answer = await adapter.invoke(request, call())
        async with adapter.stream(request, call()) as stream:
            assert isinstance([item async for item in stream][-1], Finished)
    assert isinstance(answer.payload, ChatResult)
    for sent in fault_server.requests():
        image, audio = sent["json"]["messages"][0]["content"]
        url = image["image_url"]["url"]
        assert base64.b64decode(url.removeprefix("data:image/png;base64,")) == png(2, 2)
        assert audio["input_audio"]["format"] == "wav"
        assert base64.b64decode(audio["input_audio"]["data"]) == wav(0.01)


# --- Azure


@pytest.mark.parametrize(
    ("payload", "path"),
    [
        (ask().payload, "/chat/completions"),
        (EmbeddingsRequest(input=("x",)), "/embeddings"),
        (ImageRequest(prompt="x"), "/images/generations"),
        (SpeechToTextRequest(audio=inline(wav(0.1), "audio/wav")), "/audio/transcriptions"),
        (TextToSpeechRequest(input="x"), "/audio/speech"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_azure_has_deployments_versions_and_a_header_for_keys(
    fault_server: FaultServer, payload: RequestPayload, path: str
) -> None:
    options = {"api_version": "2025-04-01-preview"}
    async with opened(fault_server, kind="azure_openai", model="my deployment/1", options=options) as adapter:
        await adapter.invoke(asking(payload), call())
    (sent,) = fault_server.requests()
    assert sent["path"] == f"/openai/deployments/my%20deployment%2F1{path}?api-version=2025-04-01-preview"
    headers = {name.lower(): value for name, value in sent["headers"]}
    assert headers["api-key"] == CANARY
    assert "authorization" not in headers


@pytest.mark.parametrize(
    ("kind", "fields", "named"),
    [
        ("openai", {"options": {"api_version": "x"}}, "options.api_version: unknown"),
        ("openai", {"options": {"voice": 3}}, "options.voice: must be a string"),
        ("openai", {"options": {"image_response_format": "png"}}, "must be one of auto, b64_json, url, none"),
        ("openai", {"base_url": None}, "base_url: is missing"),
        ("azure_openai", {"base_url": "https://x.example/openai/deployments/y"}, "the resource alone"),
        ("azure_openai", {"options": {"api_version": " "}}, "options.api_version: must be"),
    ],
)
def test_a_configuration_that_cannot_work_is_named(kind: str, fields: dict[str, Any], named: str) -> None:
    configured = instance(**{"kind": kind, "base_url": "http://127.0.0.1:9/v1", **fields})
    with pytest.raises(ValueError, match=named):
        find_kind(kind).check(configured)


def test_vectors_of_the_test_server_are_finite() -> None:
    assert all(map(math.isfinite, vector("x", 64)))
