"""From the families' hostcalls through the runtime to a backend and back: what is asked, what the guest reads."""

from __future__ import annotations

import base64
import io
import struct
import wave
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import repeat

import pytest
import trio

import spear
from spear.config import TaskConfig
from spear.ir import (
    EmbeddingsResult,
    ErrorCode,
    Failure,
    ImageResult,
    InlineMedia,
    Operation,
    SpeechSegment,
    SpeechToTextResult,
    StoredMedia,
    TextToSpeechResult,
    Usage,
)
from spear.testing import FakeBackend, Reply, backend_failure, fake_kinds, open_test_runtime
from tests.spear.hostcall.operations import ASYNC, METRICS, STREAM, ask_json, new_request, set_param
from tests.spear.hostcall.probe import PAGE, open_probe

TASK = TaskConfig(id="agent")
PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
VECTORS = EmbeddingsResult(vectors=((0.5, -1.0), (2.0, 0.25)))
SPEECH = SpeechToTextResult(text="hello")


@asynccontextmanager
async def guest_of(fake, task=TASK, **more):
    async with open_test_runtime(fake) as runtime:
        operations = runtime._operations(task, "exec-1")
        async with open_probe(operations=operations, **more) as probe:
            yield probe, runtime


async def response_of(probe, family, flags=0, text="say it", **params):
    fd = await new_request(probe, family, text)
    for key, value in params.items():
        assert await set_param(probe, family, fd, key, value) == 0, (key, value)
    response = await probe.call(f"{family}_send", fd, flags)
    assert response > 0, response
    return response


async def answer(probe, family, flags=0, **params):
    return await ask_json(probe, f"{family}_recv", await response_of(probe, family, flags, **params))


async def test_embeddings():
    fake = FakeBackend(Reply(result=VECTORS, usage=Usage(input_tokens=4)))
    async with guest_of(fake) as (probe, _):
        fd = await new_request(probe, "emb", "one")
        await probe.call("emb_write", fd, *probe.put(1024, "two"))
        for key, value in {"model": "m", "dimensions": 2, "timeout_ms": 9000, "user": "u"}.items():
            assert await set_param(probe, "emb", fd, key, value) == 0
        response = await probe.call("emb_send", fd, METRICS)
        assert await ask_json(probe, "emb_recv", response) == {
            "_spear": {"backend": "fake", "degraded": [], "model": "m"},
            "dimensions": 2,
            "vectors": [[0.5, -1.0], [2.0, 0.25]],
        }
        assert await ask_json(probe, "emb_ctl", response, 2) == {"input_tokens": 4}
        [request] = fake.requests
        assert (request.task_id, request.operation, request.timeout_ms) == ("agent", Operation.EMBEDDINGS, 9000)
        assert (request.meta.source, request.meta.source_id, request.meta.execution_id) == ("emb", "emb_1000", "exec-1")
        assert request.requirements.required_features == ("supports_dimensions",)
        payload = request.payload
        assert (payload.model, payload.input, payload.dimensions, payload.extra) == (
            "m",
            ("one", "two"),
            2,
            {"user": "u"},
        )


async def test_vectors_come_in_the_encoding_that_was_asked_for():
    packed = tuple(base64.b64encode(struct.pack("<2f", *vector)).decode() for vector in VECTORS.vectors or ())
    both = [Reply(result=VECTORS), Reply(result=EmbeddingsResult(base64=packed))]
    async with guest_of(FakeBackend(*both, *both)) as (probe, _):
        for _ in both:
            body = await answer(probe, "emb", encoding_format="base64")
            assert (body["base64"], body["dimensions"], "vectors" in body) == (list(packed), 2, False)
        for _ in both:
            body = await answer(probe, "emb", encoding_format="float")
            assert (body["vectors"], body["dimensions"]) == ([[0.5, -1.0], [2.0, 0.25]], 2)


