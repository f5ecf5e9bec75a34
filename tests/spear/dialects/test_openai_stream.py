"""The stream decoder: what a server cuts into chunks comes back whole; what is no stream is refused."""

from __future__ import annotations

import base64
import copy
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spear.dialects.openai_chat import ChatStreamDecoder, body_from_result
from spear.ir import (
    AudioDelta,
    BackendError,
    ContentDelta,
    ErrorCode,
    Failure,
    ReasoningDelta,
    Started,
    ToolCallDelta,
    Usage,
    UsageEvent,
)
from tests.spear.ir.ir_strategies import examples, identical, json_values

HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 7, "model": "m-1"}
USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


def chunk(*choices, **beside):
    return {**HEAD, "choices": list(choices), **beside}


def delta(index=0, finish=None, **keys):
    return {"index": index, "delta": keys, "finish_reason": finish}


def run(chunks, *, done=True, **options):
    decoder = ChatStreamDecoder(backend="b", **options)
    events = [event for item in chunks for event in decoder.feed(item)]
    return events, *decoder.finish(done)


# What a server holds before it cuts it up.
texts = st.text(max_size=20)
calls = st.builds(
    lambda number, name, arguments: {
        "id": f"call_{number}",
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    },
    st.uuids(),
    st.text(min_size=1, max_size=5),
    texts,
)
messages = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": texts | st.none()},
    optional={
        "reasoning_content": texts,
        "refusal": texts | st.none(),
        "tool_calls": st.lists(calls, min_size=1, max_size=3),
        "vendor": st.fixed_dictionaries({"score": st.integers(), "notes": st.lists(texts, max_size=3), "text": texts}),
    },
)
server_choices = st.lists(
    st.fixed_dictionaries(
        {"message": messages, "finish_reason": st.sampled_from(["stop", "length", "tool_calls"])},
        optional={"logprobs": st.fixed_dictionaries({"content": st.lists(st.integers(), max_size=4)}) | st.none()},
    ),
    min_size=1,
    max_size=3,
).map(lambda items: [{"index": index, **item} for index, item in enumerate(items)])


def pieces(draw, text):
    places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=4)))
    edges = [0, *places, len(text)]
    return [text[left:right] for left, right in itertools.pairwise(edges)]


def cut_choice(draw, choice):
    """The chunks' choices for one choice, in order."""
    index, message = choice["index"], copy.deepcopy(choice["message"])
    parts = [delta(index, role="assistant", content=None)]
    for key in draw(st.permutations([key for key in message if key != "role"])):
        value = message[key]
        if key == "tool_calls":
            parts += [delta(index, tool_calls=[piece]) for piece in cut_calls(draw, value)]
        elif isinstance(value, str):
            parts += [delta(index, **{key: piece}) for piece in pieces(draw, value)]
        elif isinstance(value, dict):
            parts += [delta(index, **{key: {"notes": [note]}}) for note in value["notes"]]
            parts += [delta(index, **{key: {"text": piece}}) for piece in pieces(draw, value["text"])]
            parts.append(delta(index, **{key: {"notes": [], "score": value["score"]}}))
        else:
            parts.append(delta(index, **{key: value}))
    if "logprobs" in choice:
        probabilities = choice["logprobs"]
        parts[0] = {**parts[0], "logprobs": None if probabilities is None else {"content": []}}
        for item in (probabilities or {}).get("content", []):
            parts.append({**delta(index), "logprobs": {"content": [item]}})
    return [*parts, delta(index, choice["finish_reason"])]


def cut_calls(draw, calls):
    for number, call in enumerate(calls):
        function = {"name": call["function"]["name"], "arguments": ""}
        yield {"index": number, "id": call["id"], "type": "function", "function": function}
    for number, call in enumerate(calls):
        for piece in pieces(draw, call["function"]["arguments"]):
            yield {"index": number, "function": {"arguments": piece}}


@st.composite
def streams(draw):
    """(the body as a whole, its chunks): the choices interleaved as the draw says."""
    choices = draw(server_choices)
    queues = [cut_choice(draw, choice) for choice in choices]
    chunks = []
    while any(queues):
        queue = draw(st.sampled_from([queue for queue in queues if queue]))
        chunks.append(chunk(queue.pop(0)))
    body = {**HEAD, "object": "chat.completion", "choices": choices}
    if draw(st.booleans()):
        chunks.append(chunk(usage=USAGE))
        body["usage"] = USAGE
    return body, chunks


slow = examples(100)


@slow
@given(streams(), st.booleans())
def test_the_whole_is_what_the_server_held(stream, done):
    body, chunks = stream
    before = copy.deepcopy(chunks)
    _, result, usage = run(chunks, done=done)
    rebuilt = body_from_result(result, usage)
    assert identical(rebuilt, body)
    assert usage.estimated is ("usage" not in body)
    assert chunks == before


