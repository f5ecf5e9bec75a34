"""Every operation from Python and from the command line, at a server over real sockets and on the embedded backends."""

from __future__ import annotations

import json
import re
import signal
import subprocess

import numpy
import pytest
import trio

import spear as library
from spear.ir import AudioDelta, BackendError, Completed, Operation, RequestEnvelope, TextToSpeechRequest
from spear.normalize import seen_type
from tests.servers._operations import png, wav
from tests.spear.cli.command import COMMAND, catches, environment, openai_backend, spear, toml
from tests.system.test_cli_terminal import Terminal

LIMIT = 30.0


def everything(server) -> dict[str, object]:
    one = {"name": "all", "kind": "openai", "hosting": "local", "base_url": server.base_url, "model": "m"}
    return {"spear": {"backends": [one]}}


@pytest.fixture
def here(tmp_path, fault_server):
    one = openai_backend(fault_server.base_url).replace('"openai_chat"', '"openai"')
    (tmp_path / "spear.toml").write_text(toml(one))
    (tmp_path / "said.wav").write_bytes(wav(0.5))
    (tmp_path / "old.png").write_bytes(png(32, 32))
    return tmp_path


async def test_python_at_a_server(fault_server):
    with trio.fail_after(LIMIT):
        async with library.open_runtime(everything(fault_server)) as runtime:
            vectors = (await runtime.embed(["one", "two"], dimensions=8)).vectors
            assert [len(vector) for vector in vectors] == [8, 8]
            packed = (await runtime.embed(["one", "two"], dimensions=8, encoding_format="base64")).vectors
            assert packed == vectors  # the server's numbers fit 32 bits
            (drawn,) = await (await runtime.image("a boat", size="64x64")).load()
            assert seen_type(drawn) == "image/png"
            (changed,) = await (await runtime.image("a ship", image=drawn, mask=drawn)).load()
            assert seen_type(changed) == "image/png"
            said = await runtime.speak("hello there", voice="alloy", format="wav")
            sound = await said.load()
            assert seen_type(sound) == "audio/wav"
            heard = await runtime.transcribe(sound, timestamps="segment")
            assert heard.text
            assert heard.segments
            assert (await runtime.transcribe(said.audio, translate=True)).text
            content = [{"type": "text", "text": "what?"}, {"type": "image", "media": drawn}]
            assert (await runtime.chat(messages=[{"role": "user", "content": content}])).text
    assert [request["path"].removeprefix("/v1/") for request in fault_server.requests()] == [
        "embeddings", "embeddings", "images/generations", "images/edits", "audio/speech", "audio/transcriptions",
        "audio/translations", "chat/completions",
    ]  # fmt: skip
    await fault_server.until(open=0)


async def test_a_failure_is_raised_and_a_caller_that_leaves_closes_the_socket(fault_server):
    calls = {
        "embeddings": lambda runtime: runtime.embed("a"),
        "generations": lambda runtime: runtime.image("a"),
        "transcriptions": lambda runtime: runtime.transcribe(wav(0.5)),
        "speech": lambda runtime: runtime.speak("a"),
    }
    source = everything(fault_server)
    source["spear"]["retries"] = {"per_instance": 1}
    with trio.fail_after(LIMIT):
        async with library.open_runtime(source) as runtime:
            for operation, call in calls.items():
                fault_server.reset()
                fault_server.script(status=400, operation=operation)
                with pytest.raises(BackendError):
                    await call(runtime)
                fault_server.script(never=True, operation=operation)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(call, runtime)
                    await fault_server.until(open=1, total=2)
                    nursery.cancel_scope.cancel()
                await fault_server.until(open=0)


async def test_a_stream_of_speech_at_a_server(fault_server):
    request = RequestEnvelope(
        operation=Operation.TEXT_TO_SPEECH, payload=TextToSpeechRequest(input="hello there", format="wav")
    )
    with trio.fail_after(LIMIT):
        async with library.open_runtime(everything(fault_server)) as runtime, runtime.stream(request) as events:
            told = [event async for event in events]
    assert any(isinstance(event, AudioDelta) for event in told)
    assert isinstance(told[-1], Completed)


def test_the_command_line_at_a_server(here, fault_server):
    done = spear("embed", "one", "two", "-o", "v.npy", cwd=here)
    assert (done.code, done.out) == (0, "")
    assert numpy.load(here / "v.npy").shape[0] == 2
    done = spear("image", "a boat", "-o", "boat.png", "--size", "64x64", cwd=here)
    assert done.code == 0
    assert done.err.startswith("spear: boat.png: ")
    assert seen_type((here / "boat.png").read_bytes()) == "image/png"
    assert spear("image", "x", "-o", "new.png", "--image", "old.png", "--mask", "old.png", cwd=here).code == 0
    done = spear("say", "hello", "-o", "hello.wav", cwd=here)
    assert done.code == 0
    assert seen_type((here / "hello.wav").read_bytes()) == "audio/wav"
    for arguments in ((), ("--translate",), ("--format", "srt"), ("--timestamps", "word")):
        done = spear("transcribe", "said.wav", *arguments, cwd=here)
        assert (done.code, done.err) == (0, "")
        assert done.out.strip()
    done = spear("chat", "what?", "--image", "old.png", cwd=here)
    assert done.code == 0
    sent = json.loads(fault_server.requests()[-1]["body"])["messages"][0]["content"]
    assert [part["type"] for part in sent] == ["text", "image_url"]


async def test_at_a_terminal_the_answer_does_not_run_into_the_progress_line(here, fault_server):
    fault_server.script(operation="transcriptions", delay=1.6)
    with Terminal(here, "transcribe", "said.wav") as terminal:
        await terminal.shows("listening")
        assert await terminal.ended() == 0
    last = terminal.seen.rpartition("listening")[2]
    assert re.fullmatch(r" · \d+ s\r\x1b\[K[^\x1b]+\r\n", last), last


def started(here, arguments):
    pipe = subprocess.PIPE
    return subprocess.Popen([*COMMAND, *arguments], cwd=here, env=environment(), stdout=pipe, stderr=pipe)


@pytest.mark.parametrize(
    ("operation", "arguments"),
    [("speech", ("say", "a", "-o", "a.wav")), ("transcriptions", ("transcribe", "said.wav"))],
)
async def test_an_interrupted_command_leaves_nothing(here, fault_server, operation, arguments):
    fault_server.script(never=True, operation=operation)
    process = started(here, arguments)
    try:
        await fault_server.until(limit=20, open=1)
        assert catches(process.pid, signal.SIGINT)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        out, err = await trio.to_thread.run_sync(process.communicate)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, out) == (130, b"")
    assert b"Traceback" not in err
    await fault_server.until(open=0)
    assert not (here / "a.wav").exists()
    assert [path.name for path in here.iterdir() if path.name.endswith(".part")] == []
