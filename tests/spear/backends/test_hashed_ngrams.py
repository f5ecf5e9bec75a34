from __future__ import annotations

import base64
import hashlib
import math
import struct
import time
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("numpy")

from spear.backends.hashed_ngrams._vectors import SLICE, embed, slices
from spear.ir import CallerError, EmbeddingsRequest, EmbeddingsResult, ImageRequest, RoutingError

from .local_kit import CALL, local, request, wrong_options


async def vectors(*texts: str, options: dict[str, Any] | None = None, **fields: Any) -> list[tuple[float, ...]]:
    async with local("hashed_ngrams", **(options or {})) as adapter:
        answer = await adapter.invoke(request(EmbeddingsRequest(input=texts, **fields)), CALL)
    assert isinstance(answer.payload, EmbeddingsResult)
    assert EmbeddingsResult.model_validate(answer.payload.model_dump()) == answer.payload, "made without checks"
    if answer.payload.base64 is not None:
        return [struct.unpack(f"<{answer.payload.dimensions}f", base64.b64decode(v)) for v in answer.payload.base64]
    return list(answer.payload.vectors or ())


def cosine(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


async def test_shared_wording_is_near() -> None:
    fox, foxes, car, empty, signs = await vectors(
        "The quick brown fox jumps", "the quick brown foxes jump!", "an automobile sleeps here", "", "!?"
    )
    assert cosine(fox, foxes) > 0.6
    assert abs(cosine(fox, car)) < 0.35
    for vector in (fox, foxes, car, empty, signs):
        assert math.isclose(math.hypot(*vector), 1.0, abs_tol=1e-5)
        assert len(vector) == 256


async def test_the_same_everywhere() -> None:
    """The digest was computed once; another machine or version that disagrees is wrong."""
    text = "Grüße, Welt! 你好 world " * 3
    (vector,) = await vectors(text, encoding_format="base64")
    digest = hashlib.sha256(struct.pack("<256f", *vector)).hexdigest()
    assert digest == "975f3835365b0c9f51987e4ebd30f61d4b2df53b8f6a018ef9e6681e5c680e87"
    assert (await vectors(text))[0] == vector, "both encodings say the same numbers"


async def test_dimensions() -> None:
    assert [len(v) for v in await vectors("a", "b", dimensions=16)] == [16, 16]
    assert len((await vectors("a", options={"dimensions": 1024}))[0]) == 1024
    assert "from 16 to 2048" in wrong_options("hashed_ngrams", dimensions=8)
    assert wrong_options("hashed_ngrams", dims=8) == "options.dims: unknown; hashed_ngrams has dimensions"


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (EmbeddingsRequest(input=("x",) * 100_000), "100000 texts; hashed_ngrams takes at most 2048"),
        (EmbeddingsRequest(input=("x" * 10_000_001,)), "10000001 characters"),
        (EmbeddingsRequest(input=("x",) * 2048, dimensions=2048), "numbers"),
        (EmbeddingsRequest(input=("x",), dimensions=4096), "dimensions: is 4096; hashed_ngrams does 16 to 2048"),
        (EmbeddingsRequest(input=()), "input: is empty"),
    ],
)
async def test_what_is_too_much(payload: EmbeddingsRequest, says: str) -> None:
    async with local("hashed_ngrams") as adapter:
        with pytest.raises(CallerError, match=says):
            await adapter.invoke(request(payload), CALL)


async def test_another_operation() -> None:
    async with local("hashed_ngrams") as adapter:
        with pytest.raises(RoutingError, match="embeddings only"):
            await adapter.invoke(request(ImageRequest(prompt="x")), CALL)


async def test_a_long_text_leaves_the_loop_alone_and_can_be_left() -> None:
    """Of the pauses of the loop, the median: single ones belong to the machine."""
    gaps: list[float] = []

    async def watch() -> None:
        while True:
            before = time.perf_counter()
            await trio.sleep(0.001)
            gaps.append(time.perf_counter() - before)

    async with local("hashed_ngrams") as adapter, trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        with trio.fail_after(30):
            await adapter.invoke(request(EmbeddingsRequest(input=("words and more words " * 50_000,))), CALL)
        assert len(gaps) > 5, "it was in the loop all the time"
        assert sorted(gaps)[len(gaps) // 2] < 0.05
        began = time.perf_counter()
        with trio.move_on_after(0.05) as scope:
            await adapter.invoke(request(EmbeddingsRequest(input=("words and more words " * 450_000,))), CALL)
        assert scope.cancelled_caught
        assert time.perf_counter() - began < 0.5, "the thread went on"
        nursery.cancel_scope.cancel()


async def test_many_short_texts_leave_the_loop_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """They have few characters, and take as long as long ones."""
    threads: list[Any] = []
    run = trio.to_thread.run_sync

    async def watched(work: Any, **options: Any) -> Any:
        threads.append(work)
        return await run(work, **options)

    monkeypatch.setattr(trio.to_thread, "run_sync", watched)
    async with local("hashed_ngrams") as adapter:
        for texts, seen in ((("a",), 1), (("a",), 1), (("a",) * 1000, 2), (("a", "b"), 2)):
            await adapter.invoke(request(EmbeddingsRequest(input=texts)), CALL)
            assert len(threads) == seen, "numpy is loaded in a thread, and many texts are counted in one"


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=60), st.integers(16, 64))
def test_any_text(text: str, dimensions: int) -> None:
    (row,) = embed((text,), dimensions, lambda: None)
    assert abs(float((row * row).sum()) - 1) < 1e-4 or not row.any()
    assert (embed((text,), dimensions, lambda: None) == row).all()


@settings(max_examples=20, deadline=None)
@given(st.text(st.sampled_from("ab "), min_size=20, max_size=60), st.integers(1, 2000))
def test_slices_lose_nothing(text: str, times: int) -> None:
    cut = list(slices(text * times))
    assert "".join(cut) == text * times
    assert all(len(piece) <= SLICE for piece in cut)
