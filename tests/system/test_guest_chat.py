"""Real guests and real servers: what the server is asked, what the guest reads, what Python sees, fault by fault."""

from __future__ import annotations

import json
import socket

import pytest
import trio

import spear
from spear.ir import Completed, ContentDelta, ErrorEvent, SpearError
from tests.system.kit import (
    CHAT,
    CHAT_TOOL,
    GUESTS,
    TOOL_FAULTS,
    backend,
    chat,
    config,
    nothing_left,
    prefer,
)


async def guest_body(server, entry="chat_small", **more):
    async with spear.open_runtime(config(backend(server, **more))) as runtime:
        execution = await runtime.run_guest(GUESTS, entry=entry, timeout_s=20)
    assert execution.status == "completed", execution
    return json.loads(execution.stdout)


async def test_a_chat(fault_server):
    async with nothing_left(), spear.open_runtime(config(backend(fault_server))) as runtime:
        with trio.fail_after(10):
            execution = await runtime.run_guest(CHAT)
        assert (execution.status, execution.exit_code) == ("completed", 0)
        assert "echo: In one sentence: what is an actor?" in execution.stdout
        assert execution.usage.requests == 1
        assert execution.usage.input_tokens > 0
        assert not execution.usage.estimated
        [asked] = fault_server.requests()
        assert asked["path"] == "/v1/chat/completions"
        assert asked["json"] == {
            "model": "small",
            "messages": [
                {"role": "system", "content": "You are brief."},
                {"role": "user", "content": "In one sentence: what is an actor?"},
            ],
        }
    await fault_server.until(open=0, connections_open=0)


async def test_the_body_is_the_servers_and_says_who_answered(fault_server):
    body = await guest_body(fault_server, name="home")
    assert body["_spear"] == {"backend": "home", "model": "small"}
    assert body["choices"][0]["message"] == {"role": "assistant", "content": "echo: good day"}
    assert set(body["usage"]) >= {"prompt_tokens", "completion_tokens", "total_tokens"}


async def test_automatic_tool_calls(fault_server):
    async with spear.open_runtime(config(backend(fault_server))) as runtime:
        execution = await runtime.run_guest(CHAT_TOOL)
    assert execution.status == "completed", execution
    assert [record.message for record in execution.logs] == ["add(20, 22) = 42"]
    assert execution.usage.requests == 2
    first, second = (request["json"] for request in fault_server.requests())
    [tool] = first["tools"]
    assert tool["type"] == "function"
    assert tool["function"]["name"] == "add"
    assert second["tools"] == first["tools"]
    assert second["messages"][: len(first["messages"])] == first["messages"]
    called, answered = second["messages"][len(first["messages"]) :]
    [call] = called["tool_calls"]
    assert called["role"] == "assistant"
    assert call["type"] == "function"
    assert json.loads(call["function"]["arguments"]) == {"a": 20, "b": 22}
    assert answered["role"] == "tool"
    assert answered["tool_call_id"] == call["id"]
    assert json.loads(answered["content"]) == {"sum": 42} or "42" in answered["content"]
    assert "tool said: " in execution.stdout


async def test_several_calls_of_one_answer_are_answered_in_order(fault_server):
    calls = [{"name": "add", "arguments": f'{{"a":{n},"b":1}}'} for n in range(3)]
    fault_server.script(tools=calls)
    async with spear.open_runtime(config(backend(fault_server))) as runtime:
        execution = await runtime.run_guest(CHAT_TOOL)
    assert [record.message for record in execution.logs] == [f"add({n}, 1) = {n + 1}" for n in range(3)]
    second = fault_server.requests()[1]["json"]["messages"]
    asked = [call["id"] for message in second for call in message.get("tool_calls", ())]
    answered = [message["tool_call_id"] for message in second if message["role"] == "tool"]
    assert len(asked) == 3
    assert asked == answered


