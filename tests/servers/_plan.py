"""From a behaviour and a question to the steps of an answer. Pure: the server only carries the steps out.

The wire is written by hand, because half of the answers must break the rules that an HTTP library keeps. The last
event of a stream and the end of its body are one `Send`: a client that leaves after [DONE] has had a complete answer.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal

import orjson

from tests.servers._behaviour import Behaviour
from tests.servers._operations import Given
from tests.servers._reply import Question, chunks, completion, compose, error_body

_PIECE = 65_536


@dataclass(frozen=True, slots=True)
class Send:
    data: bytes


@dataclass(frozen=True, slots=True)
class Pause:
    seconds: float


@dataclass(frozen=True, slots=True)
class Hang:
    """For ever: only the client's leaving ends it."""


@dataclass(frozen=True, slots=True)
class End:
    """The connection ends here, on purpose and before its time."""

    how: Literal["fin", "rst"]


Step = Send | Pause | Hang | End


@dataclass(frozen=True, slots=True)
class Caller:
    """What an answer depends on beside the question."""

    server: str
    number: int
    authorization: str = ""


def head(status: int, headers: Iterable[tuple[str, str]]) -> bytes:
    try:
        reason = HTTPStatus(status).phrase
    except ValueError:
        reason = "Scripted"
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def plain(status: int, body: bytes, *, content_type: str = "application/json", close: bool = False) -> bytes:
    """A whole, honest answer."""
    headers = [("content-type", content_type), ("content-length", str(len(body)))]
    return head(status, [*headers, *([("connection", "close")] if close else [])]) + body


def plan(behaviour: Behaviour, question: Question | None, caller: Caller, given: Given | None = None) -> Iterator[Step]:
    """`question` is None where the behaviour answers before it was read; `given` is the answer of another operation
    than chat."""
    if behaviour.delay:
        yield Pause(behaviour.delay)
    if behaviour.never:
        yield Hang()
    if behaviour.cut is not None and behaviour.cut_after is None:
        yield End(behaviour.cut)
        return
    if behaviour.bad_http:
        yield Send(b"This is no HTTP at all.\r\n\r\n")
        yield End("fin")
        return
    for status in behaviour.informational:
        yield Send(head(status, [("link", "</style.css>; rel=preload")] if status == 103 else []))
    streamed = (
        question is not None and question.stream and behaviour.status == 200 and behaviour.body is None
    ) and behaviour.huge_body_mib is None
    if question is not None and streamed:
        yield from _stream(behaviour, question, caller)
    elif given is not None and given.events is not None and _is_good(behaviour):
        yield from _event_stream(behaviour, given.events, caller)
    elif given is not None and given.chunked and _is_good(behaviour):
        yield from _chunked(behaviour, given, caller)
    else:
        yield from _plain(behaviour, question, caller, given)


def _is_good(behaviour: Behaviour) -> bool:
    own = behaviour.body is not None or behaviour.body_base64 is not None
    return behaviour.status == 200 and not own and behaviour.huge_body_mib is None


def _event_stream(behaviour: Behaviour, payloads: tuple[str, ...], caller: Caller) -> Iterator[Step]:
    """As for chat; without `finish` the last event stays away."""
    events: list[str] = []
    for at, payload in enumerate(payloads if behaviour.finish else payloads[:-1]):
        if at == behaviour.error_after:
            events.append(_data(error_body(behaviour.error_message, behaviour.error_type, behaviour.error_code)))
            break
        if at == behaviour.junk_after:
            events.append('data: {"this is": no JSON')
        events.append(f"data: {payload}")
    yield Send(head(200, [*_headers(behaviour, caller, "text/event-stream"), ("transfer-encoding", "chunked")]))
    if behaviour.body_delay:
        yield Pause(behaviour.body_delay)
    yield from _events(behaviour, events)


def _chunked(behaviour: Behaviour, given: Given, caller: Caller) -> Iterator[Step]:
    """Bytes without a known length, in pieces; `cut_after` counts bytes."""
    headers = [*_headers(behaviour, caller, given.content_type), ("transfer-encoding", "chunked")]
    yield Send(head(200, headers))
    if behaviour.body_delay:
        yield Pause(behaviour.body_delay)
    body = given.body if behaviour.cut is None else given.body[: behaviour.cut_after]
    size = behaviour.drip.bytes if behaviour.drip else behaviour.split or 4096
    for at in range(0, len(body), size):
        if behaviour.drip:
            yield Pause(behaviour.drip.every)
        last = behaviour.cut is None and at + size >= len(body)
        yield Send(_chunk(body[at : at + size]) + (b"0\r\n\r\n" if last else b""))
    if behaviour.cut is not None:
        yield from _end(behaviour.cut)


def _headers(behaviour: Behaviour, caller: Caller, content_type: str) -> list[tuple[str, str]]:
    headers = [
        ("content-type", behaviour.content_type or content_type),
        ("x-request-id", f"req-{caller.server}-{caller.number}"),
    ]
    if behaviour.retry_after is not None:
        headers.append(("retry-after", str(behaviour.retry_after)))
    if behaviour.close or behaviour.early:
        headers.append(("connection", "close"))
    headers += behaviour.headers.items()
    headers += [(f"x-filler-{at}", "f" * 1008) for at in range(behaviour.huge_headers_kib or 0)]
    return headers


