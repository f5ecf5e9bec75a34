"""Functions of the host's program: waiting or not, raising, hanging."""

from __future__ import annotations

import threading
import time
from functools import partial

import pytest
import trio
import trio.lowlevel

import spear
from spear.blocking import open_runtime as open_blocking
from spear.ir import ConfigError
from tests.spear.filters.filter_kit import filtered, question, why
from tests.system.kit import nothing_left, until_true


async def outcome(function, **more):
    with trio.fail_after(10):
        async with spear.open_runtime(filtered("python", **more), filters={"f": function}) as runtime:
            return await runtime.invoke(question())


async def test_waiting_or_not():
    async def waiting(asked):
        await trio.sleep(0.01)
        return {"drop": {"a"}}

    def plain(asked):
        assert threading.current_thread() is not threading.main_thread()
        return {"drop": tuple(each["name"] for each in asked["candidates"] if each["name"] != "b")}

    class Called:
        async def __call__(self, asked):
            return {"force": "b"}

    for function in (waiting, plain, Called(), partial(waiting)):
        assert (await outcome(function)).backend.name == "b"
    assert (await outcome(lambda asked: None)).backend.name in {"a", "b"}


@pytest.mark.parametrize("said", [3, "drop", ["a"], {"drop": 3}, {1: 2}, {"weights": {"a": object()}}])
async def test_nonsense_is_a_failure(said):
    assert why(await outcome(lambda asked: said)).startswith("its answer ")
    assert (await outcome(lambda asked: said, on_error="open")).backend is not None


async def test_a_raising_one_is_named_without_its_text():
    def raising(asked):
        raise LookupError("with a password in it")

    response = await outcome(raising)
    assert why(response) == "raised LookupError"

    async def waiting(asked):
        await trio.lowlevel.checkpoint()
        raise LookupError("with a password in it")

    assert why(await outcome(waiting)) == "raised LookupError"
    assert why(await outcome(lambda asked: waiting(asked))) == "raised TypeError"  # noqa: PLW0108 -- it looks as if it did not wait


class Panic(BaseException):
    pass


@pytest.mark.parametrize(
    "raised",
    [Panic(), BaseExceptionGroup("several", [Panic()])],
    ids=lambda e: type(e).__name__,
)
@pytest.mark.parametrize("waits", [True, False])
async def test_what_is_no_exception_fails_the_filter_and_not_the_runtime(raised, waits):
    async def waiting(asked):
        await trio.lowlevel.checkpoint()
        raise raised

    def plain(asked):
        raise raised

    response = await outcome(waiting if waits else plain, on_error="open")
    assert response.result.error is None


async def test_one_that_raises_while_it_is_cancelled():
    """The cancellation comes out of its nursery in a group with what it raised."""

    async def breaks():
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("in a hurry")

    async def waiting(asked):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(breaks)

    assert (await outcome(waiting, timeout=0.05, on_error="open")).result.error is None
    with trio.fail_after(10):
        async with spear.open_runtime(filtered("python", timeout=5), filters={"f": waiting}) as runtime:
            with trio.move_on_after(0.05):
                await runtime.invoke(question())
            await until_true(lambda: router_state(runtime)["cancelled"] == 1)
            assert router_state(runtime)["attempts"] == 0


def router_state(runtime):
    return next(node.state for node in runtime.snapshot().children if node.path.endswith("/router"))


async def test_a_waiting_one_that_hangs_costs_its_timeout():
    cancelled = []

    async def hanging(asked):
        try:
            await trio.sleep_forever()
        finally:
            cancelled.append(asked["request"]["id"])

    assert why(await outcome(hanging, timeout="100ms")) == "timeout after 0.1 s"
    assert len(cancelled) == 1


async def test_a_thread_that_hangs_costs_its_timeout_and_its_place():
    go_on = threading.Event()
    try:
        source = filtered("python", timeout="100ms", max_inflight=1)
        async with spear.open_runtime(source, filters={"f": lambda asked: go_on.wait(20)}) as runtime:
            for _ in range(2):
                begin = time.monotonic()
                assert why(await runtime.invoke(question())) == "timeout after 0.1 s"
                assert time.monotonic() - begin < 5
    finally:
        go_on.set()


async def test_a_caller_that_leaves_cancels_it():
    left = trio.Event()

    async def hanging(asked):
        try:
            await trio.sleep_forever()
        finally:
            left.set()

    source = filtered("python", timeout="30s")
    async with nothing_left(), spear.open_runtime(source, filters={"f": hanging}) as runtime:
        with trio.move_on_after(0.1):
            await runtime.invoke(question())
        with trio.fail_after(5):
            await left.wait()


async def test_names_have_to_match():
    with pytest.raises(ConfigError, match=r"spear\.filters\[0\]\.name: has no function; give open_runtime\(filters="):
        async with spear.open_runtime(filtered("python")):
            raise AssertionError("it opened")
    with pytest.raises(ValueError, match="no filter 'g' of kind python; there are: f"):
        async with spear.open_runtime(filtered("python"), filters={"g": lambda asked: None}):
            raise AssertionError("it opened")


def test_from_synchronous_code():
    with open_blocking(filtered("python"), filters={"f": lambda asked: {"force": "b"}}) as runtime:
        assert runtime.invoke(question()).backend.name == "b"
