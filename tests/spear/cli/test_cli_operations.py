"""spear embed, image, say, transcribe, and chat with pictures: what is asked, what is written and printed."""

from __future__ import annotations

import base64
import json
import re
from contextlib import chdir
from functools import partial

import numpy
import pytest
from click.testing import CliRunner

import spear as library
from spear.cli._main import main
from spear.ir import (
    EmbeddingsResult,
    ImageResult,
    InlineMedia,
    SpeechSegment,
    SpeechToTextResult,
    TextToSpeechResult,
)
from spear.testing import FakeBackend, Reply, backend_failure, fake_kinds
from tests.spear.cli.command import spear, spear_process, toml

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
WAV = b"RIFF\x24\0\0\0WAVEfmt " + bytes(30)
FAKE = '[[spear.backends]]\nname = "fake"\nkind = "fake"\nhosting = "local"'
STUB = FAKE.replace('kind = "fake"', 'kind = "stub"')
VECTORS = Reply(result=EmbeddingsResult(vectors=((1.0, 2.5), (-3.0, 0.25))))
SEGMENTS = (
    SpeechSegment(start_s=0.0, end_s=1.25, text="hello <there>"),
    SpeechSegment(start_s=3661.5, end_s=3662.0, text="again\n\nend", speaker="B"),
)
HEARD = Reply(result=SpeechToTextResult(text="hello there again", segments=SEGMENTS, language="en", duration_s=3662.0))


def inline(data: bytes, mime: str) -> InlineMedia:
    return InlineMedia(mime=mime, data=base64.b64encode(data).decode())


@pytest.fixture
def play(tmp_path, monkeypatch):
    """Write a configuration whose only backend is the fake that is returned."""

    def begin(*steps) -> FakeBackend:
        fake = FakeBackend(*steps)
        (tmp_path / "spear.toml").write_text(toml(FAKE))
        kinds = fake_kinds({"fake": fake}, kind="fake")
        monkeypatch.setattr(library, "open_runtime", partial(library.open_runtime, kinds=kinds))
        return fake

    return begin


# --- embed


def test_embed_prints_a_line_for_each_text(play, tmp_path):
    fake = play(VECTORS)
    done = spear("embed", "one", "two", "-d", 2, "-m", "e", cwd=tmp_path)
    assert (done.code, done.out, done.err) == (0, "[1.0,2.5]\n[-3.0,0.25]\n", "")
    payload = fake.requests[0].payload
    assert (payload.input, payload.dimensions, payload.model) == (("one", "two"), 2, "e")


def test_embed_writes_what_numpy_reads(play, tmp_path):
    play(VECTORS)
    done = spear("embed", "-", "--out", "v.npy", cwd=tmp_path, stdin=b"one\ntwo\n")
    assert (done.code, done.out, done.err) == (0, "", "spear: v.npy: 2 x 2\n")
    array = numpy.load(tmp_path / "v.npy")
    assert (array.dtype, array.tolist()) == ("float32", [[1.0, 2.5], [-3.0, 0.25]])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["spear.toml", "v.npy"]


def test_embed_json_is_the_envelope(play, tmp_path):
    play(VECTORS)
    told = spear("embed", "one", "two", "--json", cwd=tmp_path).json
    assert told["result"]["payload"]["vectors"] == [[1.0, 2.5], [-3.0, 0.25]]


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "message"),
    [
        ((), b"", 2, "Missing argument 'TEXT...'"),
        (("-",), b"", 2, "standard input has no line"),
        (("-",), b"\xff\n", 2, "TEXT is not valid UTF-8"),
        (("",), b"", 1, "input[0]: is empty"),
        (("a", "--out", "none/v.npy"), b"", 2, "none is no folder"),
    ],
)
def test_embed_refuses(play, tmp_path, arguments, stdin, code, message):
    fake = play()
    done = spear("embed", *arguments, cwd=tmp_path, stdin=stdin)
    assert (done.code, done.out) == (code, "")
    assert message in done.err
    assert fake.requests == []


# --- image


def test_image_writes_a_file(play, tmp_path):
    fake = play(Reply(result=ImageResult(images=(inline(PNG, "image/png"),))))
    (tmp_path / "old.png").write_bytes(PNG)
    done = spear(
        "image", "a cat", "--out", "card.png", "--size", "64x64", "--image", "old.png", "--seed", 3, cwd=tmp_path
    )
    assert (done.code, done.out, done.err) == (0, "", "spear: card.png: 28 bytes\n")
    assert (tmp_path / "card.png").read_bytes() == PNG
    payload = fake.requests[0].payload
    assert (payload.prompt, payload.size, payload.seed, payload.n) == ("a cat", "64x64", 3, None)
    assert payload.image == inline(PNG, "image/png")


