"""What the tests of the adapters of other dialects share: adapters, questions, and the faults that all of them meet."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio

from spear.backends import Adapter, Answer, Finished, Host, StreamItem, find_kind
from spear.ir import BackendError, ChatMessage, ChatResult, ErrorCode, Failure, RequestEnvelope
from spear.secrets import Secret
from tests.servers.dialect_server import DialectServer
from tests.spear.backends._support import CANARY, ask, call, instance, use

LIMIT = 20.0
PROMPT = 3.0  # seconds: less than any clock of `call()`
ANSWER = ErrorCode.BACKEND_ERROR, Failure.SERVER
REQUEST = ErrorCode.BACKEND_ERROR, Failure.REQUEST
AUTH = ErrorCode.BACKEND_ERROR, Failure.AUTH
LIMITED = ErrorCode.RATE_LIMITED, Failure.RATE_LIMIT
LATE = ErrorCode.TIMEOUT, Failure.SERVER
CUT = ErrorCode.STREAM_TRUNCATED, Failure.SERVER
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
GIF = "R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"


@asynccontextmanager
async def opened(kind: str, base_url: str, host: Host | None = None, **fields: Any) -> AsyncIterator[Adapter]:
    config = instance(kind=kind, base_url=base_url, **fields)
    async with find_kind(kind).open(config, host or Host(redact=(Secret(CANARY),))) as adapter:
        yield adapter


def said(*messages: Any, **fields: Any) -> RequestEnvelope:
    """A request of these messages, each a ChatMessage or (role, text)."""
    made = [m if isinstance(m, ChatMessage) else ChatMessage(role=m[0], content=m[1]) for m in messages]
    return ask(messages=tuple(made), **fields)


def finished(items: list[StreamItem]) -> Answer:
    assert isinstance(items[-1], Finished)
    return items[-1].answer


def chat(answer: Answer) -> ChatResult:
    assert isinstance(answer.payload, ChatResult)
    return answer.payload


@dataclass(frozen=True)
class Fault:
    """What a server does, and what comes of it, plain and streamed; None = an answer all the same."""

    name: str
    does: dict[str, Any]
    plain: tuple[ErrorCode, Failure] | None
    stream: tuple[ErrorCode, Failure] | None
    says: str = ""
    conditions: dict[str, float] = field(default_factory=dict)


def status(code: int, found: tuple[ErrorCode, Failure], says: str = "", **fields: Any) -> Fault:
    does = {"status": code, "leak_key": True, **fields}
    return Fault(f"status {code}", does, found, found, says=says or f"upstream status: {code}")


COMMON = [
    status(302, ANSWER, headers={"location": "http://127.0.0.1:9/"}),
    status(400, REQUEST),
    status(401, AUTH),
    status(404, REQUEST),
    status(429, LIMITED, retry_after=7),
    status(500, ANSWER),
    status(529, ANSWER),
    Fault("silent", {"never": True}, LATE, LATE, conditions={"first_event": 0.2}),
    Fault("late body", {"body_delay": 60}, LATE, LATE, conditions={"idle": 0.2, "first_event": 0.3}),
    Fault("endless keep-alives", {"keepalive_only": True, "keepalive": 0.02}, None, LATE,
          conditions={"first_event": 0.3}),
    Fault("slow tokens", {"tokens_per_second": 0.1}, None, LATE, conditions={"idle": 0.2}),
    Fault("closed at once", {"cut": "fin"}, ANSWER, ANSWER),
    Fault("reset at once", {"cut": "rst"}, ANSWER, ANSWER),
    Fault("closed in the body", {"cut": "fin", "cut_after": 3}, ANSWER, CUT),
    Fault("reset in the body", {"cut": "rst", "cut_after": 3}, ANSWER, CUT),
    Fault("no end", {"done": False}, None, CUT),
    Fault("error in the stream", {"error_after": 2, "error_message": f"oh {CANARY}"}, None, ANSWER, says="oh [secret]"),
    Fault("junk in the stream", {"junk_after": 2}, None, ANSWER, says="not JSON"),
    Fault("no JSON", {"body": '{"message": ['}, ANSWER, ANSWER),
    Fault("wrong content type", {"content_type": "text/html"}, ANSWER, ANSWER),
    Fault("huge body", {"huge_body_mib": 17}, ANSWER, ANSWER),
    Fault("no HTTP", {"bad_http": True}, ANSWER, ANSWER),
    Fault("compressed", {"headers": {"content-encoding": "gzip"}}, ANSWER, ANSWER),
]  # fmt: skip


async def check_fault(server: DialectServer, kind: str, fault: Fault, how: str, **fields: Any) -> None:
    """The error is the expected one, nothing leaks, nothing stays open, and the instance works on."""
    expected = fault.plain if how == "plain" else fault.stream
    server.script(**fault.does)
    with trio.fail_after(LIMIT):
        async with opened(kind, server.base_url, **fields) as adapter:
            if expected is None:
                await use(adapter, how, ask(), call())
            else:
                started = trio.current_time()
                with pytest.raises(BackendError) as caught:
                    await use(adapter, how, ask(), call(**fault.conditions))
                assert trio.current_time() - started < PROMPT
                error = caught.value.error
                assert (error.code, caught.value.failure) == expected, error.message
                assert fault.says in error.message
                assert len(error.message.encode()) <= 512
                for shown in (str(caught.value), repr(caught.value)):
                    assert CANARY not in shown
                    assert f"127.0.0.1:{server.port}" not in shown
                if "retry_after" in fault.does:
                    assert error.retry_after_ms == 7000
            await server.until(open=0)
            await use(adapter, how, ask(), call())
        await server.until(open=0, connections_open=0)


CANCELLED: list[dict[str, Any]] = [
    {"never": True},
    {"body_delay": 60},
    {"drip": {"bytes": 1, "every": 0.02}},
    {"tokens_per_second": 5.0, "text": "a b c d e f g h i j", "body_delay": 0.3},
]


async def check_cancelled(server: DialectServer, kind: str, does: dict[str, Any], how: str, **fields: Any) -> None:
    """Cancelling closes the socket before it returns."""
    server.script(**does)
    with trio.fail_after(LIMIT):
        async with opened(kind, server.base_url, **fields) as adapter:
            with trio.move_on_after(0.25) as scope:
                await use(adapter, how, ask(), call())
            assert scope.cancelled_caught
            counts = await server.until(open=0, limit=1.0)
            assert (counts["aborted"], counts["connections_open"]) == (1, 0)