@pytest.mark.parametrize(
    "result",
    [
        EmbeddingsResult(base64=(base64.b64encode(struct.pack("<f", float("nan"))).decode(),)),
        EmbeddingsResult(base64=("AAA",)),
        EmbeddingsResult(base64=("AAAA",)),
        EmbeddingsResult.model_construct(vectors=((1.0, float("inf")),), base64=None, dimensions=2),
    ],
)
async def test_vectors_that_are_none_are_a_backend_error(result):
    async with guest_of(FakeBackend(Reply(result=result))) as (probe, _):
        error = (await answer(probe, "emb"))["error"]
        assert (error["code"], error["operation"]) == ("backend_error", "embeddings")


async def test_a_partial_answer_says_what_failed():
    fake = FakeBackend(*[backend_failure("no, never", code=ErrorCode.INVALID_REQUEST, failure=Failure.REQUEST)] * 9)
    config = {"spear": {"backends": [
        {"name": "fake", "kind": "fake", "hosting": "local", "limits": {"max_batch": 1}}
    ]}}  # fmt: skip
    fake.steps = (Reply(result=EmbeddingsResult(vectors=((0.5,),))), *fake.steps)
    async with (
        spear.open_runtime(config, kinds=fake_kinds({"fake": fake}, kind="fake")) as runtime,
        open_probe(operations=runtime._operations(TASK, "exec-1")) as probe,
    ):
        fd = await new_request(probe, "emb", "good")
        await probe.call("emb_write", fd, *probe.put(1024, "bad"))
        assert await set_param(probe, "emb", fd, "degradation", ["partial"]) == 0
        body = await ask_json(probe, "emb_recv", await probe.call("emb_send", fd, 0))
        assert (body["vectors"], body["dimensions"], body["_spear"]["degraded"]) == ([[0.5], []], 1, ["partial"])
        [error] = body["errors"]
        assert (error["index"], error["code"]) == (1, "invalid_request")


async def test_huge_numbers_are_numbers():
    result = EmbeddingsResult(vectors=((1e308, 1e308),))
    async with guest_of(FakeBackend(Reply(result=result), Reply(result=result))) as (probe, _):
        assert (await answer(probe, "emb"))["vectors"] == [[1e308, 1e308]]
        assert (await answer(probe, "emb", encoding_format="base64"))["error"]["code"] == "backend_error"


async def test_images_by_reference_both_ways():
    stored: list[StoredMedia] = []
    fake = FakeBackend(lambda request: Reply(result=ImageResult(images=(stored[0],)), usage=Usage(images=1)))
    async with guest_of(fake) as (probe, runtime):
        stored.append(await runtime.media.save(PNG, "image/png", task_id="agent"))
        inline = {"kind": "inline_base64", "mime": "image/png", "data": base64.b64encode(PNG).decode()}
        ours = {"kind": "sms_file", "uri": stored[0].uri}
        response = await response_of(
            probe, "img", METRICS, size="auto", n=2, seed=7, quality="hd", style="s", image=ours, mask=inline
        )
        body = await ask_json(probe, "img_recv", response)
        assert body["images"] == [stored[0].model_dump()]
        assert await ask_json(probe, "img_ctl", response, 2) == {"images": 1}
        payload = fake.requests[0].payload
        assert payload.image == stored[0]
        assert isinstance(payload.mask, InlineMedia)
        assert (payload.prompt, payload.n, payload.size, payload.seed) == ("say it", 2, None, 7)
        assert set(fake.requests[0].requirements.required_features) == {"supports_image_input", "supports_mask"}
        fd = await probe.call("media_open", *probe.put(256, body["images"][0]["uri"]))
        assert await probe.out("media_read", fd) == PNG
        # Of another task: unknown, and not to be told apart from what is not there.
        other = await runtime.media.save(PNG, "image/png", task_id="other")
        assert await probe.call("media_open", *probe.put(256, other.uri)) == -13
        request = await new_request(probe, "img")
        assert await set_param(probe, "img", request, "image", {"kind": "sms_file", "uri": other.uri}) == -13
        await runtime.media.grant(other, task_id="agent")
        assert await set_param(probe, "img", request, "image", {"kind": "sms_file", "uri": other.uri}) == 0


