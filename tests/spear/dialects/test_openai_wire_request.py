"""A ChatRequest as a request body; content parts both ways."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spear.dialects.openai_chat import part_from_wire, part_to_wire, request_body
from spear.ir import (
    AudioPart,
    CallerError,
    ChatMessage,
    ChatRequest,
    FunctionCall,
    Generation,
    ImagePart,
    InlineMedia,
    ResponseFormat,
    StoredMedia,
    TextPart,
    ToolCall,
    UrlMedia,
    dump_json,
    parse_json,
)
from tests.spear.ir.ir_strategies import examples, identical, instances, json_objects

USER = ChatMessage(role="user", content="hi")
PNG = InlineMedia(mime="image/png", data="AAAA")


def body_of(request, *, model="m", stream=False, stream_usage=False):
    return request_body(request, model=model, stream=stream, stream_usage=stream_usage)


def test_the_least_request():
    assert body_of(ChatRequest(messages=(USER,))) == {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def test_every_typed_parameter_is_said():
    generation = Generation(
        temperature=0.5,
        top_p=0.9,
        max_tokens=0,
        stop=("a", "b"),
        seed=-1,
        stream=True,
        presence_penalty=0.0,
        frequency_penalty=-1.0,
        logprobs=False,
        top_logprobs=0,
        n=2,
        user="",
    )
    tool = {"type": "function", "function": {"name": "f"}}
    request = ChatRequest(
        model="not this one",
        messages=(USER,),
        tools=(tool,),
        tool_choice="auto",
        generation=generation,
        response_format=ResponseFormat(type="json_schema", json_schema={"name": "s"}),
        extra={"top_k": 4, "logit_bias": None},
    )
    assert body_of(request) == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "tools": [tool],
        "temperature": 0.5,
        "top_p": 0.9,
        "max_tokens": 0,
        "stop": ["a", "b"],
        "seed": -1,
        "presence_penalty": 0.0,
        "frequency_penalty": -1.0,
        "logprobs": False,
        "top_logprobs": 0,
        "n": 2,
        "user": "",
        "tool_choice": "auto",
        "response_format": {"type": "json_schema", "json_schema": {"name": "s"}},
        "top_k": 4,
        "logit_bias": None,
    }


def test_a_new_generation_field_is_said_without_a_change_here():
    # A value for each field; one that the body did not have would be lost on the way to the backend.
    values = {"stop": "x", "logprobs": True, "user": "u", "stream": True}
    full = Generation(**{name: values.get(name, 1) for name in Generation.model_fields})
    body = body_of(ChatRequest(messages=(USER,), generation=full))
    assert set(Generation.model_fields) - {"stream"} <= set(body)


@examples(100)
@given(json_objects, st.booleans())
def test_extra_never_decides_what_is_ours(extra, stream):
    ours = {"model": 1, "messages": 2, "tools": 3, "stream": not stream}
    body = body_of(ChatRequest(messages=(USER,), extra={**extra, **ours}), stream=stream)
    assert body["model"] == "m"
    assert body["messages"] == [{"role": "user", "content": "hi"}]
    assert "tools" not in body
    assert body.get("stream", False) is stream
    for key in set(extra) - set(ours) - {"stream_options"}:
        assert identical(body[key], extra[key])


@pytest.mark.parametrize(
    ("given_options", "stream", "usage", "expected"),
    [
        (None, False, True, None),
        (None, True, False, None),
        (None, True, True, {"include_usage": True}),
        ({"include_usage": False, "x": 1}, True, True, {"include_usage": True, "x": 1}),
        ({"include_usage": True}, True, False, {"include_usage": True}),
        ({"include_usage": True}, False, False, None),
        ("wrong", True, False, None),
    ],
)
def test_stream_options(given_options, stream, usage, expected):
    extra = {} if given_options is None else {"stream_options": given_options}
    body = body_of(ChatRequest(messages=(USER,), extra=extra), stream=stream, stream_usage=usage)
    assert body.get("stream_options") == expected


def test_messages_with_calls_and_results():
    call = ToolCall(id="1", function=FunctionCall(name="add", arguments='{"a":1}', extra={"x": 1}), extra={"y": 2})
    request = ChatRequest(
        messages=(
            ChatMessage(role="assistant", content="", tool_calls=(call,)),
            ChatMessage(role="tool", content="3", tool_call_id="1", name="add"),
        )
    )
    assert body_of(request)["messages"] == [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {
                    "id": "1",
                    "type": "function",
                    "function": {"name": "add", "arguments": '{"a":1}', "x": 1},
                    "y": 2,
                }
            ],
        },
        {"role": "tool", "content": "3", "name": "add", "tool_call_id": "1"},
    ]


PARTS = [
    (TextPart(text="a"), {"type": "text", "text": "a"}),
    (ImagePart(media=PNG), {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}),
    (
        ImagePart(media=UrlMedia(url="https://x.test/a.png"), detail="low"),
        {"type": "image_url", "image_url": {"url": "https://x.test/a.png", "detail": "low"}},
    ),
    (
        AudioPart(media=InlineMedia(mime="audio/mpeg", data="AAAA")),
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}},
    ),
    (
        AudioPart(media=InlineMedia(mime="audio/wav", data="AAAA")),
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
    ),
]


@pytest.mark.parametrize(("part", "wire"), PARTS)
def test_parts_both_ways(part, wire):
    assert part_to_wire(part) == wire
    assert part_from_wire(wire) == part
    message = ChatMessage(role="user", content_parts=(part,))
    assert body_of(ChatRequest(messages=(message,)))["messages"] == [{"role": "user", "content": [wire]}]


@pytest.mark.parametrize(
    "wire",
    [
        None,
        {"type": "text"},
        {"type": "text", "text": "a", "cache_control": {}},
        {"type": "image_url", "image_url": "https://x.test"},
        {"type": "image_url", "image_url": {"url": "data:image/png,raw"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,???"}},
        {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}},
        {"type": "image_url", "image_url": {"url": "https://x.test", "detail": "huge"}},
        {"type": "image_url", "image_url": {"url": "https://x.test", "detail": None}},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mpeg"}},
        {"type": "file", "file": {"file_id": "f"}},
    ],
)
def test_a_part_without_an_exact_typed_form_has_none(wire):
    assert part_from_wire(wire) is None


@examples(100)
@given(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["text", "image_url", "input_audio"])},
        optional={
            "text": st.text(max_size=5),
            "image_url": st.fixed_dictionaries(
                {"url": st.sampled_from(["http://a", "data:a/b;base64,AAAA", "data:a/b;base64,A", "data:;base64,"])},
                optional={"detail": st.sampled_from(["auto", None, 3]), "x": st.just(1)},
            ),
            "input_audio": st.fixed_dictionaries({"data": st.text(max_size=4), "format": st.text(max_size=4)}),
            "x": st.just(1),
        },
    )
)
def test_any_part_that_has_a_typed_form_comes_back_as_it_was(wire):
    part = part_from_wire(wire)
    if part is not None:
        assert identical(part_to_wire(part), wire)


@pytest.mark.parametrize(
    "part",
    [
        ImagePart(media=StoredMedia(uri="smsfile://abc")),
        AudioPart(media=StoredMedia(uri="smsfile://abc")),
        AudioPart(media=UrlMedia(url="https://x.test/a.wav")),
    ],
)
def test_media_that_the_dialect_cannot_say_is_refused_by_place(part):
    message = ChatMessage(role="user", content_parts=(TextPart(text="a"), part))
    with pytest.raises(CallerError, match=r"messages\[1\]\.content\[1\]: .*inline_base64"):
        body_of(ChatRequest(messages=(USER, message)))


@examples(100)
@given(instances(ChatRequest), st.booleans(), st.booleans())
def test_any_request_is_written_or_refused(request, stream, usage):
    medias = [
        part.media
        for message in request.messages
        if message.content is None
        for part in message.content_parts or ()
        if isinstance(part, ImagePart | AudioPart)
    ]
    try:
        body = body_of(request, stream=stream, stream_usage=usage)
    except CallerError:
        assert any(isinstance(media, StoredMedia | UrlMedia) for media in medias)
    else:
        assert not any(isinstance(media, StoredMedia) for media in medias)
        assert identical(parse_json(dump_json(body)), body)
