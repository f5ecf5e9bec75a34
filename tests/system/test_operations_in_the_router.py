"""Hedges, mirrors, probes, rates and reloads with the other operations than chat, at real servers."""

from __future__ import annotations

import pytest
import trio

import spear
from spear.config import load_config
from spear.ir import Completed, ConfigError, Operation, RequestEnvelope, TextToSpeechRequest
from tests.servers._operations import vector, wav
from tests.system.kit import backend, config, nothing_left, until_true
from tests.system.test_probes_of_servers import QUICK

LIMIT = 20.0
ALL = ("embeddings", "image_generation", "speech_to_text", "text_to_speech")


def openai(server, name="", **more):
    return backend(server, name, kind="openai", **more)


def objects(runtime):
    return runtime.media.files.account.total.objects


def hedged(first, second, operation):
    hedge = {"max_extra_load": 1.0, "delay": 0.05}
    route = {"match": {"operation": operation}, "policy": "priority", "hedge": hedge}
    return config(openai(first, "first", priority=0), openai(second, "second", priority=1), routes=[route])


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_two_voices_race_and_the_loser_leaves_nothing(fault_servers, streamed):
    slow, well = fault_servers(), fault_servers()
    slow.script(times=None, operation="speech", drip={"bytes": 256, "every": 0.05}, body_delay=0.3)
    said = RequestEnvelope(
        operation=Operation.TEXT_TO_SPEECH, payload=TextToSpeechRequest(input="hello you", format="wav")
    )
    with trio.fail_after(LIMIT):
        async with nothing_left(), spear.open_runtime(hedged(slow, well, "text_to_speech")) as runtime:
            for number in range(1, 6):
                if streamed:
                    async with runtime.stream(said) as events:
                        last = [event async for event in events][-1]
                    assert isinstance(last, Completed)
                    response = last.response
                else:
                    response = await runtime.invoke(said)
                tried = [(each.backend, each.reason, each.outcome) for each in response.backend.attempts]
                assert tried == [("first", "chosen", "superseded"), ("second", "hedge", "ok")]
                sound = await runtime.media.load(response.unwrap().audio, task_id=None)
                assert sound.data == wav(0.05 * 9)
                assert objects(runtime) == number, "what the loser wrote is thrown away"
            await slow.until(open=0, aborted=5)
    await well.until(open=0, connections_open=0)


@pytest.mark.parametrize("operation", ["embeddings", "speech_to_text"])
async def test_the_others_race_too(fault_servers, operation):
    hung, well = fault_servers(), fault_servers()
    hung.script(times=None, never=True, operation={"speech_to_text": "transcriptions"}.get(operation, operation))
    with trio.fail_after(LIMIT):
        async with nothing_left(), spear.open_runtime(hedged(hung, well, operation)) as runtime:
            if operation == "embeddings":
                reply = await runtime.embed(["a", "b"])
                assert reply.vectors == (tuple(vector("a", 8)), tuple(vector("b", 8)))
            else:
                reply = await runtime.transcribe(wav(0.1))
                assert reply.text.endswith("bytes of audio/wav called audio.wav")
            assert [each.outcome for each in reply.response.backend.attempts] == ["superseded", "ok"]
        await hung.until(open=0, aborted=1, connections_open=0)


def test_images_are_not_made_twice():
    source = {"spear": {"backends": [{"name": "a", "kind": "prompt_card", "hosting": "local"}]}}
    source["spear"]["routes"] = [{"match": {"operation": "image_generation"}, "hedge": {"delay": "1s"}}]
    with pytest.raises(ConfigError, match="image_generation is never hedged; take it out"):
        load_config(source, environ={})


async def test_every_operation_is_mirrored_and_what_a_mirror_makes_is_not_kept(fault_servers):
    primary, mirror = fault_servers(), fault_servers()
    source = config(
        openai(primary, "primary", price={"image": 1, "characters": 2}),
        openai(mirror, "mirror", model="other", weight=0, price={"image": 3, "characters": 4}),
        routes=[{"mirror": {"to": "mirror", "percent": 100}}],
        mirrors={"requests_per_minute": 100_000, "max_cost_per_hour": 1000},
    )
    with trio.fail_after(LIMIT):
        async with nothing_left(), spear.open_runtime(source) as runtime:
            await runtime.embed(["a", "b"])
            await runtime.image("a boat", n=2)
            await runtime.transcribe(wav(0.1))
            await runtime.speak("hello", format="wav")
            await until_true(lambda: len(runtime.mirrors()) == 4)
            told = {each["operation"]: each for each in runtime.mirrors()}
            assert objects(runtime) == 3, "two images and a recording of the primary's"
        assert set(told) == set(ALL)
        for each in told.values():
            assert (each["primary_outcome"], each["mirror_outcome"], each["compared"]) == ("ok", "ok", True)
        assert told["speech_to_text"]["text_similarity"] == 1
        assert "text_similarity" not in told["embeddings"]
        assert told["image_generation"]["cost_difference"] == pytest.approx(4)
        await mirror.until(open=0, completed=4)


