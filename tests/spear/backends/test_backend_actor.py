"""The actor around an adapter: its slots, its answers, and what an adapter's bug does (nothing to the others)."""

from __future__ import annotations

import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from io import StringIO
from typing import Any

import pytest
import trio

from actors import ActorStopped, Instrument, MailboxFull, Ref, StartFailed, open_supervisor
from actors.testing import assert_quiet
from spear.backends import (
    Adapter,
    Answer,
    BackendMessage,
    Finished,
    Host,
    Invoke,
    OpenStream,
    backend_spec,
    find_kind,
)
from spear.ir import (
    BackendError,
    Capabilities,
    ChatResult,
    ContentDelta,
    ErrorCode,
    Failure,
    InternalError,
    Operation,
    SpearError,
    Usage,
    make_error,
    parse_json,
)
from spear.secrets import Secret
from spear.telemetry import configure_logging
from tests.spear.backends._support import CANARY, ask, call, instance

ANSWER = Answer(ChatResult(), Usage())


class FakeKind:
    """`act` is what each call does: it may wait, raise, or return."""

    name = "fake"
    capabilities = Capabilities(ops=(Operation.CHAT_COMPLETIONS,))

    def __init__(self, act: Callable[[], Any] = trio.lowlevel.checkpoint) -> None:
        self.act = act
        self.running = 0
        self.most = 0
        self.state = "new"

    def check(self, instance: Any) -> None: ...

    @asynccontextmanager
    async def open(self, instance: Any, host: Any) -> AsyncIterator[Adapter]:
        self.state = "open"
        try:
            yield self
        finally:
            self.state = "closed"

    async def invoke(self, request: Any, conditions: Any) -> Answer:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.act()
        finally:
            self.running -= 1
        return ANSWER

    @asynccontextmanager
    async def stream(self, request: Any, conditions: Any) -> AsyncIterator[Any]:
        async def items() -> AsyncIterator[Any]:
            yield ContentDelta(delta="a")
            yield Finished(await self.invoke(request, conditions))

        generator = items()
        try:
            yield generator
        finally:
            await generator.aclose()  # type: ignore[attr-defined]


@asynccontextmanager
async def running(kind: Any, **limits: int) -> AsyncIterator[Ref[BackendMessage]]:
    async with open_supervisor() as supervisor:
        host = Host(redact=(Secret(CANARY),))
        spec = backend_spec(kind, instance(), host, **{"max_inflight": 4, "max_queue": 4, **limits})
        ref = await supervisor.start(spec)
        try:
            yield ref
        finally:
            await trio.testing.wait_all_tasks_blocked()  # who was left is gone by then
            assert_quiet(supervisor)


def invoke() -> Invoke:
    return Invoke(ask(), call())


async def consume(ref: Ref[BackendMessage]) -> list[Any]:
    async with ref.stream(OpenStream(ask(), call())) as items:
        return [item async for item in items]


async def test_one_lifetime() -> None:
    kind = FakeKind()
    async with running(kind) as ref:
        assert kind.state == "open"
        assert await ref.ask(invoke()) is ANSWER
        assert await consume(ref) == [ContentDelta(delta="a"), Finished(ANSWER)]
    assert kind.state == "closed"
    with pytest.raises(ActorStopped):
        await ref.ask(invoke())


async def test_the_stub_in_an_actor() -> None:
    async with running(find_kind("stub")) as ref:
        answer = await ref.ask(invoke())
        assert isinstance(answer.payload, ChatResult)
        assert answer.payload.text == "stub chat completion: hello big world"
        assert (await consume(ref))[-1] == Finished(answer)


@pytest.mark.parametrize("max_queue", [0, 1, 3])
async def test_the_bulkhead(max_queue: int, autojump_clock: trio.testing.MockClock) -> None:
    kind = FakeKind(trio.sleep_forever)
    async with running(kind, max_inflight=2, max_queue=max_queue) as ref, trio.open_nursery() as nursery:

        async def fill() -> None:
            with pytest.raises(MailboxFull):
                await ref.ask_nowait(invoke())

        for _ in range(2 + max_queue):
            nursery.start_soon(ref.ask, invoke())
            await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(fill)
        await trio.testing.wait_all_tasks_blocked()
        assert kind.most == kind.running == 2
        nursery.cancel_scope.cancel()
    assert kind.running == 0


async def test_a_slot_is_free_again_at_once(autojump_clock: trio.testing.MockClock) -> None:
    """Without a queue, a caller that comes right after an answer is not refused."""
    async with running(FakeKind(partial(trio.sleep, 1)), max_inflight=1, max_queue=0) as ref:
        for _ in range(5):
            await ref.ask_nowait(invoke())


