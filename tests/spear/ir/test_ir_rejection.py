"""What is wrong in a request is named, and the caller's values are not repeated."""

from __future__ import annotations

import base64
import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

import spear.ir as ir
from tests.spear.ir.ir_strategies import examples, instances, json_values

CANARY = "canary-5ecre7-value"
many = examples(100)
FREE = {"extra", "options", "content", "tools", "tool_choice", "json_schema", "turn_detection", "transcription"}


def places(value, path=()):
    """Every place in a JSON value below which the models say what may stand."""
    yield path
    if isinstance(value, dict):
        for key, item in value.items():
            if key not in FREE and not (path and path[-1] == "rejected_reasons"):
                yield from places(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from places(item, (*path, index))


def at(value, path):
    for step in path:
        value = value[step]
    return value


def written(path):
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".")


@many
@given(instances(ir.RequestEnvelope), st.data())
def test_an_unknown_key_is_named_wherever_it_stands(request, data):
    valid = request.model_dump(mode="json")
    objects = [path for path in places(valid) if isinstance(at(valid, path), dict)]
    path = data.draw(st.sampled_from(objects))
    at(valid, path)["unknown_key"] = CANARY
    with pytest.raises(ir.CallerError) as caught:
        ir.validate_request(valid)
    assert caught.value.code is ir.ErrorCode.INVALID_REQUEST
    assert f"{written((*path, 'unknown_key'))}: is not a known key" in str(caught.value)
    assert CANARY not in str(caught.value)
    assert not caught.value.error.retryable


@many
@given(instances(ir.RequestEnvelope), st.data())
def test_any_replacement_is_taken_or_refused_with_its_field(request, data):
    valid = request.model_dump(mode="json")
    path = data.draw(st.sampled_from([path for path in places(valid) if path]))
    wrong = data.draw(json_values | st.sampled_from([CANARY, [CANARY], {CANARY: CANARY}, {"kind": CANARY}, -1, 1.5]))
    broken = copy.deepcopy(valid)
    at(broken, path[:-1])[path[-1]] = wrong
    try:
        again = ir.validate_request(broken)
    except ir.CallerError as error:
        # An unknown key is named; a value is not told.
        told = str(error).replace(f".{CANARY}: is not a known key", "")
        assert CANARY not in told
        assert str(path[0]) in told
    else:
        assert again == ir.parse_request(ir.dump_json(broken))


@many
@given(st.binary(max_size=200) | instances(ir.RequestEnvelope).map(lambda r: r.model_dump_json().encode()), st.data())
def test_damaged_bytes_are_taken_or_refused(data, draw):
    position = draw.draw(st.integers(0, len(data)))
    damaged = data[:position] + draw.draw(st.binary(max_size=5)) + data[position + draw.draw(st.integers(0, 5)) :]
    try:
        request = ir.parse_request(damaged)
    except ir.CallerError:  # the one error that may come; any other fails the test
        return
    assert ir.parse_request(request.model_dump_json()) == request


def chat(**changes):
    body = {
        "operation": "chat_completions",
        "payload": {"kind": "chat_completions", "messages": [{"role": "user", "content": "hello"}]},
    }
    return {**body, **changes}


@pytest.mark.parametrize(
    ("change", "code", "told"),
    [
        ({"version": 2}, "unsupported_version", "version: must be 1"),
        ({"operation": "embeddings"}, "payload_mismatch", "payload.kind: is chat_completions, must be as operation"),
        ({"operation": CANARY}, "invalid_request", "operation: must be 'chat_completions', 'embeddings'"),
        ({"payload": {"kind": CANARY}}, "invalid_request", "payload: its 'kind' must be one of 'chat_completions'"),
        (
            {"payload": {"kind": "chat_completions", "type": [CANARY], "messages": []}},
            "invalid_request",
            "payload.type: is not a known key",
        ),
        ({"payload": {}}, "invalid_request", "payload: its 'kind' is missing"),
        ({"payload": CANARY}, "invalid_request", "payload: must be"),
        ({"version": "1"}, "invalid_request", "version: must be an integer"),
        ({"version": True}, "invalid_request", "version: must be"),
        ({"timeout_ms": 0}, "invalid_request", "timeout_ms: must be greater than or equal to 1"),
        ({"timeout_ms": 1.5}, "invalid_request", "timeout_ms: must be"),
        ({"request_id": ""}, "invalid_request", "request_id: "),
        ({"request_id": CANARY * 100}, "invalid_request", "request_id: "),
        ({"routing": {"allowlist": CANARY}}, "invalid_request", "routing.allowlist: must be"),
        ({"routing": {"allowlist": ["a", 1]}}, "invalid_request", "routing.allowlist[1]: must be a string"),
        ({"requirements": {"required_ops": [CANARY]}}, "invalid_request", "requirements.required_ops[0]: must be"),
        ({"degradation": {"mode": CANARY}}, "invalid_request", "degradation.mode: must be 'reject' or 'allow'"),
        ({"policy": {}}, "invalid_request", "policy.name: is missing"),
        ({"extra": [CANARY]}, "invalid_request", "extra: must be"),
    ],
)
def test_what_is_wrong_is_said(change, code, told):
    with pytest.raises(ir.CallerError) as caught:
        ir.validate_request(chat(**change))
    assert caught.value.code.value == code
    assert told in caught.value.error.message
    assert CANARY not in str(caught.value)


