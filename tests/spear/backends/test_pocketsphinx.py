"""The real recogniser in real processes; what hangs, dies and talks nonsense are small programs in its place."""

from __future__ import annotations

import os
import random
import shutil
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import trio

pytest.importorskip("numpy")
pytest.importorskip("pocketsphinx")

from spear.backends import Adapter
from spear.backends._local import Pool, Worker, start_worker
from spear.backends.pocketsphinx import _kind
from spear.ir import (
    BackendError,
    CallerError,
    EmbeddingsRequest,
    ErrorCode,
    Limits,
    RoutingError,
    SegmentEvent,
    SpeechToTextRequest,
    SpeechToTextResult,
)
from tests.spear.dialects.test_wav import wav

from .local_kit import CALL, Shelf, children, inline, local, request, wrong_options

speaks = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed: apt-get install it")
SILENCE = wav(bytes(16_000 * 2))


@cache
def spoken(text: str) -> bytes:
    command = ["espeak-ng", "-v", "en-us+klatt2", "-s", "125", "--stdin", "--stdout"]
    return subprocess.run(command, input=text.encode(), capture_output=True, check=True).stdout


def ask(audio: bytes, mime: str = "audio/wav", **fields: Any) -> Any:
    return request(SpeechToTextRequest(audio=inline(audio, mime), **fields))


@speaks
async def test_what_was_said_is_heard() -> None:
    async with local("pocketsphinx", workers=1) as adapter:
        answer = await adapter.invoke(ask(spoken("one two three four five")), CALL)
        assert isinstance(answer.payload, SpeechToTextResult)
        assert "three four five" in answer.payload.text
        assert answer.payload.language == "en"
        assert answer.payload.duration_s == pytest.approx(2.5, abs=1)
        assert answer.usage.audio_seconds == answer.payload.duration_s
        (segment,) = answer.payload.segments
        assert segment.text == answer.payload.text
        assert 0 <= segment.start_s < segment.end_s <= answer.payload.duration_s
        (pid,) = children()

        words = await adapter.invoke(ask(spoken("how are you today"), timestamps="word", language="en-US"), CALL)
        assert isinstance(words.payload, SpeechToTextResult)
        assert [each.text for each in words.payload.segments] == words.payload.text.split()
        assert {"you", "today"} <= set(words.payload.text.split())
        starts = [each.start_s for each in words.payload.segments]
        assert starts == sorted(starts)
        assert children() == {pid}, "the same worker"

        two = spoken("one two three four five")[:-1000] + bytes(22_050 * 4) + spoken("how are you today")[44:]
        async with adapter.stream(ask(two), CALL) as stream:
            items = [item async for item in stream]
        heard = [item for item in items if isinstance(item, SegmentEvent)]
        assert len(heard) == 2
        assert heard[0].end_s < heard[1].start_s
        assert [type(item).__name__ for item in items[-2:]] == ["UsageEvent", "Finished"]
        none = await adapter.invoke(ask(SILENCE, timestamps="none"), CALL)
        assert none.payload == SpeechToTextResult(text="", language="en", duration_s=1.0)
    assert children() == set(), "closed with the adapter"


@pytest.mark.parametrize(
    ("audio", "mime", "says"),
    [
        (wav(bytes(8000 * 3600), rate=8000, bits=8), "audio/wav", "audio: is 3600 s long; .* at most 600 s"),
        (b"", "audio/wav", "audio: it is empty"),
        (SILENCE[:500], "audio/wav", "audio: it is truncated"),
        (SILENCE, "audio/mpeg", "audio: says audio/mpeg and is audio/wav"),
        (b"ID3" + bytes(100), "audio/wav", "audio: it is of format mp3"),
    ],
    ids=["an hour", "empty", "truncated", "lying", "mp3"],
)  # fmt: skip
async def test_audio_that_cannot_be_used(audio: bytes, mime: str, says: str) -> None:
    shelf = Shelf()
    stored = await shelf.save(audio, mime, task_id=None)
    async with local("pocketsphinx", shelf) as adapter:
        with pytest.raises(CallerError, match=says):
            await adapter.invoke(request(SpeechToTextRequest(audio=stored)), CALL)
    assert children() == set(), "nothing was started for it"


async def test_what_it_does_not_do() -> None:
    async with local("pocketsphinx") as adapter:
        with pytest.raises(RoutingError, match="language: is 'de'; pocketsphinx knows English only"):
            await adapter.invoke(ask(SILENCE, language="de"), CALL)
        with pytest.raises(RoutingError, match="does not tell speakers apart"):
            await adapter.invoke(ask(SILENCE, diarization=True), CALL)
        with pytest.raises(RoutingError, match="speech_to_text only"):
            await adapter.invoke(request(EmbeddingsRequest(input=("x",))), CALL)
    assert "from 1 to 16" in wrong_options("pocketsphinx", workers=0)
    assert "at most 3600" in wrong_options("pocketsphinx", Limits(max_audio_seconds=10**6))


