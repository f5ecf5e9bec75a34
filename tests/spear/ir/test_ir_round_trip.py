"""Every model survives JSON, pickling and copying; nothing is lost."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

import spear.ir as ir
from tests.spear.ir.ir_strategies import MODELS, examples, identical, instances

few = examples(25)


def test_all_models_are_found():
    assert {ir.RequestEnvelope, ir.ResponseEnvelope, ir.Completed, ir.Usage, ir.Limits} <= set(MODELS)
    assert len(MODELS) >= 45


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_model_to_json_and_back(model):
    @few
    @given(st.data())
    def check(data):
        value = data.draw(instances(model))
        text = value.model_dump_json()
        assert model.model_validate_json(text) == value
        assert identical(ir.parse_json(ir.dump_json(value.model_dump(mode="json"))), value.model_dump(mode="json"))

    check()


@few
@given(instances(ir.RequestEnvelope))
def test_a_request_is_read_back_by_the_strict_parser(request):
    assert ir.parse_request(request.model_dump_json()) == request
    assert ir.validate_request(request.model_dump(mode="json")) == request


@few
@given(st.one_of([instances(model) for model in (ir.Started, ir.Completed, ir.ErrorEvent, ir.ToolCallDelta)]))
def test_a_stream_event_is_told_apart_by_its_type(event):
    assert TypeAdapter(ir.StreamEvent).validate_json(event.model_dump_json()) == event


@few
@given(instances(ir.RequestEnvelope))
def test_absent_keys_mean_the_defaults(request):
    sparse = request.model_dump(mode="json", exclude_defaults=True)
    # The tags stand at their defaults, but they are what a payload is told apart by.
    for key in ("operation", "request_id", "payload"):
        sparse[key] = request.model_dump(mode="json")[key]
    assert ir.validate_request(sparse) == request


@few
@given(st.sampled_from(MODELS).flatmap(instances))
def test_pickle_and_copy(value):
    assert pickle.loads(pickle.dumps(value)) == value
    assert copy.deepcopy(value) == value


@few
@given(instances(ir.CanonicalError), st.sampled_from(ir.Failure), st.none() | st.integers(100, 599))
def test_errors_survive_pickling(error, failure, status):
    for original in (
        ir.SpearError(error),
        ir.CallerError(error),
        ir.RoutingError(error),
        ir.InternalError(error),
        ir.GuestError(error),
        ir.BackendError(error, failure, status=status),
    ):
        for again in (pickle.loads(pickle.dumps(original)), copy.copy(original)):
            assert type(again) is type(original)
            assert again.error == error
            assert str(again) == str(original)
            assert vars(again) == vars(original)


def test_a_configuration_error_survives_pickling():
    original = ir.ConfigError([ir.Problem("spear.toml", 3, "a.b", "is wrong"), ir.Problem("", 0, "", "is missing")])
    again = pickle.loads(pickle.dumps(original))
    assert again.problems == original.problems
    assert str(again) == str(original) == "spear.toml:3: a.b: is wrong\nconfiguration: is missing"


@given(instances(ir.CanonicalError))
@few
def test_each_code_becomes_an_exception_that_carries_it(error):
    exception = ir.error_to_exception(error)
    assert exception.error is error
    assert exception.code is error.code
    assert error.code in ir.HTTP_STATUS


def test_request_ids_are_unique_and_sort_by_time():
    ids = [ir.new_request_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert [text[:16] for text in ids] == sorted(text[:16] for text in ids)


def test_models_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        ir.Usage().input_tokens = 3
