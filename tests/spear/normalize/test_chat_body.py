"""What a guest reads: the backend's body with `_spear`, error bodies, metrics."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spear.dialects.openai_chat import result_from_body
from spear.ir import (
    Attempt,
    BackendInfo,
    EmbeddingsResult,
    ErrorCode,
    Operation,
    ResponseEnvelope,
    Result,
    Usage,
    make_error,
)
from spear.normalize import (
    ChatSession,
    body_from_error,
    body_from_response,
    metrics_from_response,
    request_from_session,
)
from tests.spear.ir.ir_strategies import examples, identical, json_objects, json_values

ATTEMPT = Attempt(backend="b", reason="chosen", outcome="failed", started_ms=0, elapsed_ms=1)


def request(model="asked", content="x" * 9):
    messages = [{"role": "user", "content": content}]
    return request_from_session(ChatSession(3, messages, [], {"model": model}), task_id=None)


def answered(body, *, degraded=()):
    result, usage = result_from_body(body)
    return ResponseEnvelope(
        request_id="r",
        operation=Operation.CHAT_COMPLETIONS,
        backend=BackendInfo(name="b", kind="stub", model="bound", degraded=degraded),
        result=Result(payload=result),
        usage=usage,
    )


def failed(code, message="m", *, backend=None, **fields):
    return ResponseEnvelope(
        request_id="r",
        operation=Operation.CHAT_COMPLETIONS,
        backend=backend,
        result=Result(error=make_error(code, message, **fields)),
    )


@examples(150)
@given(json_values | json_objects)
def test_the_body_is_the_backends_with_one_key_beside_it(body):
    told = body_from_response(answered(body), request())
    assert told.pop("_spear") == {"backend": "b", "model": "asked"}
    expected = dict(body) if isinstance(body, dict) else {"result": body}
    expected.pop("_spear", None)
    assert identical(told, expected)


@pytest.mark.parametrize(
    ("asked", "own", "told"),
    [("m", "own", "m"), (" m ", "own", " m "), ("", "own", "own"), ("  ", "own", "own"), ("", None, ""), ("", 3, "")],
)
def test_the_model_told_is_the_requested_one_else_the_bodys(asked, own, told):
    assert body_from_response(answered({"model": own}), request(asked))["_spear"] == {"backend": "b", "model": told}


def test_steps_taken_are_told_only_if_there_were_some():
    told = body_from_response(answered({}, degraded=("merge_system",)), request())
    assert told["_spear"] == {"backend": "b", "model": "asked", "degraded": ["merge_system"]}


def test_an_answer_to_something_else_is_a_bug():
    response = ResponseEnvelope(
        request_id="r", operation=Operation.EMBEDDINGS, result=Result(payload=EmbeddingsResult(vectors=()))
    )
    with pytest.raises(TypeError, match="EmbeddingsResult"):
        body_from_response(response, request())


PLAIN = {
    ErrorCode.BACKEND_NOT_ENABLED: "Operation not supported: m",
    ErrorCode.NO_CANDIDATE_BACKEND: "Operation not supported: m",
    ErrorCode.MISSING_CAPABILITIES: "Operation not supported: m",
    ErrorCode.INVALID_REQUEST: "Invalid request: m",
    ErrorCode.PAYLOAD_MISMATCH: "Invalid request: m",
    ErrorCode.UNSUPPORTED_VERSION: "Invalid request: m",
}
CODED = {
    ErrorCode.TOOL_CALL_LIMIT,
    ErrorCode.BUDGET_EXCEEDED,
    ErrorCode.CONTENT_REFUSED,
    ErrorCode.CREDENTIALS_EXHAUSTED,
    ErrorCode.MEDIA_NOT_FOUND,
    ErrorCode.MEDIA_NOT_ALLOWED,
    ErrorCode.MEDIA_TOO_LARGE,
}


@pytest.mark.parametrize("code", ErrorCode)
def test_every_code_has_its_form(code):
    body = body_from_response(failed(code), request())
    if code in CODED:
        assert body == {"error": {"code": code.value, "message": "m"}}
    else:
        assert body == {"error": {"message": PLAIN.get(code, "Runtime error: m")}}
    assert body == body_from_error(make_error(code, "m"))


@pytest.mark.parametrize(
    "response",
    [
        failed(ErrorCode.INVALID_REQUEST, attempts=(ATTEMPT,)),
        failed(ErrorCode.INVALID_REQUEST, backend=BackendInfo(name="b", kind="stub")),
    ],
)
def test_what_an_adapter_refuses_is_a_runtime_error(response):
    assert body_from_response(response, request()) == {"error": {"message": "Runtime error: m"}}


@examples(100)
@given(st.sampled_from(ErrorCode), st.text(max_size=700))
def test_messages_are_one_short_line(code, message):
    error = body_from_error(make_error(code, message))["error"]
    text = error["message"] if code in CODED else error["message"].partition(": ")[2]
    assert len(text.encode()) <= 512
    assert len(error["message"].splitlines()) == (1 if error["message"] else 0)


def test_the_list_of_backends_is_not_told():
    response = failed(
        ErrorCode.NO_CANDIDATE_BACKEND, "nobody", candidates_checked=("hidden",), rejected_reasons={"hidden": "why"}
    )
    assert "hidden" not in str(body_from_response(response, request()))


@pytest.mark.parametrize(
    ("usage", "metrics"),
    [
        ({"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 9}, (1, 2, 9)),
        ({"prompt_tokens": 1, "completion_tokens": 2}, (1, 2, 3)),
        ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": "x"}, (0, 0, 0)),
        ({"prompt_tokens": 7}, (7, 2, 9)),
        (None, (3, 2, 5)),
        ("wrong", (3, 2, 5)),
    ],
)
def test_metrics(usage, metrics):
    body = {"choices": [{"message": {"role": "assistant", "content": "é" * 5}}], "usage": usage}
    prompt, completion, total = metrics
    assert metrics_from_response(answered(body), request()) == {
        "completion_tokens": completion,
        "prompt_tokens": prompt,
        "total_tokens": total,
    }


def test_an_error_has_no_metrics():
    assert metrics_from_response(failed(ErrorCode.TIMEOUT), request()) == {}


def test_an_estimate_of_the_adapter_is_not_put_into_the_body():
    response = answered({"choices": []}).model_copy(
        update={"usage": Usage(input_tokens=5, output_tokens=6, estimated=True)}
    )
    assert "usage" not in body_from_response(response, request())
    assert metrics_from_response(response, request())["total_tokens"] == 11
