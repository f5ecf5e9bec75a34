"""Runtime.embed, image, transcribe and speak: from a program's words to the backend and back."""

from __future__ import annotations

import base64
import struct

import pytest

import spear.blocking
from spear.guests import path as guest_path
from spear.ir import (
    CallerError,
    EmbeddingsResult,
    ImageResult,
    InlineMedia,
    Operation,
    RoutingError,
    SpeechSegment,
    SpeechToTextResult,
    StoredMedia,
    TextToSpeechResult,
    UrlMedia,
)
from spear.testing import FakeBackend, Reply, fake_kinds, open_test_runtime

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
WAV = b"RIFF\x24\0\0\0WAVEfmt " + bytes(30)


def inline(data: bytes, mime: str) -> InlineMedia:
    return InlineMedia(mime=mime, data=base64.b64encode(data).decode())


def asked(fake: FakeBackend):
    return fake.requests[-1].payload


async def test_embed():
    fake = FakeBackend(Reply(result=EmbeddingsResult(vectors=((1.0, 2.0), (3.0, 4.0)))))
    async with open_test_runtime(fake) as runtime:
        reply = await runtime.embed(["one", "two"], "e", dimensions=2, user="u", timeout_ms=5000, backend="fake")
    assert reply.vectors == ((1.0, 2.0), (3.0, 4.0))
    request = fake.requests[0]
    assert (request.operation, request.timeout_ms, request.routing.backend) == (Operation.EMBEDDINGS, 5000, "fake")
    assert (asked(fake).input, asked(fake).dimensions, asked(fake).extra) == (("one", "two"), 2, {"user": "u"})
    assert request.requirements.required_features == ("supports_dimensions",)


async def test_embed_decodes_base64_and_takes_one_text():
    packed = base64.b64encode(struct.pack("<3f", 0.5, -1.0, 2.0)).decode()
    fake = FakeBackend(Reply(result=EmbeddingsResult(base64=(packed,))))
    async with open_test_runtime(fake) as runtime:
        reply = await runtime.embed("one", encoding_format="base64")
    assert reply.vectors == ((0.5, -1.0, 2.0),)
    assert asked(fake).input == ("one",)


async def test_image_takes_bytes_paths_and_references(tmp_path):
    (tmp_path / "mask.png").write_bytes(PNG)
    drawn = inline(PNG, "image/png")
    fake = FakeBackend(Reply(result=ImageResult(images=(drawn,))))
    async with open_test_runtime(fake) as runtime:
        reply = await runtime.image("a cat", size="64x64", n=1, image=PNG, mask=tmp_path / "mask.png", seed=7)
    assert reply.images == (drawn,)
    assert (asked(fake).image, asked(fake).mask) == (drawn, drawn)
    assert set(fake.requests[0].requirements.required_features) == {"supports_image_input", "supports_mask"}


async def test_transcribe():
    segments = (SpeechSegment(start_s=0.0, end_s=1.0, text="hello"),)
    fake = FakeBackend("hello there", Reply(result=SpeechToTextResult(text="hello", segments=segments)))
    async with open_test_runtime(fake) as runtime:
        assert (await runtime.transcribe(WAV)).text == "hello there"
        assert asked(fake).audio == inline(WAV, "audio/wav")
        far = UrlMedia(url="https://example.org/a.wav")
        reply = await runtime.transcribe(far, timestamps="segment", language="en", translate=True)
    assert reply.segments == segments
    assert (asked(fake).audio, asked(fake).extra) == (far, {"translate": True})
    assert fake.requests[1].requirements.required_features == ("supports_timestamps", "supports_language")