@slow
@given(streams())
def test_the_events_say_the_same_as_the_whole(stream):
    body, chunks = stream
    events, _result, _ = run(chunks)
    assert isinstance(events[0], Started)
    assert sum(isinstance(event, Started) for event in events) == 1
    assert sum(isinstance(event, UsageEvent) for event in events) == ("usage" in body)
    for choice in body["choices"]:
        index, message = choice["index"], choice["message"]
        said = [event for event in events if getattr(event, "choice", None) == index]
        assert "".join(event.delta for event in said if isinstance(event, ContentDelta)) == (message["content"] or "")
        reasoning = "".join(event.delta for event in said if isinstance(event, ReasoningDelta))
        assert reasoning == message.get("reasoning_content", "")
        for number, call in enumerate(message.get("tool_calls", [])):
            fragments = [e for e in said if isinstance(e, ToolCallDelta) and e.call_index == number]
            assert [event.id for event in fragments if event.id is not None] == [call["id"]]
            assert [event.name for event in fragments if event.name is not None] == [call["function"]["name"]]
            assert "".join(event.arguments for event in fragments) == call["function"]["arguments"]
            assert fragments[0].id == call["id"]


@slow
@given(streams(), st.data())
def test_a_cut_stream_is_truncated_not_ended(stream, data):
    _, chunks = stream
    decoder = ChatStreamDecoder(backend="b")
    kept = chunks[: data.draw(st.integers(0, len(chunks) - 1))]
    for item in kept:
        decoder.feed(item)
    reasons = {c["index"] for item in kept for c in item["choices"] if c["finish_reason"]}
    seen = {c["index"] for item in kept for c in item["choices"]}
    if seen and reasons == seen:
        decoder.finish(False)
    else:
        with pytest.raises(BackendError) as caught:
            decoder.finish(False)
        assert caught.value.code is ErrorCode.STREAM_TRUNCATED
        assert caught.value.failure is Failure.SERVER
    decoder.finish(True)


near_choices = st.lists(
    json_values
    | st.fixed_dictionaries(
        {},
        optional={
            "index": st.integers(-2, 3) | json_values,
            "finish_reason": st.sampled_from(["stop", "", None]) | json_values,
            "delta": json_values
            | st.fixed_dictionaries(
                {},
                optional={
                    "role": json_values,
                    "content": texts | json_values,
                    "audio": json_values | st.fixed_dictionaries({"data": texts | json_values}),
                    "reasoning": json_values,
                    "tool_calls": st.lists(
                        json_values
                        | st.fixed_dictionaries(
                            {},
                            optional={
                                "index": st.integers(0, 2) | json_values,
                                "id": texts | json_values,
                                "function": json_values
                                | st.fixed_dictionaries({}, optional={"name": json_values, "arguments": json_values}),
                            },
                        ),
                        max_size=2,
                    ),
                },
            ),
        },
    ),
    max_size=2,
)
near_chunks = json_values | st.fixed_dictionaries(
    {}, optional={"choices": near_choices | json_values, "usage": json_values, "x": json_values, "error": st.none()}
)


@examples(200)
@given(st.lists(near_chunks, max_size=5))
def test_any_chunks_are_decoded_or_refused(chunks):
    decoder = ChatStreamDecoder(backend="b")
    try:
        for item in chunks:
            decoder.feed(item)
    except BackendError:  # the one error that may come; any other fails the test
        return
    result, usage = decoder.finish(True)
    body_from_result(result, usage)


def test_the_usual_stream():
    events, result, usage = run(
        [
            chunk(delta(role="assistant", content="", refusal=None), usage=None),
            chunk(delta(content="Hel"), usage=None),
            chunk(delta(content="lo"), usage=None),
            chunk(delta(finish="stop"), usage=None),
            chunk(usage=USAGE),
        ],
        request_id="r",
    )
    assert events == [
        Started(request_id="r", backend="b", model="m-1"),
        ContentDelta(delta="Hel"),
        ContentDelta(delta="lo"),
        UsageEvent(usage=Usage(input_tokens=3, output_tokens=4, extra={"total_tokens": 7})),
    ]
    assert result.text == "Hello"
    assert usage.output_tokens == 4
    assert body_from_result(result, usage)["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello", "refusal": None},
            "finish_reason": "stop",
        }
    ]


