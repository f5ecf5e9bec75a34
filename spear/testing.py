"""For tests of programs that embed Spear: backends that answer from a script, in process, without a network.

    fake = FakeBackend("Hello!", backend_failure(), "Again.")
    async with open_test_runtime(fake) as runtime:
        assert (await runtime.chat(messages=[{"role": "user", "content": "Hi"}])).text == "Hello!"
    assert fake.requests[0].payload.messages[0].text() == "Hi"

Everything between the caller and the script is the real thing: normalization, routing, fallback, actors, cancellation.
To test with a configuration of your own, give the fakes to `spear.open_runtime(config, kinds=fake_kinds(...))`.
Delays pass at once under trio.testing.MockClock(autojump_threshold=0), as long as no guest runs (its engine has
threads).
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass

import trio

from actors import Instrument

from ._open import open_runtime
from ._runtime import Observer, Runtime
from .backends import Adapter, Answer, Call, Finished, Host, Kind, StreamItem, canonical_kind
from .config import InstanceConfig
from .ir import (
    BackendError,
    Capabilities,
    ChatChoice,
    ChatMessage,
    ChatRequest,
    ChatResult,
    ContentDelta,
    ErrorCode,
    Failure,
    Feature,
    InternalError,
    Operation,
    RequestEnvelope,
    ResultPayload,
    SpeechToTextRequest,
    SpeechToTextResult,
    Started,
    ToolCall,
    ToolCallDelta,
    Transport,
    Usage,
    UsageEvent,
    make_error,
)

__all__ = ["FakeBackend", "Reply", "Step", "backend_failure", "fake_kinds", "open_test_runtime"]

_WORD = re.compile(r"\s*\S+\s*|\s+")
_USED = Usage(input_tokens=1, output_tokens=1)


@dataclass(frozen=True, slots=True)
class Reply:
    """One scripted answer: after `delay_s` seconds the text and the tool calls, a word at a time where it is
    streamed. With `error`, that is raised instead; a stream sends the text first and then breaks. `result` answers
    operations other than chat; a transcript may also be just a text."""

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    error: Exception | None = None
    delay_s: float = 0.0
    usage: Usage = _USED
    result: ResultPayload | None = None


Step = str | Exception | Reply | Callable[[RequestEnvelope], str | Exception | Reply]
"""A text to answer with, an exception to raise, a `Reply`, or a function of the request that gives one of these."""


def backend_failure(
    message: str = "a scripted failure",
    *,
    code: ErrorCode = ErrorCode.BACKEND_ERROR,
    failure: Failure = Failure.SERVER,
    retry_after_ms: int | None = None,
) -> BackendError:
    """An exception for a script. `failure` is what the router goes by: `SERVER` and `CONNECT` fall back to another
    backend, `REQUEST` and `REFUSED` do not."""
    return BackendError(make_error(code, message, retry_after_ms=retry_after_ms), failure)


class FakeBackend:
    """A backend that takes the steps of its script, one for each request, in the order in which they arrive.

    A request after the last step is answered with an `internal` error that says so; with `repeat`, the script begins
    anew. `requests` has every request as the backend got it; `running` and `cancelled` count those that are being
    answered and those whose caller left.
    """

    def __init__(self, *steps: Step, repeat: bool = False) -> None:
        for number, step in enumerate(steps):
            if not (isinstance(step, str | Exception | Reply) or callable(step)):
                raise TypeError(
                    f"step {number} is {type(step).__name__}; it must be a str, Exception, Reply or callable"
                )
        if repeat and not steps:
            raise ValueError("repeat needs at least one step")
        self.steps = steps
        self.repeat = repeat
        self.requests: list[RequestEnvelope] = []
        self.running = 0
        self.cancelled = 0

    def _next(self, request: RequestEnvelope) -> Reply:
        at = len(self.requests)
        self.requests.append(request)
        if at >= len(self.steps) and not self.repeat:
            message = f"the script of a FakeBackend is over: it has {len(self.steps)} steps, this is request {at + 1}"
            raise InternalError(make_error(ErrorCode.INTERNAL, message))
        step = self.steps[at % len(self.steps)]
        if callable(step):
            step = step(request)
        if isinstance(step, str):
            return Reply(step)
        return Reply(error=step) if isinstance(step, Exception) else step

    @contextmanager
    def _turn(self) -> Iterator[None]:
        self.running += 1
        try:
            yield
        except trio.Cancelled:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1


class _FakeAdapter:
    def __init__(self, name: str, backend: FakeBackend) -> None:
        self._name = name
        self._backend = backend

    async def invoke(self, request: RequestEnvelope, call: Call) -> Answer:
        with self._backend._turn():
            reply = self._backend._next(request)
            await trio.sleep(reply.delay_s)
            if reply.error is not None:
                raise reply.error
            return _answer(reply, request)

    @asynccontextmanager
    async def stream(self, request: RequestEnvelope, call: Call) -> AsyncGenerator[AsyncIterator[StreamItem], None]:
        with self._backend._turn():
            reply = self._backend._next(request)
            async with aclosing(self._items(reply, request)) as items:
                yield items

    async def _items(self, reply: Reply, request: RequestEnvelope) -> AsyncGenerator[StreamItem, None]:
        await trio.sleep(reply.delay_s)
        yield Started(backend=self._name, model=request.model)
        for word in _WORD.findall(reply.text):
            yield ContentDelta(delta=word)
        if reply.error is not None:
            raise reply.error
        for index, tool in enumerate(reply.tool_calls):
            function = tool.function
            yield ToolCallDelta(call_index=index, id=tool.id, name=function.name, arguments=function.arguments)
        yield UsageEvent(usage=reply.usage)
        yield Finished(_answer(reply, request))


def _answer(reply: Reply, request: RequestEnvelope) -> Answer:
    return Answer(_result(reply, request), reply.usage, model=request.model)


def _result(reply: Reply, request: RequestEnvelope) -> ResultPayload:
    if reply.result is not None:
        if reply.result.kind != request.payload.kind:
            raise TypeError(f"the step has a result of {reply.result.kind}; the request is for {request.payload.kind}")
        return reply.result
    if isinstance(request.payload, SpeechToTextRequest):
        return SpeechToTextResult(text=reply.text)
    if not isinstance(request.payload, ChatRequest):
        raise TypeError(f"a step with a text answers no {request.operation.value}; give a Reply with a result")
    message = ChatMessage(role="assistant", content=reply.text or None, tool_calls=reply.tool_calls)
    end = "tool_calls" if reply.tool_calls else "stop"
    return ChatResult(choices=(ChatChoice(index=0, message=message, finish_reason=end),))


class _FakeKind:
    """Every operation that answers once, with every feature; any configuration will do, and none of it is used."""

    capabilities = Capabilities(
        ops=tuple(each for each in Operation if each is not Operation.REALTIME_VOICE),
        features=tuple(Feature),
        transports=(Transport.IN_PROCESS, Transport.HTTP),
    )

    def __init__(self, name: str, backends: Mapping[str, FakeBackend]) -> None:
        self.name = name
        self._backends = backends

    def check(self, instance: InstanceConfig) -> None:
        if instance.name not in self._backends:
            known = ", ".join(sorted(self._backends)) or "none"
            raise ValueError(f"name: there is no FakeBackend for {instance.name!r}; there are: {known}")

    def open(self, instance: InstanceConfig, host: Host) -> AbstractAsyncContextManager[Adapter]:
        return self._open(instance)

    @asynccontextmanager
    async def _open(self, instance: InstanceConfig) -> AsyncGenerator[Adapter, None]:
        yield _FakeAdapter(instance.name, self._backends[instance.name])


def fake_kinds(backends: Mapping[str, FakeBackend], *, kind: str = "openai_chat") -> dict[str, Kind]:
    """For `spear.open_runtime(config, kinds=...)`: every instance of that kind is played by the fake of its name.

    An instance of the kind without a fake is a `ConfigError`. The rest of the configuration (routes, limits, tasks,
    credentials) holds as it stands.
    """
    return {kind: _FakeKind(canonical_kind(kind), backends)}


def open_test_runtime(
    backends: FakeBackend | Mapping[str, FakeBackend],
    *,
    instruments: Sequence[Instrument] = (),
    observer: Observer | None = None,
    seed: int | None = None,
) -> AbstractAsyncContextManager[Runtime]:
    """A runtime whose only backends are these, tried strictly in the order given (policy `priority`); a single one is
    named `fake`. They answer to every model. No backend is left out for its failures or asked again for the same
    request, so that each request takes one step of a script. The other arguments are those of `spear.open_runtime`."""
    if isinstance(backends, FakeBackend):
        backends = {"fake": backends}
    instances = [
        {"name": name, "kind": "fake", "hosting": "local", "priority": level} for level, name in enumerate(backends)
    ]
    config = {
        "spear": {
            "default_policy": "priority",
            "backends": instances,
            "health": {"enabled": False},
            "retries": {"per_instance": 1},
        }
    }
    kinds = fake_kinds(backends, kind="fake")
    return open_runtime(config, kinds=kinds, instruments=instruments, observer=observer, seed=seed)
