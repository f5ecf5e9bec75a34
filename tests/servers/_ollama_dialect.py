"""Ollama's own dialect, as its server speaks it: /api/chat and /api/embed. Pure."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import orjson

from tests.servers._behaviour import Behaviour
from tests.servers._dialect import Dialect
from tests.servers._reply import Answer, BadRequest, Question, _pieces, _tool_names

_CREATED = "2026-01-02T03:04:05.678901234Z"
DIMENSIONS = 4


def read(path: str, body: dict[str, Any]) -> Question | dict[str, Any]:
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise BadRequest("model is required")
    return _embed(model, body) if path == "/api/embed" else _question(model, body)


def _embed(model: str, body: dict[str, Any]) -> dict[str, Any]:
    given = body.get("input")
    inputs = [given] if isinstance(given, str) else given
    if not isinstance(inputs, list) or not all(isinstance(each, str) for each in inputs):
        raise BadRequest("invalid input type")
    wanted = body.get("dimensions") or DIMENSIONS
    return {
        "model": model,
        "embeddings": [vector(text, wanted) for text in inputs],
        "total_duration": 14,
        "load_duration": 1,
        "prompt_eval_count": sum(len(text.split()) for text in inputs),
    }


def vector(text: str, dimensions: int = DIMENSIONS) -> list[float]:
    return [len(text) + at / 8 for at in range(dimensions)]


def _question(model: str, body: dict[str, Any]) -> Question:
    messages = body.get("messages")
    if not isinstance(messages, list):
        raise BadRequest("json: cannot unmarshal messages into Go struct field ChatRequest.messages")
    for message in messages:
        _check(message)
    last_user = max((at for at, m in enumerate(messages) if m["role"] == "user"), default=-1)
    results = [m for m in messages[last_user + 1 :] if m["role"] == "tool"]
    text = messages[last_user]["content"] if last_user >= 0 else ""
    images = messages[last_user].get("images") or [] if last_user >= 0 else []
    shown = "".join(f" [{len(base64.b64decode(image))} bytes]" for image in images)
    wanted = body.get("format")
    if wanted is not None and wanted != "json" and not isinstance(wanted, dict):
        raise BadRequest('invalid format: expected "json" or a JSON schema')
    return Question(
        model=model,
        stream=body.get("stream", True) is True,
        include_usage=True,
        choices=1,
        user_text=text + shown,
        tool_text=results[-1]["content"] if results else None,
        tool_names=tuple(_tool_names(body.get("tools"))),
        schema=wanted if isinstance(wanted, dict) else {"type": "object"} if wanted == "json" else None,
        prompt_words=sum(len(m["content"].split()) for m in messages),
    )


def _check(message: Any) -> None:
    """What Go would refuse to unmarshal."""
    if not isinstance(message, dict) or not isinstance(message.get("content"), str):
        raise BadRequest("json: cannot unmarshal into Go struct field Message.messages.content of type string")
    if message.get("role") not in {"system", "user", "assistant", "tool"}:
        raise BadRequest("invalid role")
    for image in message.get("images") or ():
        try:
            base64.b64decode(image, validate=True)
        except (binascii.Error, TypeError):
            raise BadRequest("illegal base64 data") from None
    for call in message.get("tool_calls") or ():
        if not isinstance(call["function"]["arguments"], dict):
            raise BadRequest("json: cannot unmarshal string into Go struct field ToolCallFunction.arguments")


def whole(answer: Answer) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.text or ""}
    if answer.reasoning is not None:
        message["thinking"] = answer.reasoning
    if answer.calls:
        message["tool_calls"] = [_call(each) for each in answer.calls]
    return {"model": answer.identity["model"], "created_at": _CREATED, "message": message, **_last(answer)}


def _call(call: Any) -> dict[str, Any]:
    return {"function": {"name": call.name, "arguments": orjson.loads(call.arguments)}}


def _last(answer: Answer) -> dict[str, Any]:
    reason = "stop" if answer.finish_reason == "tool_calls" else answer.finish_reason
    last: dict[str, Any] = {"done": True, "done_reason": reason, "total_duration": 12, "load_duration": 3}
    if answer.usage is not None:
        last["prompt_eval_count"] = answer.usage["prompt_tokens"]
        last["eval_count"] = answer.usage["completion_tokens"]
    return last


def events(behaviour: Behaviour, answer: Answer) -> list[bytes]:
    frame = {"model": answer.identity["model"], "created_at": _CREATED}
    said: list[dict[str, Any]] = [{"content": "", "thinking": piece} for piece in _pieces(answer.reasoning or "", None)]
    said += [{"content": piece} for piece in _pieces(answer.text or "", behaviour.delta_chars)]
    said += [{"content": "", "tool_calls": [_call(each)]} for each in answer.calls]
    lines = [{**frame, "message": {"role": "assistant", **each}, "done": False} for each in said]
    lines.append({**frame, "message": {"role": "assistant", "content": ""}, **_last(answer), **behaviour.extra})
    return [orjson.dumps(line) + behaviour.newline.encode() for line in lines]


def error(message: str, kind: str, code: str | None) -> dict[str, Any]:
    return {"error": message}


def models(names: list[str]) -> dict[str, Any]:
    return {"models": [{"name": name, "model": name, "size": 1, "digest": "d"} for name in names]}


OLLAMA = Dialect(
    stream_type="application/x-ndjson",
    read=read,
    whole=whole,
    events=events,
    junk=b'{"this is": no JSON\n',
    keepalive=b"\n",
    error=error,
    stream_error=lambda told: orjson.dumps(told) + b"\n",
    key=lambda header: header("authorization").removeprefix("Bearer "),
)
