"""A response as OpenAI's body, error object or chunks."""

from __future__ import annotations

import pytest
from hypothesis import given

from spear.dialects.openai_chat import ChatStreamDecoder, body_from_result, result_from_body
from spear.ir import (
    HTTP_STATUS,
    BackendInfo,
    ChatResult,
    Completed,
    ContentDelta,
    ErrorCode,
    ErrorEvent,
    Operation,
    ResponseEnvelope,
    Result,
    Started,
    Usage,
    UsageEvent,
    make_error,
)
from spear.normalize import OpenAIChunks, openai_body_from_response, openai_error
from tests.spear.dialects.test_openai_stream import streams
from tests.spear.ir.ir_strategies import examples, identical


def response(result=None, usage=None, *, error=None):
    return ResponseEnvelope(
        request_id="req_1",
        operation=Operation.CHAT_COMPLETIONS,
        backend=BackendInfo(name="b", kind="stub"),
        result=Result(payload=result, error=error),
        usage=usage or Usage(),
    )


def test_a_whole_body_arrives_as_the_backend_wrote_it():
    body = {
        "id": "x",
        "object": "chat.completion",
        "created": 3,
        "model": "own",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": None}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
        "more": None,
    }
    assert openai_body_from_response(response(*result_from_body(body)), model="m", created=9) == (200, body)


def test_what_a_client_needs_is_filled_in():
    body = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}
    status, told = openai_body_from_response(response(*result_from_body(body)), model="m", created=9)
    assert status == 200
    assert told == {
        "id": "chatcmpl-req_1",
        "object": "chat.completion",
        "created": 9,
        "model": "m",
        "choices": [],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    }


def test_an_estimate_is_not_told_as_a_count():
    estimate = Usage(input_tokens=1, output_tokens=2, estimated=True)
    _, told = openai_body_from_response(response(ChatResult(), estimate), model="m", created=9)
    assert "usage" not in told


@pytest.mark.parametrize("code", ErrorCode)
def test_every_error_has_a_status_and_an_object(code):
    error = make_error(code, "line\nline " + "x" * 600)
    status, body = openai_error(error)
    assert status == HTTP_STATUS[code]
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["code"] == code.value
    assert len(body["error"]["message"]) == 512
    assert body["error"]["message"].startswith("line line")
    assert (body["error"]["type"] == "invalid_request_error") is (
        status < 500 and code not in {ErrorCode.RATE_LIMITED, ErrorCode.BUDGET_EXCEEDED}
    )
    assert openai_body_from_response(response(error=error), model="m", created=1) == (status, body)


def relay(chunks, **options):
    """Through the decoder, the events, and the chunks for a client; what that client puts together."""
    decoder = ChatStreamDecoder(backend="b")
    events = [event for item in chunks for event in decoder.feed(item)]
    result, usage = decoder.finish(True)
    out = OpenAIChunks(request_id="req_1", model="m", created=7, **options)
    sent = [chunk for event in [*events, Completed(response=response(result, usage))] for chunk in out.feed(event)]
    client = ChatStreamDecoder(backend="spear")
    for chunk in sent:
        client.feed(chunk)
    return sent, client.finish(False)


@examples(100)
@given(streams())
def test_a_client_puts_together_what_the_backend_said(stream):
    body, chunks = stream
    sent, (result, usage) = relay(chunks, include_usage=True)
    for chunk in sent:
        assert (chunk["id"], chunk["object"], chunk["model"], chunk["created"]) == (
            "chatcmpl-req_1",
            "chat.completion.chunk",
            "m",
            7,
        )
    rebuilt = body_from_result(result, usage)
    assert identical(rebuilt.get("usage"), body.get("usage"))
    for told, original in zip(rebuilt["choices"], body["choices"], strict=True):
        expected = {**original, "message": without_nothing(original["message"])}
        assert identical({**told, "message": without_nothing(told["message"])}, expected)


def without_nothing(message):
    """A delta of null or of no text is no delta."""
    return {key: value for key, value in message.items() if value is not None and value != ""}


def test_usage_comes_only_when_asked_for():
    counted = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    chunks = [{"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}], "usage": counted}]
    sent, _ = relay(chunks)
    assert all("usage" not in chunk for chunk in sent)
    sent, _ = relay(chunks, include_usage=True)
    assert [chunk["usage"] for chunk in sent] == [None, None, counted]
    assert sent[-1]["choices"] == []


def test_the_usual_chunks():
    sent, _ = relay(
        [
            {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "Hel"}, "finish_reason": None}]},
            {"choices": [{"index": 0, "delta": {"content": "lo"}, "finish_reason": "stop"}]},
        ]
    )
    assert [chunk["choices"] for chunk in sent] == [
        [{"index": 0, "delta": {"role": "assistant", "content": "Hel"}, "finish_reason": None}],
        [{"index": 0, "delta": {"content": "lo"}, "finish_reason": None}],
        [{"index": 0, "delta": {}, "finish_reason": "stop"}],
    ]


def test_an_answer_without_deltas_is_sent_whole():
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = {"role": "assistant", "content": "all", "reasoning_content": "hm", "tool_calls": [call]}
    body = {"choices": [{"message": message, "finish_reason": "tool_calls"}]}
    out = OpenAIChunks(request_id="r", model="m", created=1)
    client = ChatStreamDecoder(backend="spear")
    for chunk in out.feed(Completed(response=response(*result_from_body(body)))):
        client.feed(chunk)
    result, usage = client.finish(False)
    assert body_from_result(result, usage)["choices"][0]["message"] == message


def test_an_error_takes_the_place_of_an_end():
    out = OpenAIChunks(request_id="r", model="m", created=1)
    error = make_error(ErrorCode.STREAM_TRUNCATED, "cut")
    assert out.feed(Started(backend="b")) == []
    assert out.feed(UsageEvent(usage=Usage())) == []
    assert len(out.feed(ContentDelta(delta="a"))) == 1
    expected = [openai_error(error)[1]]
    assert out.feed(ErrorEvent(error=error)) == expected
    assert out.feed(Completed(response=response(error=error))) == expected
