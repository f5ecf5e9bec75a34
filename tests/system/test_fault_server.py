"""The test server itself, over real sockets: what other tests conclude from it must be true."""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import trio
from pydantic import ValidationError

from tests.servers.fault_server import FaultServer

ADD = {
    "type": "function",
    "function": {"name": "add", "parameters": {"type": "object", "properties": {"a": {}, "b": {}}}},
}


def request(text="hello", **more):
    return {"model": "small", "messages": [{"role": "user", "content": text}], **more}


def client(server, **more):
    return httpx.AsyncClient(base_url=server.base_url, trust_env=False, timeout=5, verify=False, **more)


async def ask(server, text="hello", **more):
    async with client(server) as http:
        return await http.post("/chat/completions", json=request(text, **more))


async def stream_lines(server, text="hello there friend", **more):
    async with (
        client(server) as http,
        http.stream("POST", "/chat/completions", json=request(text, stream=True, **more)) as response,
    ):
        return [line async for line in response.aiter_lines() if line]


def objects(lines):
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]


async def raw(server, payload, *, read=True):
    """The bytes as they are; None where the connection was reset before any."""
    stream = await trio.open_tcp_stream("127.0.0.1", server.port)
    async with stream:
        await stream.send_all(payload)
        data = b""
        try:
            while read and (piece := await stream.receive_some(65_536)):
                data += piece
        except trio.BrokenResourceError:
            return data or None
        return data


def http_bytes(body, *, path="/v1/chat/completions", method="POST", headers=""):
    payload = json.dumps(body).encode()
    return f"{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(payload)}\r\n{headers}\r\n".encode() + payload


# --- the well-behaved server


async def test_plain_answer(fault_server):
    response = await ask(fault_server, "good day")
    body = response.json()
    assert body["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "echo: good day"},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert body["usage"] == {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}
    await fault_server.until(connections_open=0)  # it sees the client's close a moment later
    assert fault_server.counts() == {
        "total": 1,
        "open": 0,
        "most_open": 1,
        "completed": 1,
        "aborted": 0,
        "broken": 0,
        "connections_opened": 1,
        "connections_open": fault_server.counts()["connections_open"],
        "script_waiting": 0,
    }


async def test_requests_are_recorded_in_full(fault_server):
    async with client(fault_server, headers={"Authorization": "Bearer key-1"}) as http:
        await http.post("/chat/completions", json=request("bonjour ü"))
    (seen,) = fault_server.requests()
    assert seen["json"] == request("bonjour ü")
    assert seen["path"] == "/v1/chat/completions"
    assert ["authorization", "Bearer key-1"] in [[name.lower(), value] for name, value in seen["headers"]]
    assert seen["outcome"] == "completed"


async def test_stream_carries_words_a_finish_reason_usage_and_done(fault_server):
    lines = await stream_lines(fault_server, stream_options={"include_usage": True})
    assert lines[-1] == "data: [DONE]"
    chunks = objects(lines)
    text = "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"])
    assert text == "echo: hello there friend"
    assert [c["choices"][0]["finish_reason"] for c in chunks if c["choices"]][-1] == "stop"
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 4
    assert all(c["usage"] is None for c in chunks[:-1])


async def test_stream_without_include_usage_has_none(fault_server):
    assert all("usage" not in chunk for chunk in objects(await stream_lines(fault_server)))


