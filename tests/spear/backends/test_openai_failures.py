"""The pure part: what a status means, what Retry-After says, what is told of a provider's words."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spear.backends._http._failures import _LONGEST_KEY, _MOST_TOLD, redacted, retry_after_ms, status_error
from spear.ir import ErrorCode, Failure
from spear.secrets import Redactor, Secret

NOW = 1_750_000_000.0
KEY = "canary key of no known shape"


def error_of(status: int, body: bytes = b"", **headers: str):
    return status_error(status, headers, body, redact=Redactor([Secret(KEY)]), now=NOW)


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (500, b"", "upstream status: 500"),
        (502, b"<html>Bad gateway</html>", "upstream status: 502"),
        (500, b"[1]", "upstream status: 500"),
        (400, b'{"error": "plain words"}', "upstream status: 400: plain words"),
        (400, b'{"error": {"message": "two\\nlines"}}', "upstream status: 400: two lines"),
        (
            404,
            b'{"error": {"message": "no model", "type": "invalid_request_error", "code": "model_not_found"}}',
            "upstream status: 404: invalid_request_error: model_not_found: no model",
        ),
    ],
)
def test_message(status: int, body: bytes, message: str) -> None:
    assert error_of(status, body).error.message == message


@pytest.mark.parametrize(
    ("status", "word", "code", "failure", "retryable"),
    [
        (400, "content_filter", ErrorCode.CONTENT_REFUSED, Failure.REFUSED, False),
        (403, "content_policy_violation", ErrorCode.CONTENT_REFUSED, Failure.REFUSED, False),
        (429, "insufficient_quota", ErrorCode.BACKEND_ERROR, Failure.AUTH, False),
        (400, "context_length_exceeded", ErrorCode.BACKEND_ERROR, Failure.CONTEXT_WINDOW, False),
        (403, "rate_limit_exceeded", ErrorCode.RATE_LIMITED, Failure.RATE_LIMIT, True),
        (500, "content_filter", ErrorCode.BACKEND_ERROR, Failure.SERVER, True),
        (418, "teapot", ErrorCode.BACKEND_ERROR, Failure.REQUEST, False),
        (301, "", ErrorCode.BACKEND_ERROR, Failure.SERVER, False),
        (599, "", ErrorCode.BACKEND_ERROR, Failure.SERVER, True),
    ],
)
@pytest.mark.parametrize("place", ["code", "type", "innererror"])
def test_class(status: int, word: str, code: ErrorCode, failure: Failure, retryable: bool, place: str) -> None:
    told = {"innererror": {"code": word}} if place == "innererror" else {place: word}
    error = error_of(status, json.dumps({"error": told}).encode())
    assert (error.code, error.failure, error.error.retryable) == (code, failure, retryable)
    assert error.status == status


@pytest.mark.parametrize(
    ("headers", "milliseconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7000),
        ({"retry-after": " 0.25 "}, 250),
        ({"retry-after": "-3"}, 0),
        ({"retry-after": "0"}, 0),
        ({"retry-after": "1e300"}, 30 * 24 * 3_600_000),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after-ms": "1500", "retry-after": "7"}, 1500),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7000),
    ],
)
def test_retry_after(headers: dict[str, str], milliseconds: int | None) -> None:
    assert retry_after_ms(headers, NOW) == milliseconds


@pytest.mark.parametrize("seconds", [-60, 0, 90])
@pytest.mark.parametrize("usegmt", [True, False])
def test_retry_after_as_a_date(seconds: int, usegmt: bool) -> None:
    moment = datetime.fromtimestamp(NOW, UTC) + timedelta(seconds=seconds)
    text = format_datetime(moment, usegmt=usegmt)
    assert retry_after_ms({"retry-after": text}, NOW) == max(0, seconds * 1000)


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_retry_after_is_taken(seconds: str, milliseconds: str) -> None:
    found = retry_after_ms({"retry-after": seconds, "retry-after-ms": milliseconds}, NOW)
    assert found is None or 0 <= found <= 30 * 24 * 3_600_000


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["error", "code", "message"]), inner),
    max_leaves=8,
)


@given(st.integers(100, 999), st.binary(max_size=100) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_answer_is_told_in_one_short_line(status: int, body: bytes) -> None:
    error = error_of(status, body).error
    assert error.message.startswith(f"upstream status: {status}")
    assert len(error.message.encode()) <= 512
    assert len(error.message.splitlines()) == 1


@pytest.mark.parametrize("place", ["type", "code", "message"])
def test_not_even_half_a_key_is_told(place: str) -> None:
    """Wherever the text is cut to its length: the key is taken out before that."""
    for position in range(600):
        text = "." * position + KEY + "." * 50
        message = error_of(401, json.dumps({"error": {place: text}}).encode()).error.message
        assert KEY[:4] not in message, position


def test_megabytes_of_error_take_no_time_and_tell_no_half_key() -> None:
    began = time.process_time()
    redact = Redactor([Secret(KEY)])
    for text in ("a b1 " * 1_000_000, "-eyJaaaaaaaa" * 400_000, (KEY + " . ") * 150_000):
        told = redacted({"error": {"message": text, "more": [text] * 3}}, redact)
        assert KEY[:4] not in json.dumps(told)
    assert time.process_time() - began < 3
    for length in range(_MOST_TOLD + _LONGEST_KEY - len(KEY), _MOST_TOLD + _LONGEST_KEY):
        assert KEY[:4] not in str(redacted("." * length + KEY * 3, redact))


def test_a_body_that_broke_off_is_not_told() -> None:
    error = status_error(500, {}, b'{"error": "half"}', redact=str, now=NOW, part=True)
    assert error.error.message == "upstream status: 500"
