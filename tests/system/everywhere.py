"""The matrix of operations: where each is done, how each of the three ways in asks for it, and what has to come back.

A cell is the name of an operation in one of its forms. A way is a function from a place and a cell to what was `Told`.
"""

from __future__ import annotations

import base64
import io
import json
import math
import wave
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from PIL import Image

import spear
from spear.cli._starter import starter_text
from spear.ir import (
    AudioDelta,
    ChatMessage,
    ChatRequest,
    Completed,
    ContentDelta,
    InlineMedia,
    MediaRef,
    Operation,
    RequestEnvelope,
    SegmentEvent,
    SpeechToTextRequest,
    StoredMedia,
    TextToSpeechRequest,
)
from tests.servers._ollama_dialect import vector as ollama_vector
from tests.servers._operations import vector
from tests.servers.fault_server import FaultServer
from tests.spear.cli.command import spear as command

GUESTS: Final = Path(__file__).with_name("operation_guests.wasm")
SOURCE: Final = GUESTS.with_suffix(".c")
KEY_ENV: Final = "EVERYWHERE_KEY"
ASKED, SENTENCE, PROMPT = "good day", "one two three four five", "a boat"
VOICE: Final[dict[str, Any]] = {"voice": "en-us+klatt2", "speed": 0.71, "format": "wav"}
CHATS: Final = ("chat", "chat_streamed")
REST: Final = ("embed", "draw", "say", "hear")
ALL: Final = (*CHATS, "chat_image", *REST, "redraw", "say_streamed", "hear_streamed", "translate")
NOT_ON_THE_COMMAND_LINE: Final = {"say_streamed", "hear_streamed"}
"""The commands write files when they are whole."""


def mask() -> bytes:
    """Sixteen by sixteen, its left half clear: the picture of the guests."""
    _, _, rest = SOURCE.read_text(encoding="utf-8").partition("PNG[] = {")
    return bytes(int(each, 16) for each in rest.partition("}")[0].replace(",", " ").split())


@dataclass(frozen=True)
class Told:
    """A text, vectors, or the bytes of a file; and of a stream its pieces."""

    value: Any
    pieces: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Place:
    name: str
    cells: tuple[str, ...]
    settings: str
    """Of the one backend, or a whole configuration where there is no server."""
    server: str = ""
    """The fixture of its server."""
    paths: Mapping[str, str] | None = None

    def toml(self, server: FaultServer | None) -> str:
        if server is None:
            return self.settings
        url = server.base_url if self.name == "openai" else server.root_url
        text = (
            f'[spear.guests]\nmodule_cache = false\n[[spear.credentials]]\nname = "key"\nenv = "{KEY_ENV}"\n'
            f'[[spear.backends]]\nname = "it"\nhosting = "local"\ncredentials = ["key"]\nmodel = "m"\n'
            f'base_url = "{url}"\n'
        )
        return text + self.settings


OPENAI_PATHS: Final = {
    **dict.fromkeys(("chat", "chat_image", "chat_streamed"), "/chat/completions"),
    "embed": "/embeddings",
    "draw": "/images/generations",
    "redraw": "/images/edits",
    **dict.fromkeys(("say", "say_streamed"), "/audio/speech"),
    **dict.fromkeys(("hear", "hear_streamed"), "/audio/transcriptions"),
    "translate": "/audio/translations",
}
ODD: Final = """kind = "json_http"
ops = ["chat_completions", "embeddings", "image_generation", "speech_to_text", "text_to_speech"]
features = ["supports_stream", "supports_formats", "supports_voices"]
[spear.backends.options]
key_header = "X-Odd-Key"
chat_completions = { path = "/odd/chat", body = { ask = "{last_user}", engine = "{model}" }, text = "/out/0/t" }
embeddings = { path = "/odd/embed", body = { texts = "{input}" }, vectors = "/rows/*/v" }
image_generation = { path = "/odd/draw", body = { what = "{prompt}", size = "{size}" }, images = "/pictures/*/data" }
speech_to_text = { path = "/odd/hear", body = { sound = "{audio}", type = "{mime}" }, text = "/heard" }
[spear.backends.options.text_to_speech]
path = "/odd/say"
body = { words = "{input}", how = ["{voice}", "{speed}", "{format}"] }
audio = "/sound"
"""
PLACES: Final = {
    place.name: place
    for place in (
        Place("embedded", ALL, starter_text()),
        Place("openai", ALL, 'kind = "openai"\n', "fault_server", {k: f"/v1{v}" for k, v in OPENAI_PATHS.items()}),
        Place(
            "azure",
            ALL,
            'kind = "azure_openai"\n',
            "fault_server",
            {cell: f"/openai/deployments/m{path}" for cell, path in OPENAI_PATHS.items()},
        ),
        Place(
            "ollama",
            (*CHATS, "chat_image", "embed"),
            'kind = "ollama_chat"\n',
            "dialect_server",
            {**dict.fromkeys((*CHATS, "chat_image"), "/api/chat"), "embed": "/api/embed"},
        ),
        Place(
            "anthropic",
            (*CHATS, "chat_image"),
            'kind = "anthropic"\n',
            "dialect_server",
            dict.fromkeys((*CHATS, "chat_image"), "/v1/messages"),
        ),
        Place(
            "json_http",
            (*CHATS, *REST, "say_streamed", "hear_streamed"),
            ODD,
            "dialect_server",
            {
                **dict.fromkeys(CHATS, "/odd/chat"),
                "embed": "/odd/embed",
                "draw": "/odd/draw",
                **dict.fromkeys(("say", "say_streamed"), "/odd/say"),
                **dict.fromkeys(("hear", "hear_streamed"), "/odd/hear"),
            },
        ),
    )
}