async def test_tool_call_then_final_text(fault_server):
    first = (await ask(fault_server, "what is 12 plus -5?", tools=[ADD])).json()["choices"][0]
    assert first["finish_reason"] == "tool_calls"
    assert first["message"]["content"] is None
    (call,) = first["message"]["tool_calls"]
    assert call == {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a":12,"b":-5}'}}
    messages = [
        {"role": "user", "content": "what is 12 plus -5?"},
        first["message"],
        {"role": "tool", "tool_call_id": "call_1", "content": "7"},
    ]
    final = (await ask(fault_server, messages=messages, tools=[ADD])).json()["choices"][0]
    assert (final["message"]["content"], final["finish_reason"]) == ("tool said: 7", "stop")


async def test_a_question_without_numbers_calls_no_tool(fault_server):
    body = (await ask(fault_server, "no numbers", tools=[ADD])).json()
    assert body["choices"][0]["message"]["content"] == "echo: no numbers"


async def test_streamed_tool_call_arguments_come_in_pieces(fault_server):
    fault_server.script(argument_chars=3)
    chunks = objects(await stream_lines(fault_server, "1 and 22", tools=[ADD]))
    parts = [c["choices"][0]["delta"]["tool_calls"][0] for c in chunks if "tool_calls" in c["choices"][0]["delta"]]
    assert parts[0]["id"] == "call_1"
    assert all("id" not in part for part in parts[1:])
    assert len(parts) == 6
    assert "".join(part["function"]["arguments"] for part in parts) == '{"a":1,"b":22}'


async def test_scripted_tool_calls(fault_server):
    fault_server.script(tools=[{"name": "nobody", "arguments": "not json"}, {"name": "add"}])
    calls = (await ask(fault_server)).json()["choices"][0]["message"]["tool_calls"]
    assert [(c["id"], c["function"]["name"], c["function"]["arguments"]) for c in calls] == [
        ("call_1", "nobody", "not json"),
        ("call_2", "add", "{}"),
    ]


async def test_json_schema_reply_fits(fault_server):
    schema = {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "degrees": {"type": "number", "minimum": 3},
            "kind": {"enum": ["rain", "sun"]},
            "days": {"type": "array", "minItems": 2, "items": {"$ref": "#/$defs/day"}},
        },
        "$defs": {"day": {"type": "object", "properties": {"dry": {"type": "boolean"}}}},
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "w", "schema": schema}}
    body = (await ask(fault_server, response_format=wanted)).json()
    assert json.loads(body["choices"][0]["message"]["content"]) == {
        "city": "city",
        "degrees": 3,
        "kind": "rain",
        "days": [{"dry": False}, {"dry": False}],
    }
    fault_server.script(json_reply={"x": [1]})
    assert json.loads((await ask(fault_server)).json()["choices"][0]["message"]["content"]) == {"x": [1]}


async def test_several_choices_plain_and_streamed(fault_server):
    assert [c["index"] for c in (await ask(fault_server, n=3)).json()["choices"]] == [0, 1, 2]
    fault_server.script(choices=2)
    ends = [
        (c["choices"][0]["index"], c["choices"][0]["finish_reason"]) for c in objects(await stream_lines(fault_server))
    ]
    assert [end for end in ends if end[1]] == [(0, "stop"), (1, "stop")]


async def test_models(fault_server):
    fault_server.models("small", "large")
    async with client(fault_server) as http:
        listing = (await http.get("/models")).json()
        unknown = await http.post("/chat/completions", json=request(model="huge"))
    assert [model["id"] for model in listing["data"]] == ["small", "large"]
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{", "could not parse"),
        (b"[]", "JSON object"),
        (b'{"messages":[{}]}', "model"),
        (b'{"model":"m","messages":[]}', "messages"),
        (b'{"model":"m","messages":[{}],"n":0.5}', "n is"),
    ],
)
async def test_bad_requests_are_named(fault_server, body, says):
    async with client(fault_server) as http:
        response = await http.post("/chat/completions", content=body)
    assert response.status_code == 400
    assert says in response.json()["error"]["message"]


async def test_wrong_path_and_wrong_method(fault_server):
    async with client(fault_server) as http:
        assert (await http.get("/nothing")).status_code == 404
        assert (await http.get("/chat/completions")).status_code == 405