async def test_speak():
    sound = inline(WAV, "audio/wav")
    fake = FakeBackend(Reply(result=TextToSpeechResult(audio=sound, duration_s=0.1)))
    async with open_test_runtime(fake) as runtime:
        reply = await runtime.speak("hello", voice="en", format="wav", speed=1.5, degradation="allow")
    assert reply.audio == sound
    assert (asked(fake).voice, asked(fake).format, asked(fake).speed) == ("en", "wav", 1.5)
    assert fake.requests[0].degradation.mode == "allow"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r: r.embed([]), "input: is empty, at least one text is needed"),
        (lambda r: r.embed(["a", ""]), "input[1]: is empty"),
        (lambda r: r.embed(None), "input: must be a text or a list of texts, not NoneType"),
        (lambda r: r.embed(b"bytes"), "input[0]: must be a valid string"),
        (lambda r: r.speak(None), "input: is missing"),
        (lambda r: r.image(3), "prompt: must be a valid string"),
        (lambda r: r.embed([1]), "input[0]: must be a valid string"),
        (lambda r: r.embed(["x"] * 2049), "input: has 2049 texts, at most 2048 go into one request"),
        (lambda r: r.embed("\ud800"), "input[0]: is not valid Unicode: it has a lone surrogate"),
        (lambda r: r.embed("x" * (2**20 + 1)), "input[0]: has 1048577 bytes, at most 1048576 are allowed"),
        (lambda r: r.embed("a", dimensions=0), "dimensions: must be greater than or equal to 1"),
        (lambda r: r.embed("a", timeout_ms=1.5), "timeout_ms: must be an integer, at least 1"),
        (
            lambda r: r.embed("a", degradation=["partial", "hope"]),
            "degradation[1]: is no step; there are: tools_by_prompt, ",
        ),
        (lambda r: r.embed("a", degradation=[]), 'degradation: must be "reject", "allow", or a list'),
        (lambda r: r.embed("a", user=object()), "user: not JSON"),
        (lambda r: r.image("a", size="big"), 'size: must be "auto" or WIDTHxHEIGHT in pixels, each 16 to 8192'),
        (lambda r: r.image("a", size="20000x20000"), "size: must be"),
        (lambda r: r.image("a", n=11), "n: must be at most 10"),
        (lambda r: r.image("a", mask=PNG), "mask: needs an image beside it"),
        (lambda r: r.image("a", image=WAV), "image: is audio/wav by its first bytes; an image is needed"),
        (lambda r: r.image("a", image=b""), "image: is empty"),
        (lambda r: r.image("", image=PNG), "prompt: is empty"),
        (lambda r: r.transcribe(PNG), "audio: is image/png by its first bytes; a recording is needed"),
        (lambda r: r.transcribe(b"noise"), "audio: is of no known type; a recording is needed"),
        (lambda r: r.transcribe(3), "audio: must be bytes, a path, or a StoredMedia, InlineMedia or UrlMedia, not int"),
        (lambda r: r.transcribe(WAV, timestamps="letters"), "timestamps: must be 'none', 'segment' or 'word'"),
        (lambda r: r.speak("x" * (256 * 1024 + 1)), "input: has 262145 bytes, at most 262144 are allowed"),
        (lambda r: r.speak("x", speed=9.0), "speed: must be less than or equal to 4"),
    ],
)
async def test_what_is_wrong_is_named(call, message):
    fake = FakeBackend()
    async with open_test_runtime(fake) as runtime:
        with pytest.raises(CallerError) as caught:
            await call(runtime)
    assert message in caught.value.error.message
    assert caught.value.code == "invalid_request"
    assert fake.requests == []


async def test_nobody_does_it():
    stub = {"spear": {"backends": [{"name": "s", "kind": "stub", "hosting": "local"}]}}
    async with spear.open_runtime(stub) as runtime:
        with pytest.raises(RoutingError, match="no backend does embeddings"):
            await runtime.embed("a")


async def test_a_missing_file_is_an_oserror(tmp_path):
    async with open_test_runtime(FakeBackend()) as runtime:
        with pytest.raises(FileNotFoundError):
            await runtime.transcribe(tmp_path / "none.wav")


def test_blocking():
    sound = inline(WAV, "audio/wav")
    fake = FakeBackend(
        Reply(result=EmbeddingsResult(vectors=((1.0,),))),
        Reply(result=ImageResult(images=(StoredMedia(uri="smsfile://x"),))),
        "heard",
        Reply(result=TextToSpeechResult(audio=sound)),
    )
    config = {"spear": {"backends": [{"name": "fake", "kind": "fake", "hosting": "local"}]}}
    with spear.blocking.open_runtime(config, kinds=fake_kinds({"fake": fake}, kind="fake")) as runtime:
        assert runtime.embed("a").vectors == ((1.0,),)
        assert runtime.image("a").images[0].kind == "sms_file"
        assert runtime.transcribe(WAV).text == "heard"
        assert runtime.speak("a").audio == sound


