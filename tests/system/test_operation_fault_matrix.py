"""What `test_fault_matrix.py` does for chat, for the other operations: each class of failure of the first backend, and
the second answers; what was tried, used, paid and settled, and that nothing stays open at the servers.
"""

from __future__ import annotations

import functools
from base64 import b64encode
from dataclasses import dataclass
from typing import Any

import pytest
import trio

import spear
from spear.ir import Completed, ErrorCode, Operation, RequestEnvelope, SpearError, TextToSpeechRequest, Usage
from spear.ir import SpeechToTextRequest as Recording
from tests.servers._operations import png, wav
from tests.spear.backends.test_openai_operations import inline
from tests.system.kit import backend, config, nothing_left
from tests.system.ledger import BUDGETS, NEVER_OPEN, RATES, settled

LIMIT = 30.0
PRICE = {"input": 1.0, "output": 2.0, "characters": 3.0, "image": 0.25, "audio_minute": 0.6}
OPERATIONS = ("embeddings", "image_generation", "speech_to_text", "text_to_speech")
BROKEN = ErrorCode.BACKEND_ERROR
FAULTS: dict[str, tuple[dict[str, Any], ErrorCode]] = {
    "500": ({"status": 500}, BROKEN),
    "429": ({"status": 429, "retry_after": 3600}, ErrorCode.RATE_LIMITED),
    "closed": ({"cut": "fin"}, BROKEN),
    "reset in the body": ({"cut": "rst", "cut_after": 3}, BROKEN),
    "hangs": ({"never": True}, ErrorCode.TIMEOUT),
    "another thing": ({"body": "[]"}, BROKEN),
    "HTML": ({"body": "<html>busy</html>", "content_type": "text/html"}, BROKEN),
}


@dataclass(frozen=True)
class Case:
    """`wrong`: an answer of another number or size than asked for. `reserved`: what a sent attempt of which nobody
    knows what it came to is counted as."""

    operation: str
    wrong: dict[str, Any]
    usage: Usage
    cost: float
    reserved: float
    stored: int = 0
    streamed: RequestEnvelope | None = None


SAID = "one two three"
HALF = f'{{"data":[{{"b64_json":"{b64encode(png(4, 4)).decode()}"}},{{"url":"http://127.0.0.1:1/x.png"}}]}}'
CASES = {
    "embed": Case(
        "embeddings",
        {"body": '{"data":[{"index":0,"embedding":[1,2]}],"usage":{"prompt_tokens":3}}'},
        Usage(input_tokens=3),
        3e-6,
        3e-6,
    ),
    "image": Case(
        "generations",
        {"body": HALF},
        Usage(input_tokens=2, output_tokens=100, images=2),
        0.5 + 202e-6,
        0.5 + 2e-6,
        2,
    ),
    "edit": Case(
        "edits",
        {"body": '{"data":[{}]}'},
        Usage(input_tokens=2, output_tokens=100, images=1),
        0.25 + 202e-6,
        0.25 + 2e-6,
        1,
    ),
    "transcribe": Case(
        "transcriptions",
        {"body": '{"txt":"x"}'},
        Usage(audio_seconds=2.0),
        0.02,
        0.0,
        0,
        RequestEnvelope(
            operation=Operation.SPEECH_TO_TEXT, task_id="t", payload=Recording(audio=inline(wav(2), "audio/wav"))
        ),
    ),
    "speak": Case(
        "speech",
        {"body_base64": ""},
        Usage(characters=len(SAID), estimated=True),
        39e-6,
        43e-6,
        1,
        RequestEnvelope(
            operation=Operation.TEXT_TO_SPEECH, task_id="t", payload=TextToSpeechRequest(input=SAID, format="wav")
        ),
    ),
}


