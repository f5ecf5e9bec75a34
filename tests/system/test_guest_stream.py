"""Guests that stream and that go on meanwhile, and real servers: what the guest reads, and what the server sees."""

from __future__ import annotations

import json

import pytest
import trio

import spear
from spear.config import TaskConfig as Task
from spear.guests import path as sample
from spear.ir import Operation
from tests.system.kit import GUESTS, backend, config, nothing_left, stub, until_true

KEYS = {
    "started": ["backend", "model", "round", "seq", "type"],
    "content_delta": ["choice", "delta", "round", "seq", "type"],
    "usage": ["completion_tokens", "prompt_tokens", "round", "seq", "total_tokens", "type"],
    "completed": ["finish_reason", "response", "round", "seq", "type"],
    "error": ["error", "round", "seq", "type"],
}


async def run(server, entry: str, **more):
    async with spear.open_runtime(config(backend(server))) as runtime:
        with trio.fail_after(20):
            execution = await runtime.run_guest(GUESTS, entry=entry, **more)
    return execution


def events_of(execution) -> list[dict]:
    return [json.loads(line) for line in execution.stdout.splitlines()]


async def test_a_streamed_chat(fault_server):
    async with nothing_left():
        execution = await run(fault_server, "stream_small")
    assert execution.status == "completed", execution
    *events, metrics = events_of(execution)
    for event in events:
        assert list(event) == KEYS[event["type"]]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    kinds = [event["type"] for event in events]
    assert kinds == ["started", *["content_delta"] * (len(kinds) - 3), "usage", "completed"]
    assert events[0]["backend"] == fault_server.name
    text = "".join(event["delta"] for event in events if event["type"] == "content_delta")
    response = events[-1]["response"]
    assert text == response["choices"][0]["message"]["content"] == "echo: good day"
    assert response["_spear"] == {"backend": fault_server.name, "model": "small"}
    assert metrics == {key: events[-2][key] for key in ("completion_tokens", "prompt_tokens", "total_tokens")}
    assert execution.usage.requests == 1
    assert execution.usage.input_tokens == metrics["prompt_tokens"]
    [asked] = fault_server.requests()
    assert asked["json"]["stream"] is True
    await fault_server.until(open=0, connections_open=0)


@pytest.mark.parametrize(
    ("fault", "before", "code"),
    [
        ({"cut": "rst", "cut_after": 3}, ["started", "content_delta"], "stream_truncated"),
        ({"cut": "fin", "cut_after": 3}, ["started", "content_delta"], "stream_truncated"),
        ({"finish": False, "done": False}, ["started", "content_delta"], "stream_truncated"),
        ({"error_after": 3}, ["started", "content_delta"], "backend_error"),
        ({"status": 400}, [], "backend_error"),
    ],
    ids=["reset", "fin", "no end mark", "error object", "refused"],
)
async def test_streams_that_break(fault_server, fault, before, code):
    fault_server.script(times=None, text="one two three four five six", **fault)
    execution = await run(fault_server, "stream_small")
    events = [event for event in events_of(execution) if "type" in event]
    assert [event["type"] for event in events if event["type"] != "content_delta"][-1] == "error"
    assert [event["type"] for event in events][: len(before)] == before
    assert sum(event["type"] in {"completed", "error"} for event in events) == 1
    error = events[-1]["error"]
    assert sorted(error) == [
        *("attempts", "code", "message", "operation", "rejected", "required", "retry_after_ms", "retryable")
    ]
    assert error["code"] == code
    assert error["operation"] == "chat_completions"
    assert error["attempts"] >= 1
    assert str(fault_server.port) not in execution.stdout
    await fault_server.until(open=0)


