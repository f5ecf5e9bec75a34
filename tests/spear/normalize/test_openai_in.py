"""An OpenAI chat request to a request: strict about types, lossless about the rest."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spear.dialects.openai_chat import request_body
from spear.ir import (
    AudioPart,
    CallerError,
    ChatMessage,
    ErrorCode,
    Generation,
    ImagePart,
    InlineMedia,
    Meta,
    Operation,
    ResponseFormat,
    Routing,
    TextPart,
    UrlMedia,
    parse_request,
)
from spear.normalize import request_from_openai
from tests.spear.ir.ir_strategies import examples, identical, json_values

CANARY = "canary-5ecre7-value"
USER = {"role": "user", "content": "hi"}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{"}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "high"}}
AUDIO = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}


def wire(**changes):
    return {"model": "m", "messages": [USER], **changes}


def back(request, **options):
    return request_body(request.payload, model=request.payload.model, stream=False, stream_usage=False, **options)


VALID = [
    wire(),
    wire(temperature=1, top_p=0.5, stop=["a"], n=1, max_tokens=5, seed=3, user="u", logprobs=True, top_logprobs=2),
    wire(temperature=None, stop=None, tool_choice=None, response_format=None, seed=None, max_completion_tokens=None),
    wire(tools=[TOOL, {"type": "custom", "custom": {}}], tool_choice={"type": "function", "function": {"name": "f"}}),
    wire(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}),
    wire(response_format={"type": "grammar", "grammar": "x"}),
    wire(messages=[{"role": "system", "content": ""}, {"role": "assistant", "content": None, "tool_calls": [CALL]}]),
    wire(messages=[{"role": "assistant", "tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "x"}}]}]),
    wire(messages=[{"role": "tool", "content": "3", "tool_call_id": "c"}, {**USER, "name": None, "refusal": None}]),
    wire(messages=[{"role": "user", "content": [{"type": "text", "text": "a"}, IMAGE, AUDIO]}]),
    wire(messages=[{"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {}}, IMAGE]}]),
    wire(messages=[{"role": "user", "content": [{"type": "file", "file": {}}]}, {"role": "user", "content": []}]),
    wire(metadata={"a": "b"}, top_k=4, safety_identifier=CANARY),
]


@pytest.mark.parametrize("body", VALID)
def test_a_valid_body_arrives_unchanged(body):
    before = copy.deepcopy(body)
    request = request_from_openai(body)
    sent = back(request)
    if "temperature" in sent and sent["temperature"] is not None:
        assert sent["temperature"] == body["temperature"]  # 1 and 1.0 are one JSON number
        sent = {**sent, "temperature": body["temperature"]}
    assert identical(sent, body)
    assert identical(body, before)
    assert parse_request(request.model_dump_json()) == request


def test_the_envelope():
    request = request_from_openai(
        wire(model=" m ", stream=True, temperature=0.5, stream_options={"include_usage": True}),
        task_id="t",
        timeout_ms=5,
        routing=Routing(region_hint="eu"),
    )
    assert request.operation is Operation.CHAT_COMPLETIONS
    assert (request.task_id, request.timeout_ms, request.routing.region_hint) == ("t", 5, "eu")
    assert request.meta == Meta(source="openai")
    assert request.model == "m"
    assert request.payload.generation == Generation(temperature=0.5, stream=True)
    assert request.requirements.required_features == ("supports_stream",)
    assert request.payload.extra == {"stream_options": {"include_usage": True}}
    assert request.payload.messages == (ChatMessage(role="user", content="hi"),)


@pytest.mark.parametrize("body", [{"messages": [USER]}, wire(model=""), wire(model="  ")])
def test_a_blank_model_leaves_the_choice_to_the_host(body):
    assert request_from_openai(body).model == ""


def test_parts_are_typed():
    link = {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}
    content = [{"type": "text", "text": "a"}, IMAGE, AUDIO, link]
    request = request_from_openai(wire(messages=[{"role": "user", "content": content}]))
    message = request.payload.messages[0]
    assert message.content is None
    assert message.content_parts == (
        TextPart(text="a"),
        ImagePart(media=InlineMedia(mime="image/png", data="AAAA"), detail="high"),
        AudioPart(media=InlineMedia(mime="audio/wav", data="AAAA")),
        ImagePart(media=UrlMedia(url="https://x.test/a.png")),
    )
    assert request.requirements.required_features == ("supports_image_input", "supports_audio_input")


def test_requirements_of_parts_that_stay_as_they_came():
    content = [{**IMAGE, "cache_control": {}}, {"type": "file"}]
    request = request_from_openai(wire(messages=[{"role": "user", "content": content}]))
    assert request.payload.messages[0].content == content
    assert request.requirements.required_features == ("supports_image_input",)


def test_tools_and_schema_are_required():
    request = request_from_openai(wire(tools=[TOOL], response_format={"type": "json_schema", "json_schema": {}}))
    assert request.requirements.required_features == ("supports_tools", "supports_json_schema")
    assert request.payload.response_format == ResponseFormat(type="json_schema", json_schema={})


def message(**changes):
    return wire(messages=[USER, USER, {**USER, **changes}])


def part(**fields):
    return message(content=[{"type": "text", "text": ""}, fields])


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (None, "body: must be an object, not null"),
        ([wire()], "body: must be an object, not an array"),
        (wire(x=float("nan")), "x: not JSON: a number that is not finite"),
        (wire(stop=("a",)), "stop: not JSON: tuple is not a JSON type"),
        (wire(messages=[{**USER, "x": {1: 2}}]), "messages: not JSON: an object key is int, it must be a string"),
        ({**wire(), "\ud800": 1}, "body: not JSON: a lone surrogate in a string"),
        (b"{}", "body: must be an object"),
        (wire(model=5), "model: must be a string, not an integer"),
        (wire(model=None), "model: must be a string, not null"),
        ({"model": "m"}, "messages: is missing"),
        (wire(messages=None), "messages: must be an array, not null"),
        (wire(messages=[]), "messages: is empty, at least one message is needed"),
        (wire(messages=[USER, CANARY]), "messages[1]: must be an object, not a string"),
        (wire(messages=[{"content": "a"}]), "messages[0].role: is missing"),
        (message(role=None), "messages[2].role: must be a string, not null"),
        (message(role=""), "messages[2].role: is empty"),
        (message(content=5), "messages[2].content: must be a string or an array of parts, not an integer"),
        (message(content={"a": 1}), "messages[2].content: must be a string or an array of parts, not an object"),
        (message(name=5), "messages[2].name: must be a string, not an integer"),
        (message(tool_call_id=True), "messages[2].tool_call_id: must be a string, not true or false"),
        (message(tool_calls={}), "messages[2].tool_calls: must be an array, not an object"),
        (message(tool_calls=[3]), "messages[2].tool_calls[0]: must be an object, not an integer"),
        (message(tool_calls=[{**CALL, "id": 1}]), "messages[2].tool_calls[0].id: must be a string, not an integer"),
        (message(tool_calls=[{"id": "c"}]), "messages[2].tool_calls[0].type: is missing"),
        (
            message(tool_calls=[{**CALL, "function": {"name": "f", "arguments": {}}}]),
            "messages[2].tool_calls[0].function.arguments: must be a string, not an object",
        ),
        (part(), "messages[2].content[1].type: is missing"),
        (message(content=["a"]), "messages[2].content[0]: must be an object, not a string"),
        (part(type="text"), "messages[2].content[1].text: is missing"),
        (part(type="image_url", image_url=CANARY), "messages[2].content[1].image_url: must be an object, not a string"),
        (part(type="image_url", image_url={"url": 1}), "messages[2].content[1].image_url.url: must be a string"),
        (
            part(type="image_url", image_url={"url": f"file:///{CANARY}"}),
            "messages[2].content[1].image_url.url: must be an http: or https: URL, or a data: URL",
        ),
        (
            part(type="image_url", image_url={"url": "data:image/png;base64,*"}),
            "messages[2].content[1].image_url.url: must be an http: or https: URL, or a data: URL",
        ),
        (
            part(type="input_audio", input_audio={"data": 1}),
            "messages[2].content[1].input_audio.data: must be a string",
        ),
        (wire(tools={}), "tools: must be an array, not an object"),
        (wire(tools=[TOOL, 3]), "tools[1]: must be an object, not an integer"),
        (wire(tools=[{}]), "tools[0].type: is missing"),
        (wire(tools=[{"type": "function", "function": {"name": 3}}]), "tools[0].function.name: must be a string"),
        (wire(tool_choice=CANARY), "tool_choice: must be one of none, auto, required, or an object"),
        (wire(tool_choice=3), "tool_choice: must be one of none, auto, required, or an object, not an integer"),
        (wire(response_format="json_object"), "response_format: must be an object, not a string"),
        (wire(response_format={}), "response_format.type: is missing"),
        (wire(response_format={"type": "json_schema"}), "response_format.json_schema: is missing"),
        (wire(stream="yes"), "stream: must be true or false, not a string"),
        (wire(stream_options=[]), "stream_options: must be an object, not an array"),
        (wire(temperature="0.5"), "temperature: must be a number, not a string"),
        (wire(temperature=True), "temperature: must be a number, not true or false"),
        (wire(temperature=2**60), "temperature: must be a number"),
        (wire(max_tokens=-1), "max_tokens: must be an integer, at least 0"),
        (wire(max_tokens=1.5), "max_tokens: must be an integer, at least 0, not a number"),
        (wire(stop=[1]), "stop: must be a string or an array of strings"),
        (wire(n=0), "n: must be an integer, at least 1"),
        (wire(user=1), "user: must be a string, not an integer"),
        (wire(logprobs=1), "logprobs: must be true or false, not an integer"),
    ],
)
def test_what_is_wrong_is_named_and_its_value_is_not(body, told):
    with pytest.raises(CallerError) as caught:
        request_from_openai(body)
    assert caught.value.code is ErrorCode.INVALID_REQUEST
    assert caught.value.error.message.startswith(told)
    assert CANARY not in str(caught.value)


def places(value, path=()):
    if path:
        yield path
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(item, (*path, key))


@examples(200)
@given(st.sampled_from(VALID), st.data())
def test_any_replacement_is_kept_or_refused_by_name(body, data):
    body = copy.deepcopy(body)
    path = data.draw(st.sampled_from(list(places(body))))
    target = body
    for step in path[:-1]:
        target = target[step]
    target[path[-1]] = data.draw(json_values | st.sampled_from([CANARY, [CANARY], {"type": CANARY}]))
    try:
        request = request_from_openai(body)
    except CallerError as error:
        told = error.error.message
    else:
        told = ""
        sent = back(request)
        expected = {key: value for key, value in body.items() if key != "tools" or value}
        expected.pop("stream_options", None)
        for key in ("temperature", "top_p"):
            if sent.get(key) is not None:
                assert sent.pop(key) == expected.pop(key)
        assert identical(sent, expected)
    assert CANARY not in told
    assert not told or told.startswith(str(path[0]))


@examples(150)
@given(json_values)
def test_any_value_is_a_request_or_refused(value):
    with pytest.raises(CallerError):
        request_from_openai({"messages": value, "model": []})
