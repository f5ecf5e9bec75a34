"""A guest's session to a request: everything is accepted, and what is the guest's reaches the backend unchanged."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from spear.dialects.openai_chat import request_body
from spear.ir import (
    ChatMessage,
    Degradation,
    Generation,
    Operation,
    ResponseFormat,
    Routing,
    dump_json,
    parse_json,
    parse_request,
)
from spear.normalize import ChatSession, request_from_session
from spear.normalize._chat_session import HOST_KEYS
from tests.spear.ir.ir_strategies import examples, identical, json_values

HELLO = {"role": "user", "content": "hello"}


def session(params=None, *, messages=(HELLO,), tools=()):
    return ChatSession(fd=1000, messages=messages, tools=tools, params=params or {})


def request_of(params=None, **parts):
    return request_from_session(session(params, **parts), task_id="task")


def sent(params=None, **parts):
    return request_body(request_of(params, **parts).payload, model="m", stream=False, stream_usage=False)


# As in the table of chat parameters: name, values of the right type, values of a wrong one.
host_values = {
    "model": st.text(max_size=5),
    "backend": st.text(max_size=5),
    "timeout_ms": st.integers(0, 10_000),
    "tool_arena_ptr": st.integers(),
    "max_iterations": st.integers(),
    "max_tool_calls": st.integers(),
    "messages": json_values,
    "tools": json_values,
    "stream": st.booleans(),
    "stream_options": json_values,
    "degradation": st.sampled_from(["allow", "reject"]),
    "mcp.enabled": st.booleans(),
    "mcp.anything": json_values,
}
backend_values = {
    "temperature": st.floats(0, 2) | st.integers(0, 2),
    "top_p": st.floats(0, 1),
    "max_tokens": st.integers(-1, 100),
    "stop": st.text(max_size=3) | st.lists(st.text(max_size=3), max_size=3),
    "seed": st.integers(),
    "n": st.integers(-1, 3),
    "user": st.text(max_size=3),
    "logprobs": st.booleans(),
    "tool_choice": st.sampled_from(["auto", "none", "sometimes"]),
    "response_format": st.sampled_from(
        [{"type": "json_object"}, {"type": "json_schema", "json_schema": {}}, {"type": "x"}]
    ),
    "max_completion_tokens": st.integers(),
    "logit_bias": json_values,
}
params = st.tuples(
    st.fixed_dictionaries({}, optional={key: value | json_values for key, value in host_values.items()}),
    st.fixed_dictionaries({}, optional={key: value | json_values for key, value in backend_values.items()}),
    st.dictionaries(st.text(max_size=4), json_values, max_size=3),
).map(lambda parts: {**parts[2], **parts[0], **parts[1]})


def as_numbers(value):
    """1 and 1.0 are one JSON number."""
    return float(value) if type(value) is int and abs(value) <= 2**53 else value


@examples(200)
@given(params)
@example({"temperature": 2**60, "n": 0, "stop": [], "top_logprobs": True, "response_format": {"type": "json_schema"}})
@example({"response_format": {"type": "json_schema", "json_schema": None}})
@example({"response_format": {"type": "text", "x": 1}, "tool_choice": None, "temperature": None})
def test_every_parameter_of_the_guest_arrives_unchanged_and_none_of_the_host(params):
    body = sent(params)
    own = {key: value for key, value in params.items() if key not in HOST_KEYS and not key.startswith("mcp.")}
    assert set(body) == {"model", "messages"} | set(own)
    for key, value in own.items():
        assert identical(as_numbers(body[key]), as_numbers(value)), key


@examples(150)
@given(params, st.lists(json_values.map(json.dumps) | st.text(max_size=8), max_size=3))
def test_any_session_is_a_request(params, tools):
    request = request_of(params, tools=tools)
    assert parse_request(request.model_dump_json()) == request
    assert ("supports_tools" in request.requirements.required_features) is bool(tools)


messages = st.fixed_dictionaries(
    {"role": st.text(max_size=5), "content": json_values},
    optional={"tool_calls": json_values, "tool_call_id": st.text(max_size=3), "name": json_values, "x": json_values},
)


@examples(150)
@given(st.lists(messages, max_size=3))
def test_messages_arrive_unchanged(messages):
    assert identical(sent(messages=messages)["messages"], messages)


def test_the_envelope():
    request = request_from_session(
        session({"model": " m ", "backend": "b", "timeout_ms": 500, "temperature": 0.5}), task_id="task", stream=True
    )
    assert request.operation is Operation.CHAT_COMPLETIONS
    assert request.task_id == "task"
    assert (request.meta.source, request.meta.source_id) == ("cchat", "chatcmpl_1000")
    assert request.routing == Routing(backend="b")
    assert request.timeout_ms == 500
    assert request.payload.model == " m "
    assert request.model == "m"
    assert request.requirements.required_features == ("supports_stream",)
    assert request.payload.generation == Generation(temperature=0.5, stream=True)
    assert request.payload.messages == (ChatMessage(role="user", content="hello"),)
    assert request_of().payload.generation.stream is None


def test_request_ids_are_unique_even_for_one_session():
    assert len({request_of().request_id for _ in range(100)}) == 100


@pytest.mark.parametrize("value", [None, True, "5", 1.5, -1, 0, [], {}])
def test_a_timeout_that_is_no_positive_integer_is_none(value):
    assert request_of({"timeout_ms": value}).timeout_ms is None


@pytest.mark.parametrize("value", [None, True, 5, "", [], {}])
def test_a_backend_that_is_no_name_is_none(value):
    assert request_of({"backend": value}).routing == Routing()


@pytest.mark.parametrize("value", [None, True, 5, [], {}])
def test_a_model_that_is_no_string_is_blank(value):
    assert request_of({"model": value}).payload.model == ""


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("allow", Degradation(mode="allow")),
        (["merge_system"], Degradation(mode="allow", steps=("merge_system",))),
        ("reject", Degradation()),
        ([], Degradation()),
        (["merge_system", 1], Degradation()),
        (True, Degradation()),
    ],
)
def test_degradation(value, expected):
    assert request_of({"degradation": value}).degradation == expected


@pytest.mark.parametrize(
    ("value", "typed", "features"),
    [
        ({"type": "json_object"}, ResponseFormat(type="json_object"), ()),
        (
            {"type": "json_schema", "json_schema": {"name": "x"}},
            ResponseFormat(type="json_schema", json_schema={"name": "x"}),
            ("supports_json_schema",),
        ),
        ({"type": "json_schema", "json_schema": 3}, None, ("supports_json_schema",)),
        ({"type": "json_schema", "more": 3}, None, ("supports_json_schema",)),
        ("json_schema", None, ()),
        (None, None, ()),
    ],
)
def test_response_format(value, typed, features):
    request = request_of({"response_format": value})
    assert request.payload.response_format == typed
    assert request.requirements.required_features == features
    assert ("response_format" in request.payload.extra) is (typed is None)


COMPLETE = {"type": "function", "function": {"name": "add", "parameters": {}}, "strict": True}
BARE = {"name": "add", "description": "d", "parameters": {}}


@pytest.mark.parametrize(
    ("text", "tools"),
    [
        (json.dumps(COMPLETE), [COMPLETE]),
        (json.dumps(BARE), [{"type": "function", "function": BARE}]),
        (json.dumps({"type": "function", **BARE}), [{"type": "function", "function": {"type": "function", **BARE}}]),
        (json.dumps({**COMPLETE, "name": "b"}), [{**COMPLETE, "name": "b"}]),
        (json.dumps({"type": "web_search"}), [{"type": "web_search"}]),
        ("{}", [{}]),
        ("", []),
        ("{", []),
        ("[]", []),
        ("3", []),
        ("\ud800", []),
        ("[" * 1000, []),
    ],
)
def test_tools(text, tools):
    request = request_of(tools=[text])
    assert list(request.payload.tools) == tools
    assert request.requirements.required_features == ("supports_tools",)


def test_tools_keep_order_and_duplicates():
    names = ["b", "a", "b"]
    tools = request_of(tools=[json.dumps({"name": name}) for name in names]).payload.tools
    assert [tool["function"]["name"] for tool in tools] == names


def test_long_integers_keep_their_digits():
    params = parse_json(b'{"seed":123456789012345678901234567890,"x":98765432109876543210987}')
    text = dump_json(sent(params))
    assert b"123456789012345678901234567890" in text
    assert b"98765432109876543210987" in text
