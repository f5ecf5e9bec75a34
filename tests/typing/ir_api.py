"""Read by the type checker, not run: what a user of spear.ir gets, exactly."""

from __future__ import annotations

from typing import assert_type

from pydantic import JsonValue

from spear.ir import (
    AudioPart,
    BackendError,
    CanonicalError,
    ChatMessage,
    ChatRequest,
    ChatResult,
    Completed,
    ContentDelta,
    EmbeddingsRequest,
    EmbeddingsResult,
    ErrorCode,
    Failure,
    ImagePart,
    ImageRequest,
    ImageResult,
    InlineMedia,
    Operation,
    RealtimeRequest,
    RequestEnvelope,
    ResponseEnvelope,
    SpearError,
    SpeechToTextRequest,
    SpeechToTextResult,
    StoredMedia,
    StreamEvent,
    TextPart,
    TextToSpeechRequest,
    TextToSpeechResult,
    ToolCall,
    UrlMedia,
    bears_content,
    dump_json,
    error_to_exception,
    parse_json,
    parse_request,
)


def requests(request: RequestEnvelope) -> None:
    assert_type(
        request.payload,
        ChatRequest | EmbeddingsRequest | ImageRequest | SpeechToTextRequest | TextToSpeechRequest | RealtimeRequest,
    )
    assert_type(request.operation, Operation)
    assert_type(request.timeout_ms, int | None)
    assert_type(request.model, str)
    assert_type(request.extra, dict[str, JsonValue])
    assert_type(parse_request(b"{}"), RequestEnvelope)
    if isinstance(request.payload, ChatRequest):
        assert_type(request.payload.messages, tuple[ChatMessage, ...])
        assert_type(request.payload.messages[0].content, JsonValue)
        assert_type(request.payload.messages[0].content_parts, tuple[TextPart | ImagePart | AudioPart, ...] | None)
        assert_type(request.payload.messages[0].tool_calls, tuple[ToolCall, ...])
    if isinstance(request.payload, ImageRequest):
        assert_type(request.payload.image, InlineMedia | StoredMedia | UrlMedia | None)


def responses(response: ResponseEnvelope) -> None:
    assert_type(
        response.unwrap(),
        ChatResult | EmbeddingsResult | ImageResult | SpeechToTextResult | TextToSpeechResult,
    )
    assert_type(response.result.error, CanonicalError | None)
    if isinstance(response.result.payload, ChatResult):
        assert_type(response.result.payload.text, str)
        assert_type(response.result.payload.finish_reason, str | None)


def events(event: StreamEvent) -> None:
    assert_type(bears_content(event), bool)
    match event:
        case ContentDelta(delta=delta):
            assert_type(delta, str)
        case Completed():
            assert_type(event.response, ResponseEnvelope)
        case _:
            pass


def errors(error: CanonicalError) -> None:
    assert_type(error_to_exception(error), SpearError)
    assert_type(error.code, ErrorCode)
    try:
        raise error_to_exception(error)
    except BackendError as caught:
        assert_type(caught.failure, Failure)
        assert_type(caught.status, int | None)


def borders(text: bytes) -> None:
    assert_type(parse_json(text), JsonValue)
    assert_type(dump_json({"a": 1}, sort=True), bytes)
