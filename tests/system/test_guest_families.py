"""Embeddings, images and speech of real guests: on the embedded backends, and at a server over real sockets."""

from __future__ import annotations

import base64
import json
from contextlib import asynccontextmanager

import pytest
import trio

import spear
from spear.config import TaskConfig
from spear.guests import path as sample
from spear.hostcall import Termination
from tests.spear.hostcall.operations import ASYNC, STREAM, ask_json, new_request, set_param
from tests.spear.hostcall.probe import open_probe
from tests.system.kit import config, nothing_left, stub, until_true

EMBEDDED = config(
    stub(),
    {"name": "vectors", "kind": "hashed_ngrams", "hosting": "local"},
    {"name": "card", "kind": "prompt_card", "hosting": "local"},
    {"name": "voice", "kind": "espeak", "hosting": "local"},
    {"name": "ears", "kind": "pocketsphinx", "hosting": "local"},
)
TASK = TaskConfig(id="agent")


def everything(server, **more):
    one = {"name": "all", "kind": "openai", "hosting": "local", "base_url": server.base_url, "model": "m"}
    return config({**one, **more})


@asynccontextmanager
async def guest_of(source):
    async with (
        spear.open_runtime(source) as runtime,
        open_probe(operations=runtime._operations(TASK, "exec-1")) as probe,
    ):
        yield probe


async def run(source, guest):
    with trio.fail_after(60):
        async with spear.open_runtime(source) as runtime:
            execution = await runtime.run_guest(sample(guest), timeout_s=50)
    assert (execution.status, execution.exit_code) == ("completed", 0), execution
    return execution


async def test_the_samples_on_embedded_backends():
    embed = await run(EMBEDDED, "embed")
    assert "  The cat sleeps on the warm sofa.\n  A cat is asleep on the sofa.\n" in embed.stdout
    image = await run(EMBEDDED, "image")
    assert image.stdout.startswith("image/png of ")
    assert image.stdout.endswith(", a real PNG\n")
    speech = await run(EMBEDDED, "speech")
    said, heard = speech.stdout.splitlines()
    assert said == "said:  one two three four five"
    assert "three four five" in heard  # it is no good recognizer: "well two …"


async def test_four_operations_at_once_in_one_loop():
    execution = await run(EMBEDDED, "four_at_once")
    lines = execution.stdout.splitlines()
    assert sorted(lines[:4]) == ["chat done", "embeddings done", "image done", "speech done"]
    assert lines[4].endswith(" events of the chat")
    assert int(lines[4].split()[0]) >= 4
    assert execution.usage.requests == 4


async def test_the_samples_at_a_server(fault_server):
    source = everything(fault_server)
    for guest in ("embed", "image", "speech", "four_at_once"):
        fault_server.reset()
        execution = await run(source, guest)
        asked = [request["path"] for request in fault_server.requests()]
        match guest:
            case "embed":
                assert asked == ["/v1/embeddings"]
            case "image":
                assert asked == ["/v1/images/generations"]
                assert execution.stdout.endswith(", a real PNG\n")
            case "speech":
                assert asked == ["/v1/audio/speech", "/v1/audio/transcriptions"]
                assert "heard: " in execution.stdout
            case _:
                assert sorted(asked) == [
                    "/v1/audio/speech",
                    "/v1/chat/completions",
                    "/v1/embeddings",
                    "/v1/images/generations",
                ]
        await fault_server.until(open=0)


OPERATIONS = {"emb": "embeddings", "img": "generations", "asr": "transcriptions", "tts": "speech"}


@pytest.mark.parametrize(
    ("family", "flags"), [*((each, ASYNC) for each in OPERATIONS), ("asr", STREAM), ("tts", STREAM)]
)
async def test_closing_the_response_closes_the_servers_socket(fault_server, family, flags):
    fault_server.script(never=True, operation=OPERATIONS[family])
    async with nothing_left(), guest_of(everything(fault_server)) as probe:
        fd = await new_request(probe, family)
        response = await probe.call(f"{family}_send", fd, flags)
        await fault_server.until(open=1)
        await probe.call(f"{family}_close", response)
        await fault_server.until(open=0, aborted=1)
        assert probe.guest.requests.in_flight == 0


