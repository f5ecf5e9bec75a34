"""What a well-behaved OpenAI-compatible server says: a request's body in, objects and SSE events out. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from tests.servers._behaviour import Behaviour, ToolCall

_CREATED = 1_700_000_000  # a fixed moment: answers are the same in every run


class BadRequest(Exception):
    """The request is not one that the API allows; `message` says what is wrong."""

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


@dataclass(frozen=True, slots=True)
class Question:
    """The parts of a chat request that an answer depends on."""

    model: str
    stream: bool
    include_usage: bool
    choices: int
    user_text: str
    tool_text: str | None  # of a tool message after the last user message
    tool_names: tuple[str, ...]
    schema: Any  # of response_format, or None
    prompt_words: int


@dataclass(frozen=True, slots=True)
class Answer:
    text: str | None
    calls: tuple[ToolCall, ...]
    finish_reason: str
    reasoning: str | None
    usage: dict[str, Any] | None
    choices: int
    identity: dict[str, Any] = field(default_factory=dict)  # id, created, model, ... of every object


def read_question(raw: bytes) -> Question:
    """Raises BadRequest, which names what is wrong."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"We could not parse the JSON body of your request: {error}") from None
    if not isinstance(body, dict):
        raise BadRequest("the body of a chat request is a JSON object")
    model, messages = body.get("model"), body.get("messages")
    if not isinstance(model, str) or not model:
        raise BadRequest("you must provide a model parameter", param="model")
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
        raise BadRequest("messages is a non-empty list of objects", param="messages")
    choices = body.get("n") or 1
    if not isinstance(choices, int) or not 1 <= choices <= 128:
        raise BadRequest("n is an integer from 1 to 128", param="n")
    options = body.get("stream_options")
    last_user = max((at for at, m in enumerate(messages) if m.get("role") == "user"), default=-1)
    results = [m for m in messages[last_user + 1 :] if m.get("role") == "tool"]
    return Question(
        model=model,
        stream=body.get("stream") is True,
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
        choices=choices,
        user_text=_text(messages[last_user].get("content")) if last_user >= 0 else "",
        tool_text=_text(results[-1].get("content")) if results else None,
        tool_names=tuple(_tool_names(body.get("tools"))),
        schema=_schema(body.get("response_format")),
        prompt_words=sum(len(_text(m.get("content")).split()) for m in messages),
    )


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = (part.get("text") for part in content if isinstance(part, dict))
        return "".join(part for part in parts if isinstance(part, str))
    return ""


