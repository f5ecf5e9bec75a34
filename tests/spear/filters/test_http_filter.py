"""A filter behind HTTP, on real sockets: good, slow, dead, garbled, too long, redirecting."""

from __future__ import annotations

import json
import socket

import pytest
import trio

import spear
from spear.ir import ConfigError, ErrorCode
from tests.spear.filters.filter_kit import after, filter_service, filtered, http, question, raw, why
from tests.system.kit import environment, nothing_left, stub, until_true


def local(service, **more):
    return filtered("http", url=service.url, hosting="local", **more)


async def ask_once(answer, **more):
    with trio.fail_after(10):
        async with filter_service(answer) as service, spear.open_runtime(local(service, **more)) as runtime:
            return await runtime.invoke(question())


async def test_a_service_decides_over_one_connection():
    async with nothing_left(), filter_service(http(body=b'{"drop": ["a"]}')) as service:
        async with spear.open_runtime(local(service)) as runtime:
            for _ in range(5):
                response = await runtime.invoke(question("what only the backend may read"))
                assert response.backend.name == "b"
            assert service.connections == 1
            head, body = service.requests[0]
            assert head.startswith(b"POST /filter HTTP/1.1\r\n")
            asked = json.loads(body)
            assert [each["name"] for each in asked["candidates"]] == ["a", "b"]
            assert b"what only" not in body
            filters = next(node for node in runtime.snapshot().children if node.path.endswith("/filters"))
            assert filters.state == {"f": {"asked": 5, "failed": 0, "inflight": 0}}
        await until_true(lambda: service.open == 0)


async def test_it_gets_the_key_and_nobody_else_sees_it():
    with environment(FILTER_KEY="key-of-the-filter"):
        async with filter_service(http(body=b'{"reject": {"message": "no"}}')) as service:
            source = local(service, credential="k", content={"max_bytes": 4})
            source["spear"]["credentials"] = [{"name": "k", "env": "FILTER_KEY"}]
            async with spear.open_runtime(source) as runtime:
                response = await runtime.invoke(question("secret text"))
    head, body = service.requests[0]
    assert b"Bearer key-of-the-filter" in head
    assert json.loads(body)["content"] == {"parts": [{"role": "user", "text": "secr"}], "truncated": True}
    assert response.result.error.code is ErrorCode.CONTENT_REFUSED
    assert "key-of" not in repr(response)


async def test_a_key_that_is_missing_is_said_at_the_start():
    async with filter_service(http()) as service:
        source = local(service, credential="k")
        source["spear"]["credentials"] = [{"name": "k", "env": "NO_SUCH_KEY_IS_SET"}]
        with pytest.raises(ConfigError, match="the credential 'k' has no value"):
            async with spear.open_runtime(source):
                raise AssertionError("it opened")


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
BROKEN = [
    (http("503 Down"), "status 503"),
    (http("302 Found", headers="location: http://127.0.0.1:1/\r\n"), "status 302"),
    (http("204 No Content"), "status 204"),
    (http(body=b"certainly!"), "its answer is no JSON: "),
    (http(body=b"[" * 100_000), "its answer is no JSON: "),
    (http(body=b"{}", headers="content-encoding: gzip\r\n"), "its answer is compressed"),
    (http(body=b" " * 262_145), "its answer has more than 262144 bytes"),
    (http(body=b'{"drop": "a"}'), "its answer has a `drop` that is no list of names"),
    (raw(b""), "the connection broke"),
    (raw(b"\x00\xff garbage\r\n\r\n"), "the connection broke"),
    (raw(HEAD + b"content-length: 20\r\n\r\n{}"), "the connection broke"),
    (raw(HEAD + b"transfer-encoding: chunked\r\n\r\nnot hex\r\n"), "the connection broke"),
]