async def test_a_stream_holds_its_slot_to_the_end(autojump_clock: trio.testing.MockClock) -> None:
    kind = FakeKind(partial(trio.sleep, 10))
    async with running(kind, max_inflight=1, max_queue=1) as ref, ref.stream(OpenStream(ask(), call())) as items:
        await anext(aiter(items))
        with trio.move_on_after(5) as scope:
            await ref.ask(invoke())
        assert scope.cancelled_caught


@pytest.fixture
def log_output() -> Iterator[StringIO]:
    output = StringIO()
    configure_logging("debug", "json", output)
    yield output
    configure_logging()


def refused() -> BackendError:
    return BackendError(make_error(ErrorCode.RATE_LIMITED, "slow down"), Failure.RATE_LIMIT)


@pytest.mark.parametrize("ask_it", [lambda ref: ref.ask(invoke()), consume], ids=["ask", "stream"])
async def test_an_adapters_error_is_an_answer(ask_it: Callable[[Ref[BackendMessage]], Any]) -> None:
    async def act() -> None:
        await trio.lowlevel.checkpoint()
        raise refused()

    async with running(FakeKind(act)) as ref:
        with pytest.raises(BackendError, match="slow down") as caught:
            await ask_it(ref)
        assert caught.value.failure is Failure.RATE_LIMIT


@pytest.mark.parametrize("ask_it", [lambda ref: ref.ask(invoke()), consume], ids=["ask", "stream"])
@pytest.mark.parametrize(
    "bug",
    [
        KeyError(f"no {CANARY}"),
        ExceptionGroup("several", [refused(), ValueError(f"with {CANARY}")]),
        StopAsyncIteration(),
        TimeoutError(),
    ],
)
async def test_a_bug_ends_one_turn_and_no_other(
    ask_it: Callable[[Ref[BackendMessage]], Any],
    bug: Exception,
    log_output: StringIO,
    autojump_clock: trio.testing.MockClock,
) -> None:
    calls = iter([partial(trio.sleep, 10), None, trio.lowlevel.checkpoint])

    async def act() -> None:
        step = next(calls)
        if step is None:
            raise bug
        await step()

    kind = FakeKind(act)
    async with running(kind) as ref, trio.open_nursery() as nursery:
        answers: list[Answer] = []

        async def other() -> None:
            answers.append(await ref.ask(invoke()))

        nursery.start_soon(other)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(InternalError) as caught:
            await ask_it(ref)
        error = caught.value.error
        assert error.code is ErrorCode.INTERNAL
        assert error.incident
        assert error.incident in error.message
        (log,) = map(parse_json, log_output.getvalue().splitlines())
        assert isinstance(log, dict)
        assert (log["event"], log["incident"], log["backend"], log["kind"]) == (
            "adapter_bug",
            error.incident,
            "one",
            "fake",
        )
        assert "Traceback" in str(log["traceback"])
        assert CANARY not in f"{log}{error!r}{caught.value!r}"
        assert await ref.ask(invoke()) is ANSWER
    assert answers == [ANSWER]


@pytest.mark.parametrize("ask_it", [lambda ref: ref.ask(invoke()), consume], ids=["ask", "stream"])
@pytest.mark.parametrize("wrong", ["a text", None, Finished(ANSWER)])
async def test_what_is_no_answer_is_a_bug(
    ask_it: Callable[[Ref[BackendMessage]], Any], wrong: Any, log_output: StringIO
) -> None:
    class Wrong(FakeKind):
        async def invoke(self, request: Any, conditions: Any) -> Any:
            return wrong

    async with running(Wrong()) as ref:
        with pytest.raises(InternalError, match="the adapter of backend one failed"):
            await ask_it(ref)
    assert f"{type(wrong).__name__}; an Answer is needed" in log_output.getvalue()


@pytest.mark.parametrize("ask_it", [lambda ref: ref.ask(invoke()), consume], ids=["ask", "stream"])
@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("payload", {"choices": []}, "whose payload is of type dict"),
        ("payload", None, "whose payload is of type NoneType"),
        ("usage", {"input_tokens": 1}, "whose usage is of type dict"),
        ("model", None, "whose model is of type NoneType"),
        ("degraded", ["a step"], "whose degraded is of type list"),
        ("degraded", ("a step", 1), "whose degraded has something that is no str"),
    ],
)
async def test_an_answer_of_other_types_is_a_bug(
    ask_it: Callable[[Ref[BackendMessage]], Any], field: str, value: Any, said: str, log_output: StringIO
) -> None:
    class Wrong(FakeKind):
        async def invoke(self, request: Any, conditions: Any) -> Any:
            return replace(ANSWER, **{field: value})

    async with running(Wrong()) as ref:
        with pytest.raises(InternalError, match="the adapter of backend one failed"):
            await ask_it(ref)
        assert ref.running == 0
    assert said in log_output.getvalue()