@pytest.mark.parametrize(
    "deltas",
    [
        # no index at all, each call in one piece
        [[{"id": "a", "function": {"name": "f", "arguments": "1"}}, {"id": "b", "function": {"name": "g"}}]],
        # index 0 for every call
        [
            [{"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}}],
            [{"index": 0, "function": {"arguments": "1"}}],
            [{"index": 0, "id": "b", "function": {"name": "g", "arguments": ""}}],
        ],
        # the id repeated with every fragment, the name once
        [
            [{"index": 3, "id": "a", "function": {"name": "f"}}],
            [{"index": 3, "id": "a", "function": {"arguments": "1"}}],
            [{"index": 1, "id": "b", "function": {"name": "g"}}],
        ],
        # a new id with every fragment: the first holds
        [
            [{"index": 0, "id": "a", "function": {"name": "f"}}],
            [{"index": 0, "id": "other", "function": {"arguments": "1"}}],
            [{"index": 1, "id": "b", "function": {"name": "g"}}],
        ],
        # no index, fragments without an id follow their call
        [
            [{"id": "a", "function": {"name": "f"}}],
            [{"function": {"arguments": "1"}}],
            [{"id": "b", "function": {"name": "g"}}],
        ],
    ],
)
def test_calls_of_servers_that_number_them_their_own_way(deltas):
    events, result, _ = run([chunk(delta(tool_calls=calls)) for calls in deltas])
    message = result.choices[0].message
    assert message is not None
    assert [(call.id, call.function.name, call.function.arguments) for call in message.tool_calls] == [
        ("a", "f", "1"),
        ("b", "g", ""),
    ]
    assert {event.call_index for event in events if isinstance(event, ToolCallDelta)} == {0, 1}


@pytest.mark.parametrize("roles", [[None, None], ["", ""], ["assistant", None], ["assistant", ""], [None, "assistant"]])
def test_an_empty_role_is_none(roles):
    _, result, _ = run([chunk(delta(role=role, content="a")) for role in roles])
    message = result.choices[0].message
    assert message is not None
    assert (message.role, message.content, message.extra) == ("assistant", "aa", {})


def test_an_empty_finish_reason_ends_nothing():
    decoder = ChatStreamDecoder(backend="b")
    decoder.feed(chunk(delta(content="a", finish="")))
    with pytest.raises(BackendError, match="before its end mark"):
        decoder.finish(False)
    decoder.feed(chunk(delta(finish="stop")))
    decoder.feed(chunk(delta(finish="")))
    result, _ = decoder.finish(False)
    assert result.finish_reason == "stop"


def test_an_empty_stream_needs_its_end_mark():
    with pytest.raises(BackendError):
        run([], done=False)
    _, result, usage = run([])
    assert (result.choices, usage.estimated) == ((), True)


def test_one_choice_without_its_reason_is_truncated():
    with pytest.raises(BackendError, match="before its end mark"):
        run([chunk(delta(0, "stop", content="a"), delta(1, content="b"))], done=False)


def test_usage_with_every_chunk_is_told_once_and_the_last_counts():
    running = [{**USAGE, "completion_tokens": number} for number in range(4)]
    events, _, usage = run(
        [
            chunk(delta(content="a"), usage=running[1]),
            chunk(delta(finish="stop"), usage=running[2]),
            chunk(usage=running[3]),
        ]
    )
    assert [event.usage.output_tokens for event in events if isinstance(event, UsageEvent)] == [2]
    assert usage.output_tokens == 3


def test_reasoning_under_two_names_is_told_once():
    events, result, usage = run([chunk(delta(reasoning="hm", reasoning_content="hm")), chunk(delta(finish="stop"))])
    assert [event.delta for event in events if isinstance(event, ReasoningDelta)] == ["hm"]
    body = body_from_result(result, usage)
    assert body["choices"][0]["message"] == {
        "role": "assistant",
        "content": None,
        "reasoning": "hm",
        "reasoning_content": "hm",
    }


def test_content_in_parts():
    events, result, _ = run(
        [
            chunk(delta(content="a")),
            chunk(delta(content=[{"type": "thinking", "thinking": []}, {"type": "text", "text": "b"}])),
            chunk(delta(content="c", finish="stop")),
        ]
    )
    assert [event.delta for event in events if isinstance(event, ContentDelta)] == ["a", "b", "c"]
    assert result.text == "abc"


def test_audio_padded_piece_by_piece():
    raw = [b"a", b"bc", b"def", b"g"]
    events, result, usage = run(
        [
            chunk(delta(audio={"id": "audio_1", "transcript": "x"})),
            *(chunk(delta(audio={"data": base64.b64encode(piece).decode(), "transcript": "y"})) for piece in raw),
            chunk(delta(audio={"expires_at": 5}, finish="stop")),
        ],
        audio_format="pcm16",
    )
    told = [event for event in events if isinstance(event, AudioDelta)]
    assert b"".join(base64.b64decode(event.audio) for event in told) == b"".join(raw)
    assert {event.format for event in told} == {"pcm16"}
    assert body_from_result(result, usage)["choices"][0]["message"]["audio"] == {
        "id": "audio_1",
        "transcript": "xyyyy",
        "data": base64.b64encode(b"".join(raw)).decode(),
        "expires_at": 5,
    }


def test_only_the_data_of_audio_is_base64():
    _, result, usage = run([chunk(delta(vendor={"data": piece})) for piece in ("YQ==", "YmM=")])
    assert body_from_result(result, usage)["choices"][0]["message"]["vendor"] == {"data": "YQ==YmM="}


def test_keys_beside_the_choices():
    _, result, _ = run(
        [
            chunk(prompt_filter_results=[{"a": 1}], service_tier=None),
            chunk(delta(content="a"), citations=["x"], x_vendor={"id": "1"}),
            chunk(delta(finish="stop"), citations=["x", "y"], x_vendor={"time": 2}, service_tier="default"),
        ]
    )
    assert result.extra == {
        **HEAD,
        "object": "chat.completion",
        "prompt_filter_results": [{"a": 1}],
        "service_tier": "default",
        "citations": ["x", "y"],
        "x_vendor": {"id": "1", "time": 2},
    }


@pytest.mark.parametrize(
    ("error", "code", "failure"),
    [
        ({"message": "m", "type": "server_error"}, ErrorCode.BACKEND_ERROR, Failure.SERVER),
        ({"message": "m", "code": 429}, ErrorCode.RATE_LIMITED, Failure.RATE_LIMIT),
        ({"message": "m", "code": "rate_limit_exceeded"}, ErrorCode.RATE_LIMITED, Failure.RATE_LIMIT),
        ({"message": "m", "type": "invalid_request_error"}, ErrorCode.BACKEND_ERROR, Failure.REQUEST),
        ({"message": "m", "code": "content_filter"}, ErrorCode.CONTENT_REFUSED, Failure.REFUSED),
        ({"message": "m", "code": "invalid_api_key"}, ErrorCode.BACKEND_ERROR, Failure.AUTH),
        ("m", ErrorCode.BACKEND_ERROR, Failure.SERVER),
        ({}, ErrorCode.BACKEND_ERROR, Failure.SERVER),
    ],
)
def test_an_error_inside_the_stream(error, code, failure):
    decoder = ChatStreamDecoder(backend="b", clean=lambda text: text.replace("m", "[clean]"))
    decoder.feed(chunk(delta(content="a")))
    with pytest.raises(BackendError) as caught:
        decoder.feed({"error": error})
    assert (caught.value.code, caught.value.failure) == (code, failure)
    assert ("[clean]" in str(caught.value)) is bool(error)
    with pytest.raises(BackendError, match="error in the stream: BadRequest: 400: no"):
        ChatStreamDecoder(backend="b").feed({"object": "error", "message": "no", "type": "BadRequest", "code": 400})


@pytest.mark.parametrize(
    "broken",
    [
        [],
        "text",
        None,
        {"choices": {}},
        {"choices": [3]},
        chunk({"index": 0, "delta": 3}),
        chunk(delta(tool_calls={})),
        chunk(delta(tool_calls=[3])),
    ],
)
def test_what_is_no_chunk_is_refused(broken):
    with pytest.raises(BackendError) as caught:
        ChatStreamDecoder(backend="b").feed(broken)
    assert caught.value.code is ErrorCode.BACKEND_ERROR


@pytest.mark.parametrize(
    "make",
    [
        lambda number: chunk(delta(content="x" * 1000)),
        lambda number: chunk(delta(number, content="")),
        lambda number: chunk(delta(tool_calls=[{"index": number}])),
        lambda number: chunk(delta(tool_calls=[{"index": 0, "function": {"arguments": "x" * 1000}}])),
        lambda number: chunk(delta(**{f"key{number}": 1})),
        lambda number: chunk(delta(notes=[{"a": []}] * 100)),
        lambda number: chunk(**{f"key{number}": None}),
        lambda number: chunk(delta(box={f"key{number}": {}})),
        lambda number: chunk(delta(audio={"data": "="})),
    ],
)
def test_memory_is_bounded(make):
    with pytest.raises(BackendError, match="response too large"):
        run(map(make, range(100_000)), max_characters=100_000)


def test_repeating_what_is_beside_the_choices_costs_nothing():
    decoder = ChatStreamDecoder(backend="b", max_characters=20_000)
    for number in range(5000):
        decoder.feed(chunk(delta(content="x", refusal=None), fingerprint="f" * 100, count=number))
    decoder.feed(chunk(delta(finish="stop")))
    result, _ = decoder.finish(False)
    assert result.text == "x" * 5000