@pytest.mark.parametrize(
    ("call", "content"),
    [
        ({"name": "nix"}, '{"error":{"code":"unknown_tool","message":"unknown tool: nix"}}'),
        (
            {"name": "mcp__ZnM__cmVhZA"},
            '{"error":{"code":"mcp_tool_failed","message":"mcp registry not available"}}',
        ),
    ],
    ids=["unknown", "mcp"],
)
async def test_a_call_of_a_tool_that_is_not_there(fault_server, call, content):
    fault_server.script(tools=[call])
    async with spear.open_runtime(config(backend(fault_server))) as runtime:
        execution = await runtime.run_guest(CHAT_TOOL)
    assert execution.status == "completed"
    told = next(m for m in fault_server.requests()[1]["json"]["messages"] if m["role"] == "tool")["content"]
    assert told == content


async def test_a_model_that_never_stops_calling(fault_server):
    call = {"id": "c1", "type": "function", "function": {"name": "tool", "arguments": "{}"}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    choice = {"index": 0, "finish_reason": "tool_calls", "message": message}
    fault_server.script(times=None, body=json.dumps({"object": "chat.completion", "choices": [choice]}))
    async with spear.open_runtime(config(backend(fault_server))) as runtime:
        with trio.fail_after(20):
            execution = await runtime.run_guest(TOOL_FAULTS, entry="tool_echoes")
    assert json.loads(execution.stdout)["error"] == {
        "code": "tool_call_limit",
        "message": "exceeded max_iterations",
    }
    assert 2 <= fault_server.counts()["total"] == execution.usage.requests <= 128


@pytest.mark.parametrize(
    ("entry", "content"),
    [
        ("tool_traps", '{"error":{"code":"tool_exec_failed","message":"tool rc: -5"}}'),
        ("tool_fails", '{"error":{"code":"tool_exec_failed","message":"tool rc: 77"}}'),
        ("tool_lies", '{"error":{"code":"tool_exec_failed","message":"tool rc: -5"}}'),
        ("tool_no_utf8", '{"error":{"code":"tool_exec_failed","message":"tool rc: -5"}}'),
        ("tool_asks_again", "second call, 20"),
        ("tool_asks_too_much", '{"error":{"code":"tool_exec_failed","message":"tool rc: -28"}}'),
        ("tool_negative", '{"error":{"code":"tool_exec_failed","message":"tool rc: -14"}}'),
        ("tool_without_arena", '{"error":{"code":"tool_exec_failed","message":"tool rc: -14"}}'),
        ("tool_chats", "echo: inner question"),
    ],
)
async def test_tools_that_misbehave_do_not_stop_the_chat(fault_server, entry, content):
    async with spear.open_runtime(config(backend(fault_server))) as runtime:
        with trio.fail_after(20):
            execution = await runtime.run_guest(TOOL_FAULTS, entry=entry)
    assert execution.status == "completed", execution
    told = [m["content"] for m in fault_server.requests()[-1]["json"]["messages"] if m["role"] == "tool"]
    assert told == [content]


async def test_a_tool_that_overflows_the_stack_costs_the_guest_at_most_itself(fault_server):
    """The host goes on with the chat; the guest's own stack pointer, which a trap leaves at the end of its stack, is
    out of the host's reach, so that a guest in C traps as soon as it goes on."""
    async with spear.open_runtime(config(backend(fault_server))) as runtime:
        execution = await runtime.run_guest(TOOL_FAULTS, entry="tool_overflows")
        assert execution.status in {"completed", "failed"}
        assert (await runtime.run_guest(TOOL_FAULTS, entry="tool_echoes")).status == "completed"
    told = [m["content"] for m in fault_server.requests()[1]["json"]["messages"] if m["role"] == "tool"]
    assert told == ['{"error":{"code":"tool_exec_failed","message":"tool rc: -5"}}']


FAULTS = [
    ("500", {"status": 500}, "Runtime error: upstream status: 500: server_error: scripted failure", "backend_error"),
    ("503", {"status": 503, "retry_after": 7}, "Runtime error: upstream status: 503", "backend_error"),
    ("429", {"status": 429, "retry_after": 1}, "Runtime error: upstream status: 429", "rate_limited"),
    ("401", {"status": 401}, "Runtime error: upstream status: 401", "backend_error"),
    ("404", {"status": 404}, "Runtime error: upstream status: 404", "backend_error"),
    ("400", {"status": 400}, "Runtime error: upstream status: 400", "backend_error"),
    ("redirect", {"status": 302, "headers": {"location": "http://127.0.0.1:1/"}}, "Runtime error: ", "backend_error"),
    ("html", {"body": "<html>", "content_type": "text/html"}, "Runtime error: ", "backend_error"),
    ("no json", {"body": "{nix"}, "Runtime error: ", "backend_error"),
    ("wrong type", {"content_type": "text/plain"}, "Runtime error: ", "backend_error"),
    ("empty", {"body": ""}, "Runtime error: ", "backend_error"),
    ("bad http", {"bad_http": True}, "Runtime error: ", "backend_error"),
    ("reset at once", {"cut": "rst"}, "Runtime error: ", None),
    ("closed at once", {"cut": "fin"}, "Runtime error: ", None),
    ("cut in the body", {"cut": "fin", "cut_after": 20}, "Runtime error: ", "backend_error"),
    ("reset in the body", {"cut": "rst", "cut_after": 20}, "Runtime error: ", "backend_error"),
    ("huge body", {"huge_body_mib": 40}, "Runtime error: ", "backend_error"),
    ("huge headers", {"huge_headers_kib": 4096}, "Runtime error: ", "backend_error"),
    ("never", {"never": True}, "Runtime error: ", "timeout"),
    ("slow head", {"delay": 60}, "Runtime error: ", "timeout"),
    ("slow body", {"body_delay": 60}, "Runtime error: ", "timeout"),
]


@pytest.mark.parametrize(("does", "message", "code"), [each[1:] for each in FAULTS], ids=[each[0] for each in FAULTS])
async def test_each_fault_as_guest_and_python_see_it(fault_server, does, message, code):
    fault_server.script(times=None, **does)
    clocks = {"first_event": 0.4, "idle": 0.4, "total": 1.0}
    source = config(backend(fault_server, timeouts=clocks), retries={"per_instance": 1})
    async with nothing_left(), spear.open_runtime(source) as runtime:
        with trio.fail_after(15):
            execution = await runtime.run_guest(GUESTS, entry="chat_small")
            response = await runtime.invoke(chat())
    body = json.loads(execution.stdout)
    assert list(body) == ["error"]
    assert list(body["error"]) == ["message"]
    assert body["error"]["message"].startswith(message)
    assert "\n" not in body["error"]["message"]
    assert len(body["error"]["message"].encode()) <= 512 + len("Runtime error: ")
    error = response.result.error
    assert error is not None
    if code is not None:
        assert error.code == code
    assert body["error"]["message"] == f"Runtime error: {error.message}"
    assert [attempt.backend for attempt in error.attempts][:1] == [fault_server.name]
    with pytest.raises(SpearError, match=error.code.value):
        response.unwrap()
    await fault_server.until(open=0, connections_open=0)


async def test_a_refused_port_as_guest_and_python_see_it(fault_server):
    with socket.socket() as taken:  # bound and not listening: refused, and nobody else gets it
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        async with spear.open_runtime(config(backend(fault_server, base_url=url))) as runtime:
            execution = await runtime.run_guest(GUESTS, entry="chat_small")
            response = await runtime.invoke(chat())
    assert json.loads(execution.stdout)["error"]["message"].startswith("Runtime error: cannot connect to the backend")
    assert response.result.error.code == "backend_unavailable"
    assert [attempt.reason for attempt in response.result.error.attempts] == ["chosen", "connect_retry"]
    assert url.split("/")[2] not in response.model_dump_json()


@pytest.mark.parametrize(
    "does",
    [{"status": 500}, {"status": 429}, {"status": 401}, {"cut": "rst"}, {"body": "{"}, {"never": True}],
    ids=["500", "429", "401", "rst", "json", "never"],
)
async def test_another_server_answers_and_the_failure_is_recorded(fault_servers, does):
    bad, good = fault_servers(), fault_servers()
    bad.script(times=None, **does)
    source = prefer(bad, good)
    for each in source["spear"]["backends"]:
        each["timeouts"] = {"first_event": 0.3}
    seen = []
    async with spear.open_runtime(source, observer=lambda request, response: seen.append(response)) as runtime:
        with trio.fail_after(10):
            execution = await runtime.run_guest(GUESTS, entry="chat_small")
    assert json.loads(execution.stdout)["_spear"]["backend"] == good.name
    [response] = seen
    failed, *again, answered = response.backend.attempts
    assert (failed.backend, failed.outcome, failed.reason) == (bad.name, "failed", "chosen")
    assert failed.error_code is not None
    assert all((each.backend, each.reason) == (bad.name, "connect_retry") for each in again)
    assert (answered.backend, answered.outcome, answered.reason) == (good.name, "ok", "fallback")
    assert 0 <= failed.started_ms <= answered.started_ms
    await bad.until(open=0)


async def test_a_refused_request_is_not_sent_elsewhere(fault_servers):
    bad, good = fault_servers(), fault_servers()
    bad.script(times=None, status=400)
    async with spear.open_runtime(prefer(bad, good)) as runtime:
        response = await runtime.invoke(chat())
    assert response.result.error.code == "backend_error"
    assert good.counts()["total"] == 0


async def test_a_stream(fault_server):
    async with nothing_left(), spear.open_runtime(config(backend(fault_server))) as runtime:
        async with runtime.stream(chat("one two three")) as events:
            seen = [event async for event in events]
        assert seen[0].type == "started"
        text = "".join(event.delta for event in seen if isinstance(event, ContentDelta))
        assert text == "echo: one two three"
        assert isinstance(seen[-1], Completed)
        assert seen[-1].response.unwrap().text == text
        assert seen[-1].response.backend.name == fault_server.name
    await fault_server.until(open=0, connections_open=0, completed=1)


@pytest.mark.parametrize(
    ("does", "code"),
    [
        ({"cut": "fin", "cut_after": 2}, "stream_truncated"),
        ({"cut": "rst", "cut_after": 2}, "stream_truncated"),
        ({"done": False, "finish": False}, "stream_truncated"),
        ({"error_after": 2}, "backend_error"),
        ({"junk_after": 2}, "backend_error"),
    ],
    ids=["fin", "rst", "no end", "error", "junk"],
)
async def test_a_stream_that_breaks_ends_with_an_error_event(fault_server, does, code):
    fault_server.script(times=None, **does)
    async with spear.open_runtime(config(backend(fault_server))) as runtime:
        with trio.fail_after(10):
            async with runtime.stream(chat("one two three four five")) as events:
                seen = [event async for event in events]
    assert isinstance(seen[-1], ErrorEvent)
    assert seen[-1].error.code == code
    assert any(isinstance(event, ContentDelta) for event in seen)
    await fault_server.until(open=0)


async def test_a_stream_that_fails_before_it_begins_raises_and_falls_back(fault_servers):
    bad, good = fault_servers(), fault_servers()
    bad.script(times=None, status=503)
    async with spear.open_runtime(prefer(bad, good)) as runtime:
        async with runtime.stream(chat("a b")) as events:
            last = [event async for event in events][-1]
        assert [attempt.backend for attempt in last.response.backend.attempts] == [bad.name, good.name]
        good.script(times=None, status=500)
        with pytest.raises(SpearError, match="upstream status: 5"):
            async with runtime.stream(chat()):
                raise AssertionError("entered")


async def test_a_guests_own_deadline(fault_server):
    fault_server.script(times=None, never=True)
    async with spear.open_runtime(config(backend(fault_server))) as runtime:
        with trio.fail_after(5):
            execution = await runtime.run_guest(GUESTS, entry="chat_300_ms")
    assert json.loads(execution.stdout)["error"]["message"].startswith("Runtime error: ")
    assert 250 < execution.duration_ms < 3000
    await fault_server.until(open=0, aborted=1)


async def test_many_guests_share_a_server(fault_server):
    fault_server.script(times=None, delay=0.1)
    source = config(backend(fault_server, limits={"max_inflight": 30, "max_queue": 100}))
    async with nothing_left(), spear.open_runtime(source) as runtime:
        done = []

        async def one():
            execution = await runtime.run_guest(GUESTS, entry="chat_small")
            done.append(json.loads(execution.stdout)["_spear"]["backend"])

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                for _ in range(100):
                    nursery.start_soon(one)
        assert done == [fault_server.name] * 100
        assert 2 <= fault_server.counts()["most_open"] <= 30
    await fault_server.until(open=0, connections_open=0)