def test_fields_inside_unions_are_named_as_the_caller_wrote_them():
    body = chat()
    body["payload"]["messages"].append({"role": 5, "content_parts": [{"type": "image", "media": {"kind": "sms_file"}}]})
    with pytest.raises(ir.CallerError) as caught:
        ir.validate_request(body)
    assert "payload.messages[1].role: must be a string" in str(caught.value)
    assert "payload.messages[1].content_parts[0].media.uri: is missing" in str(caught.value)


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ({"type": "text", "text": "a", "more": 1}, "content_parts[0].more: is not a known key"),
        ({"type": "text", "text": 5}, "content_parts[0].text: must be a string"),
        ({"type": "text"}, "content_parts[0].text: is missing"),
        ({"type": [CANARY], "text": "a"}, "content_parts[0]: its 'type' must be one of"),
        ({"type": "image", "image": 1, "media": {"kind": "http_url", "http_url": 1}}, "content_parts[0].image: is not"),
    ],
)
def test_a_key_that_is_named_like_a_tag(part, told):
    body = chat()
    body["payload"]["messages"][0] = {"role": "user", "content_parts": [part]}
    with pytest.raises(ir.CallerError) as caught:
        ir.validate_request(body)
    assert f"payload.messages[0].{told}" in str(caught.value)
    assert CANARY not in str(caught.value)


def test_many_problems_and_long_keys_stay_short():
    body = chat(**{f"{'x' * 100_000}{number}": 1 for number in range(30)})
    with pytest.raises(ir.CallerError) as caught:
        ir.validate_request(body)
    assert len(str(caught.value)) < 1200
    wrong = chat(**{f"unknown{number}": 1 for number in range(30)})
    with pytest.raises(ir.CallerError, match=r"\(and 22 more\)"):
        ir.validate_request(wrong)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none_are_refused(text):
    body = ir.dump_json(chat(extra={"x": 12345})).replace(b"12345", text.encode())
    with pytest.raises(ir.CallerError, match="not JSON"):
        ir.parse_request(body)


@pytest.mark.parametrize("value", [float("nan"), {1: 2}, {"a": {1, 2}}, "\ud800", object()])
def test_values_that_are_not_json_are_refused(value):
    with pytest.raises(ir.CallerError, match="not JSON"):
        ir.validate_request(chat(extra={"x": value}))


def test_deep_nesting_is_refused():
    deep = 1
    for _ in range(125):
        deep = [deep]
    assert ir.validate_request(chat(extra={"x": deep})).extra == {"x": deep}
    for _ in range(4):
        deep = [deep]
    for depth in (1, 200, 5000):
        text = ir.dump_json(chat(extra={"x": deep})).replace(b"[1]", b"[" * depth + b"]" * depth)
        with pytest.raises(ir.CallerError, match=r"nested deeper than 128|not JSON"):
            ir.parse_request(text)


@pytest.mark.parametrize("data", ["!", "abc", base64.b64encode(b"ab").decode().rstrip("=")])
def test_inline_media_must_be_base64(data):
    with pytest.raises(ValueError, match="must be standard base64"):
        ir.InlineMedia(mime="image/png", data=data)


def test_a_result_is_exactly_one_of_payload_and_error():
    with pytest.raises(ValueError, match="exactly one of payload and error"):
        ir.Result()
    with pytest.raises(ValueError, match="exactly one of payload and error"):
        ir.Result(payload=ir.ChatResult(), error=ir.make_error(ir.ErrorCode.INTERNAL, "x"))


def test_content_is_given_in_one_form_only():
    with pytest.raises(ir.CallerError, match=r"payload.messages\[0\]: at most one of content and content_parts"):
        ir.validate_request(
            chat(
                payload={
                    "kind": "chat_completions",
                    "messages": [{"role": "user", "content": "a", "content_parts": [{"type": "text", "text": "b"}]}],
                }
            )
        )


@pytest.mark.parametrize("forms", [{}, {"vectors": (), "base64": ()}])
def test_vectors_are_given_in_one_form_only(forms):
    with pytest.raises(ValueError, match="exactly one of vectors and base64"):
        ir.EmbeddingsResult(**forms)
