"""The real espeak-ng; where it is not installed, all but the last of these are skipped."""

from __future__ import annotations

import base64
import io
import os
import shutil
import wave
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from spear.backends.espeak._sentences import MOST, sentences
from spear.backends.espeak._ssml import BadSsml, clean_ssml
from spear.backends.espeak._voices import read_voices
from spear.ir import (
    AudioDelta,
    BackendError,
    CallerError,
    Degradation,
    EmbeddingsRequest,
    Limits,
    RoutingError,
    StoredMedia,
    TextToSpeechRequest,
    TextToSpeechResult,
)

from .local_kit import CALL, Shelf, local, request, wrong_options

real = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed: apt-get install it")


async def say(text: str, degradation: Degradation | None = None, **fields: Any) -> tuple[bytes, Any]:
    shelf = Shelf()
    envelope = {} if degradation is None else {"degradation": degradation}
    async with local("espeak", shelf) as adapter:
        answer = await adapter.invoke(request(TextToSpeechRequest(input=text, **fields), **envelope), CALL)
    assert isinstance(answer.payload, TextToSpeechResult)
    assert isinstance(answer.payload.audio, StoredMedia)
    return shelf.kept[answer.payload.audio.uri].data, answer


def seconds(wav: bytes) -> float:
    with wave.open(io.BytesIO(wav)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 22_050)
        return file.getnframes() / file.getframerate()


def children() -> set[int]:
    """Of this process, those that are espeak-ng and not yet collected."""
    found = set()
    for folder in Path("/proc").iterdir():
        try:
            fields = (folder / "stat").read_text().rpartition(")")
        except (OSError, ValueError):
            continue
        if "espeak-ng" in fields[0] and int(fields[2].split()[1]) == os.getpid():
            found.add(int(folder.name))
    return found


@real
async def test_it_speaks() -> None:
    wav, answer = await say("Hello there. This is speech!")
    assert 1 < seconds(wav) < 5
    assert answer.payload.duration_s == pytest.approx(seconds(wav))
    assert answer.usage.characters == 28
    slow, _ = await say("Hello there. This is speech!", speed=0.5)
    assert seconds(slow) > 1.4 * seconds(wav)


@real
async def test_pcm_is_the_same_without_a_header() -> None:
    (wav, _), (pcm, answer) = await say("Hello."), await say("Hello.", format="pcm")
    assert wav[44:] == pcm
    assert answer.payload.audio.mime == "audio/L16;rate=22050"


@real
async def test_voices() -> None:
    plain, _ = await say("Guten Tag", voice="en-us")
    for voice in ("de", "German", "en-us+f3"):
        assert (await say("Guten Tag", voice=voice))[0] != plain
    for wrong in ("alloy", "xx", "en-us+nobody", "en-us --help", "../../etc/passwd", "-w", "x" * 10_000):
        with pytest.raises(RoutingError, match="voice: espeak-ng has none called"):
            await say("Guten Tag", voice=wrong)
    wav, answer = await say("Guten Tag", voice="alloy", degradation=Degradation(mode="allow"))
    assert wav == plain
    assert answer.degraded == ("default_voice",)


@real
@pytest.mark.parametrize("form", ["mp3", "opus", "flac"])
async def test_formats_that_are_not_made(form: str) -> None:
    with pytest.raises(RoutingError, match=f"format: is {form}; espeak makes wav and pcm"):
        await say("x", format=form)


@real
@pytest.mark.parametrize("text", ["", "   \n", "\x00\x01"])
async def test_nothing_to_say(text: str) -> None:
    with pytest.raises(CallerError, match="nothing in it"):
        await say(text)


@real
async def test_too_long() -> None:
    with pytest.raises(CallerError, match="has 10000000 characters; this backend says at most 10000"):
        await say("x" * 10_000_000)


@real
async def test_endless_speech_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spear.backends.espeak._kind.MAX_BYTES", 50_000)
    for fields in ({}, {"ssml": True}):
        with trio.fail_after(10), pytest.raises(CallerError, match="minutes of speech"):
            await say("hello there, nobody will hear the end of this. And so on", **fields)
    assert children() == set()


@real
async def test_markup() -> None:
    plain, _ = await say("one two")
    paused, _ = await say('one <break time="2s"/> two', ssml=True)
    assert seconds(paused) > seconds(plain) + 1.5
    with pytest.raises(CallerError, match="<audio>; known are"):
        await say('<audio src="/etc/passwd"/>', ssml=True)
    read_out, _ = await say('one <break time="2s"/> two')
    assert read_out not in (plain, paused)


@real
async def test_a_stream_speaks_sentence_by_sentence() -> None:
    text = "One. Two is longer than that. Three!"
    async with local("espeak") as adapter, adapter.stream(request(TextToSpeechRequest(input=text)), CALL) as stream:
        items = [item async for item in stream]
    names = [type(item).__name__ for item in items]
    assert names == ["Started", "AudioDelta", "AudioDelta", "AudioDelta", "UsageEvent", "Finished"]
    joined = b"".join(base64.b64decode(item.audio) for item in items if isinstance(item, AudioDelta))
    assert joined[44:] == (await say(text))[0][44:]