def _frames_that_hold(error: BaseException | None, text: str) -> list[str]:
    """Of an exception and of all that it leads to: the functions with `text` in a local variable."""
    seen: list[BaseException] = []
    found: list[str] = []
    waiting = [error]
    while waiting:
        error = waiting.pop()
        if error is None or any(error is each for each in seen):
            continue
        seen.append(error)
        if text in str(error):
            found.append(repr(error))
        for frame, _ in traceback.walk_tb(error.__traceback__):
            found += [frame.f_code.co_name for value in frame.f_locals.values() if text in repr(value)]
        waiting += [error.__cause__, error.__context__, *getattr(error, "exceptions", ())]
    return found


class Watcher(Instrument):
    def __init__(self) -> None:
        self.errors: list[BaseException | None] = []

    def turn_finished(self, path: str, msg: object, error: BaseException | None) -> None:
        self.errors.append(error)


async def _fails_with_a_key(how: str) -> None:
    header = f"Bearer {CANARY}"  # a local variable, as in every adapter
    try:
        await trio.lowlevel.checkpoint()
        raise ValueError(header)
    except ValueError:
        if how == "bug":
            raise KeyError(header) from None
        if how == "bug with a cause":
            raise RuntimeError("x") from ValueError(header)
        if how == "group":
            raise ExceptionGroup("several", [KeyError(header)])  # noqa: B904
        if how == "error":
            raise refused()  # noqa: B904
        if how == "error from none":
            raise refused() from None
        await trio.sleep_forever()


@pytest.mark.parametrize("ask_it", [lambda ref: ref.ask(invoke()), consume], ids=["ask", "stream"])
@pytest.mark.parametrize("how", ["bug", "bug with a cause", "group", "error", "error from none", "cancelled"])
async def test_no_frame_with_a_key_is_handed_out(
    ask_it: Callable[[Ref[BackendMessage]], Any],
    how: str,
    log_output: StringIO,
    autojump_clock: trio.testing.MockClock,
) -> None:
    watcher = Watcher()
    raised: BaseException | None = None
    async with open_supervisor(instruments=[watcher]) as supervisor:
        kind = FakeKind(partial(_fails_with_a_key, how))
        host = Host(redact=(Secret(CANARY),))
        ref = await supervisor.start(backend_spec(kind, instance(), host, max_inflight=1, max_queue=1))
        with trio.move_on_after(1):
            try:
                await ask_it(ref)
            except SpearError as error:
                raised = error
        await trio.testing.wait_all_tasks_blocked()
    assert (raised is None) is (how == "cancelled")
    (told,) = watcher.errors
    assert isinstance(told, trio.Cancelled if how == "cancelled" else SpearError)
    assert _frames_that_hold(told, CANARY) == []
    assert _frames_that_hold(raised, CANARY) == []


async def test_leaving_cancels_the_adapter(autojump_clock: trio.testing.MockClock) -> None:
    kind = FakeKind(trio.sleep_forever)
    async with running(kind) as ref:
        with trio.move_on_after(1):
            await ref.ask(invoke())
        await trio.testing.wait_all_tasks_blocked()
        assert kind.running == 0


async def test_what_it_shows(autojump_clock: trio.testing.MockClock) -> None:
    acts: list[Callable[[], Any]] = [trio.lowlevel.checkpoint, trio.lowlevel.checkpoint, trio.sleep_forever]

    async def act() -> None:
        if not acts:
            raise refused()
        await acts.pop(0)()

    async with open_supervisor() as supervisor:
        spec = backend_spec(FakeKind(act), instance(), Host(), max_inflight=4, max_queue=4)
        ref = await supervisor.start(spec)
        await ref.ask(invoke())
        await consume(ref)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ref.ask, invoke())
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(BackendError):
                await ref.ask(invoke())
            (node,) = supervisor.snapshot().children
            assert node.state == {
                "kind": "fake",
                "model": "test-model",
                "inflight": 1,
                "answered": 2,
                "failed": 1,
            }
            nursery.cancel_scope.cancel()


async def test_an_instance_that_cannot_open() -> None:
    class Broken(FakeKind):
        @asynccontextmanager
        async def open(self, instance: Any, host: Any) -> AsyncIterator[Adapter]:
            raise ValueError("no engine")
            yield

    with pytest.raises(StartFailed) as caught:
        async with running(Broken()):
            pass
    assert isinstance(caught.value.__cause__, ValueError)
