"""Anthropic's dialect, as its server speaks it: POST /v1/messages. Pure. As strict as that is about the shape."""

from __future__ import annotations

import base64
from typing import Any

import orjson

from tests.servers._behaviour import Behaviour
from tests.servers._dialect import Dialect
from tests.servers._reply import Answer, BadRequest, Question, _pieces

_KNOWN = {
    "model", "messages", "max_tokens", "system", "tools", "tool_choice", "stream", "temperature", "top_p", "top_k",
    "stop_sequences", "metadata", "thinking", "output_config", "service_tier",
}  # fmt: skip


def read(path: str, body: dict[str, Any]) -> Question:
    if unknown := sorted(body.keys() - _KNOWN):
        raise BadRequest(f"{unknown[0]}: Extra inputs are not permitted")
    for key, kind in (("model", str), ("max_tokens", int), ("messages", list)):
        if not isinstance(body.get(key), kind):
            raise BadRequest(f"{key}: Field required")
    messages = body["messages"]
    if not messages:
        raise BadRequest("messages: at least one message is required")
    pending: set[str] = set()
    seen: set[str] = set()
    for at, message in enumerate(messages):
        pending = _check(message, f"messages.{at}", pending, seen)
    if pending and messages[-1]["role"] == "user":
        raise BadRequest("messages: `tool_use` ids were found without `tool_result` blocks immediately after")
    schema = (body.get("output_config") or {}).get("format", {}).get("schema")
    last = _of(messages[-1])
    results = [_plain(block.get("content")) for block in last if block["type"] == "tool_result"]
    images = [len(base64.b64decode(b["source"]["data"])) for b in last if b["type"] == "image"]
    text = "".join(block["text"] for block in last if block["type"] == "text")
    return Question(
        model=body["model"],
        stream=body.get("stream") is True,
        include_usage=True,
        choices=1,
        user_text=text + "".join(f" [{size} bytes]" for size in images),
        tool_text=", ".join(results) if results else None,
        tool_names=tuple(tool["name"] for tool in body.get("tools") or () if "input_schema" in tool),
        schema=schema,
        prompt_words=sum(len(_plain(message["content"]).split()) for message in messages),
    )