async def test_an_answer_whose_bytes_are_nowhere_is_a_backend_error():
    result = TextToSpeechResult(audio=InlineMedia(mime="audio/wav", data="AAAA"))
    async with guest_of(FakeBackend(Reply(result=result))) as (probe, _):
        assert (await answer(probe, "tts"))["error"]["code"] == "backend_error"


async def test_samples_are_wrapped_and_kept_until_the_answer():
    samples = struct.pack("<500h", *range(-250, 250))
    heard: list[bytes] = []

    async def listen(request, media):
        heard.append((await media.load(request.payload.audio, task_id=request.task_id)).data)

    fake = FakeBackend(*[Reply(result=SPEECH, delay_s=0.2)] * 3)
    async with guest_of(fake) as (probe, runtime):
        fd = await probe.call("asr_create")
        for part in (samples[:500], samples[500:]):
            assert await probe.call("asr_write", fd, *probe.put(1024, part)) == 500
        for key, value in {"format": "pcm16", "sample_rate_hz": 16_000}.items():
            assert await set_param(probe, "asr", fd, key, value) == 0
        for flags in (ASYNC, STREAM):
            assert await probe.call("asr_send", fd, flags) > 0
            await settle_until(lambda: fake.running == 1)
            await listen(fake.requests[-1], runtime.media)
            await settle_until(lambda: runtime.media.files.account.total.objects == 0)
        assert fake.requests[0].payload.audio.mime == "audio/wav"
        # Something else: another rate, more samples; an odd one at the end makes the file no worse.
        assert await set_param(probe, "asr", fd, "sample_rate_hz", 8000) == 0
        assert await probe.call("asr_write", fd, *probe.put(1024, b"\1")) == 1
        response = await probe.call("asr_send", fd, ASYNC)
        await settle_until(lambda: len(fake.requests) == 3)
        await listen(fake.requests[2], runtime.media)
        assert fake.requests[2].payload.audio.size == 44 + 1002
        await probe.call("asr_close", response)  # also a request that was given up leaves nothing
        await settle_until(lambda: runtime.media.files.account.total.objects == 0)
    for data, rate in zip(heard, (16_000, 16_000, 8000), strict=True):
        with wave.open(io.BytesIO(data)) as sound:
            assert (sound.getnchannels(), sound.getsampwidth(), sound.getframerate()) == (1, 2, rate)
            assert sound.readframes(500) == samples


async def settle_until(done):
    with trio.fail_after(5):
        for pause in repeat(0.005):
            if done():
                return
            await trio.sleep(pause)


@pytest.mark.parametrize(("sound", "mime"), [("mp3", "audio/mpeg"), ("flac", "audio/flac"), ("m4a", "audio/mp4")])
async def test_a_transcription_and_its_parameters(sound, mime):
    segment = SpeechSegment(start_s=0.0, end_s=1.5, text="hello")
    result = SpeechToTextResult(text="hello", segments=(segment,), language="de", duration_s=1.5)
    fake = FakeBackend(Reply(result=result, usage=Usage(audio_seconds=1.5)))
    async with guest_of(fake) as (probe, _):
        body = await answer(
            probe,
            "asr",
            format=sound,
            language="de",
            prompt="p",
            timestamps="segment",
            diarization=True,
            temperature=0.1,
        )
        assert body == {
            "_spear": {"backend": "fake", "degraded": [], "model": ""},
            "duration_s": 1.5,
            "language": "de",
            "segments": [{"end_s": 1.5, "speaker": None, "start_s": 0.0, "text": "hello"}],
            "text": "hello",
        }
        payload = fake.requests[0].payload
        assert payload.audio.mime == mime
        assert (payload.language, payload.prompt, payload.timestamps, payload.diarization) == (
            "de",
            "p",
            "segment",
            True,
        )
        assert payload.extra == {"temperature": 0.1}


