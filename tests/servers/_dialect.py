"""What a dialect of the test server is, and how a behaviour is carried out in any of them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from tests.servers._behaviour import Behaviour
from tests.servers._plan import Caller, End, Hang, Pause, Send, Step, _chunk, _end, _headers, _paced, head
from tests.servers._reply import Answer, Question, compose

_PIECE = 65_536


@dataclass(frozen=True, slots=True)
class Dialect:
    stream_type: str
    read: Callable[[str, dict[str, Any]], Question | dict[str, Any]]
    """From path and body: a question, or the whole answer where it needs none. Raises BadRequest."""
    whole: Callable[[Answer], dict[str, Any]]
    events: Callable[[Behaviour, Answer], list[bytes]]
    """As they stand on the wire, frames included."""
    junk: bytes
    keepalive: bytes
    error: Callable[[str, str, str | None], dict[str, Any]]
    """From message, type and code."""
    stream_error: Callable[[dict[str, Any]], bytes]
    key: Callable[[Callable[[str], str]], str]
    """The caller's key, from a look-up of headers."""


def read_json(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None


def steps(
    dialect: Dialect, behaviour: Behaviour, question: Question | dict[str, Any] | None, caller: Caller
) -> Iterator[Step]:
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
    streamed = isinstance(question, Question) and question.stream and behaviour.status == 200
    if isinstance(question, Question) and streamed and behaviour.body is None and not behaviour.huge_body_mib:
        yield from _stream(dialect, behaviour, question, caller)
    else:
        yield from _plain(dialect, behaviour, question, caller)


def _body(dialect: Dialect, behaviour: Behaviour, question: Question | dict[str, Any] | None, caller: Caller) -> bytes:
    if behaviour.body is not None:
        return behaviour.body.encode()
    if behaviour.status >= 400:
        message = behaviour.error_message
        if behaviour.leak_key:
            message = f"Incorrect API key provided: {caller.authorization}. {message}"
        return orjson.dumps(dialect.error(message, behaviour.error_type, behaviour.error_code))
    if isinstance(question, dict):
        return orjson.dumps({**question, **behaviour.extra})
    if question is None:
        return b""
    answer = compose(behaviour, question, server=caller.server, number=caller.number)
    return orjson.dumps({**dialect.whole(answer), **behaviour.extra})


def _plain(
    dialect: Dialect, behaviour: Behaviour, question: Question | dict[str, Any] | None, caller: Caller
) -> Iterator[Step]:
    body = _body(dialect, behaviour, question, caller)
    filler = (behaviour.huge_body_mib or 0) << 20
    headers = _headers(behaviour, caller, "application/json")
    if behaviour.status != 204:
        headers.append(("content-length", str(filler + len(body))))
    start = head(behaviour.status, headers)
    if behaviour.body_delay:
        yield Send(start)
        yield Pause(behaviour.body_delay)
        start = b""
    if behaviour.cut is not None:  # shorter than its content-length promises
        body, filler = body[: max(min(behaviour.cut_after or 0, len(body) - 1), 0)], 0
    yield from _paced(behaviour, start, body)
    for _ in range(filler // _PIECE):
        yield Send(b" " * _PIECE)
    if behaviour.cut is not None:
        yield from _end(behaviour.cut)


def _stream(dialect: Dialect, behaviour: Behaviour, question: Question, caller: Caller) -> Iterator[Step]:
    yield Send(head(200, [*_headers(behaviour, caller, dialect.stream_type), ("transfer-encoding", "chunked")]))
    if behaviour.keepalive_only:
        while behaviour.keepalive is not None:
            yield Pause(behaviour.keepalive)
            yield Send(_chunk(dialect.keepalive))
        yield Hang()
    if behaviour.body_delay:
        yield Pause(behaviour.body_delay)
    answer = compose(behaviour, question, server=caller.server, number=caller.number)
    events = dialect.events(behaviour, answer)
    if behaviour.error_after is not None:
        told = dialect.error(behaviour.error_message, behaviour.error_type, behaviour.error_code)
        events = [*events[: behaviour.error_after], dialect.stream_error(told)]
    elif not behaviour.done:
        events = events[:-1]
    if behaviour.junk_after is not None:
        events.insert(behaviour.junk_after, dialect.junk)
    if behaviour.cut is not None:
        events = events[: min(behaviour.cut_after or 0, len(events) - 1)]
    for at, data in enumerate(events):
        if at and behaviour.tokens_per_second:
            yield Pause(1 / behaviour.tokens_per_second)
        size = behaviour.drip.bytes if behaviour.drip else behaviour.split or len(data)
        for start in range(0, len(data), size):
            if behaviour.drip:
                yield Pause(behaviour.drip.every)
            last = behaviour.cut is None and at == len(events) - 1 and start + size >= len(data)
            yield Send(_chunk(data[start : start + size]) + (b"0\r\n\r\n" if last else b""))
    if behaviour.cut is not None:
        yield from _end(behaviour.cut)