# --- a guest


async def by_guest(runtime: spear.Runtime, cell: str) -> Told:
    run = await runtime.run_guest(GUESTS, entry=cell)
    assert (run.status, run.exit_code) == ("completed", 0), run
    *events, last = map(json.loads, run.stdout.splitlines())
    if cell.endswith("_streamed"):
        assert (events[0]["type"], last["type"]) == ("started", "completed"), run.stdout
        body = last["response"]
    else:
        assert not events
        body = last
    assert "error" not in body, body
    if cell.startswith("chat"):
        return Told(body["choices"][0]["message"]["content"], _deltas(events))
    if cell == "embed":
        return Told(body["vectors"])
    if cell in {"draw", "redraw"}:
        (image,) = body["images"]
        return Told(await _loaded(runtime, StoredMedia(**image)))
    if cell.startswith("say"):
        pieces = [base64.b64decode(each["audio"]) for each in events if each["type"] == "audio_delta"]
        return Told(await _loaded(runtime, StoredMedia(**body["audio"])), tuple(pieces))
    return Told(body["text"], _deltas(events) or _segments(events))


def _segments(events: list[Any]) -> tuple[str, ...]:
    return tuple(each["text"] for each in events if each["type"] == "segment")


def _deltas(events: list[Any]) -> tuple[str, ...]:
    return tuple(each["delta"] for each in events if each["type"] == "content_delta")


async def _loaded(runtime: spear.Runtime, ref: MediaRef) -> bytes:
    if isinstance(ref, InlineMedia):
        return ref.decode()
    return (await runtime.media.load(ref, task_id=None)).data


# --- a Python call


async def by_python(runtime: spear.Runtime, cell: str) -> Told:
    match cell:
        case "chat":
            return Told((await runtime.chat(messages=[{"role": "user", "content": ASKED}])).text)
        case "chat_image":
            parts = [{"type": "text", "text": ASKED}, {"type": "image", "media": mask()}]
            return Told((await runtime.chat(messages=[{"role": "user", "content": parts}])).text)  # type: ignore[dict-item,list-item]
        case "embed":
            return Told((await runtime.embed(["one", "three"])).vectors)
        case "draw":
            (drawn,) = await (await runtime.image(PROMPT, size="64x64")).load()
            return Told(drawn)
        case "redraw":
            (drawn,) = await (await runtime.image(PROMPT, size="64x64", image=mask(), mask=mask())).load()
            return Told(drawn)
        case "say":
            return Told(await (await runtime.speak(SENTENCE, **VOICE)).load())
        case "chat_streamed":
            chat = ChatRequest(messages=(ChatMessage(role="user", content=ASKED),))
            return await _streamed(runtime, Operation.CHAT_COMPLETIONS, chat)
        case "say_streamed":
            return await _streamed(
                runtime, Operation.TEXT_TO_SPEECH, TextToSpeechRequest.model_validate({"input": SENTENCE, **VOICE})
            )
    said = (await runtime.speak(SENTENCE, **VOICE)).audio
    if cell == "hear_streamed":
        return await _streamed(runtime, Operation.SPEECH_TO_TEXT, SpeechToTextRequest(audio=said))
    translate = {"translate": True} if cell == "translate" else {}
    return Told((await runtime.transcribe(said, **translate)).text)


async def _streamed(runtime: spear.Runtime, operation: Operation, payload: Any) -> Told:
    request = RequestEnvelope(operation=operation, payload=payload)
    async with runtime.stream(request) as events:
        told = [event async for event in events]
    assert isinstance(told[-1], Completed)
    whole: Any = told[-1].response.unwrap()
    if operation is Operation.TEXT_TO_SPEECH:
        pieces = [base64.b64decode(event.audio) for event in told if isinstance(event, AudioDelta)]
        return Told(await _loaded(runtime, whole.audio), tuple(pieces))
    deltas = tuple(event.delta for event in told if isinstance(event, ContentDelta))
    return Told(whole.text, deltas or tuple(event.text for event in told if isinstance(event, SegmentEvent)))


# --- a command


