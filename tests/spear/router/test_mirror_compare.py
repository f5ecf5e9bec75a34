"""What is compared beside the text: tool calls as JSON values, the JSON that was asked for, finish reasons, cost."""

from __future__ import annotations

import json

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spear.backends import Answer
from spear.config import Price
from spear.ir import (
    ChatChoice,
    ChatMessage,
    ChatResult,
    EmbeddingsResult,
    FunctionCall,
    ResponseFormat,
    ToolCall,
    Usage,
)
from spear.router import facts_of
from spear.router.mirrors._compare import Comparison, compare, record_of
from spear.router.mirrors._conform import conforms, same_json
from spear.router.mirrors._side import LEFT, OK, Side
from tests.spear.router.world import answer, chat


def side(name: str, found: Answer | None, outcome: str = OK, **more: object) -> Side:
    return Side(name, "model", outcome, found, **more)


def calls(*pairs: tuple[str, str]) -> Answer:
    made = tuple(
        ToolCall(id=f"call-{number}", function=FunctionCall(name=name, arguments=arguments))
        for number, (name, arguments) in enumerate(pairs)
    )
    message = ChatMessage(role="assistant", tool_calls=made)
    return Answer(ChatResult(choices=(ChatChoice(message=message, finish_reason="tool_calls"),)), Usage())


def compared(one: Answer, other: Answer, request: object = None) -> Comparison:
    return compare(request or chat(), side("a", one), side("b", other), 1.0)


@pytest.mark.parametrize(
    ("one", "other", "names", "arguments"),
    [
        ([("f", '{"x": 1}')], [("f", '{ "x":1.0 }')], True, True),
        ([("f", '{"x": 1, "y": 2}')], [("f", '{"y": 2, "x": 1}')], True, True),
        ([("f", '{"x": 1}')], [("f", '{"x": true}')], True, False),
        ([("f", '{"x": 1}')], [("g", '{"x": 1}')], False, False),
        ([("f", "1"), ("g", "2")], [("g", "2"), ("f", "1")], True, True),
        ([("f", "1"), ("f", "2")], [("f", "1")], False, False),
        ([("f", "no json")], [("f", "no json")], True, True),
        ([("f", "no json")], [("f", "not json")], True, False),
        ([("f", "1")], [], False, False),
        ([], [], None, None),
    ],
)
def test_tool_calls(one: list, other: list, names: bool | None, arguments: bool | None) -> None:
    found = compared(calls(*one), calls(*other))
    assert (found.tool_names_equal, found.tool_arguments_equal) == (names, arguments)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_a_json_value_is_the_same_as_itself_written_otherwise(value: object) -> None:
    assert same_json(value, json.loads(json.dumps(value, indent=3)))


@given(JSON, JSON)
def test_the_same_json_both_ways(one: object, other: object) -> None:
    assert same_json(one, other) == same_json(other, one)


SMALL = st.sampled_from([None, True, False, 0, 1, 2.5, "", "ab", [], [1], [1, "a"], {}, {"a": 1}, {"a": "x", "b": []}])
SCHEMAS = st.recursive(
    st.sampled_from(
        [
            True,
            False,
            {},
            {"type": "string", "minLength": 1},
            {"type": "integer"},
            {"type": ["number", "null"], "maximum": 1},
            {"exclusiveMinimum": 0, "exclusiveMaximum": 2.5},
            {"minimum": 1},
            {"enum": [1, "ab", None]},
            {"const": True},
            {"maxItems": 1, "minProperties": 1},
            {"$ref": "#/$defs/text"},
            {"$ref": "#/$defs/none"},
        ]
    ),
    lambda inner: st.one_of(
        st.fixed_dictionaries(
            {"properties": st.fixed_dictionaries({"a": inner}), "required": st.sampled_from([["a"], ["b"], []])},
            optional={"additionalProperties": inner, "type": st.just("object")},
        ),
        st.fixed_dictionaries({"items": inner}, optional={"prefixItems": st.lists(inner, min_size=1, max_size=2)}),
        st.fixed_dictionaries({"anyOf": st.lists(inner, min_size=1, max_size=2)}),
        st.fixed_dictionaries({"allOf": st.lists(inner, min_size=1, max_size=2)}),
        st.fixed_dictionaries({"oneOf": st.lists(inner, min_size=1, max_size=3)}),
    ),
    max_leaves=6,
)