@pytest.mark.parametrize(("answer", "reason"), BROKEN)
async def test_each_way_to_fail_is_named(answer, reason):
    response = await ask_once(answer)
    assert why(response).startswith(reason)
    assert response.result.error.code is ErrorCode.BACKEND_UNAVAILABLE
    assert (await ask_once(answer, on_error="open")).backend.name in {"a", "b"}


@pytest.mark.parametrize("answer", [after(60, http()), raw(HEAD + b"content-length: 20\r\n\r\n{}", close=False)])
async def test_a_slow_one_costs_its_timeout_and_no_more(answer):
    async with filter_service(answer) as service, spear.open_runtime(local(service, timeout="200ms")) as runtime:
        begin = trio.current_time()
        with trio.fail_after(10):
            response = await runtime.invoke(question())
        assert 0.19 < trio.current_time() - begin < 5
        assert why(response) == "timeout after 0.2 s"
        await until_true(lambda: service.open == 0)  # it was closed on our side


async def test_nobody_listens():
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        source = filtered("http", url=f"http://127.0.0.1:{reserved.getsockname()[1]}/", hosting="local")
        async with spear.open_runtime(source) as runtime:
            assert why(await runtime.invoke(question())) == "cannot be reached"


async def test_a_service_that_dies_and_comes_back():
    async with filter_service(http()) as service, spear.open_runtime(local(service)) as runtime:
        assert (await runtime.invoke(question())).backend is not None
        service.answer = raw(b"")
        assert why(await runtime.invoke(question())) == "the connection broke"
        service.answer = http(body=b'{"force": "b"}')
        assert (await runtime.invoke(question())).backend.name == "b"


async def test_a_caller_that_leaves_closes_the_socket():
    async with (
        nothing_left(),
        filter_service(after(60, http())) as service,
        spear.open_runtime(local(service, timeout="30s")) as runtime,
    ):
        with trio.move_on_after(0.2):
            await runtime.invoke(question())
        await until_true(lambda: len(service.requests) == 1)
        await until_true(lambda: service.open == 0)


async def test_so_many_calls_at_a_time():
    async with filter_service(after(0.15, http())) as service:
        async with spear.open_runtime(local(service, max_inflight=2)) as runtime, trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(runtime.invoke, question())
            await trio.sleep(0.1)
            assert service.open <= 2
        assert len(service.requests) == 6
        assert service.connections <= 2


async def test_a_reload_changes_the_service_and_loses_nobody():
    async with (
        filter_service(after(0.3, http(body=b'{"drop": ["a"]}'))) as old,
        filter_service(http(body=b'{"drop": ["b"]}')) as new,
        spear.open_runtime(local(old)) as runtime,
    ):
        responses = []

        async def one() -> None:
            responses.append(await runtime.invoke(question()))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one)
            await until_true(lambda: old.requests)
            report = await runtime.reload(local(new))
            assert report.ok
            assert report.settings == ("filters",)
            assert (await runtime.invoke(question())).backend.name == "a"
        # The one under way got an answer of the old service, but is decided by the new configuration.
        assert responses[0].backend is not None
        await until_true(lambda: old.open == 0)
        plain = {"spear": {"backends": [stub("a"), stub("b")]}}
        assert (await runtime.reload(plain)).ok
        await until_true(lambda: new.open == 0)


async def test_a_reload_with_a_filter_that_cannot_be_opened_changes_nothing():
    answer = http(body=b'{"drop": ["a"]}')
    async with filter_service(answer) as service, spear.open_runtime(local(service)) as runtime:
        report = await runtime.reload(filtered("wasm", path="/no/such/module.wasm"))
        assert not report.ok
        assert "spear.filters[0].path" in report.error
        assert (await runtime.invoke(question())).backend.name == "b"


async def test_plain_http_to_elsewhere_needs_a_word_of_the_host():
    source = filtered("http", url="http://filters.example/")
    with pytest.raises(ConfigError, match=r"spear\.filters\[0\]\.url.*plain http"):
        async with spear.open_runtime(source):
            raise AssertionError("it opened")