def _of(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _plain(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(block["text"] for block in content or () if block["type"] == "text")


def _check(message: Any, field: str, pending: set[str], seen: set[str]) -> set[str]:
    """Returns the ids of calls that the next message has to answer."""
    if not isinstance(message, dict) or message.keys() != {"role", "content"}:
        raise BadRequest(f"{field}: role and content, nothing else")
    if message["role"] not in {"user", "assistant"}:
        raise BadRequest(f"{field}: Unexpected role")
    blocks = _of(message)
    if not blocks:
        raise BadRequest(f"{field}: all messages must have non-empty content")
    answered = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
    if set(answered) != pending or len(answered) != len(pending):
        raise BadRequest(f"{field}: `tool_result` blocks do not fit the `tool_use` blocks of the message before")
    if any(b["type"] != "tool_result" for b in blocks[: len(answered)]):
        raise BadRequest(f"{field}: `tool_result` blocks must come first")
    asked: set[str] = set()
    for at, block in enumerate(blocks):
        _check_block(block, f"{field}.content.{at}")
        if block["type"] == "tool_use":
            if block["id"] in seen:
                raise BadRequest(f"{field}.content.{at}: `tool_use` ids must be unique")
            asked.add(block["id"])
            seen.add(block["id"])
    return asked


def _check_block(block: dict[str, Any], field: str) -> None:
    match block:
        case {"type": "text", "text": ""}:
            raise BadRequest(f"{field}: text content blocks must be non-empty")
        case {"type": "text", "text": str()}:
            return
        case {"type": "tool_use", "id": str(), "name": str(), "input": dict()}:
            return
        case {"type": "tool_result"} | {"type": "redacted_thinking", "data": str()}:
            return
        case {"type": "thinking", "thinking": str(), "signature": str()}:
            return
        case {"type": "image", "source": {"type": "base64", "media_type": str(), "data": str(data)}}:
            base64.b64decode(data, validate=True)
        case _:
            raise BadRequest(f"{field}: Input should be a valid block")


def _blocks(answer: Answer) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if answer.reasoning is not None:
        blocks.append({"type": "thinking", "thinking": answer.reasoning, "signature": "c2lnbmVk"})
    if answer.text is not None:
        blocks.append({"type": "text", "text": answer.text})
    number = answer.identity["id"].rpartition("-")[2]
    blocks += [
        {"type": "tool_use", "id": f"toolu_{number}_{at}", "name": call.name, "input": orjson.loads(call.arguments)}
        for at, call in enumerate(answer.calls)
    ]
    return blocks


def _usage(answer: Answer) -> dict[str, Any] | None:
    if answer.usage is None:
        return None
    return {
        "input_tokens": answer.usage["prompt_tokens"],
        "cache_creation_input_tokens": 5,
        "cache_read_input_tokens": 7,
        "output_tokens": answer.usage["completion_tokens"],
        "service_tier": "standard",
    }


def whole(answer: Answer) -> dict[str, Any]:
    reason = {"tool_calls": "tool_use", "stop": "end_turn"}.get(answer.finish_reason, answer.finish_reason)
    message: dict[str, Any] = {
        "id": f"msg_{answer.identity['id']}",
        "type": "message",
        "role": "assistant",
        "model": answer.identity["model"],
        "content": _blocks(answer),
        "stop_reason": reason,
        "stop_sequence": None,
    }
    usage = _usage(answer)
    return message if usage is None else {**message, "usage": usage}


def events(behaviour: Behaviour, answer: Answer) -> list[bytes]:
    said = whole(answer)
    usage = said.get("usage")
    start = {**said, "content": [], "stop_reason": None, **behaviour.extra}
    if usage is not None:
        start["usage"] = {**usage, "output_tokens": 1}
    told: list[dict[str, Any]] = [{"type": "message_start", "message": start}, {"type": "ping"}]
    for index, block in enumerate(said["content"]):
        told += _block_events(index, block, behaviour)
    end = {"stop_reason": said["stop_reason"], "stop_sequence": None}
    told.append({"type": "message_delta", "delta": end, "usage": {"output_tokens": (usage or {}).get("output_tokens")}})
    told.append({"type": "message_stop"})
    line = behaviour.newline
    return [f"event: {each['type']}{line}data: {orjson.dumps(each).decode()}{line}{line}".encode() for each in told]


def _block_events(index: int, block: dict[str, Any], behaviour: Behaviour) -> list[dict[str, Any]]:
    deltas: list[dict[str, Any]] = []
    if block["type"] == "text":
        start = {"type": "text", "text": ""}
        deltas = [{"type": "text_delta", "text": piece} for piece in _pieces(block["text"], behaviour.delta_chars)]
    elif block["type"] == "thinking":
        start = {"type": "thinking", "thinking": "", "signature": ""}
        deltas = [{"type": "thinking_delta", "thinking": piece} for piece in _pieces(block["thinking"], None)]
        deltas.append({"type": "signature_delta", "signature": block["signature"]})
    else:
        start = {**block, "input": {}}
        text = orjson.dumps(block["input"]).decode() if block["input"] else ""
        deltas = [{"type": "input_json_delta", "partial_json": ""}] if text else []
        deltas += [
            {"type": "input_json_delta", "partial_json": piece} for piece in _pieces(text, behaviour.argument_chars)
        ]
    return [
        {"type": "content_block_start", "index": index, "content_block": start},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def error(message: str, kind: str, code: str | None) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}


ANTHROPIC = Dialect(
    stream_type="text/event-stream",
    read=read,
    whole=whole,
    events=events,
    junk=b'event: content_block_delta\ndata: {"this is": no JSON\n\n',
    keepalive=b'event: ping\ndata: {"type": "ping"}\n\n',
    error=error,
    stream_error=lambda told: b"event: error\ndata: " + orjson.dumps(told) + b"\n\n",
    key=lambda header: header("x-api-key"),
)
