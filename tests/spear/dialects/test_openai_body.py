"""A chat.completion object to a result and back: nothing is lost, whatever it says."""

from __future__ import annotations

import copy

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from spear.dialects.openai_chat import (
    body_from_result,
    fill_usage,
    message_from_wire,
    message_to_wire,
    result_from_body,
)
from spear.ir import (
    ChatChoice,
    ChatMessage,
    ChatRequest,
    ChatResult,
    FunctionCall,
    ToolCall,
    Usage,
    dump_json,
    parse_json,
)
from tests.spear.ir.ir_strategies import examples, identical, json_objects, json_values

BODY = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m-1",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "hello", "refusal": None, "annotations": []},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {
        "prompt_tokens": 9,
        "completion_tokens": 2,
        "total_tokens": 11,
        "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
    },
    "system_fingerprint": "fp",
}
CALL = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1'}}


def likely(**fields):
    """An object in which each key is absent, as it should be, or anything at all."""
    return st.fixed_dictionaries({}, optional={key: value | json_values for key, value in fields.items()}).flatmap(
        lambda known: json_objects.map(lambda unknown: {**unknown, **known})
    )


functions = likely(name=st.text(max_size=5), arguments=st.text(max_size=5))
calls = likely(id=st.text(max_size=5), type=st.just("function"), function=functions)
messages = likely(
    role=st.sampled_from(["assistant", "", "tool"]),
    content=st.text(max_size=5),
    tool_calls=st.lists(calls | st.just(CALL), max_size=2),
    tool_call_id=st.text(max_size=5),
    name=st.text(max_size=5),
    content_parts=st.none(),
)
choices = likely(index=st.integers(), message=messages, finish_reason=st.sampled_from(["stop", "length"]))
counts = st.integers(0, 2**70)
usages = likely(
    prompt_tokens=counts,
    completion_tokens=counts,
    total_tokens=counts,
    prompt_tokens_details=likely(cached_tokens=counts),
)
bodies = likely(choices=st.lists(choices, max_size=3), usage=usages, model=st.text(max_size=5))


@examples(250)
@given(bodies)
@example(BODY)
@example({"choices": []})
@example({"choices": [{}]})
@example({"choices": [{"message": {}}]})
@example({"choices": [{"message": {"role": ""}}]})
@example({"choices": [{"message": None, "index": None, "finish_reason": None}]})
@example({"choices": [{"message": {"tool_calls": []}}]})
@example({"choices": [{"message": {"tool_calls": None, "content": None}}, 3]})
@example({"choices": {"message": "no list"}})
@example({"choices": [{"index": True}]})
@example({"usage": None})
@example({"usage": {}})
@example({"usage": {"prompt_tokens": 1}})
@example({"usage": {"prompt_tokens": 1, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 0}}})
@example({"usage": {"prompt_tokens": 1, "completion_tokens": 2, "prompt_tokens_details": {}}})
@example({"usage": {"prompt_tokens": 1, "completion_tokens": True}})
@example({"result": 1})
def test_an_object_comes_back_as_it_was(body):
    before = copy.deepcopy(body)
    result, usage = result_from_body(body)
    assert identical(body_from_result(result, usage), body)
    assert identical(body, before)


@examples(100)
@given(json_values.filter(lambda value: not isinstance(value, dict)))
@example(None)
@example([])
def test_what_is_no_object_stands_under_result(value):
    result, usage = result_from_body(value)
    assert result == ChatResult(extra={"result": value})
    assert usage.estimated
    assert identical(body_from_result(result, usage), {"result": value})


@examples(150)
@given(bodies)
def test_a_result_is_an_ir_model_like_any_other(body):
    result, usage = result_from_body(body)
    assert ChatResult.model_validate_json(result.model_dump_json()) == result
    assert Usage.model_validate_json(usage.model_dump_json()) == usage


def test_the_usual_body_is_typed():
    result, usage = result_from_body(BODY)
    assert result.text == "hello"
    assert result.finish_reason == "stop"
    assert result.choices[0].message == ChatMessage(
        role="assistant", content="hello", extra={"refusal": None, "annotations": []}
    )
    assert usage == Usage(
        input_tokens=9,
        output_tokens=2,
        cached_tokens=4,
        extra={"total_tokens": 11, "prompt_tokens_details": {"audio_tokens": 0}},
    )
    assert result.extra["model"] == "m-1"


def test_tool_calls_are_typed_when_all_of_them_fit():
    result, _ = result_from_body({"choices": [{"message": {"tool_calls": [CALL]}}]})
    message = result.choices[0].message
    assert message is not None
    assert message.tool_calls == (
        ToolCall(id="call_1", type="function", function=FunctionCall(name="add", arguments='{"a": 1')),
    )
    mixed = [CALL, {**CALL, "function": {"name": "add", "arguments": {"a": 1}}}]
    result, _ = result_from_body({"choices": [{"message": {"tool_calls": mixed}}]})
    message = result.choices[0].message
    assert message is not None
    assert message.tool_calls == ()
    assert message.extra == {"tool_calls": mixed}


@examples(200)
@given(messages)
def test_a_message_comes_back_as_it_was(wire):
    assert identical(message_to_wire(message_from_wire(wire)), wire)


@pytest.mark.parametrize(
    "usage",
    [None, {}, {"prompt_tokens": 3}, {"prompt_tokens": 3, "completion_tokens": -1}, {"prompt_tokens": "3"}, [], "x"],
)
def test_an_incomplete_count_is_an_estimate_and_never_sent_as_a_count(usage):
    body = {"choices": [{"message": {"role": "assistant", "content": "12345"}}], "usage": usage}
    result, given_usage = result_from_body(body)
    assert given_usage.estimated
    request = ChatRequest(messages=(ChatMessage(role="user", content="x" * 9),))
    filled = fill_usage(given_usage, request, result)
    assert filled.estimated
    assert filled.output_tokens == 2
    assert filled.input_tokens == 3  # ceil(9 / 4), and the count where there is one
    assert identical(body_from_result(result, filled), body)


def test_a_count_is_not_replaced_by_an_estimate():
    usage = Usage(input_tokens=1, output_tokens=2)
    assert fill_usage(usage, ChatRequest(messages=()), ChatResult()) is usage


def test_tool_calls_count_in_an_estimate():
    call = ToolCall(id="1", function=FunctionCall(name="add", arguments="{}"))
    result = ChatResult(choices=(ChatChoice(message=ChatMessage(role="assistant", tool_calls=(call,))),))
    assert fill_usage(Usage(estimated=True), ChatRequest(messages=()), result).output_tokens == 2


def test_large_numbers_keep_their_digits():
    text = b'{"choices":[],"created":123456789012345678901234567890,"x":1.10}'
    result, usage = result_from_body(parse_json(text))
    assert b"123456789012345678901234567890" in dump_json(body_from_result(result, usage))