async def test_closing_the_response_closes_the_connection(fault_server):
    fault_server.script(times=None, text="word " * 1000, tokens_per_second=50.0)
    async with spear.open_runtime(config(backend(fault_server))) as runtime, trio.open_nursery() as nursery:
        logs = []
        nursery.start_soon(
            lambda: runtime.run_guest(GUESTS, entry="stream_and_close", on_log=lambda one: logs.append(one.message))
        )
        await until_true(lambda: logs == ["closed"], 10)
        await fault_server.until(open=0, connections_open=0)  # though the guest is still there
        assert fault_server.counts()["aborted"] == 1
        nursery.cancel_scope.cancel()


async def test_a_guest_that_leaves_in_the_middle(fault_server):
    fault_server.script(times=None, text="word " * 1000, tokens_per_second=50.0)
    async with nothing_left():
        execution = await run(fault_server, "stream_and_leave")
    assert (execution.status, execution.exit_code) == ("completed", 0)
    await fault_server.until(open=0, connections_open=0)
    assert fault_server.counts()["aborted"] == 1


@pytest.mark.parametrize("how", ["terminated", "cancelled"])
async def test_a_guest_that_is_ended_in_the_middle(fault_server, how):
    from spear.hostcall import Termination

    fault_server.script(times=None, text="word " * 1000, tokens_per_second=50.0)
    handle = Termination()
    async with nothing_left(), spear.open_runtime(config(backend(fault_server))) as runtime:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: runtime.run_guest(GUESTS, entry="stream_unread", handle=handle))
            await fault_server.until(open=1)
            if how == "terminated":
                handle.terminate()
            else:
                nursery.cancel_scope.cancel()
        await fault_server.until(open=0, connections_open=0)


async def test_a_guest_that_does_not_read_is_waited_for(fault_server):
    """The server has more than the queue and the buffers on the way hold: it cannot get to its end."""
    fault_server.script(times=None, text="x" * 24_000_000, delta_chars=8000)
    logs = []
    async with spear.open_runtime(config(backend(fault_server))) as runtime, trio.open_nursery() as nursery:
        nursery.start_soon(
            lambda: runtime.run_guest(GUESTS, entry="stream_unread", on_log=lambda one: logs.append(one.message))
        )
        await until_true(lambda: logs == ["sent"], 10)
        await trio.sleep(2)
        assert fault_server.counts()["open"] == 1
        nursery.cancel_scope.cancel()
    await fault_server.until(open=0, aborted=1)


async def test_a_deadline(fault_server):
    fault_server.script(times=None, text="word " * 1000, tokens_per_second=50.0)
    execution = await run(fault_server, "stream_300_ms")
    events = events_of(execution)
    assert events[0]["type"] == "started"
    assert events[-1]["error"]["code"] == "timeout"
    assert execution.duration_ms < 5000
    await fault_server.until(open=0)


async def test_five_at_once_take_the_time_of_one(fault_server):
    fault_server.script(times=None, delay=0.4)
    execution = await run(fault_server, "async_five")
    assert (execution.status, execution.stdout) == ("completed", "5")
    assert execution.usage.requests == 5
    assert execution.duration_ms < 5 * 400
    await fault_server.until(open=0)


async def test_the_sample_with_a_tool(fault_server):
    async with spear.open_runtime(config(backend(fault_server))) as runtime:
        execution = await runtime.run_guest(sample("chat_stream"))
    assert (execution.status, execution.exit_code) == ("completed", 0), execution
    assert execution.stdout.startswith('[add {"a":20,"b":22} = 42]\ntool said: 42')
    assert '"total_tokens":' in execution.stdout
    assert execution.usage.requests == 2
    first, second = (request["json"] for request in fault_server.requests())
    assert [message["role"] for message in second["messages"]] == ["user", "assistant", "tool"]
    assert second["tools"] == first["tools"]


