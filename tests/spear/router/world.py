"""A router over scripted backends: real actors, real mailboxes, an adapter that does what the test says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from random import Random

import trio

from actors import Ref, Supervisor, open_supervisor
from spear.backends import Answer, Call, Finished
from spear.config import Config, InstanceConfig
from spear.ir import (
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
    Hosting,
    Operation,
    RequestEnvelope,
    Started,
    Transport,
    Usage,
    make_error,
)
from spear.router import Desk, Generation, Instance, RouterMessage, build_generation, router_spec

CHAT = Operation.CHAT_COMPLETIONS


def chat(text: str = "hi", model: str = "", **fields: object) -> RequestEnvelope:
    payload = ChatRequest(model=model, messages=(ChatMessage(role="user", content=text),))
    return RequestEnvelope(operation=CHAT, payload=payload, **fields)


def answer(text: str = "ok", **usage: object) -> Answer:
    message = ChatMessage(role="assistant", content=text)
    return Answer(ChatResult(choices=(ChatChoice(index=0, message=message, finish_reason="stop"),)), Usage(**usage))


def broken(
    failure: Failure = Failure.SERVER, code: ErrorCode = ErrorCode.BACKEND_ERROR, message: str = "it broke"
) -> BackendError:
    return BackendError(make_error(code, message), failure)


@dataclass
class Script:
    """What one instance does, call after call; the last step is repeated. A step is an exception to raise, an answer,
    a number of seconds to sleep before answering, or (streams) a list of items, exceptions and sleeps."""

    steps: list[object] = field(default_factory=lambda: [answer()])
    requests: list[RequestEnvelope] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    running: int = 0
    cancelled: int = 0
    cleanup_s: float = 0.0

    def step(self, request: RequestEnvelope, call: Call) -> object:
        self.requests.append(request)
        self.calls.append(call)
        return self.steps[min(len(self.requests), len(self.steps)) - 1]

    async def invoke(self, request: RequestEnvelope, call: Call) -> Answer:
        step = self.step(request, call)
        async with self._counted():
            if isinstance(step, float | int):
                await trio.sleep(step)
                step = answer()
            await trio.lowlevel.checkpoint()
            if isinstance(step, BaseException):
                raise step
            assert isinstance(step, Answer)
            return step

    @asynccontextmanager
    async def stream(self, request: RequestEnvelope, call: Call) -> AsyncIterator[AsyncIterator[object]]:
        step = self.step(request, call)
        async with self._counted(), aclosing(self._items(step)) as items:
            yield items

    async def _items(self, step: object) -> AsyncIterator[object]:
        for item in step if isinstance(step, list) else [step]:
            if isinstance(item, BaseException):
                raise item
            if isinstance(item, float | int):
                await trio.sleep(item)
            elif isinstance(item, Answer):
                yield Started(backend="scripted")
                yield ContentDelta(delta="ok")
                yield Finished(item)
            else:
                yield item

    @asynccontextmanager
    async def _counted(self) -> AsyncIterator[None]:
        self.running += 1
        try:
            yield
        except trio.Cancelled:
            self.cancelled += 1
            with trio.CancelScope(shield=True):
                await trio.sleep(self.cleanup_s)
            raise
        finally:
            self.running -= 1


class ScriptedKind:
    name = "scripted"
    capabilities = Capabilities(
        ops=(CHAT, Operation.EMBEDDINGS),
        features=(Feature.STREAM, Feature.TOOLS),
        transports=(Transport.IN_PROCESS,),
    )

    def __init__(self, scripts: Mapping[str, Script] | None = None) -> None:
        self.scripts = scripts or {}

    def check(self, instance: InstanceConfig) -> None:
        if "wrong" in instance.options:
            raise ValueError("options.wrong: nothing is right with this one")

    @asynccontextmanager
    async def open(self, instance: InstanceConfig, host: object) -> AsyncIterator[Script]:
        yield self.scripts[instance.name]


def instance(name: str, **fields: object) -> InstanceConfig:
    return InstanceConfig(**{"name": name, "kind": "scripted", "hosting": Hosting.LOCAL, **fields})


def generation_of(*instances: InstanceConfig, **config: object) -> Generation:
    kind = ScriptedKind()
    return build_generation(Config(backends=instances, **config), find_kind=lambda _: kind)


@dataclass
class StillRef:
    """What a decision reads of an actor, standing still."""

    status: str = "running"
    running: int = 0
    queued: int = 0


def occupy(instance: Instance, load: int) -> None:
    instance.turns = set(range(load))


def still_generation(*instances: InstanceConfig, **config: object) -> Generation:
    """Every usable instance looks started and idle."""
    generation = generation_of(*instances, **config)
    for each in generation.instances:
        if each.reason is None:
            each.ref = StillRef()
    return generation


@dataclass
class World:
    router: Ref[RouterMessage]
    desk: Desk
    supervisor: Supervisor
    scripts: Mapping[str, Script]

    def counts(self) -> Mapping[str, object]:
        return self.desk.observe()


@asynccontextmanager
async def world(
    *instances: InstanceConfig,
    scripts: Mapping[str, Script] | None = None,
    seed: int = 1,
    on_start: Callable[[Generation], None] | None = None,
    **config: object,
) -> AsyncIterator[World]:
    """Instances without a script answer `ok`. Turns are taken, unless `config` says otherwise."""
    config.setdefault("default_policy", "weighted_round_robin")
    found = {each.name: (scripts or {}).get(each.name, Script()) for each in instances}
    kind = ScriptedKind(found)
    generation = build_generation(Config(backends=instances, **config), find_kind=lambda _: kind)
    desk = Desk(generation, rng=Random(seed))
    async with open_supervisor(name="test", rng=Random(seed)) as supervisor:
        for each in generation.instances:
            if each.reason is None:
                each.ref = await supervisor.start(generation.spec(each))
        router = await supervisor.start(router_spec(desk))
        yield World(router, desk, supervisor, found)