async def test_keep_alive_and_pipelining(fault_server):
    async with client(fault_server) as http:
        for _ in range(3):
            await http.post("/chat/completions", json=request())
    assert fault_server.counts()["connections_opened"] == 1
    data = await raw(
        fault_server, http_bytes(request("one")) + http_bytes(request("two"), headers="connection: close\r\n")
    )
    assert data.index(b"echo: one") < data.index(b"echo: two")


# --- the script


async def test_limited_rules_go_first_and_run_out(fault_server):
    fault_server.script(text="always", times=None)
    fault_server.script(text="twice", times=2)
    answers = [(await ask(fault_server)).json()["choices"][0]["message"]["content"] for _ in range(3)]
    assert answers == ["twice", "twice", "always"]


async def test_rules_match_model_and_stream(fault_server):
    fault_server.script(status=500, model="bad", times=None)
    fault_server.script(status=503, stream=True, times=None)
    assert (await ask(fault_server, model="good")).status_code == 200
    assert (await ask(fault_server, model="bad")).status_code == 500
    async with client(fault_server) as http:
        assert (await http.post("/chat/completions", json=request(stream=True))).status_code == 503


async def test_templates(fault_server):
    fault_server.script(text="{server}/{n}/{model}: {text} {unknown} {{text}}")
    content = (await ask(fault_server, "{model}")).json()["choices"][0]["message"]["content"]
    assert content == "a/1/small: {model} {unknown} {{model}}"


def test_a_typo_in_a_script_is_refused_on_both_sides(fault_server):
    with pytest.raises(ValidationError, match="stauts"):
        fault_server.script(stauts=500)
    with pytest.raises(ValueError, match=r"does\.status"):
        fault_server._control("POST", "script", [{"does": {"status": "500"}}])
    assert fault_server.counts()["script_waiting"] == 0


async def test_reset_drops_connections_script_and_counts(fault_server):
    fault_server.script(never=True, times=None)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:

            async def hang():
                with pytest.raises(httpx.RemoteProtocolError):
                    await ask(fault_server)

            nursery.start_soon(hang)
            await fault_server.until(open=1)
            fault_server.reset()
    assert (await ask(fault_server)).status_code == 200
    assert fault_server.counts()["total"] == 1


# --- faults


async def test_statuses_with_retry_after_and_errors(fault_server):
    fault_server.script(status=429, retry_after=2, error_message="slow down", error_type="rate_limit", error_code="rl")
    fault_server.script(status=503)
    limited, unavailable = await ask(fault_server), await ask(fault_server)
    assert (limited.status_code, limited.headers["retry-after"]) == (429, "2")
    assert limited.json()["error"] == {"message": "slow down", "type": "rate_limit", "param": None, "code": "rl"}
    assert (unavailable.status_code, "retry-after" in unavailable.headers) == (503, False)


async def test_leaked_key(fault_server):
    fault_server.script(status=401, leak_key=True)
    async with client(fault_server, headers={"authorization": "Bearer sk-canary"}) as http:
        response = await http.post("/chat/completions", json=request())
    assert "Incorrect API key provided: sk-canary." in response.json()["error"]["message"]


async def test_delay_comes_before_the_first_byte(fault_server):
    fault_server.script(delay=0.3)
    start = time.monotonic()
    assert (await ask(fault_server)).status_code == 200
    assert 0.3 <= time.monotonic() - start < 2


async def test_body_delay_comes_after_the_head(fault_server):
    fault_server.script(body_delay=0.3)
    async with client(fault_server) as http:
        start = time.monotonic()
        async with http.stream("POST", "/chat/completions", json=request()) as response:
            until_head = time.monotonic() - start
            await response.aread()
            assert time.monotonic() - start - until_head >= 0.25


async def test_reset_before_the_answer(fault_server):
    fault_server.script(cut="rst")
    assert await raw(fault_server, http_bytes(request())) is None
    counts = fault_server.counts()
    assert (counts["broken"], counts["open"]) == (1, 0)


async def test_closed_before_the_answer(fault_server):
    fault_server.script(cut="fin")
    assert await raw(fault_server, http_bytes(request())) == b""


