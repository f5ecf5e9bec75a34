"""What a well-behaved OpenAI-compatible server says to the operations besides chat. Pure and deterministic.

Images are real PNGs, speech is a real WAV, vectors depend on the text alone, and a transcript says what was uploaded.
"""

from __future__ import annotations

import base64
import hashlib
import io
import struct
import wave
import zlib
from dataclasses import dataclass
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any, Literal

import orjson

from tests.servers._reply import BadRequest

Operation = Literal["embeddings", "generations", "edits", "transcriptions", "translations", "speech"]
PATHS: dict[str, Operation] = {
    "/embeddings": "embeddings",
    "/images/generations": "generations",
    "/images/edits": "edits",
    "/audio/transcriptions": "transcriptions",
    "/audio/translations": "translations",
    "/audio/speech": "speech",
}
_JSON = "application/json"
RATE = 16_000


@dataclass(frozen=True, slots=True)
class Given:
    """A whole answer; `events` are its payloads where it is an event stream."""

    model: str
    body: bytes = b""
    content_type: str = _JSON
    events: tuple[str, ...] | None = None
    chunked: bool = False


def answer(operation: Operation, body: bytes, content_type: str) -> Given:
    """Raises BadRequest, which names what is wrong."""
    if operation in {"edits", "transcriptions", "translations"}:
        fields, files = read_form(body, content_type)
        asked: dict[str, Any] = dict(fields)
    else:
        files = {}
        asked = _object(body)
    model = asked.get("model")
    if not isinstance(model, str) or not model:
        raise BadRequest("you must provide a model parameter", param="model")
    match operation:
        case "embeddings":
            return _embeddings(model, asked)
        case "generations" | "edits":
            return _images(model, asked, files, edit=operation == "edits")
        case "speech":
            return _speech(model, asked)
        case _:
            return _transcript(model, asked, files, operation)


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"We could not parse the JSON body of your request: {error}") from None
    if not isinstance(value, dict):
        raise BadRequest("the body is a JSON object")
    return value


def read_form(body: bytes, content_type: str) -> tuple[dict[str, str], dict[str, tuple[str, str, bytes]]]:
    """Fields, and files by their field: name, type, bytes. By the standard library's parser, not our writer's twin."""
    if not content_type.startswith("multipart/form-data"):
        raise BadRequest(f"the body is a form, not {content_type}")
    message = BytesParser(policy=HTTP).parsebytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body)
    fields: dict[str, str] = {}
    files: dict[str, tuple[str, str, bytes]] = {}
    for part in message.iter_parts():
        name = str(part.get_param("name", header="content-disposition"))
        data = part.get_payload(decode=True)
        assert isinstance(data, bytes)
        if (file_name := part.get_filename()) is not None:
            files[name] = file_name, part.get_content_type(), data
        else:
            fields[name] = data.decode()
    return fields, files


def vector(text: str, size: int) -> list[float]:
    digest = hashlib.sha256(text.encode()).digest()
    return [(digest[at % 32] - 128) / 128 for at in range(size)]


def _embeddings(model: str, asked: dict[str, Any]) -> Given:
    texts = asked.get("input")
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise BadRequest("input is a text or a list of texts", param="input")
    rows: list[Any] = [vector(text, asked.get("dimensions") or 8) for text in texts]
    if asked.get("encoding_format") == "base64":
        rows = [base64.b64encode(struct.pack(f"<{len(row)}f", *row)).decode() for row in rows]
    words = sum(len(text.split()) for text in texts)
    data = [{"object": "embedding", "index": at, "embedding": row} for at, row in enumerate(rows)]
    usage = {"prompt_tokens": words, "total_tokens": words}
    return Given(model, orjson.dumps({"object": "list", "data": data, "model": model, "usage": usage}))


def png(width: int, height: int, colour: bytes = b"\x20\x40\x80") -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\x00" + colour * width) * height
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _images(model: str, asked: dict[str, Any], files: dict[str, tuple[str, str, bytes]], *, edit: bool) -> Given:
    prompt = asked.get("prompt")
    if not isinstance(prompt, str) or not prompt:
        raise BadRequest("prompt is a text", param="prompt")
    if edit and not files.get("image", ("", "", b""))[2].startswith(b"\x89PNG"):
        raise BadRequest("image is a PNG", param="image")
    side = int(str(asked.get("size") or "16x16").partition("x")[0])
    picture = png(side, side, hashlib.sha256(prompt.encode()).digest()[:3])
    item = {"b64_json": base64.b64encode(picture).decode(), "revised_prompt": f"{prompt}, please"}
    usage = {"input_tokens": len(prompt.split()), "output_tokens": 100, "total_tokens": 100 + len(prompt.split())}
    count = int(asked.get("n") or 1)
    return Given(model, orjson.dumps({"created": 1_700_000_000, "data": [item] * count, "usage": usage}))


def wav(seconds: float) -> bytes:
    written = io.BytesIO()
    with wave.open(written, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(b"\x00\x10" * int(RATE * seconds))
    return written.getvalue()


def _speech(model: str, asked: dict[str, Any]) -> Given:
    text, voice = asked.get("input"), asked.get("voice")
    if not isinstance(text, str) or not text:
        raise BadRequest("input is a text", param="input")
    if not isinstance(voice, str) or not voice:
        raise BadRequest("voice is the name of a voice", param="voice")
    spoken = wav(0.05 * len(text))
    match asked.get("response_format", "mp3"):
        case "wav":
            return Given(model, spoken, "audio/wav", chunked=True)
        case "pcm":
            return Given(model, spoken[44:], "audio/pcm", chunked=True)
        case "mp3":
            return Given(model, b"ID3" + spoken, "audio/mpeg", chunked=True)
        case other:
            raise BadRequest(f"response_format {other} is not known here", param="response_format")


def _transcript(
    model: str, asked: dict[str, Any], files: dict[str, tuple[str, str, bytes]], operation: Operation
) -> Given:
    name, mime, data = files.get("file", ("", "", b""))
    if not data:
        raise BadRequest("file is a recording", param="file")
    text = f"{'translated ' if operation == 'translations' else ''}{len(data)} bytes of {mime} called {name}"
    if language := asked.get("language"):
        text += f" in {language}"
    seconds = round(max(len(data) - 44, 0) / 2 / RATE, 3)
    form = asked.get("response_format", "json")
    usage = {"type": "duration", "seconds": seconds}
    if asked.get("stream") == "true":
        words = text.split(" ")
        deltas = [word if at == 0 else f" {word}" for at, word in enumerate(words)]
        events = [orjson.dumps({"type": "transcript.text.delta", "delta": delta}).decode() for delta in deltas]
        done = {"type": "transcript.text.done", "text": text, "usage": usage}
        return Given(model, events=(*events, orjson.dumps(done).decode()))
    if form in {"text", "srt", "vtt"}:
        return Given(model, text.encode(), "text/plain; charset=utf-8")
    told: dict[str, Any] = {"text": text, "usage": usage}
    if form in {"verbose_json", "diarized_json"}:
        half = len(text) // 2
        segments = [
            {"id": 0, "start": 0.0, "end": seconds / 2, "text": text[:half], "speaker": "A"},
            {"id": 1, "start": seconds / 2, "end": seconds, "text": text[half:], "speaker": "B"},
        ]
        told |= {"language": asked.get("language", "english"), "duration": seconds, "segments": segments}
    return Given(model, orjson.dumps(told))
