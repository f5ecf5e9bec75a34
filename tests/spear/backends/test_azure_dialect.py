"""What Azure says differently: its errors, its content filter, and chunks that have no choices."""

from __future__ import annotations

import orjson
import pytest

from spear.backends import Finished
from spear.ir import BackendError, ContentDelta, ErrorCode, Failure, ImageRequest
from tests.servers.fault_server import FaultServer
from tests.spear.backends._support import CANARY, ask, call, use
from tests.spear.backends.test_openai_operations import asking, opened

FILTERED = {
    "error": {
        "message": "The response was filtered due to the prompt triggering our content management policy.",
        "type": None,
        "param": "prompt",
        "code": "content_filter",
        "status": 400,
        "innererror": {
            "code": "ResponsibleAIPolicyViolation",
            "content_filter_result": {"hate": {"filtered": True, "severity": "high"}},
        },
    }
}
ERRORS = [
    (400, FILTERED, ErrorCode.CONTENT_REFUSED, Failure.REFUSED, "content_filter: The response was filtered"),
    (
        400,
        {"error": {"code": "BadRequest", "message": "m", "innererror": {"code": "ResponsibleAIPolicyViolation"}}},
        ErrorCode.CONTENT_REFUSED,
        Failure.REFUSED,
        "BadRequest: m",
    ),
    (
        401,
        {"statusCode": 401, "message": f"Access denied due to invalid subscription key {CANARY}."},
        ErrorCode.BACKEND_ERROR,
        Failure.AUTH,
        "upstream status: 401: Access denied due to invalid subscription key [secret].",
    ),
    (
        401,
        {"error": {"code": "401", "message": "Access denied."}},
        ErrorCode.BACKEND_ERROR,
        Failure.AUTH,
        "401: Access denied.",
    ),
    (
        404,
        {"error": {"code": "DeploymentNotFound", "message": "The API deployment does not exist."}},
        ErrorCode.BACKEND_ERROR,
        Failure.REQUEST,
        "DeploymentNotFound: The API deployment does not exist.",
    ),
    (
        429,
        {"error": {"code": "429", "message": "Requests have exceeded the call rate limit. Retry after 3 seconds."}},
        ErrorCode.RATE_LIMITED,
        Failure.RATE_LIMIT,
        "429: Requests have exceeded",
    ),
]


@pytest.mark.parametrize("how", ["plain", "stream"])
@pytest.mark.parametrize(("status", "body", "code", "failure", "says"), ERRORS)
async def test_its_errors(
    fault_server: FaultServer, status: int, body: object, code: ErrorCode, failure: Failure, says: str, how: str
) -> None:
    fault_server.script(status=status, body=orjson.dumps(body).decode(), retry_after=3 if status == 429 else None)
    async with opened(fault_server, kind="azure_openai") as adapter:
        with pytest.raises(BackendError) as caught:
            await use(adapter, how, ask(), call())
    error = caught.value
    assert (error.code, error.failure) == (code, failure)
    assert says in error.error.message
    assert error.error.retry_after_ms == (3000 if status == 429 else None)
    assert CANARY not in str(error)
    assert fault_server.root_url not in str(error)


async def test_its_filter_of_pictures(fault_server: FaultServer) -> None:
    body = '{"error":{"code":"contentFilter","message":"Your task failed as a result of our safety system."}}'
    fault_server.script(operation="generations", status=400, body=body)
    async with opened(fault_server, kind="azure_openai") as adapter:
        with pytest.raises(BackendError) as caught:
            await adapter.invoke(asking(ImageRequest(prompt="x")), call())
    assert caught.value.code == ErrorCode.CONTENT_REFUSED


def _event(value: object) -> str:
    return f"data: {orjson.dumps(value).decode()}\n\n"


async def test_a_stream_begins_with_what_its_filter_says_and_ends_without_choices(fault_server: FaultServer) -> None:
    filtered = {"hate": {"filtered": False, "severity": "safe"}}
    nothing = {"id": "", "object": "", "created": 0, "model": ""}
    frame = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o"}
    events = [
        {**nothing, "choices": [], "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": filtered}]},
        {**frame, "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]},
        {**frame, "choices": [{"index": 0, "delta": {"content": "Hi"}, "content_filter_results": filtered}]},
        {**frame, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "content_filter_results": {}}]},
        {**frame, "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}},
    ]
    body = "".join(map(_event, events)) + "data: [DONE]\n\n"
    fault_server.script(body=body, content_type="text/event-stream")
    async with opened(fault_server, kind="azure_openai") as adapter, adapter.stream(ask(), call()) as stream:
        items = [item async for item in stream]
    assert [item.delta for item in items if isinstance(item, ContentDelta)] == ["Hi"]
    last = items[-1]
    assert isinstance(last, Finished)
    assert (last.answer.usage.input_tokens, last.answer.usage.output_tokens) == (3, 1)
    payload = last.answer.payload
    assert payload.text == "Hi"  # type: ignore[union-attr]
    assert payload.choices[0].extra["content_filter_results"] == filtered  # type: ignore[union-attr]
    assert payload.extra["prompt_filter_results"]
    assert last.answer.model == "gpt-4o"
