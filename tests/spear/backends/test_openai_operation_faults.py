"""Every operation against a server that fails, lies or hangs: what it is called, that nothing leaks or stays open."""

from __future__ import annotations

import base64
import math
import struct
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson
import pytest
import trio

from spear.ir import (
    BackendError,
    EmbeddingsRequest,
    ErrorCode,
    Failure,
    ImageRequest,
    RequestPayload,
    SpeechToTextRequest,
    TextToSpeechRequest,
)
from tests.servers._operations import png, wav
from tests.servers.fault_server import FaultServer
from tests.spear.backends._memory_media import MemoryMedia
from tests.spear.backends._support import CANARY, call, use
from tests.spear.backends.test_openai_operations import asking, inline, opened

ANSWER = ErrorCode.BACKEND_ERROR, Failure.SERVER
CUT = ErrorCode.STREAM_TRUNCATED, Failure.SERVER
LATE = ErrorCode.TIMEOUT, Failure.SERVER

ASKED: dict[str, RequestPayload] = {
    "embeddings": EmbeddingsRequest(input=("one", "two")),
    "generations": ImageRequest(prompt="x"),
    "edits": ImageRequest(prompt="x", image=inline(png(2, 2), "image/png")),
    "transcriptions": SpeechToTextRequest(audio=inline(wav(0.1), "audio/wav")),
    "speech": TextToSpeechRequest(input="hello", format="wav"),
}
STREAMED = {"transcriptions", "speech"}


@dataclass(frozen=True)
class Fault:
    name: str
    does: dict[str, Any]
    found: tuple[ErrorCode, Failure] = ANSWER
    streamed: tuple[ErrorCode, Failure] | None = None
    says: str = ""
    conditions: dict[str, float] = field(default_factory=dict)


EVERYWHERE = [
    Fault("status 429", {"status": 429, "retry_after": 1}, (ErrorCode.RATE_LIMITED, Failure.RATE_LIMIT)),
    Fault("status 401", {"status": 401, "leak_key": True}, (ErrorCode.BACKEND_ERROR, Failure.AUTH)),
    Fault(
        "refused",
        {"status": 400, "error_code": "contentFilter"},
        (ErrorCode.CONTENT_REFUSED, Failure.REFUSED),
    ),
    Fault("status 500", {"status": 500}, says="upstream status: 500"),
    Fault("silent", {"never": True}, LATE, conditions={"first_event": 0.15}),
    Fault("late body", {"body_delay": 60}, LATE, conditions={"idle": 0.15, "first_event": 0.3}),
    Fault("closed at once", {"cut": "fin"}),
    Fault("reset in the body", {"cut": "rst", "cut_after": 2}, streamed=CUT),
    Fault(
        "an error with status 200",
        {"body": '{"error":{"message":"no room","type":"overloaded"}}'},
        says="error in an answer with status 200: overloaded: no room",
    ),
]
WHERE = [(operation, fault) for operation in ASKED for fault in EVERYWHERE]


@pytest.mark.parametrize(("operation", "fault"), WHERE, ids=lambda value: getattr(value, "name", value))
async def test_fault(fault_server: FaultServer, operation: str, fault: Fault) -> None:
    media = MemoryMedia()
    for how in ("plain", "stream") if operation in STREAMED else ("plain",):
        fault_server.script(operation=operation, **fault.does)  # type: ignore[arg-type]
        expected = (fault.streamed or fault.found) if how == "stream" else fault.found
        async with opened(fault_server, media) as adapter:
            with pytest.raises(BackendError) as caught:
                await use(adapter, how, asking(ASKED[operation]), call(**fault.conditions))
            assert (caught.value.code, caught.value.failure) == expected
            assert fault.says in caught.value.error.message
            assert CANARY not in str(caught.value)
            assert fault_server.root_url not in str(caught.value)
            await fault_server.until(open=0)
            await use(adapter, how, asking(ASKED[operation]), call())  # nothing broken has been kept
        await fault_server.until(open=0, connections_open=0)


def packed(*numbers: float) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def rows(*vectors: Any) -> str:
    return orjson.dumps({"data": [{"index": at, "embedding": each} for at, each in enumerate(vectors)]}).decode()