FAKE = """
import struct, sys, time, os
def send(data):
    sys.stdout.buffer.write(struct.pack("<I", len(data)) + data); sys.stdout.buffer.flush()
def hear():
    (size,) = struct.unpack("<I", sys.stdin.buffer.read(4)); sys.stdin.buffer.read(size)
send(b'{"ready": true}')
how = "worker"
while True:
    hear()
"""
PIECE = """    send(b'{"start": 0.0, "end": 0.5, "words": [["hello", 0.0, 0.5]]}')\n"""
GOOD = FAKE + PIECE + """    send(b'{"done": true}')\n"""
BAD = {
    "hangs": (FAKE + "    time.sleep(60)\n", "it hangs"),
    "hangs half way": (FAKE + PIECE + "    time.sleep(60)\n", "it hangs"),
    "dies": (FAKE + "    os._exit(3)\n", "it has ended"),
    "dies half way": (FAKE + PIECE + "    os._exit(3)\n", "it has ended"),
    "never hears": (FAKE.replace("    hear()\n", "    time.sleep(60)\n"), "it hangs"),
    "talks nonsense": (FAKE + "    send(b'hello')\n", "it talks nonsense"),
    "has other words": (FAKE + """    send(b'{"start": "x"}')\n""", "it talks nonsense"),
    "says a list": (FAKE + "    send(b'[]')\n", "it talks nonsense"),
    "floods": (FAKE + "    sys.stdout.buffer.write(bytes([255]) * 10_000_000)\n", "it says more than it may"),
}  # fmt: skip


def program(text: str) -> Any:
    return lambda: start_worker((sys.executable, "-S", "-c", text))


@asynccontextmanager
async def with_workers(monkeypatch: pytest.MonkeyPatch, *programs: str) -> AsyncIterator[tuple[Adapter, Pool]]:
    """One place; the workers started are these, in this order, and after them good ones."""
    left = list(programs)
    pools: list[Pool] = []

    async def start() -> Worker:
        return await program(left.pop(0) if left else GOOD)()

    def pool(most: int, start_seconds: float, _: Any) -> Pool:
        pools.append(Pool(most, start_seconds, start))
        return pools[0]

    monkeypatch.setattr(_kind, "Pool", pool)
    async with local("pocketsphinx", workers=1) as adapter:
        yield adapter, pools[0]


@pytest.mark.parametrize(("text", "says"), BAD.values(), ids=BAD)
async def test_a_worker_that_fails_is_replaced(monkeypatch: pytest.MonkeyPatch, text: str, says: str) -> None:
    monkeypatch.setattr(_kind, "HANG_SECONDS", 0.3)
    monkeypatch.setattr(_kind, "HANG_FACTOR", 0.0)
    async with with_workers(monkeypatch, text) as (adapter, pool):
        with trio.fail_after(10), pytest.raises(BackendError, match=says) as caught:
            await adapter.invoke(ask(SILENCE), CALL)
        assert caught.value.code is ErrorCode.BACKEND_ERROR
        assert caught.value.error.retryable
        assert children() == set()
        monkeypatch.setattr(_kind, "HANG_SECONDS", 20)
        answer = await adapter.invoke(ask(SILENCE), CALL)
        assert isinstance(answer.payload, SpeechToTextResult)
        assert answer.payload.text == "hello"
        assert pool.started == 2
        assert len(children()) == 1


async def test_a_worker_that_died_while_nobody_looked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with with_workers(monkeypatch) as (adapter, pool):
        await adapter.invoke(ask(SILENCE), CALL)
        os.kill(pool.idle[0].pid, 9)
        with trio.fail_after(5):
            while pool.idle[0].alive:  # noqa: ASYNC110 -- it is another process
                await trio.sleep(0.01)
        await adapter.invoke(ask(SILENCE), CALL)
        assert pool.started == 2


async def test_workers_that_do_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_kind, "START_SECONDS", 0.5)
    slow = "import time; how = 'worker'; time.sleep(60)"
    async with with_workers(monkeypatch, slow, "import os; os._exit(1)") as (adapter, _):
        for says in ("not ready after 0.5 s", "it has ended"):
            with pytest.raises(BackendError, match=says):
                await adapter.invoke(ask(SILENCE), CALL)
            assert children() == set()
        await adapter.invoke(ask(SILENCE), CALL)


@pytest.mark.parametrize("how", ["plain", "stream"])
async def test_leaving_kills_the_worker_and_frees_its_place(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    async with with_workers(monkeypatch, FAKE + PIECE + "    time.sleep(60)\n") as (adapter, pool):

        async def leave() -> None:
            if how == "plain":
                await adapter.invoke(ask(SILENCE), CALL)
                return
            async with adapter.stream(ask(SILENCE), CALL) as items:
                async for item in items:
                    if isinstance(item, SegmentEvent):
                        return

        with trio.move_on_after(1.0):
            await leave()
        assert children() == set()
        with trio.fail_after(5):
            await adapter.invoke(ask(SILENCE), CALL)
        assert pool.started == 2


async def test_no_more_workers_than_places(monkeypatch: pytest.MonkeyPatch) -> None:
    async with with_workers(monkeypatch) as (adapter, pool):
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(adapter.invoke, ask(SILENCE), CALL)
        assert pool.started == 1


@pytest.mark.parametrize("frames", [30, 30.5])
async def test_sound_to_the_last_sample(frames: float) -> None:
    """Of a whole number of frames of the recogniser's, 30 ms each, and not."""
    noise = random.Random(3).randbytes(int(frames * 960))
    async with local("pocketsphinx", workers=1) as adapter:
        answer = await adapter.invoke(ask(wav(noise)), CALL)
    assert isinstance(answer.payload, SpeechToTextResult)
    assert all(each.end_s <= frames * 0.03 for each in answer.payload.segments)


def test_the_worker_program_ends_with_its_input() -> None:
    path = Path(_kind.__file__).with_name("_worker.py")
    command = [sys.executable, "-P", str(path)]
    given = struct.pack("<I", 4) + bytes(4) + struct.pack("<I", 100) + bytes(10)
    done = subprocess.run(command, input=given, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    frames, at = [], 0
    while at < len(done.stdout):
        (size,) = struct.unpack_from("<I", done.stdout, at)
        frames.append(done.stdout[at + 4 : at + 4 + size])
        at += 4 + size
    assert frames == [b'{"ready": true}', b'{"done": true}']