def test_several_images_and_one_that_is_no_png(play, tmp_path):
    jpeg = b"\xff\xd8\xff\xe0" + bytes(20)
    play(Reply(result=ImageResult(images=(inline(PNG, "image/png"), inline(jpeg, "image/jpeg")))))
    done = spear("image", "a cat", "-o", "c.png", "-n", 2, cwd=tmp_path)
    assert done.err == "spear: c-1.png: 28 bytes\nspear: c-2.png: 24 bytes, image/jpeg\n"
    assert (tmp_path / "c-2.png").read_bytes() == jpeg


def test_image_to_stdout(play, tmp_path):
    play(Reply(result=ImageResult(images=(inline(PNG, "image/png"),))))
    with chdir(tmp_path):
        done = CliRunner().invoke(main, ["image", "a cat", "-o", "-"])
    assert (done.exit_code, done.stdout_bytes, done.stderr) == (0, PNG, "")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("a",), 2, "--out is missing: the file to write, as in --out card.png"),
        (("a", "-o", "."), 2, ". is a folder"),
        (("a", "-o", "x/c.png"), 2, "x is no folder"),
        (("a", "-o", "-", "--json"), 2, "both want standard output"),
        (("a", "-o", "-", "-n", 2), 2, "standard output takes one picture"),
        (("a", "-o", "c.png", "--image", "none.png"), 2, "does not exist"),
        (("a", "-o", "c.png", "--image", "spear.toml"), 1, "image: is of no known type; an image is needed"),
        (("a", "-o", "c.png", "--size", "9x9"), 1, "size: must be"),
        (("a", "-o", "c.png", "-n", 11), 2, "11 is not in the range"),
    ],
)
def test_image_refuses(play, tmp_path, arguments, code, message):
    fake = play()
    done = spear("image", *arguments, cwd=tmp_path)
    assert (done.code, done.out) == (code, "")
    assert message in done.err
    assert fake.requests == []
    assert not (tmp_path / "c.png").exists()


# --- say


@pytest.mark.parametrize(("name", "wanted"), [("a.wav", "wav"), ("a.MP3", "mp3"), ("a.ogg", "opus"), ("a.x", None)])
def test_say_writes_a_file(play, tmp_path, name, wanted):
    fake = play(Reply(result=TextToSpeechResult(audio=inline(WAV, "audio/wav"), duration_s=1.25)))
    done = spear("say", "-", "--out", name, "--voice", "en", "--speed", 2, cwd=tmp_path, stdin="grüezi".encode())
    assert (done.code, done.out, done.err) == (0, "", f"spear: {name}: 46 bytes, 1.2 s, audio/wav\n")
    assert (tmp_path / name).read_bytes() == WAV
    payload = fake.requests[0].payload
    assert (payload.input, payload.voice, payload.speed, payload.format) == ("grüezi", "en", 2.0, wanted)


def test_say_that_fails_leaves_no_file(play, tmp_path):
    play(backend_failure("no voice", failure="request"))
    done = spear("say", "a", "-o", "a.wav", cwd=tmp_path)
    assert (done.code, done.out, done.err) == (1, "", "spear: backend_error: no voice\n")
    assert not (tmp_path / "a.wav").exists()


# --- transcribe


def test_transcribe_prints_the_text(play, tmp_path):
    fake = play("hello there")
    (tmp_path / "a.wav").write_bytes(WAV)
    done = spear("transcribe", "a.wav", "-l", "en", "--translate", cwd=tmp_path)
    assert (done.code, done.out, done.err) == (0, "hello there\n", "")
    payload = fake.requests[0].payload
    assert (payload.audio, payload.language, payload.timestamps) == (inline(WAV, "audio/wav"), "en", None)
    assert payload.extra == {"translate": True}


def test_transcribe_from_stdin_with_times(play, tmp_path):
    fake = play(HEARD)
    done = spear("transcribe", "-", "--timestamps", "word", cwd=tmp_path, stdin=WAV)
    assert done.out == "    0.00     1.25  hello <there>\n 3661.50  3662.00  B: again\n\nend\n"
    assert fake.requests[0].payload.timestamps == "word"