def by_command(folder: Path, cell: str) -> Told:
    (folder / "mask.png").write_bytes(mask())
    said = ("say", SENTENCE, "--voice", VOICE["voice"], "--speed", VOICE["speed"], "-o", "said.wav")
    match cell:
        case "chat":
            return Told(_printed(folder, "chat", ASKED))
        case "chat_image":
            return Told(_printed(folder, "chat", ASKED, "--image", "mask.png"))
        case "chat_streamed":
            events = [json.loads(line) for line in _printed(folder, "chat", ASKED, "--stream", "--json").splitlines()]
            whole = events[-1]["response"]["result"]["payload"]["choices"][0]["message"]["content"]
            return Told(whole, _deltas(events))
        case "embed":
            return Told([json.loads(line) for line in _printed(folder, "embed", "one", "three").splitlines()])
        case "draw":
            _printed(folder, "image", PROMPT, "--size", "64x64", "-o", "drawn.png")
        case "redraw":
            given = ("--image", "mask.png", "--mask", "mask.png")
            _printed(folder, "image", PROMPT, "--size", "64x64", "-o", "drawn.png", *given)
        case "say":
            _printed(folder, *said)
            return Told((folder / "said.wav").read_bytes())
        case _:
            _printed(folder, *said)
            return Told(_printed(folder, "transcribe", "said.wav", *(["--translate"] if cell == "translate" else [])))
    return Told((folder / "drawn.png").read_bytes())


def _printed(folder: Path, *arguments: object) -> str:
    done = command(*arguments, cwd=folder, **{KEY_ENV: "the-key-of-these-tests"})
    assert done.code == 0, done.err
    return done.out.removesuffix("\n")


# --- what has to come back


def check(place: str, cell: str, told: Told) -> None:
    _CHECKS[cell.removesuffix("_streamed")](place, cell, told.value)
    if cell.endswith("_streamed"):
        if cell == "say_streamed":
            joined = b"".join(told.pieces)
            assert joined[:4] == b"RIFF"
            assert joined[44:] == told.value[44:]  # a header that is sent first does not know how much will come
        else:
            segments = (place, cell) == ("embedded", "hear_streamed")  # it tells what it heard between two pauses
            assert (" " if segments else "").join(told.pieces) == told.value
            assert len(told.pieces) > 1 or segments or place == "json_http"  # which tells a whole answer as a stream


def _chat(place: str, cell: str, text: str) -> None:
    said = "stub chat completion: " if place == "embedded" else "echo: "
    assert text.startswith(said + ASKED), text
    seen = {"embedded": " (with 1 image, unseen)", "ollama": " [85 bytes]", "anthropic": " [85 bytes]"}
    assert text == said + ASKED + (seen.get(place, "") if cell == "chat_image" else "")


def _vectors(place: str, cell: str, vectors: list[list[float]]) -> None:
    one, three = map(list, vectors)
    assert one != three
    match place:
        case "embedded":
            assert [len(one), len(three)] == [256, 256]
            assert math.hypot(*one) == 1 or abs(math.hypot(*one) - 1) < 1e-6
        case "json_http":
            assert (one, three) == ([3, 0.5], [5, 0.5])
        case "ollama":
            assert (one, three) == (ollama_vector("one"), ollama_vector("three"))
        case _:
            assert (one, three) == (vector("one", 8), vector("three", 8))


def _picture(place: str, cell: str, data: bytes) -> None:
    with Image.open(io.BytesIO(data)) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert picture.size == ((1, 1) if place == "json_http" else (64, 64))
        if place == "embedded":
            assert len(picture.convert("RGB").getcolors(4096) or ()) > 2  # something was drawn


def _sound(place: str, cell: str, data: bytes) -> None:
    with wave.open(io.BytesIO(data)) as sound:
        seconds = sound.getnframes() / sound.getframerate()
        samples = sound.readframes(sound.getnframes())
    assert any(samples)
    if place == "embedded":
        assert 1 < seconds < 6
    else:
        assert seconds == pytest.approx(0.05 * len(SENTENCE))


def _heard(place: str, cell: str, text: str) -> None:
    if place == "embedded":
        assert "three four five" in text  # it is no good recogniser: "well two three four five"
    else:
        assert text.startswith("translated " if cell == "translate" else "3")
        assert "bytes of audio/wav" in text


_CHECKS: Final[dict[str, Callable[[str, str, Any], None]]] = {
    "chat": _chat, "chat_image": _chat, "embed": _vectors, "draw": _picture, "redraw": _picture, "say": _sound,
    "hear": _heard, "translate": _heard,
}  # fmt: skip


def asked(place: Place, cells: list[str]) -> list[str]:
    """The addresses that a server must have been asked at, in order."""
    assert place.paths is not None
    heard = {"hear", "hear_streamed", "translate"}
    return [place.paths[each] for cell in cells for each in (["say", cell] if cell in heard else [cell])]