@real
async def test_leaving_ends_the_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An espeak-ng that never ends, of the same name, so that there is something to end."""
    slow = tmp_path / "espeak-ng"
    slow.write_text(
        f'#!/bin/sh\ncase "$1" in --voices*) exec {shutil.which("espeak-ng")} "$1";; esac\n'
        f"exec {_named_sleep(tmp_path)} 60\n"
    )
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    async with local("espeak") as adapter:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(adapter.invoke, request(TextToSpeechRequest(input="hello")), CALL)
            with trio.fail_after(5):
                while not any(map(_waits, children())):  # noqa: ASYNC110 -- it is another process
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
        assert children() == set()
        with trio.move_on_after(0.3):
            async with adapter.stream(request(TextToSpeechRequest(input="hello")), CALL) as items:
                async for _ in items:
                    pass
        assert children() == set()


def _waits(pid: int) -> bool:
    return b"60" in Path(f"/proc/{pid}/cmdline").read_bytes()


def _named_sleep(folder: Path) -> Path:
    """`sleep`, called espeak-ng, so that it is counted."""
    found = shutil.which("sleep")
    assert found is not None
    (folder / "real").mkdir()
    return Path(shutil.copy(found, folder / "real" / "espeak-ng"))


@real
async def test_a_program_that_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "espeak-ng"
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    voices = f'#!/bin/sh\ncase "$1" in --voices*) exec {shutil.which("espeak-ng")} "$1";; esac\n'
    for rest, says in (
        ("exit 3", "ended with code 3"),
        ("echo noise of some length, more than a header of WAV", "no audio"),
    ):
        broken.write_text(voices + rest + "\n")
        broken.chmod(0o755)
        with pytest.raises(BackendError, match=says):
            await say("hello")
        assert children() == set()


@real
async def test_options_and_another_operation() -> None:
    too_many = wrong_options("espeak", Limits(max_chars=100_001))
    assert too_many == "limits.max_chars: is 100001; espeak takes at most 100000"
    assert "options.voice: must be a voice" in wrong_options("espeak", voice="--help; rm")
    async with local("espeak", voice="xx") as adapter:
        with pytest.raises(BackendError, match="no voice 'xx', which options"):
            await adapter.invoke(request(TextToSpeechRequest(input="x")), CALL)
        with pytest.raises(RoutingError, match="text_to_speech only"):
            await adapter.invoke(request(EmbeddingsRequest(input=("x",))), CALL)


def test_it_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "espeak-ng is not installed" in wrong_options("espeak")


def test_sentences() -> None:
    assert list(sentences('He paid 3.50. "Really?" Yes!\nNew line [[x]] 你好。再见')) == [
        "He paid 3.50.", '"Really?"', "Yes!", "New line [ [x]] 你好。", "再见",
    ]  # fmt: skip
    assert [len(piece) for piece in sentences("x" * (2 * MOST + 5))] == [MOST, MOST, 5]


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=200) | st.text(st.sampled_from("ab .!?\n"), max_size=3000))
def test_sentences_of_any_text(text: str) -> None:
    pieces = list(sentences(text))
    assert all(0 < len(piece) <= MOST for piece in pieces)
    for piece in pieces:
        piece.encode()
    said = "".join("".join(pieces).split())
    assert said.count("a") == text.count("a")


@pytest.mark.parametrize(
    "text",
    [
        "<speak>a</speak", "a & b", "<!DOCTYPE x [<!ENTITY a 'b'>]><speak>&a;</speak>", "<?xml version='1.0'?><speak/>",
        "<voice name='x'>a</voice>", "<speak><break time='&quot;'/></speak>", "<s>" * 40 + "</s>" * 40, "\x00",
    ],
)  # fmt: skip
def test_markup_that_is_refused(text: str) -> None:
    with pytest.raises(BadSsml):
        clean_ssml(text)


def test_markup_that_passes() -> None:
    inner = '<p>a <emphasis level="strong">b</emphasis></p></speak>'
    text = f'<speak xmlns="http://www.w3.org/2001/10/synthesis" onload="x">{inner}'
    assert clean_ssml(text) == f"<speak>{inner}"


@settings(max_examples=50, deadline=None)
@given(st.text(st.sampled_from('<>/"=& aspekbr!?'), max_size=60))
def test_any_markup(text: str) -> None:
    try:
        cleaned = clean_ssml(text)
    except BadSsml:
        return
    assert clean_ssml(cleaned) == cleaned


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=200), st.text(max_size=200), st.text(max_size=20))
def test_any_list_of_voices(listed: str, variants: str, wanted: str) -> None:
    found = read_voices(listed, variants).find(wanted)
    assert found is None or found in listed.lower() or "+" in found