@pytest.mark.parametrize("cut", ["fin", "rst"])
async def test_cut_mid_body(fault_server, cut):
    fault_server.script(cut=cut, cut_after=20)
    error = httpx.RemoteProtocolError if cut == "fin" else httpx.ReadError
    with pytest.raises(error):
        await ask(fault_server)
    assert fault_server.counts()["broken"] == 1


async def test_cut_body_is_shorter_than_promised_whatever_was_asked(fault_server):
    fault_server.script(cut="fin", cut_after=1_000_000)
    head, body = (await raw(fault_server, http_bytes(request()))).split(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
    assert len(body) < int(length.split(b":")[1])


@pytest.mark.parametrize(("cut", "error"), [("fin", httpx.RemoteProtocolError), ("rst", httpx.ReadError)])
async def test_cut_mid_stream(fault_server, cut, error):
    fault_server.script(cut=cut, cut_after=2)
    seen = []

    async def read():
        async with (
            client(fault_server) as http,
            http.stream("POST", "/chat/completions", json=request(stream=True)) as response,
        ):
            async for line in response.aiter_lines():
                seen.append(line)  # ruff: ignore[manual-list-comprehension] - what came before the error counts

    with pytest.raises(error):
        await read()
    assert len(objects(seen)) == 2
    assert fault_server.counts()["broken"] == 1


async def test_stream_ends_without_done_or_without_finish_reason(fault_server):
    fault_server.script(done=False)
    fault_server.script(finish=False)
    without_done, without_finish = await stream_lines(fault_server), await stream_lines(fault_server)
    assert objects(without_done)[-1]["choices"][0]["finish_reason"] == "stop"
    assert "[DONE]" not in without_done[-1]
    assert all(c["choices"][0]["finish_reason"] is None for c in objects(without_finish))
    assert without_finish[-1] == "data: [DONE]"
    assert fault_server.counts()["completed"] == 2


async def test_error_and_junk_inside_a_stream(fault_server):
    fault_server.script(error_after=2, error_message="overloaded")
    fault_server.script(junk_after=1)
    failed, junk = await stream_lines(fault_server), await stream_lines(fault_server)
    assert objects(failed)[-1]["error"]["message"] == "overloaded"
    assert len(failed) == 3
    assert junk[1] == 'data: {"this is": no JSON'


async def test_drip_takes_its_time_for_body_and_stream(fault_server):
    fault_server.script(drip={"bytes": 100, "every": 0.05}, times=2)
    for stream in (False, True):
        start = time.monotonic()
        text = await stream_lines(fault_server) if stream else (await ask(fault_server)).text
        assert text
        assert time.monotonic() - start >= 0.15


async def test_tokens_per_second(fault_server):
    fault_server.script(tokens_per_second=20)
    start = time.monotonic()
    await stream_lines(fault_server, "a b c")  # role, 4 words, finish, done: 6 gaps
    assert 0.3 <= time.monotonic() - start < 2


async def test_keepalive_comments_come_before_the_events(fault_server):
    fault_server.script(keepalive=0.05, body_delay=0.2)
    lines = await stream_lines(fault_server)
    comments = [line for line in lines if line.startswith(":")]
    assert len(comments) == 4
    assert lines[: len(comments)] == comments


async def test_keepalive_only_never_says_anything(fault_server):
    fault_server.script(keepalive=0.01, keepalive_only=True)
    with trio.move_on_after(0.4) as scope:
        await stream_lines(fault_server)
    assert scope.cancelled_caught
    await fault_server.until(aborted=1, open=0)


async def test_wrong_json_not_an_object_and_wrong_content_type(fault_server):
    fault_server.script(body='{"choices":')
    fault_server.script(body="[1,2]")
    fault_server.script(body="<html></html>", content_type="text/html")
    broken, listed, html = [await ask(fault_server) for _ in range(3)]
    with pytest.raises(json.JSONDecodeError):
        broken.json()
    assert listed.json() == [1, 2]
    assert html.headers["content-type"] == "text/html"


async def test_huge_body_is_valid_json_of_that_size(fault_server):
    fault_server.script(huge_body_mib=4)
    response = await ask(fault_server)
    assert 4 << 20 < len(response.content) < 5 << 20
    assert response.json()["choices"][0]["message"]["content"] == "echo: hello"


async def test_huge_headers(fault_server):
    fault_server.script(huge_headers_kib=32)
    data = await raw(fault_server, http_bytes(request(), headers="connection: close\r\n"))
    assert 32 << 10 < data.index(b"\r\n\r\n") < 34 << 10


async def test_redirect(fault_server):
    fault_server.script(status=302, headers={"location": "http://127.0.0.1:1/elsewhere"})
    response = await ask(fault_server)
    assert (response.status_code, response.headers["location"]) == (302, "http://127.0.0.1:1/elsewhere")


async def test_informational_answers_come_first(fault_server):
    fault_server.script(informational=[100, 103])
    data = await raw(fault_server, http_bytes(request(), headers="connection: close\r\n"))
    assert [line.split()[1] for line in data.split(b"\r\n") if line.startswith(b"HTTP/1.1")] == [b"100", b"103", b"200"]
    fault_server.script(informational=[103])
    assert (await ask(fault_server)).status_code == 200


async def test_early_answer_does_not_wait_for_the_body(fault_server):
    fault_server.script(status=413, early=True)
    start = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n{"
    with trio.fail_after(3):
        async with await trio.open_tcp_stream("127.0.0.1", fault_server.port) as stream:
            await stream.send_all(start)
            assert (await stream.receive_some(65_536)).startswith(b"HTTP/1.1 413")
            await stream.send_all(b" " * 500_000)  # still taken, not reset
    assert fault_server.counts()["completed"] == 1


async def test_expect_100_continue(fault_server):
    head, body = http_bytes(request(), headers="expect: 100-continue\r\nconnection: close\r\n").split(b"\r\n\r\n")
    with trio.fail_after(3):
        async with await trio.open_tcp_stream("127.0.0.1", fault_server.port) as stream:
            await stream.send_all(head + b"\r\n\r\n")
            assert await stream.receive_some(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
            await stream.send_all(body)
            assert (await stream.receive_some(65_536)).startswith(b"HTTP/1.1 200")


async def test_bytes_that_are_no_http(fault_server):
    fault_server.script(bad_http=True)
    with pytest.raises(httpx.RemoteProtocolError):
        await ask(fault_server)


async def test_characters_torn_apart(fault_server):
    fault_server.script(text="żółw 🐢 {text}", split=1)
    async with (
        client(fault_server) as http,
        http.stream("POST", "/chat/completions", json=request(stream=True)) as response,
    ):
        chunks = [piece async for piece in response.aiter_raw()]
    assert {len(chunk) for chunk in chunks} == {1}
    assert "🐢".encode() in b"".join(chunks)


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
async def test_every_sse_line_end(fault_server, newline):
    fault_server.script(newline=newline)
    async with client(fault_server) as http:
        text = (await http.post("/chat/completions", json=request(stream=True))).text
    assert text.endswith(f"data: [DONE]{newline * 2}")
    assert len(text.split(newline * 2)) == 6  # role, two words, finish, done, rest


# --- aborts


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize(
    "behaviour",
    [{"never": True}, {"delay": 60}, {"body_delay": 60}, {"drip": {"bytes": 1, "every": 1}}, {"huge_body_mib": 64}],
    ids=lambda behaviour: next(iter(behaviour)),
)
async def test_a_client_that_leaves_is_seen_at_once(fault_server, behaviour, how):
    fault_server.script(**behaviour)
    stream = await trio.open_tcp_stream("127.0.0.1", fault_server.port)
    async with stream:
        await stream.send_all(http_bytes(request()))
        await fault_server.until(open=1)
        if how == "rst":
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    counts = await fault_server.until(aborted=1, limit=0.5)
    assert (counts["open"], counts["completed"], counts["broken"]) == (0, 0, 0)
    assert (await fault_server.until(connections_open=0))["connections_opened"] == 1


async def test_a_cancelled_stream_is_aborted_and_others_go_on(fault_server):
    fault_server.script(tokens_per_second=10, times=2)
    done = []

    async def whole():
        done.append((await stream_lines(fault_server))[-1])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(whole)
        with trio.move_on_after(0.2):
            await stream_lines(fault_server)
        await fault_server.until(aborted=1, limit=1)
    assert done == ["data: [DONE]"]
    assert fault_server.counts()["completed"] == 1


async def test_leaving_amid_the_request_is_an_abort(fault_server):
    await raw(fault_server, http_bytes(request())[:-5], read=False)
    await fault_server.until(aborted=1, open=0, connections_open=0)


async def test_a_whole_answer_is_never_an_abort(fault_server):
    """The client leaves the very moment it has the last byte; the counts must not depend on who is faster."""
    for stream in (False, True):
        for _ in range(50):
            async with await trio.open_tcp_stream("127.0.0.1", fault_server.port) as sock:
                await sock.send_all(http_bytes(request(stream=stream)))
                data = b""
                while not data.endswith((b"}}", b"0\r\n\r\n")):
                    data += await sock.receive_some(65_536)
    assert (await fault_server.until(open=0))["completed"] == 100


async def test_what_began_ended_one_way_or_another(fault_server):
    for behaviour in ({}, {"never": True}, {"cut": "rst"}, {"delay": 0.05}, {"cut": "fin", "cut_after": 3}):
        fault_server.script(**behaviour, times=4)

    async def one():
        with trio.move_on_after(0.5):
            await raw(fault_server, http_bytes(request(), headers="connection: close\r\n"))

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(one)
    counts = await fault_server.until(open=0, connections_open=0)
    assert counts["total"] == 20 == counts["completed"] + counts["aborted"] + counts["broken"]
    assert (counts["aborted"], counts["broken"]) == (4, 8)


# --- bad input to the server, and its life


@pytest.mark.parametrize(
    ("payload", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"POST /v1/models HTTP/1.1\r\nhost: x\r\nx: " + b"y" * 200_000, b"431"),
        (b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", b"400"),
    ],
)
async def test_requests_that_are_no_http(fault_server, payload, status):
    with trio.fail_after(5):
        data = await raw(fault_server, payload)
    assert data.split()[1] == status
    assert (await ask(fault_server)).status_code == 200


async def test_two_servers_are_two_processes(fault_servers):
    a, b = fault_servers(), fault_servers()
    a.script(status=500, times=None)
    assert (await ask(a)).status_code == 500
    assert (await ask(b)).json()["system_fingerprint"] == "fp_b"
    assert a.pid != b.pid


async def test_stop_ends_the_process_and_its_connections():
    with FaultServer("own") as server:
        server.script(never=True)
        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        await stream.send_all(http_bytes(request()))
        await server.until(open=1)
        assert server.stop() == 0
        with trio.fail_after(5):
            assert await stream.receive_some(1) == b""
        await stream.aclose()


def test_a_server_dies_with_its_parent(tmp_path):
    program = (
        "from tests.servers.fault_server import FaultServer\n"
        "import os\n"
        "server = FaultServer().start()\n"
        "print(server.pid, flush=True)\n"
        "os._exit(1)\n"
    )
    root = Path(__file__).resolve().parents[2]
    result = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False)
    pid = int(result.stdout)
    deadline = time.monotonic() + 5
    while _alive(pid):
        assert time.monotonic() < deadline, "the server outlived its parent"
        time.sleep(0.02)


def _alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