async def test_chat_with_parts(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    url = "data:image/png;base64," + base64.b64encode(PNG).decode()
    stored = StoredMedia(uri="smsfile://abc", mime="audio/wav")
    content = [
        {"type": "text", "text": "what is this?"},
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "image", "media": PNG, "detail": "low"},
        {"type": "image", "media": tmp_path / "a.png"},
        {"type": "audio", "media": stored},
    ]
    fake = FakeBackend("a picture")
    async with open_test_runtime(fake) as runtime:
        reply = await runtime.chat(messages=[{"role": "user", "content": content}])
    assert reply.text == "a picture"
    parts = asked(fake).messages[0].content_parts
    picture = inline(PNG, "image/png")
    assert [getattr(part, "media", None) for part in parts] == [None, picture, picture, picture, stored]
    assert parts[2].detail == "low"
    assert set(fake.requests[0].requirements.required_features) == {"supports_image_input", "supports_audio_input"}


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"type": "image", "media": WAV}, "content[0].media: is audio/wav by its first bytes; an image is needed"),
        ({"type": "image", "media": {"kind": "sms_file", "uri": "file:///etc"}}, "messages[0].content[0].media.uri"),
        ({"type": "audio", "media": {"kind": "ftp"}}, "messages[0].content[0].media"),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,a b"}}, "content[0].image_url.url: must be"),
    ],
)
async def test_parts_that_are_wrong(part, message):
    async with open_test_runtime(FakeBackend()) as runtime:
        with pytest.raises(CallerError) as caught:
            await runtime.chat(messages=[{"role": "user", "content": [part]}])
    assert message in caught.value.error.message


LARGE = PNG + bytes(70_000)


async def test_large_bytes_go_through_the_store():
    drawn: list[StoredMedia] = []

    def draw(request):
        drawn.append(request.payload.image)
        return Reply(result=ImageResult(images=(request.payload.image,)))

    fake = FakeBackend(draw, "seen")
    async with open_test_runtime(fake) as runtime:
        reply = await runtime.image("a", image=LARGE)
        assert drawn[0].kind == "sms_file"
        assert (drawn[0].mime, drawn[0].size) == ("image/png", len(LARGE))
        assert await reply.load() == [LARGE]
        url = "data:image/png;base64," + base64.b64encode(LARGE).decode()
        await runtime.chat(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}])
        (part,) = asked(fake).messages[0].content_parts
        assert part.media.kind == "sms_file"
        assert (await runtime.media.load(part.media, task_id=None)).data == LARGE
    with pytest.raises(CallerError):
        await reply.load()  # the store was the runtime's own


async def test_the_host_says_how_much_stays_in_place():
    fake = FakeBackend("a", "b")
    config = {"spear": {"backends": [{"name": "fake", "kind": "fake", "hosting": "local"}]}}
    for most, kind in ((len(WAV), "inline_base64"), (len(WAV) - 1, "sms_file")):
        config["spear"]["media"] = {"max_inline_bytes": most}
        async with spear.open_runtime(config, kinds=fake_kinds({"fake": fake}, kind="fake")) as runtime:
            await runtime.transcribe(WAV)
        assert asked(fake).audio.kind == kind


async def test_guests_are_held_to_the_same():
    config = {"spear": {"backends": [], "media": {"max_inline_bytes": 7}, "guests": {"module_cache": False}}}
    async with spear.open_runtime(config) as runtime:
        await runtime.run_guest(guest_path("hello"))
        assert runtime._executions.engine.limits.inline_media_bytes == 7


def test_blocking_load():
    fake = FakeBackend(lambda request: Reply(result=ImageResult(images=(request.payload.image,))))
    config = {"spear": {"backends": [{"name": "fake", "kind": "fake", "hosting": "local"}]}}
    with spear.blocking.open_runtime(config, kinds=fake_kinds({"fake": fake}, kind="fake")) as runtime:
        (picture,) = runtime.image("a", image=LARGE).images
        assert runtime.load(picture) == LARGE
