"""Every fault of a real server, plain and streamed: what it is called, that nothing leaks, that nothing stays open."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import trio

from spear.backends import Host, find_kind
from spear.ir import BackendError, ChatResult, ErrorCode, Failure, dump_json
from tests.servers.fault_server import FaultServer
from tests.spear.backends._support import CANARY, adapter_to, ask, call, instance, use

LIMIT = 20.0
PROMPT = 3.0  # seconds: less than any clock of `call()`
ANSWER = ErrorCode.BACKEND_ERROR, Failure.SERVER
REQUEST = ErrorCode.BACKEND_ERROR, Failure.REQUEST
AUTH = ErrorCode.BACKEND_ERROR, Failure.AUTH
LIMITED = ErrorCode.RATE_LIMITED, Failure.RATE_LIMIT
LATE = ErrorCode.TIMEOUT, Failure.SERVER
CUT = ErrorCode.STREAM_TRUNCATED, Failure.SERVER


@dataclass(frozen=True)
class Fault:
    name: str
    does: dict[str, Any]
    plain: tuple[ErrorCode, Failure] | None
    stream: tuple[ErrorCode, Failure] | None
    says: str = ""
    clock: str | None = None
    stream_clock: str | None = None
    retry_after_ms: int | None = None
    conditions: dict[str, float] = field(default_factory=dict)


def status(code: int, found: tuple[ErrorCode, Failure], **fields: Any) -> Fault:
    retry = fields.pop("retry_after_ms", None)
    return Fault(
        f"status {code} {fields.get('error_code', '')}".strip(),
        {"status": code, "leak_key": True, **fields},
        found,
        found,
        says=f"upstream status: {code}",
        retry_after_ms=retry,
    )


FAULTS = [
    status(302, ANSWER, headers={"location": "http://127.0.0.1:9/"}),
    status(204, ANSWER, body=""),
    status(400, REQUEST),
    status(400, (ErrorCode.CONTENT_REFUSED, Failure.REFUSED), error_code="content_filter"),
    status(400, AUTH, error_code="invalid_api_key"),
    status(401, AUTH),
    status(402, AUTH),
    status(403, AUTH),
    status(404, REQUEST),
    status(408, ANSWER),
    status(413, REQUEST, early=True),
    status(422, REQUEST),
    status(429, LIMITED),
    status(429, LIMITED, retry_after=7, retry_after_ms=7000),
    status(429, AUTH, error_code="insufficient_quota"),
    status(500, ANSWER),
    status(503, ANSWER, retry_after=2, retry_after_ms=2000),
    Fault("silent", {"never": True}, LATE, LATE, clock="first_event", conditions={"first_event": 0.2}),
    Fault("late head", {"delay": 60}, LATE, LATE, clock="first_event", conditions={"first_event": 0.2}),
    Fault(
        "late body",
        {"body_delay": 60},
        LATE,
        LATE,
        clock="idle",
        stream_clock="first_event",
        conditions={"idle": 0.2, "first_event": 0.4},
    ),
    Fault("only keep-alives", {"keepalive_only": True, "keepalive": 0.02}, None, LATE, stream_clock="first_event",
          conditions={"first_event": 0.3}),
    Fault("slow tokens", {"tokens_per_second": 0.1}, None, LATE, stream_clock="idle", conditions={"idle": 0.2}),
    Fault("closed at once", {"cut": "fin"}, ANSWER, ANSWER),
    Fault("reset at once", {"cut": "rst"}, ANSWER, ANSWER),
    Fault("closed in the body", {"cut": "fin", "cut_after": 3}, ANSWER, CUT),
    Fault("reset in the body", {"cut": "rst", "cut_after": 3}, ANSWER, CUT),
    Fault("closed after the head", {"cut": "fin", "cut_after": 0}, ANSWER, CUT),
    Fault("no finish, no end mark", {"finish": False, "done": False}, None, CUT),
    Fault("error in the stream", {"error_after": 2, "error_message": f"oh {CANARY}"}, None, ANSWER, says="oh [secret]"),
    Fault("junk in the stream", {"junk_after": 2}, None, ANSWER, says="not JSON"),
    Fault("no JSON", {"body": '{"choices": ['}, ANSWER, ANSWER, says="not JSON"),
    Fault("wrong content type", {"content_type": "text/html"}, ANSWER, ANSWER),
    Fault("blank content type", {"content_type": " "}, ANSWER, ANSWER),
    Fault("huge body", {"huge_body_mib": 17}, ANSWER, ANSWER, says="response too large"),
    Fault("huge head", {"huge_headers_kib": 200}, ANSWER, ANSWER),
    Fault("no HTTP", {"bad_http": True}, ANSWER, ANSWER),
    Fault("an error with status 200", {"body": '{"error":{"message":"no\\nroom","type":"overloaded"}}'}, ANSWER, ANSWER,
          says="error in an answer with status 200: overloaded: no room"),
    Fault("an error with status 200 and no choices", {"body": '{"choices":[],"error":{"message":"m","code":429}}'},
          LIMITED, LIMITED, says="error in an answer with status 200: 429: m"),
    Fault("an error object with status 200", {"body": f'{{"object":"error","message":"m: {CANARY}"}}'}, ANSWER, ANSWER,
          says="error in an answer with status 200: m: [secret]"),
    Fault("compressed", {"headers": {"content-encoding": "gzip"}}, ANSWER, ANSWER),
]  # fmt: skip


@pytest.mark.parametrize("how", ["plain", "stream"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
async def test_fault(fault_server: FaultServer, fault: Fault, how: str) -> None:
    expected = fault.plain if how == "plain" else fault.stream
    fault_server.script(**fault.does)
    with trio.fail_after(LIMIT):
        async with adapter_to(fault_server.base_url) as adapter:
            if expected is None:
                await use(adapter, how, ask(), call())
            else:
                started = trio.current_time()
                with pytest.raises(BackendError) as caught:
                    await use(adapter, how, ask(), call(**fault.conditions))
                assert trio.current_time() - started < PROMPT
                error = caught.value.error
                assert (error.code, caught.value.failure) == expected
                assert fault.says in error.message
                assert error.clock == ((how == "stream" and fault.stream_clock) or fault.clock)
                assert error.retry_after_ms == fault.retry_after_ms
                assert len(error.message.encode()) <= 512
                assert "\n" not in error.message
                _nothing_leaks(caught.value, fault_server)
            await fault_server.until(open=0)
            # The instance works on: the pool has kept nothing that is broken.
            await use(adapter, how, ask(), call())
        await fault_server.until(open=0, connections_open=0)


@pytest.mark.parametrize("how", ["plain", "stream"])
async def test_an_error_that_is_null_is_none(fault_server: FaultServer, how: str) -> None:
    fault_server.script(body='{"choices":[{"index":0,"message":{"content":"x"}}],"error":null}')
    with trio.fail_after(LIMIT):
        async with adapter_to(fault_server.base_url) as adapter:
            await use(adapter, how, ask(), call())


def _nothing_leaks(error: BaseException, server: FaultServer) -> None:
    seen: BaseException | None = error
    while seen is not None and not seen.__suppress_context__:
        assert CANARY not in str(seen)
        seen = seen.__context__
    for shown in (str(error), repr(error)):
        assert CANARY not in shown
        assert server.root_url not in shown
        assert f"127.0.0.1:{server.port}" not in shown


@pytest.mark.parametrize("how", ["plain", "stream"])
@pytest.mark.parametrize(
    "does",
    [
        {"never": True},
        {"body_delay": 60},
        {"drip": {"bytes": 1, "every": 0.02}},
        {"tokens_per_second": 5.0, "text": "a b c d e f g h i j", "body_delay": 0.3},
    ],
    ids=["before the head", "before the body", "in a drip", "between tokens"],
)
async def test_cancelling_closes_the_socket_before_it_returns(
    fault_server: FaultServer, does: dict[str, Any], how: str
) -> None:
    fault_server.script(**does)
    with trio.fail_after(LIMIT):
        async with adapter_to(fault_server.base_url) as adapter:
            with trio.move_on_after(0.25) as scope:
                await use(adapter, how, ask(), call())
            assert scope.cancelled_caught
            counts = await fault_server.until(open=0, limit=1.0)
            assert counts["aborted"] == 1
            assert counts["connections_open"] == 0


async def test_cancelling_while_nothing_is_read(fault_server: FaultServer) -> None:
    fault_server.script(tokens_per_second=1.0, text="a b c d e f g h")
    with trio.fail_after(LIMIT):
        async with adapter_to(fault_server.base_url) as adapter:
            with trio.move_on_after(0.25) as scope:
                async with adapter.stream(ask(), call()):
                    await trio.sleep_forever()
            assert scope.cancelled_caught
            counts = await fault_server.until(open=0, limit=1.0)
            assert (counts["aborted"], counts["connections_open"]) == (1, 0)


@pytest.mark.parametrize("how", ["plain", "stream"])
async def test_the_clock_of_the_connection_stops_at_the_send(fault_server: FaultServer, how: str) -> None:
    fault_server.script(delay=0.6)
    with trio.fail_after(LIMIT):
        async with adapter_to(fault_server.base_url) as adapter:
            await use(adapter, how, ask(), call(connect=0.3))


async def test_a_key_that_the_host_did_not_list_does_not_leak_either(fault_server: FaultServer) -> None:
    fault_server.script(status=401, leak_key=True)
    config = instance(base_url=fault_server.base_url)
    with trio.fail_after(LIMIT):
        async with find_kind("openai_chat").open(config, Host()) as adapter:
            with pytest.raises(BackendError, match=r"Incorrect API key provided: \[secret\]\."):
                await use(adapter, "plain", ask(), call())


async def test_a_stream_that_is_left_early_is_aborted(fault_server: FaultServer) -> None:
    fault_server.script(tokens_per_second=20.0, text="a b c d e f g h")
    with trio.fail_after(LIMIT):
        async with adapter_to(fault_server.base_url) as adapter:
            async with adapter.stream(ask(), call()) as items:
                await anext(items)
                await anext(items)
            counts = await fault_server.until(open=0, limit=1.0)
            assert counts["aborted"] == 1


async def test_many_cancelled_at_once_leave_nothing(fault_server: FaultServer) -> None:
    fault_server.script(never=True, times=None)
    with trio.fail_after(LIMIT):
        async with adapter_to(fault_server.base_url) as adapter:
            async with trio.open_nursery() as nursery:
                for number in range(64):
                    nursery.start_soon(use, adapter, "stream" if number % 2 else "plain", ask(), call())
                await fault_server.until(open=64)
                nursery.cancel_scope.cancel()
            counts = await fault_server.until(open=0, limit=2.0)
            assert (counts["aborted"], counts["connections_open"]) == (64, 0)


@pytest.mark.parametrize("how", ["plain", "stream"])
async def test_a_connection_is_used_again(fault_server: FaultServer, how: str) -> None:
    with trio.fail_after(LIMIT):
        async with adapter_to(fault_server.base_url) as adapter:
            for _ in range(5):
                await use(adapter, how, ask(), call())
            fault_server.script(status=500, times=5)
            for _ in range(5):
                with pytest.raises(BackendError):
                    await use(adapter, how, ask(), call())
            counts = fault_server.counts()
    assert (counts["total"], counts["connections_opened"]) == (10, 1)


async def test_a_server_that_closed_an_idle_connection_is_no_failure(fault_server: FaultServer) -> None:
    with trio.fail_after(LIMIT):
        async with adapter_to(fault_server.base_url) as adapter:
            await use(adapter, "plain", ask(), call())
            fault_server.reset()  # drops the idle connection
            await trio.sleep(0.1)
            await use(adapter, "plain", ask(), call())


async def test_more_than_the_limit_of_a_stream_is_refused(
    fault_server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spear.backends._http._client.MAX_STREAM_BYTES", 20_000)
    fault_server.script(text="word " * 1000)
    with trio.fail_after(LIMIT):
        async with adapter_to(fault_server.base_url) as adapter:
            with pytest.raises(BackendError, match="response too large"):
                await use(adapter, "stream", ask(), call())
            await fault_server.until(open=0)


MANY: dict[str, str] = {
    "choices": '{"choices":[' + '{"index":0,"message":{"content":"x"}},' * 130_000 + "{}]}",
    "lists": '{"choices":[' + "[]," * 260_000 + "[]]}",
    "keys": '{"choices":[{}],' + ",".join(f'"{number}":0' for number in range(500_001)) + "}",
}


@pytest.mark.parametrize("how", ["plain", "stream"])
@pytest.mark.parametrize("what", MANY)
async def test_an_answer_of_too_many_parts_is_refused(fault_server: FaultServer, what: str, how: str) -> None:
    fault_server.script(body=MANY[what])
    with trio.fail_after(LIMIT):
        async with adapter_to(fault_server.base_url) as adapter:
            with pytest.raises(BackendError, match="answer too large: it has more than") as caught:
                await use(adapter, how, ask(), call())
    assert (caught.value.code, caught.value.failure) == ANSWER


async def test_an_event_of_too_many_parts_is_refused(fault_server: FaultServer) -> None:
    fault_server.script(body="data: [" + "0," * 500_000 + "0]\n\n", content_type="text/event-stream")
    with trio.fail_after(LIMIT):
        async with adapter_to(fault_server.base_url) as adapter:
            with pytest.raises(BackendError, match="answer too large: it has more than"):
                await use(adapter, "stream", ask(), call())


async def test_megabytes_of_text_are_an_answer(fault_server: FaultServer) -> None:
    text = 'a, "b" [c], {d}\\ ' * 300_000
    fault_server.script(body=dump_json({"choices": [{"message": {"content": text}}]}).decode())
    with trio.fail_after(LIMIT):
        async with adapter_to(fault_server.base_url) as adapter:
            answer = await adapter.invoke(ask(), call())
    assert isinstance(answer.payload, ChatResult)
    assert answer.payload.choices[0].message.content == text  # type: ignore[union-attr]