def _tool_names(tools: Any) -> Iterator[str]:
    for tool in tools if isinstance(tools, list) else []:
        function = tool.get("function") if isinstance(tool, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if isinstance(name, str):
            yield name


def _schema(response_format: Any) -> Any:
    if not isinstance(response_format, dict) or response_format.get("type") != "json_schema":
        return None
    wrapped = response_format.get("json_schema")
    return wrapped.get("schema") if isinstance(wrapped, dict) else {}


def smallest(schema: Any, *, root: Any = None, name: str = "value", depth: int = 0) -> Any:
    """A small value that fits the usual kinds of JSON schema; strings carry their property's name."""
    root = schema if root is None else root
    if not isinstance(schema, dict) or depth > 16:
        return None
    if isinstance(reference := schema.get("$ref"), str):
        target: Any = root
        for step in reference.removeprefix("#").split("/")[1:]:
            target = target.get(step) if isinstance(target, dict) else None
        return smallest(target, root=root, name=name, depth=depth + 1)
    for key in ("anyOf", "oneOf", "allOf"):
        if isinstance(options := schema.get(key), list) and options:
            return smallest(options[0], root=root, name=name, depth=depth + 1)
    if "const" in schema:
        return schema["const"]
    if isinstance(values := schema.get("enum"), list) and values:
        return values[0]
    kind = schema.get("type", "object" if "properties" in schema else None)
    if isinstance(kind, list):
        kind = kind[0] if kind else None
    if kind == "object":
        properties = schema.get("properties")
        members = properties.items() if isinstance(properties, dict) else ()
        return {key: smallest(value, root=root, name=key, depth=depth + 1) for key, value in members}
    if kind == "array":
        wanted = schema.get("minItems")
        count = min(wanted, 16) if isinstance(wanted, int) else 0
        return [smallest(schema.get("items"), root=root, name=name, depth=depth + 1) for _ in range(count)]
    low = schema.get("minimum")
    number = low if isinstance(low, int | float) else 0
    return {"string": name, "integer": number, "number": number, "boolean": False}.get(str(kind))


def compose(behaviour: Behaviour, question: Question, *, server: str, number: int) -> Answer:
    places = {
        "text": question.user_text,
        "tool": question.tool_text or "",
        "model": question.model,
        "server": server,
        "n": str(number),
    }

    def fill(template: str) -> str:
        return re.sub(r"\{(text|tool|model|server|n)\}", lambda place: places[place[1]], template)

    calls = _calls(behaviour, question)
    text: str | None = None
    if not calls:
        if behaviour.json_reply is not None:
            text = orjson.dumps(behaviour.json_reply).decode()
        elif question.schema is not None:
            text = orjson.dumps(smallest(question.schema)).decode()
        else:
            text = fill(behaviour.text if question.tool_text is None else behaviour.after_tool)
    usage = behaviour.usage if isinstance(behaviour.usage, dict) else None
    if behaviour.usage is True:
        written = sum(len(part.split()) for part in [text or "", *(call.arguments for call in calls)])
        usage = {
            "prompt_tokens": question.prompt_words,
            "completion_tokens": written,
            "total_tokens": question.prompt_words + written,
        }
    return Answer(
        text=text,
        calls=calls,
        finish_reason=behaviour.finish_reason or ("tool_calls" if calls else "stop"),
        reasoning=behaviour.reasoning,
        usage=usage,
        choices=behaviour.choices or question.choices,
        identity={
            "id": f"chatcmpl-{server}-{number}",
            "created": _CREATED,
            "model": question.model,
            "system_fingerprint": f"fp_{server}",
            **behaviour.extra,
        },
    )


def _calls(behaviour: Behaviour, question: Question) -> tuple[ToolCall, ...]:
    if question.tool_text is not None or behaviour.tools == "never":
        return ()
    if behaviour.tools != "auto":
        return behaviour.tools
    numbers = [int(n[:1000]) for n in re.findall(r"-?[0-9]+", question.user_text)[:2]]
    if not question.tool_names or len(numbers) < 2:
        return ()
    return (ToolCall(name=question.tool_names[0], arguments=f'{{"a":{numbers[0]},"b":{numbers[1]}}}'),)


def completion(answer: Answer) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.text}
    if answer.reasoning is not None:
        message["reasoning_content"] = answer.reasoning
    if answer.calls:
        message["tool_calls"] = [_call(call, at) for at, call in enumerate(answer.calls)]
    body = {
        "object": "chat.completion",
        **answer.identity,
        "choices": [
            {"index": index, "message": message, "logprobs": None, "finish_reason": answer.finish_reason}
            for index in range(answer.choices)
        ],
    }
    if answer.usage is not None:
        body["usage"] = answer.usage
    return body


def _call(call: ToolCall, at: int) -> dict[str, Any]:
    return {"id": f"call_{at + 1}", "type": "function", "function": call.model_dump()}


def deltas(behaviour: Behaviour, answer: Answer) -> Iterator[dict[str, Any]]:
    """What one choice streams before its finish_reason."""
    yield {"role": "assistant", "content": "" if not answer.calls else None}
    for piece in _pieces(answer.reasoning or "", behaviour.delta_chars):
        yield {"reasoning_content": piece}
    for piece in _pieces(answer.text or "", behaviour.delta_chars):
        yield {"content": piece}
    for at, call in enumerate(answer.calls):
        first = _call(call, at)
        first["function"]["arguments"] = ""
        yield {"tool_calls": [{"index": at, **first}]}
        for piece in _pieces(call.arguments, behaviour.argument_chars):
            yield {"tool_calls": [{"index": at, "function": {"arguments": piece}}]}


def _pieces(text: str, size: int | None) -> list[str]:
    if size is None:
        return re.findall(r"\S+\s*|\s+", text)
    return [text[at : at + size] for at in range(0, len(text), size)]


def chunks(behaviour: Behaviour, answer: Answer, *, include_usage: bool) -> Iterator[dict[str, Any]]:
    """The objects of a stream, choice by choice, the usage last."""
    frame: dict[str, Any] = {"object": "chat.completion.chunk", **answer.identity}
    if include_usage:
        frame["usage"] = None
    for delta in deltas(behaviour, answer):
        for index in range(answer.choices):
            yield {**frame, "choices": [{"index": index, "delta": delta, "finish_reason": None}]}
    if behaviour.finish:
        for index in range(answer.choices):
            yield {
                **frame,
                "choices": [{"index": index, "delta": {}, "finish_reason": answer.finish_reason}],
            }
    if include_usage and answer.usage is not None:
        yield {**frame, "choices": [], "usage": answer.usage}


def error_body(message: str, kind: str, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
