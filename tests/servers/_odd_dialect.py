"""A dialect that nobody else speaks, for the kind whose words the configuration says. Pure."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

import orjson

from tests.servers._behaviour import Behaviour
from tests.servers._dialect import Dialect
from tests.servers._operations import wav
from tests.servers._reply import Answer, BadRequest, Question


def png() -> bytes:
    """One white pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0\xff")) + chunk(b"IEND", b"")
    )


def read(path: str, body: dict[str, Any]) -> Question | dict[str, Any]:
    match path, body:
        case "/odd/embed", {"texts": list(texts)}:
            return {"rows": [{"v": [len(text), 0.5]} for text in texts], "n": len(texts)}
        case "/odd/draw", {"what": str()}:
            return {"pictures": [{"data": base64.b64encode(png()).decode()}] * body.get("n", 1)}
        case "/odd/say", {"words": str(words)}:
            return {"sound": "data:audio/wav;base64," + base64.b64encode(wav(0.05 * len(words))).decode()}
        case "/odd/hear", {"sound": str(sound), "type": str(kind)}:
            return {"heard": [f"{len(base64.b64decode(sound))} bytes", f" of {kind}"], "took": 1.5}
        case "/odd/chat", {"ask": str(text)}:
            return Question(
                model=str(body.get("engine", "")),
                stream=False,
                include_usage=True,
                choices=1,
                user_text=text,
                tool_text=None,
                tool_names=(),
                schema=None,
                prompt_words=len(text.split()),
            )
    raise BadRequest("what is that")


def whole(answer: Answer) -> dict[str, Any]:
    body: dict[str, Any] = {"out": [{"t": answer.text}], "why": answer.finish_reason, "by": answer.identity["model"]}
    if answer.usage is not None:
        body["used"] = {"in": answer.usage["prompt_tokens"], "out": answer.usage["completion_tokens"]}
    return body


def events(behaviour: Behaviour, answer: Answer) -> list[bytes]:
    return [orjson.dumps(whole(answer))]


ODD = Dialect(
    stream_type="application/json",
    read=read,
    whole=whole,
    events=events,
    junk=b"",
    keepalive=b" ",
    error=lambda message, kind, code: {"message": message},
    stream_error=orjson.dumps,
    key=lambda header: header("x-odd-key"),
)