async def test_an_instance_of_embeddings_is_probed_by_embeddings(fault_server):
    probe = {"every": 0.1, "timeout": 0.3}
    source = config(openai(fault_server, "vectors", ops=["embeddings"], probe=probe), health=QUICK)

    def state():
        return runtime.backends()[0]["state"]

    fault_server.script(times=None, operation="embeddings", status=503)
    with trio.fail_after(LIMIT):
        async with nothing_left(), spear.open_runtime(source) as runtime:
            await until_true(lambda: state() == "breaker_open")
            fault_server.script(times=None, operation="embeddings")
            await until_true(lambda: state() == "running")
            assert (await runtime.embed("a")).vectors == (tuple(vector("a", 8)),)
    probes = fault_server.requests()
    assert {each["path"] for each in probes} == {"/v1/embeddings"}
    assert {str(each["json"]["input"]) for each in probes} <= {"['ping']", "['a']"}


def test_a_voice_cannot_be_probed():
    source = config({
        "name": "voice", "kind": "espeak", "hosting": "local", "probe": {"every": "1s"}, "model": "m",
    })  # fmt: skip

    async def opened():
        async with spear.open_runtime(source):
            raise AssertionError

    with pytest.raises(ConfigError, match="only chat_completions and embeddings can be probed"):
        trio.run(opened)


async def test_a_batch_in_several_calls_is_one_request_of_the_rate_and_all_its_tokens(fault_server):
    source = config(openai(fault_server, "it", limits={"max_batch": 2, "rpm": 3, "input_tpm": 100}))
    texts = ["one two three four"] * 5
    with trio.fail_after(LIMIT):
        async with spear.open_runtime(source) as runtime:
            reply = await runtime.embed(texts)
            assert reply.response.usage.input_tokens == 20
            assert len(reply.vectors) == 5
            assert fault_server.counts()["total"] == 3
            left = runtime.usage()["backends"]["it"]
    sizes = [len(each["json"]["input"]) for each in fault_server.requests()]
    assert sizes == [2, 2, 1]
    assert left["limit:rpm"] == pytest.approx(2, abs=0.3), left
    assert left["limit:input_tpm"] == pytest.approx(80, abs=5), left


async def test_a_reload_with_another_batch_size(fault_server):
    def of(size):
        return config(openai(fault_server, "it", limits={"max_batch": size}))

    replies = []
    with trio.fail_after(LIMIT):
        async with spear.open_runtime(of(1)) as runtime:
            fault_server.script(times=4, operation="embeddings", delay=0.1)

            async def ask():
                replies.append(await runtime.embed(["a", "b", "c", "d"]))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask)
                await fault_server.until(open=1)
                await runtime.reload(of(3))
                nursery.start_soon(ask)
    expected = tuple(tuple(vector(text, 8)) for text in "abcd")
    assert [reply.vectors for reply in replies] == [expected, expected]
    sizes = [len(each["json"]["input"]) for each in fault_server.requests()]
    assert sorted(sizes) == [1, 1, 1, 1, 1, 3], "the old ones went on as they had begun"
    await fault_server.until(open=0, connections_open=0)


async def test_an_answer_that_comes_too_late_is_not_kept(fault_servers):
    """Both answer at about the same time, so that the slower one is at any of its last steps when it has lost."""
    first, second = fault_servers(), fault_servers()
    first.script(times=None, operation="speech", delay=0.07)
    second.script(times=None, operation="speech", delay=0.02)
    with trio.fail_after(LIMIT):
        async with spear.open_runtime(hedged(first, second, "text_to_speech")) as runtime:
            for number in range(1, 31):
                reply = await runtime.speak("hello you", format="wav")
                assert await reply.load() == wav(0.05 * 9)
                assert objects(runtime) == number
