"""Every operation from Python and from the command line, through all layers, to a server of OpenAI's dialect."""

from __future__ import annotations

import base64
import functools
import json
from pathlib import Path
from typing import Any

import pytest
import trio

import spear
from spear.ir import (
    AudioDelta,
    Completed,
    ErrorCode,
    Operation,
    RequestEnvelope,
    SpearError,
    StoredMedia,
    TextToSpeechRequest,
)
from tests.servers._operations import png, vector, wav
from tests.servers.fault_server import FaultServer
from tests.spear.cli.command import openai_backend
from tests.spear.cli.command import spear as command
from tests.system.kit import backend, chat, config

LIMIT = 20.0


def all_of_it(server: FaultServer, **more: Any) -> dict[str, Any]:
    return config(backend(server, kind="openai", **more))


async def test_all_operations_in_python(fault_server: FaultServer) -> None:
    with trio.fail_after(LIMIT):
        async with spear.open_runtime(all_of_it(fault_server)) as runtime:
            embedded = await runtime.embed(["one", "two"], dimensions=4)
            assert embedded.vectors == (tuple(vector("one", 4)), tuple(vector("two", 4)))

            drawn = await runtime.image("a red disc", size="16x16")
            (picture,) = drawn.images
            assert isinstance(picture, StoredMedia)
            assert (await runtime.media.load(picture, task_id=None)).data.startswith(b"\x89PNG")

            redrawn = await runtime.image("now blue", image=png(8, 8))
            assert len(redrawn.images) == 1

            said = await runtime.speak("hello you", voice="verse", format="wav")
            assert (await runtime.media.load(said.audio, task_id=None)).data == wav(0.05 * 9)

            heard = await runtime.transcribe(said.audio, language="de")
            assert heard.text == f"{len(wav(0.45))} bytes of audio/wav called audio.wav in de"
            translated = await runtime.transcribe(wav(0.1), translate=True)
            assert translated.text.startswith("translated ")

            parts = [{"type": "image", "media": png(2, 2)}, {"type": "text", "text": "what is this?"}]
            seen = await runtime.chat(messages=[{"role": "user", "content": parts}])  # type: ignore[dict-item,list-item]
            assert seen.response.backend is not None
    sent = fault_server.requests()[-1]["json"]["messages"][0]["content"][0]
    assert base64.b64decode(sent["image_url"]["url"].partition(",")[2]) == png(2, 2)
    await fault_server.until(open=0, connections_open=0)


async def test_speech_as_it_comes(fault_server: FaultServer) -> None:
    payload = TextToSpeechRequest(input="hello you", format="wav")
    request = RequestEnvelope(operation=Operation.TEXT_TO_SPEECH, payload=payload)
    with trio.fail_after(LIMIT):
        async with spear.open_runtime(all_of_it(fault_server)) as runtime:
            async with runtime.stream(request) as events:
                told = [event async for event in events]
            assert isinstance(told[-1], Completed)
            audio = told[-1].response.result.payload.audio  # type: ignore[union-attr]
            stored = await runtime.media.load(audio, task_id=None)
    heard = b"".join(base64.b64decode(event.audio) for event in told if isinstance(event, AudioDelta))
    assert heard == stored.data == wav(0.05 * 9)


async def test_a_consumer_sees_its_cancellation_between_two_events_that_are_there(fault_server: FaultServer) -> None:
    with trio.fail_after(LIMIT):
        async with spear.open_runtime(all_of_it(fault_server)) as runtime:
            async with runtime.stream(chat(" ".join(map(str, range(50))))) as events:
                await anext(events)
                await trio.sleep(0.2)  # several wait by now
                got = 0
                with trio.CancelScope() as scope:
                    scope.cancel()
                    async for _ in events:
                        got += 1
                assert (got, scope.cancelled_caught) == (0, True)
            await fault_server.until(open=0)


@pytest.mark.parametrize(
    ("operation", "script", "says"),
    [
        ("embeddings", {"body": '{"data":[{"embedding":[1,null]}]}'}, "no number"),
        ("generations", {"body": '{"data":[{"b64_json":"bm8="}]}'}, "neither PNG nor JPEG nor WebP"),
        ("generations", {"body": '{"data":[{"url":"http://127.0.0.1:1/x.png"}]}'}, "cannot be fetched"),
        ("speech", {"cut": "fin", "cut_after": 2000}, "connection was closed"),
    ],
)
async def test_an_answer_that_cannot_be_used_goes_to_the_next_backend(
    fault_servers: Any, operation: str, script: dict[str, Any], says: str
) -> None:
    first, second = fault_servers(), fault_servers()
    operations = ("embeddings", "image_generation", "text_to_speech")
    both = config(
        backend(first, "first", kind="openai", priority=0),
        backend(second, "second", kind="openai", priority=1),
        routes=[{"match": {"operation": name}, "policy": "priority"} for name in operations],
    )
    first.script(operation=operation, times=None, **script)
    with trio.fail_after(LIMIT):
        async with spear.open_runtime(both) as runtime:
            ask = {
                "embeddings": functools.partial(runtime.embed, "x"),
                "generations": functools.partial(runtime.image, "x"),
                "speech": functools.partial(runtime.speak, "x y z, and so on", format="wav"),
            }[operation]
            answer = await ask()
            info = answer.response.backend
            assert info is not None
            assert (info.name, [attempt.outcome for attempt in info.attempts]) == ("second", ["failed", "ok"])
            second.script(operation=operation, times=None, **script)
            with pytest.raises(SpearError) as caught:
                await ask()
            assert caught.value.code == ErrorCode.BACKEND_ERROR
            assert says in str(caught.value)
    for server in (first, second):
        await server.until(open=0, connections_open=0)


def test_all_operations_on_the_command_line(fault_server: FaultServer, tmp_path: Path) -> None:
    text = openai_backend(fault_server.base_url).replace('"openai_chat"', '"openai"')
    (tmp_path / "spear.toml").write_text(text, encoding="utf-8")
    run = functools.partial(command, cwd=tmp_path)
    embedded = run("embed", "one", "-d", 3)
    assert (embedded.code, json.loads(embedded.out)) == (0, vector("one", 3))
    drawn = run("image", "a red disc", "--out", "disc.png")
    assert drawn.code == 0, drawn.err
    assert (tmp_path / "disc.png").read_bytes().startswith(b"\x89PNG")
    said = run("say", "hello you", "--out", "said.wav")
    assert said.code == 0, said.err
    assert (tmp_path / "said.wav").read_bytes() == wav(0.05 * 9)
    heard = run("transcribe", "said.wav")
    assert heard.code == 0, heard.err
    assert "bytes of audio/wav" in heard.out
    seen = run("chat", "what is this?", "--image", "disc.png")
    assert seen.code == 0, seen.err
    assert "echo: what is this?" in seen.out