def _body(
    behaviour: Behaviour, question: Question | None, caller: Caller, given: Given | None = None
) -> tuple[bytes, str]:
    if behaviour.body is not None:
        return behaviour.body.encode(), "application/json"
    if behaviour.body_base64 is not None:
        return base64.b64decode(behaviour.body_base64), given.content_type if given else "application/json"
    if behaviour.status >= 400:
        message = behaviour.error_message
        if behaviour.leak_key:
            message = f"Incorrect API key provided: {caller.authorization.removeprefix('Bearer ')}. {message}"
        error = error_body(message, behaviour.error_type, behaviour.error_code)
        return orjson.dumps(error), "application/json"
    if given is not None and behaviour.status < 300:
        return given.body, given.content_type
    if behaviour.status >= 300 or question is None:
        return b"", "text/plain"
    answer = compose(behaviour, question, server=caller.server, number=caller.number)
    return orjson.dumps(completion(answer)), "application/json"


def _plain(
    behaviour: Behaviour, question: Question | None, caller: Caller, given: Given | None = None
) -> Iterator[Step]:
    body, content_type = _body(behaviour, question, caller, given)
    filler = (behaviour.huge_body_mib or 0) << 20
    headers = _headers(behaviour, caller, content_type)
    if behaviour.status != 204:
        headers.append(("content-length", str(filler + len(body))))
    start = head(behaviour.status, headers)
    if behaviour.body_delay:
        yield Send(start)
        yield Pause(behaviour.body_delay)
        start = b""
    cut = behaviour.cut_after if behaviour.cut is not None else None
    if cut is not None:  # shorter than its content-length promises, whatever was asked for
        body, filler = body[: max(min(cut, len(body) - 1), 0)], 0
    yield from _paced(behaviour, start, body)
    if filler:
        for _ in range(filler // _PIECE):
            yield Send(b" " * _PIECE)
    if behaviour.cut is not None:
        yield from _end(behaviour.cut)


def _paced(behaviour: Behaviour, start: bytes, body: bytes) -> Iterator[Step]:
    size = behaviour.drip.bytes if behaviour.drip else behaviour.split
    if size is None or not body:
        yield Send(start + body)
        return
    if start:
        yield Send(start)
    for at in range(0, len(body), size):
        if behaviour.drip:
            yield Pause(behaviour.drip.every)
        yield Send(body[at : at + size])


def _end(how: Literal["fin", "rst"]) -> Iterator[Step]:
    # A reset throws away what the peer has not read yet; give it a moment to read.
    if how == "rst":
        yield Pause(0.05)
    yield End(how)


def _stream(behaviour: Behaviour, question: Question, caller: Caller) -> Iterator[Step]:
    headers = [*_headers(behaviour, caller, "text/event-stream"), ("transfer-encoding", "chunked")]
    yield Send(head(200, headers))
    if behaviour.keepalive is not None:
        comment = _chunk(f": keep-alive{behaviour.newline * 2}".encode())
        passed = 0.0
        while behaviour.keepalive_only or passed < behaviour.body_delay:
            yield Pause(max(behaviour.keepalive, 0.001))
            yield Send(comment)
            passed += max(behaviour.keepalive, 0.001)
    elif behaviour.keepalive_only:
        yield Hang()
    elif behaviour.body_delay:
        yield Pause(behaviour.body_delay)
    yield from _events(behaviour, list(_event_texts(behaviour, question, caller)))


def _events(behaviour: Behaviour, events: list[str]) -> Iterator[Step]:
    end_mark = b"0\r\n\r\n"
    cut = behaviour.cut_after if behaviour.cut is not None else None
    if cut is not None:
        events = events[: min(cut, len(events) - 1)]
    for at, event in enumerate(events):
        if at and behaviour.tokens_per_second:
            yield Pause(1 / behaviour.tokens_per_second)
        data = (event + behaviour.newline * 2).encode()
        size = behaviour.drip.bytes if behaviour.drip else behaviour.split or len(data)
        for start in range(0, len(data), size):
            if behaviour.drip:
                yield Pause(behaviour.drip.every)
            last = cut is None and at == len(events) - 1 and start + size >= len(data)
            yield Send(_chunk(data[start : start + size]) + (end_mark if last else b""))
    if behaviour.cut is not None:
        yield from _end(behaviour.cut)
    elif not events:
        yield Send(end_mark)


def _event_texts(behaviour: Behaviour, question: Question, caller: Caller) -> Iterator[str]:
    answer = compose(behaviour, question, server=caller.server, number=caller.number)
    for at, chunk in enumerate(chunks(behaviour, answer, include_usage=question.include_usage)):
        if at == behaviour.error_after:
            error = error_body(behaviour.error_message, behaviour.error_type, behaviour.error_code)
            yield _data(error)
            return
        if at == behaviour.junk_after:
            yield 'data: {"this is": no JSON'
        yield _data(chunk)
    if behaviour.done:
        yield "data: [DONE]"


def _data(value: Any) -> str:
    return f"data: {orjson.dumps(value).decode()}"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)