WRONG_VECTORS = {
    "NaN as JSON has none": ('{"data":[{"index":0,"embedding":[NaN]},{"index":1,"embedding":[1]}]}', "is not JSON"),
    "NaN in base64": (rows(packed(1, math.nan), packed(1, 1)), "vector 0 has a number that is not finite"),
    "infinite in base64": (rows(packed(1, 1), packed(1, -math.inf)), "vector 1 has a number that is not finite"),
    "null": (rows([1, None], [1, 1]), "vector 0 has something in it that is no number"),
    "a text": (rows([1, "1"], [1, 1]), "vector 0 has something in it that is no number"),
    "true": (rows([1, True], [1, 1]), "vector 0 has something in it that is no number"),
    "too few": (rows([1.0]), "1 vectors for 2 inputs"),
    "too many": (rows([1.0], [1.0], [1.0]), "3 vectors for 2 inputs"),
    "of two lengths": (rows([1.0, 2.0], [1.0]), "vectors of different lengths: 1, 2"),
    "empty": (rows([], []), "vectors of 0 numbers"),
    "no base64": (rows("!!!!", packed(1)), "vector 0 is not base64"),
    "noise in base64": (rows(packed(1, 2)[:-4] + "\n ==", packed(1)), "vector 0 is not base64"),
    "half a number": (rows(base64.b64encode(b"12345").decode(), packed(1)), "vector 0 has 5 bytes"),
    "one twice": ('{"data":[{"index":1,"embedding":[1]},{"index":1,"embedding":[1]}]}', "comes twice"),
    "far away": ('{"data":[{"index":9,"embedding":[1]},{"index":1,"embedding":[1]}]}', "not the place of an input"),
    "no list": ('{"data":{}}', "no list"),
    "no objects": ('{"data":[1,2]}', "is not an object"),
    "nothing in it": ('{"data":[{"index":0},{"index":1}]}', "has no embedding"),
}


@pytest.mark.parametrize("name", WRONG_VECTORS)
async def test_vectors_that_cannot_be_used_say_why(fault_server: FaultServer, name: str) -> None:
    body, says = WRONG_VECTORS[name]
    fault_server.script(operation="embeddings", body=body)
    async with opened(fault_server) as adapter:
        with pytest.raises(BackendError) as caught:
            await adapter.invoke(asking(ASKED["embeddings"]), call())
    assert (caught.value.code, caught.value.failure) == ANSWER
    assert says in caught.value.error.message


async def test_vectors_in_any_order_come_in_that_of_their_inputs(fault_server: FaultServer) -> None:
    fault_server.script(
        operation="embeddings", body='{"data":[{"index":1,"embedding":[2, 3]},{"index":0,"embedding":[1, 0.5]}]}'
    )
    async with opened(fault_server) as adapter:
        answer = await adapter.invoke(asking(ASKED["embeddings"]), call())
    assert answer.payload.vectors == ((1.0, 0.5), (2.0, 3.0))  # type: ignore[union-attr]


def b64(data: bytes) -> str:
    return orjson.dumps({"data": [{"b64_json": base64.b64encode(data).decode()}]}).decode()


def huge_png() -> bytes:
    small = png(1, 1)
    return small[:16] + struct.pack(">II", 20_000, 20_000) + small[24:]


WRONG_IMAGES = {
    "noise": ('{"data":[{"b64_json":"no base64 at all!"}]}', "image 0 is not base64"),
    "text": (b64(b"<html>sorry</html>"), "image 0 is neither PNG nor JPEG nor WebP"),
    "a truncated PNG": (b64(png(64, 64)[:-20]), "image 0 is a PNG that breaks off"),
    "a bomb": (b64(huge_png()), "20000 × 20000 pixels"),
    "no pixels": (b64(png(1, 1)[:16] + bytes(8) + png(1, 1)[24:]), "without pixels"),
    "none": ('{"data":[]}', "has no images"),
    "too many": (orjson.dumps({"data": [{"url": "http://x/"}] * 17}).decode(), "more than 16 images"),
    "neither": ('{"data":[{"revised_prompt":"x"}]}', "neither b64_json nor an address"),
    "a file of the host": ('{"data":[{"url":"file:///etc/passwd"}]}', "neither b64_json nor an address"),
    "an address": ('{"data":[{"url":"http://169.254.169.254/latest"}]}', "cannot be fetched (media_not_allowed)"),
}


@pytest.mark.parametrize("name", WRONG_IMAGES)
async def test_pictures_that_cannot_be_used_say_why_and_are_not_kept(fault_server: FaultServer, name: str) -> None:
    body, says = WRONG_IMAGES[name]
    media = MemoryMedia()
    fault_server.script(operation="generations", body=body)
    async with opened(fault_server, media) as adapter:
        with pytest.raises(BackendError) as caught:
            await adapter.invoke(asking(ASKED["generations"]), call())
    assert (caught.value.code, caught.value.failure) == ANSWER
    assert says in caught.value.error.message
    assert not media.objects


WRONG_SPEECH: dict[str, tuple[dict[str, Any], str]] = {
    "empty": ({"body": ""}, "it is empty"),
    "another format": ({"body_base64": base64.b64encode(b"ID3" + bytes(99)).decode()}, "wav was asked for, and it is"),
    "no sound": ({"body": "<html>maintenance, come back later</html>"}, "does not begin like that"),
    "half a header": ({"body": "RIFF"}, "does not begin like that"),
    "a truncated WAV": ({"body_base64": base64.b64encode(wav(1)[:9000]).decode()}, "breaks off, 23044 bytes before"),
    "a WAV of silence so short that it is none": ({"body_base64": base64.b64encode(wav(0)).decode()}, "without sound"),
    "JSON": ({"body": "{}", "content_type": "application/json"}, "it is JSON"),
}