def two(first, second):
    own = {
        "kind": "openai",
        "limits": RATES,
        "price": PRICE,
        "timeouts": {"first_event": 0.15, "total": 5},
    }
    return config(
        backend(first, "first", priority=0, **own),
        backend(second, "second", priority=1, **own),
        routes=[{"match": {"operation": each}, "policy": "priority"} for each in OPERATIONS],
        budgets=BUDGETS,
        health=NEVER_OPEN,
        retries={"per_instance": 1, "backoff_s": 0.01, "throttle_tokens": 1000, "budget_min": 1000},
    )


def asking(runtime, name):
    return {
        "embed": functools.partial(runtime.embed, ["one two", "three"]),
        "image": functools.partial(runtime.image, "a boat", n=2),
        "edit": functools.partial(runtime.image, "a boat", image=png(4, 4), mask=png(4, 4)),
        "transcribe": functools.partial(runtime.transcribe, wav(2)),
        "speak": functools.partial(runtime.speak, SAID, format="wav"),
    }[name]


async def answered(runtime, name, case, streamed):
    if not streamed:
        return (await asking(runtime, name)()).response
    async with runtime.stream(case.streamed) as events:
        last = [event async for event in events][-1]
    assert isinstance(last, Completed)
    return last.response


HOW = [(name, streamed) for name, case in CASES.items() for streamed in (False, True) if not streamed or case.streamed]


@pytest.mark.parametrize(("name", "streamed"), HOW, ids=lambda value: "streamed" if value is True else value or "plain")
async def test_the_next_backend_answers(fault_servers, ledgers, name, streamed):
    case = CASES[name]
    first, second = fault_servers(), fault_servers()
    faults = {**FAULTS, "wrong count": (case.wrong, BROKEN)}
    paid = 0.0
    with trio.fail_after(LIMIT):
        async with nothing_left(), spear.open_runtime(two(first, second)) as runtime:
            for what, (script, code) in faults.items():
                if streamed and "cut_after" in script:
                    script = {**script, "cut_after": 0}  # later it could not be asked elsewhere
                first.script(operation=case.operation, times=None, **script)
                response = await answered(runtime, name, case, streamed)
                told = [(each.backend, each.outcome, each.error_code) for each in response.backend.attempts]
                found = code if told[0][2] is not ErrorCode.STREAM_TRUNCATED or not streamed else told[0][2]
                assert told == [("first", "failed", found), ("second", "ok", None)], what
                used = response.usage
                assert used.cost == pytest.approx(case.cost), what
                assert used.model_copy(update={"cost": None, "extra": {}}) == case.usage, what
                paid += used.cost + (0 if code is ErrorCode.RATE_LIMITED else case.reserved)
                await first.until(open=0)
            assert runtime.media.files.account.total.objects == len(faults) * case.stored, "of failures nothing stays"
            await settled(runtime, ledgers, first, second)
            money = [each for each in ledgers.made if each.quota.subject.startswith("budget:money")]
            assert [each.used for each in money] == [pytest.approx(paid)]
            second.script(operation=case.operation, times=None, status=500)
            first.script(operation=case.operation, times=None, status=500)
            with pytest.raises(SpearError) as caught:
                await answered(runtime, name, case, streamed)
            assert [each.backend for each in caught.value.error.attempts] == ["first", "second"]
            await settled(runtime, ledgers, first, second)
            assert [each.used for each in money] == [pytest.approx(paid + 2 * case.reserved)]
    for server in (first, second):
        await server.until(open=0, connections_open=0)
    assert (
        len(faults) < first.counts()["total"] <= len(faults) + 2
    )  # a connection that was kept and closed is no attempt


async def test_two_images_and_place_for_one(fault_server):
    source = config(backend(fault_server, "it", kind="openai"), media={"max_objects": 1})
    with trio.fail_after(LIMIT):
        async with spear.open_runtime(source) as runtime:
            with pytest.raises(SpearError) as caught:
                await runtime.image("a boat", n=2)
            assert caught.value.code is ErrorCode.MEDIA_TOO_LARGE
            assert runtime.media.files.account.total.objects == 0
            assert len(await (await runtime.image("a boat")).load()) == 1