@settings(max_examples=500)
@given(SCHEMAS, SMALL)
def test_what_is_checked_is_checked_as_the_standard_says(schema: object, value: object) -> None:
    whole = {"allOf": [schema], "$defs": {"text": {"type": "string"}, "none": {"type": "null"}}}
    expected = jsonschema.Draft202012Validator(whole).is_valid(value)
    assert conforms(json.dumps(value), asked_for(whole)) == expected


@settings(max_examples=300)
@given(JSON, JSON)
def test_whatever_stands_in_a_schema_it_is_never_an_error(value: object, schema: object) -> None:
    assert conforms(json.dumps(value), asked_for({"allOf": [schema, {"$ref": "#"}]})) in {True, False, None}
    assert conforms(json.dumps(value), ResponseFormat(type="json_schema", json_schema={"schema": schema})) is not None


def asked_for(schema: object) -> ResponseFormat:
    return ResponseFormat(type="json_schema", json_schema={"name": "x", "schema": schema})


@pytest.mark.parametrize(
    ("text", "wanted", "valid"),
    [
        ("{}", None, None),
        ("{}", ResponseFormat(type="text"), None),
        ("{}", ResponseFormat(type="json_object"), True),
        ("[]", ResponseFormat(type="json_object"), False),
        ("```json\n{}\n```", ResponseFormat(type="json_object"), False),
        ("", ResponseFormat(type="json_schema"), False),
        ('"a"', asked_for({"pattern": "(a+)+$"}), True),  # not checked
        ("1", asked_for({"$ref": "#"}), None),  # for ever
        ("1", asked_for({"enum": list(range(20_000))[::-1]}), None),  # too much
    ],
)
def test_what_may_be_said_of_an_answer(text: str, wanted: ResponseFormat | None, valid: bool | None) -> None:
    assert conforms(text, wanted) is valid


def test_a_schema_that_grows_without_end_is_given_up() -> None:
    schema = {"$defs": {"x": {"allOf": [{"$ref": "#/$defs/x"}] * 3}}, "$ref": "#/$defs/x"}
    assert conforms("1", asked_for(schema)) is None


def test_what_is_no_text_is_not_compared() -> None:
    vectors = Answer(EmbeddingsResult(vectors=((1.0,),)), Usage())
    assert compared(vectors, vectors) == Comparison()
    assert compare(chat(), side("a", None, LEFT), side("b", answer()), None) == Comparison()


def test_a_record_has_both_costs_and_times_and_what_is_between_them() -> None:
    request = chat("hi", model="small")
    ours = side("a", answer("yes", input_tokens=100, output_tokens=10), elapsed=0.5, price=Price(input=10, output=20))
    theirs = side("b", answer("no", input_tokens=90, output_tokens=50), elapsed=0.2, first_event=0.1)
    record = record_of(
        request, facts_of(request), ours, theirs, compare(request, ours, theirs, 0.0), time="now", generation=3
    )
    assert (record.primary_latency_ms, record.mirror_latency_ms, record.latency_difference_ms) == (500, 200, -300)
    assert record.primary_cost == pytest.approx(0.0012)
    assert (record.mirror_cost, record.cost_difference) == (None, None)
    assert (record.primary_output_tokens, record.mirror_output_tokens) == (10, 50)
    assert record.mirror_first_event_ms == 100
    assert record.compared
    assert (record.primary_finish_reason, record.mirror_finish_reason) == ("stop", "stop")
    assert record.prompt is None