async def test_the_store_has_no_room_for_what_was_written():
    async with open_test_runtime(FakeBackend(Reply(result=SPEECH))) as runtime:
        operations = runtime._operations(TASK, "exec-1")
        async with open_probe(operations=operations) as probe:
            runtime.media.files.account.quotas = quotas_of(runtime, object_bytes=3)
            error = (await answer(probe, "asr"))["error"]
            assert error["code"] == "media_too_large"
            response = await response_of(probe, "asr", STREAM)
            await settle_until(lambda: probe.guest.requests.in_flight == 0)
            event = await ask_json(probe, "asr_recv", response)
            assert (event["type"], event["error"]["code"], event["seq"]) == ("error", "media_too_large", 1)


def quotas_of(runtime, **changed):
    return replace(runtime.media.files.account.quotas, **changed)


async def test_a_streamed_transcription():
    fake = FakeBackend(Reply("hello big world", usage=Usage(audio_seconds=2.5)))
    async with guest_of(fake) as (probe, _):
        response = await response_of(probe, "asr", STREAM | METRICS, model="m")
        await settle_until(lambda: probe.guest.requests.in_flight == 0)
        events = [await ask_json(probe, "asr_recv", response) for _ in range(6)]
        assert [event["type"] for event in events] == ["started", *["content_delta"] * 3, "usage", "completed"]
        assert events[0] == {"backend": "fake", "model": "m", "seq": 1, "type": "started"}
        assert "".join(event["delta"] for event in events[1:4]) == "hello big world"
        assert events[4] == {"audio_seconds": 2.5, "seq": 5, "type": "usage"}
        assert events[5]["response"]["text"] == "hello big world"
        assert await probe.out("asr_recv", response) == b""
        assert await ask_json(probe, "asr_ctl", response, 2) == {"audio_seconds": 2.5}
        assert fake.requests[0].requirements.required_features == ("supports_stream",)


async def test_a_stream_that_fails_before_and_after_its_first_word():
    broken = backend_failure("cable cut")
    # Before: everybody is asked again, and there is only one.
    fake = FakeBackend(broken, broken, broken, Reply("one two", error=broken))
    async with guest_of(fake) as (probe, _):
        response = await response_of(probe, "asr", STREAM)
        await settle_until(lambda: probe.guest.requests.in_flight == 0)
        event = await ask_json(probe, "asr_recv", response)
        assert (event["type"], event["seq"], event["error"]["code"]) == ("error", 1, "backend_error")
        fake.requests[:] = fake.requests[:1] * 3  # on to the last step
        response = await response_of(probe, "asr", STREAM)
        await settle_until(lambda: probe.guest.requests.in_flight == 0)
        events = [await ask_json(probe, "asr_recv", response) for _ in range(4)]
        assert [event["type"] for event in events] == ["started", "content_delta", "content_delta", "error"]
        assert await probe.out("asr_recv", response) == b""
        error = await ask_json(probe, "spear_last_error")
        assert (error["call"], error["fd"], error["errno"]) == ("asr_send", response, 0)


@pytest.mark.parametrize("flags", [ASYNC, STREAM])
async def test_closing_the_response_ends_the_backends_turn(flags):
    fake = FakeBackend(Reply(result=SPEECH, delay_s=3600))
    async with guest_of(fake) as (probe, _):
        response = await response_of(probe, "asr", flags)
        await settle_until(lambda: fake.running == 1)
        await probe.call("asr_close", response)
        await settle_until(lambda: fake.running == 0)
        assert fake.cancelled == 1


async def test_the_rights_of_the_task():
    task = TaskConfig(id="agent", allow_operations=(Operation.EMBEDDINGS,), allow_backends=("elsewhere",))
    fake = FakeBackend(Reply(result=VECTORS))
    async with guest_of(fake, task) as (probe, _):
        assert [await probe.call(f"{family}_create") for family in ("img", "asr", "tts")] == [-13] * 3
        assert await probe.call("media_create", *probe.put(256, "a/b")) > 0
        error = (await answer(probe, "emb"))["error"]
        assert error["code"] in {"no_candidate_backend", "backend_not_enabled"}
        error = (await answer(probe, "emb", backend="fake"))["error"]
        assert error["code"] in {"no_candidate_backend", "backend_not_enabled"}
        assert "fake" not in str(error)
        assert not fake.requests