async def test_the_end_of_a_guest_closes_all_its_sockets(fault_server):
    for operation in OPERATIONS.values():
        fault_server.script(never=True, operation=operation)
    async with nothing_left(), spear.open_runtime(everything(fault_server)) as runtime:
        async with open_probe(operations=runtime._operations(TASK, "exec-1")) as probe:
            for family in OPERATIONS:
                assert await probe.call(f"{family}_send", await new_request(probe, family), ASYNC) > 0
            await fault_server.until(open=4)
        await fault_server.until(open=0)


@pytest.mark.parametrize(("name", "requests"), [("embed", 1), ("four_at_once", 4)])
async def test_a_terminated_guest_leaves_nothing_behind(fault_server, name, requests):
    fault_server.script(never=True, operation="embeddings")
    async with nothing_left(), spear.open_runtime(everything(fault_server)) as runtime:
        handle, seen = Termination(), []
        async with trio.open_nursery() as nursery:

            async def guest():
                seen.append(await runtime.run_guest(sample(name), handle=handle))

            nursery.start_soon(guest)
            await fault_server.until(open=1)
            await until_true(lambda: fault_server.counts()["total"] == requests)
            handle.terminate("enough")
        assert seen[0].status == "terminated"
        await fault_server.until(open=0)


@pytest.mark.parametrize("flags", [0, ASYNC, STREAM])
async def test_a_deadline_closes_the_socket_and_says_so(fault_server, flags):
    fault_server.script(never=True, operation="speech")
    async with guest_of(everything(fault_server)) as probe:
        fd = await new_request(probe, "tts")
        assert await set_param(probe, "tts", fd, "timeout_ms", 100) == 0
        response = await probe.call("tts_send", fd, flags)
        await until_true(lambda: probe.guest.requests.in_flight == 0)
        told = await ask_json(probe, "tts_recv", response)
        assert told["error"]["code"] == "timeout"
        await fault_server.until(open=0)


@pytest.mark.parametrize("status", [400, 401, 429, 500])
async def test_what_a_server_refuses_is_an_error_object(fault_server, status, monkeypatch):
    monkeypatch.setenv("FAMILY_KEY", "sk-very-secret-very-long-key-0123456789")
    fault_server.script(times=None, status=status, leak_key=True, operation="embeddings")
    source = everything(fault_server, credentials=["key"])
    source["spear"]["credentials"] = [{"name": "key", "env": "FAMILY_KEY"}]
    async with guest_of(source) as probe:
        for flags in (0, ASYNC):
            fd = await new_request(probe, "emb")
            assert await set_param(probe, "emb", fd, "timeout_ms", 3000) == 0
            response = await probe.call("emb_send", fd, flags)
            await until_true(lambda: probe.guest.requests.in_flight == 0)
            body = await ask_json(probe, "emb_recv", response)
            error = body["error"]
            assert set(error) == {
                *("attempts", "code", "message", "operation", "rejected", "required", "retry_after_ms", "retryable")
            }
            assert error["operation"] == "embeddings"
            text = json.dumps(body)
            assert "very-long-key" not in text
            assert "127.0.0.1" not in text


async def test_a_streamed_speech_comes_in_pieces_and_as_an_object(fault_server):
    async with guest_of(everything(fault_server)) as probe:
        fd = await new_request(probe, "tts", "one two three four")
        response = await probe.call("tts_send", fd, STREAM | 1)
        epfd = await probe.call("spear_epoll_create")
        await probe.watch(epfd, response, 0x1D)
        events, sound = [], b""
        with trio.fail_after(10):
            while not events or events[-1]["type"] not in {"completed", "error"}:
                assert await probe.wait(epfd, 5000) == [(response, 1)]
                raw = await probe.out("tts_recv", response, at=16_384, capacity=110_000)
                assert isinstance(raw, bytes)
                events.append(json.loads(raw))
                if events[-1]["type"] == "audio_delta":
                    piece = base64.b64decode(events[-1]["audio"], validate=True)
                    assert 0 < len(piece) <= 65_536
                    sound += piece
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        assert (events[0]["type"], events[-1]["type"]) == ("started", "completed")
        assert await probe.wait(epfd) == [(response, 1 | 16)]
        audio = events[-1]["response"]["audio"]
        assert audio["size"] == len(sound)
        reading = await probe.call("media_open", *probe.put(256, audio["uri"]))
        stored = b""
        while piece := await probe.out("media_read", reading, at=16_384):
            stored += piece
        assert stored == sound