@pytest.mark.parametrize(
    ("kind", "printed"),
    [
        (
            "srt",
            "1\n00:00:00,000 --> 00:00:01,250\nhello <there>\n\n2\n01:01:01,500 --> 01:01:02,000\nB: again end\n\n",
        ),
        (
            "vtt",
            """WEBVTT

00:00:00.000 --> 00:00:01.250
hello &lt;there&gt;

01:01:01.500 --> 01:01:02.000
B: again end

""",
        ),
    ],
)
def test_subtitles(play, tmp_path, kind, printed):
    fake = play(HEARD)
    (tmp_path / "a.wav").write_bytes(WAV)
    done = spear("transcribe", "a.wav", "--format", kind, cwd=tmp_path)
    assert (done.code, done.out) == (0, printed)
    assert fake.requests[0].payload.timestamps == "segment"


def test_transcribe_as_json(play, tmp_path):
    play(HEARD)
    (tmp_path / "a.wav").write_bytes(WAV)
    told = json.loads(spear("transcribe", "a.wav", "--format", "json", cwd=tmp_path).out)
    assert list(told) == ["text", "segments", "language", "duration_s"]
    assert told["segments"][1]["speaker"] == "B"


def test_transcribe_refuses_what_is_no_recording(play, tmp_path):
    fake = play()
    (tmp_path / "a.wav").write_bytes(PNG)
    done = spear("transcribe", "a.wav", cwd=tmp_path)
    assert (done.code, done.out) == (1, "")
    assert done.err == "spear: invalid_request: audio: is image/png by its first bytes; a recording is needed\n"
    assert fake.requests == []


# --- chat


def test_chat_with_pictures(play, tmp_path):
    fake = play("a picture")
    (tmp_path / "a.png").write_bytes(PNG)
    done = spear("chat", "what?", "-s", "be brief", "--image", "a.png", "--image", "a.png", cwd=tmp_path)
    assert (done.code, done.out, done.err) == (0, "a picture\n", "")
    system, user = fake.requests[0].payload.messages
    assert system.text() == "be brief"
    assert [part.type for part in user.content_parts] == ["text", "image", "image"]
    assert fake.requests[0].requirements.required_features == ("supports_image_input",)


# --- all of them


@pytest.mark.parametrize(
    ("arguments", "operation"),
    [
        (("embed", "a"), "embeddings"),
        (("image", "a", "-o", "a.png"), "image_generation"),
        (("say", "a", "-o", "a.wav"), "text_to_speech"),
        (("transcribe", "a.wav"), "speech_to_text"),
    ],
)
def test_nobody_does_it(tmp_path, arguments, operation):
    (tmp_path / "spear.toml").write_text(toml(STUB))
    (tmp_path / "a.wav").write_bytes(WAV)
    done = spear(*arguments, cwd=tmp_path)
    assert (done.code, done.out) == (1, "")
    assert done.err == f"spear: missing_capabilities: no backend does {operation}\n"
    told = spear(*arguments[:2], "--json", cwd=tmp_path)
    assert (told.code, told.json["result"]["error"]["code"]) == (1, "missing_capabilities")


def test_what_all_share(play, tmp_path):
    fake = play(VECTORS)
    done = spear("embed", "a", "b", "-b", "fake", "--timeout", 2.5, "--degrade", "-v", cwd=tmp_path)
    assert re.fullmatch(r"— fake \(fake\) · [\d.]+ ms · 1 token\n", done.err)
    request = fake.requests[0]
    assert (request.routing.backend, request.timeout_ms, request.degradation.mode) == ("fake", 2500, "allow")
    assert request.meta.source == "cli"


def test_in_a_process_of_its_own(tmp_path):
    (tmp_path / "spear.toml").write_text(toml(STUB))
    done = spear_process("say", "a", "-o", "a.wav", cwd=tmp_path)
    assert (done.code, done.out) == (1, "")
    assert done.err == "spear: missing_capabilities: no backend does text_to_speech\n"


@pytest.mark.parametrize("arguments", [("embed",), ("say", "--out", "x.wav"), ("transcribe",), ("chat",)])
def test_standard_input_has_an_end(monkeypatch, tmp_path, arguments):
    monkeypatch.setattr("spear.cli._output.MAX_STDIN", 10)
    done = spear(*arguments, "-", cwd=tmp_path, stdin=b"12345678901")
    assert (done.code, done.out) == (2, "")
    assert "standard input has more than 10 bytes" in done.err


def test_embed_into_a_folder(tmp_path):
    done = spear("embed", "a", "--out", tmp_path, cwd=tmp_path)
    assert (done.code, done.out) == (2, "")
    assert "is a folder; expected a file" in done.err