async def test_the_samples_offline():
    async with spear.open_runtime(config(stub())) as runtime:
        execution = await runtime.run_guest(sample("chat_stream"))
        assert (execution.exit_code, execution.stderr) == (0, "")
        assert "stub chat completion after tool" in execution.stdout
        execution = await runtime.run_guest(sample("capabilities"))
        assert execution.exit_code == 0
        told = dict(line.split(": ", 1) for line in execution.stdout.splitlines())
        assert told["abi"] == "1.1"
        assert told["before"] == "{}"
        assert json.loads(told["after"])["errno"] == -9


SEES = ["supports_stream", "supports_tools", "supports_system_role", "supports_image_input"]


async def test_parts_reach_the_server(fault_server):
    async with spear.open_runtime(config(backend(fault_server, features=SEES))) as runtime:
        execution = await runtime.run_guest(GUESTS, entry="chat_parts")
        assert json.loads(execution.stdout)["_spear"]["backend"] == fault_server.name
        execution = await runtime.run_guest(GUESTS, entry="chat_large_part")
        assert (execution.exit_code, "_spear" in execution.stdout) == (0, True), execution.stdout
    first, second = (request["json"]["messages"][0] for request in fault_server.requests())
    assert first == {
        "role": "user",
        "content": [
            {"type": "text", "text": "what is this?"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}},
            {"type": "text", "text": "and why?"},
        ],
    }
    url = second["content"][0]["image_url"]["url"]  # stored meanwhile, and in place again for the backend
    assert url == "data:image/png;base64," + "A" * 133_336


async def test_nobody_sees_or_streams(fault_server):
    blind = backend(fault_server, features=["supports_tools"])
    async with spear.open_runtime(config(blind)) as runtime:
        execution = await runtime.run_guest(GUESTS, entry="chat_parts")
        assert json.loads(execution.stdout)["error"]["message"].startswith("Operation not supported: ")
        execution = await runtime.run_guest(GUESTS, entry="stream_small")
    [event, metrics] = events_of(execution)
    assert (event["type"], event["error"]["code"]) == ("error", "missing_capabilities")
    assert "supports_stream" in event["error"]["required"]
    assert sum(event["error"]["rejected"].values()) == 1
    assert not event["error"]["retryable"]
    assert metrics == {}
    assert fault_server.counts()["total"] == 0


async def capabilities(config, task=None):
    async with spear.open_runtime(config) as runtime:
        execution = await runtime.run_guest(GUESTS, entry="capabilities", task=task)
    return json.loads(execution.stdout)


async def test_capabilities_are_what_the_task_may_use():
    backends = [
        stub("one", model_class="small-chat", model="secret-model", features=["supports_stream", "supports_tools"]),
        stub("two", model="bound", features=["supports_tools"]),
        stub("three", model="drained", weight=0, features=["only_three"]),
        {"name": "vectors", "kind": "hashed_ngrams", "hosting": "local", "model": "grams"},
    ]
    told = await capabilities(config(*backends))
    assert told["operations"] == ["chat_completions", "embeddings"]
    assert told["models"] == {"chat_completions": ["bound", "small-chat"], "embeddings": ["grams"]}
    assert told["features"]["chat_completions"] == ["supports_stream", "supports_tools"]
    assert sorted(told["features"]) == told["operations"]
    some = await capabilities(config(*backends), Task(id="t", allow_backends=("two", "vectors")))
    assert some["models"] == {"chat_completions": ["bound"], "embeddings": ["grams"]}
    assert some["features"]["chat_completions"] == ["supports_tools"]
    some = await capabilities(config(*backends), Task(id="t", allow_operations=(Operation.EMBEDDINGS,)))
    assert some["operations"] == ["embeddings"]
    some = await capabilities(config(*backends), Task(id="t", allow_operations=()))
    assert (some["operations"], some["models"], some["features"]) == ([], {}, {})
    some = await capabilities(
        {"spear": {**config(*backends)["spear"], "guests": {"families": ["img"], "module_cache": False}}}
    )
    assert some["operations"] == ["chat_completions"]
    text = json.dumps(told)
    assert not any(name in text for name in ("one", "three", "secret-model", "vectors"))