@pytest.mark.parametrize("how", ["plain", "stream"])
@pytest.mark.parametrize("name", WRONG_SPEECH)
async def test_speech_that_is_none_says_why_and_is_not_kept(fault_server: FaultServer, name: str, how: str) -> None:
    does, says = WRONG_SPEECH[name]
    media = MemoryMedia()
    fault_server.script(operation="speech", **{"content_type": "audio/wav", **does})
    async with opened(fault_server, media) as adapter:
        with pytest.raises(BackendError) as caught:
            await use(adapter, how, asking(ASKED["speech"]), call())
    assert (caught.value.code, caught.value.failure) == ANSWER
    assert says in caught.value.error.message
    assert not media.objects


@pytest.mark.parametrize("form", [None, "mp3", "pcm"])
@pytest.mark.parametrize("body", [b'{"error": "no voice left"}', b"<html>maintenance</html>", png(2, 2)])
async def test_what_is_called_audio_and_is_none_is_not_kept(
    fault_server: FaultServer, body: bytes, form: Literal["mp3", "pcm"] | None
) -> None:
    media = MemoryMedia()
    does = {"body_base64": base64.b64encode(body).decode(), "content_type": "audio/mpeg"}
    fault_server.script(operation="speech", **does)
    async with opened(fault_server, media) as adapter:
        with pytest.raises(BackendError, match=r"the speech cannot be used: it is (text|a file of another kind)"):
            await adapter.invoke(asking(TextToSpeechRequest(input="hello", format=form)), call())
    assert not media.objects


async def test_speech_that_breaks_off_is_not_kept(fault_server: FaultServer) -> None:
    media = MemoryMedia()
    fault_server.script(operation="speech", cut="fin", cut_after=3000)
    async with opened(fault_server, media) as adapter:
        with pytest.raises(BackendError):
            await use(adapter, "plain", asking(ASKED["speech"]), call())
    assert media.left == 1
    assert not media.objects


WRONG_TRANSCRIPTS = {
    "no text": ('{"language":"en"}', "has no text"),
    "a list": ("[]", "has no text"),
    "a segment that ends before it begins": (
        '{"text":"x","segments":[{"start":2,"end":1,"text":"x"}]}',
        "segments[0] has no beginning and end",
    ),
    "a segment at NaN": (
        '{"text":"x","segments":[{"start":"nan","end":1,"text":"x"}]}',
        "segments[0] has no beginning",
    ),
    "a segment of nothing": ('{"text":"x","segments":[7]}', "segments[0] has no text"),
}


@pytest.mark.parametrize("name", WRONG_TRANSCRIPTS)
async def test_transcripts_that_cannot_be_used_say_why(fault_server: FaultServer, name: str) -> None:
    body, says = WRONG_TRANSCRIPTS[name]
    fault_server.script(operation="transcriptions", body=body)
    async with opened(fault_server) as adapter:
        with pytest.raises(BackendError) as caught:
            await adapter.invoke(asking(ASKED["transcriptions"]), call())
    assert says in caught.value.error.message


STREAM_FAULTS = {
    "no end": ({"finish": False}, CUT, "before its end mark"),
    "an error": ({"error_after": 1, "error_message": f"oh {CANARY}"}, ANSWER, "oh [secret]"),
    "junk": ({"junk_after": 1}, ANSWER, "not JSON"),
    "cut": ({"cut": "fin", "cut_after": 2}, CUT, "cut off"),
}


@pytest.mark.parametrize("name", STREAM_FAULTS)
async def test_streamed_transcripts_that_break(fault_server: FaultServer, name: str) -> None:
    does, found, says = STREAM_FAULTS[name]
    fault_server.script(operation="transcriptions", **does)  # type: ignore[arg-type]
    async with opened(fault_server) as adapter:
        with pytest.raises(BackendError) as caught:
            await use(adapter, "stream", asking(ASKED["transcriptions"]), call())
    assert (caught.value.code, caught.value.failure) == found
    assert says in caught.value.error.message
    assert CANARY not in str(caught.value)


async def test_an_answer_without_an_end_is_cut_off_at_its_limit(fault_server: FaultServer) -> None:
    fault_server.script(operation="embeddings", huge_body_mib=2)
    async with opened(fault_server) as adapter:
        with pytest.raises(BackendError, match="response too large"):
            await adapter.invoke(asking(ASKED["embeddings"]), call())
        await fault_server.until(open=0)


@pytest.mark.parametrize("operation", ASKED)
async def test_cancelling_closes_the_socket(fault_server: FaultServer, operation: str) -> None:
    media = MemoryMedia()
    for how, does in [("plain", {"never": True}), ("stream", {"drip": {"bytes": 1, "every": 5.0}})]:
        fault_server.script(operation=operation, **does)  # type: ignore[arg-type]
        async with opened(fault_server, media) as adapter, trio.open_nursery() as nursery:
            nursery.start_soon(use, adapter, how, asking(ASKED[operation]), call(first_event=60, idle=60))
            await fault_server.until(open=1)
            nursery.cancel_scope.cancel()
        await fault_server.until(open=0, connections_open=0)
    assert fault_server.counts()["aborted"] == 2
    assert not media.objects
