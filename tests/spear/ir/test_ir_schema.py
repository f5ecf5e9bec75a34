"""The schema is valid JSON Schema 2020-12 and accepts what the models write."""

from __future__ import annotations

import functools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

import spear.ir as ir
from tests.spear.ir.ir_strategies import examples, instances

ROOTS = {
    "RequestEnvelope": ir.RequestEnvelope,
    "ResponseEnvelope": ir.ResponseEnvelope,
    "CanonicalError": ir.CanonicalError,
}
EVENTS = [ir.Started, ir.ContentDelta, ir.ReasoningDelta, ir.ToolCallDelta, ir.AudioDelta, ir.UsageEvent]
EVENTS += [ir.Completed, ir.ErrorEvent]
few = examples(40)


@functools.cache
def validator(name):
    schema = ir.json_schema()
    return Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": schema["$defs"]})


def test_the_document_is_a_valid_schema():
    schema = ir.json_schema()
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"].endswith("2020-12/schema")
    assert set(ROOTS) | {"StreamEvent"} <= set(schema["$defs"])
    assert ir.parse_json(ir.dump_json(schema)) == schema


@pytest.mark.parametrize("name", ROOTS)
def test_it_accepts_what_the_models_write(name):
    @few
    @given(instances(ROOTS[name]))
    def check(value):
        validator(name).validate(value.model_dump(mode="json"))

    check()


@few
@given(st.sampled_from(EVENTS).flatmap(instances))
def test_it_accepts_every_event(event):
    validator("StreamEvent").validate(event.model_dump(mode="json"))


@few
@given(instances(ir.RequestEnvelope))
def test_it_refuses_unknown_keys_as_the_models_do(request):
    value = {**request.model_dump(mode="json"), "unknown_key": 1}
    assert not validator("RequestEnvelope").is_valid(value)