async def test_families_that_the_configuration_switches_off():
    config = {"spear": {"guests": {"families": ["emb", "media"]}, "backends": [
        {"name": "fake", "kind": "fake", "hosting": "local"}
    ]}}  # fmt: skip
    async with (
        spear.open_runtime(config, kinds=fake_kinds({"fake": FakeBackend()}, kind="fake")) as runtime,
        open_probe(operations=runtime._operations(TASK, "exec-1")) as probe,
    ):
        found = {family: await probe.call(f"{family}_create") for family in ("emb", "img", "asr", "tts")}
        assert found == {"emb": 1000, "img": -38, "asr": -38, "tts": -38}


async def test_urls_of_allowed_origins():
    config = {"spear": {"media": {"allow_origins": ["https://files.example"]}, "backends": [
        {"name": "fake", "kind": "fake", "hosting": "local"}
    ]}}  # fmt: skip
    fake = FakeBackend(Reply(result=ImageResult(images=())))
    async with (
        spear.open_runtime(config, kinds=fake_kinds({"fake": fake}, kind="fake")) as runtime,
        open_probe(operations=runtime._operations(TASK, "exec-1")) as probe,
    ):
        fd = await new_request(probe, "img")
        for url, expected in {
            "https://files.example.org/a.png": -13,
            "http://files.example/a.png": -13,
            "https://files.example:8443/a.png": -13,
            "https://u@files.example/a.png": -13,
            "https://files.example/a.png": 0,
        }.items():
            ref = {"kind": "http_url", "url": url, "mime": "image/png"}
            assert await set_param(probe, "img", fd, "image", ref) == expected, url
        response = await probe.call("img_send", fd, 0)
        assert (await ask_json(probe, "img_recv", response))["images"] == []
        assert fake.requests[0].payload.image.url == "https://files.example/a.png"


@pytest.mark.parametrize(
    ("given", "mode", "steps"),
    [
        (None, "reject", ()),
        ("reject", "reject", ()),
        ("allow", "allow", ()),
        ([], "reject", ()),
        (["default_voice"], "allow", ("default_voice",)),
    ],
)
async def test_degradation(given, mode, steps):
    fake = FakeBackend(backend_failure(code=ErrorCode.CONTENT_REFUSED))
    async with guest_of(fake) as (probe, _):
        await answer(probe, "tts", degradation=given)
        degradation = fake.requests[0].degradation
        assert (degradation.mode, degradation.steps) == (mode, steps)


async def test_media_goes_through_the_real_store():
    large = bytes(range(256)) * 1024 * 5  # 1.25 MiB
    async with guest_of(FakeBackend(), pages=40) as (probe, runtime):
        fd = await probe.call("media_create", *probe.put(256, "image/png"))
        for _ in range(2):
            assert await probe.call("media_write", fd, *probe.put(PAGE, large)) == len(large)
        ref = await ask_json(probe, "media_commit", fd)
        assert ref["size"] == 2 * len(large)
        assert (await runtime.media.load(StoredMedia(**ref), task_id="agent")).data == large * 2
        reading = await probe.call("media_open", *probe.put(256, ref["uri"]))
        await runtime.media.delete(StoredMedia(**ref))  # what is open stays readable
        found = b""
        while True:
            probe.put_u32(8, 1 << 21)
            count = await probe.call("media_read", reading, PAGE, 8)
            if count <= 0:
                break
            assert count <= 1 << 20
            found += probe.read(PAGE, count)
        assert (count, found) == (0, large * 2)
        assert await probe.call("media_open", *probe.put(256, ref["uri"])) == -13
