"""One scriptable actor for the tests of this folder. `build(pkg)` makes it from any copy of the library."""

# ruff: noqa: PLW0717
from __future__ import annotations

import math
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import trio
import trio.testing

import actors


class Refused(Exception):
    """One of the scripted actor's rejects."""


class Boom(Exception):
    """A crash."""


def build(pkg: ModuleType) -> Any:
    """Messages and actor classes on top of `pkg`: `Do`, `Items`, `Note` and `Scripted`."""

    @dataclass(frozen=True, slots=True)
    class Do(pkg.Request):
        number: int = 0
        kind: str = "ok"  # ok | reject | crash | stubborn
        sleep: float | None = None  # None: no checkpoint at all

    @dataclass(frozen=True, slots=True)
    class Items(pkg.StreamRequest):
        number: int = 0
        count: int = 3
        kind: str = "ok"  # ok | reject | crash, after the items
        sleep: float | None = None  # before each item

    @dataclass(frozen=True, slots=True)
    class Note:
        number: int = 0

    class Log:
        """What the handlers saw, each with a number that orders it against what the senders saw."""

        def __init__(self) -> None:
            self.count = 0
            self.events: list[tuple[int, str, int, Any]] = []
            self.running = 0
            self.most_running = 0

        def tick(self) -> int:
            self.count += 1
            return self.count

        def add(self, what: str, number: int, detail: Any = None) -> None:
            self.events.append((self.tick(), what, number, detail))

        def of(self, what: str) -> list[int]:
            return [number for _, w, number, _ in self.events if w == what]

    class Scripted(pkg.Actor):
        rejects = (Refused,)
        accepts = (Do, Items, Note)

        def __init__(self, log: Log | None = None) -> None:
            self.log = log or Log()
            self.seen: list[int] = []

        def observe(self) -> dict[str, object]:
            return {"seen": len(self.seen)}

        async def handle(self, msg: Any, ctx: Any) -> object:
            log = self.log
            log.add("start", msg.number, ctx.incarnation)
            log.running += 1
            log.most_running = max(log.most_running, log.running)
            try:
                await self._do(msg)
                self.seen.append(msg.number)
                log.add("end", msg.number, (ctx.incarnation, trio.current_time()))
                return msg.number
            except Boom:
                log.add("crashed", msg.number, (ctx.incarnation, trio.current_time()))
                raise
            except trio.Cancelled:
                log.add("cancelled", msg.number, (ctx.incarnation, trio.current_time()))
                raise
            finally:
                log.running -= 1

        async def _do(self, msg: Any) -> None:
            if isinstance(msg, Note):
                return
            if msg.sleep is not None:
                with trio.CancelScope(shield=msg.kind == "stubborn"):
                    await trio.sleep(msg.sleep)
            if msg.kind == "reject":
                raise Refused(msg.number)
            if msg.kind == "crash":
                raise Boom(msg.number)

        async def handle_stream(self, msg: Any, out: Any, ctx: Any) -> None:
            log = self.log
            log.add("start", msg.number, ctx.incarnation)
            log.running += 1
            log.most_running = max(log.most_running, log.running)
            try:
                for number in range(msg.count):
                    if msg.sleep is not None:
                        await trio.sleep(msg.sleep)
                    log.add("sending", msg.number, number)
                    await out.send(number)
                await self._do(Do(msg.number, msg.kind))
                log.add("end", msg.number, (ctx.incarnation, trio.current_time()))
            except Boom:
                log.add("crashed", msg.number, (ctx.incarnation, trio.current_time()))
                raise
            except trio.Cancelled:
                log.add("cancelled", msg.number, (ctx.incarnation, trio.current_time()))
                raise
            finally:
                log.running -= 1

    return SimpleNamespace(Do=Do, Items=Items, Note=Note, Scripted=Scripted, Log=Log)


kit = build(actors)


def spec(name: str = "a", log: Any = None, **options: Any) -> Any:
    log = log or kit.Log()
    return actors.Spec(name=name, factory=lambda: kit.Scripted(log), **options)


class Lively(actors.Actor[Any]):
    """Notes when its lifespan is entered and left; may fail or linger there."""

    def __init__(self, name: str, notes: list[tuple[str, str, float]], **script: Any) -> None:
        self.name, self.notes, self.script = name, notes, script

    @asynccontextmanager
    async def lifespan(self, ctx: Any) -> Any:
        if self.script.get("fail_start", math.inf) <= ctx.incarnation:
            raise Boom(f"start of {self.name}")
        await trio.sleep(self.script.get("enter", 0))
        self.notes.append(("enter", self.name, trio.current_time()))
        try:
            yield
        finally:
            self.notes.append(("leaving", self.name, trio.current_time()))
            with trio.CancelScope(shield=self.script.get("shield", False)):
                await trio.sleep(self.script.get("leave", 0))
            self.notes.append(("left", self.name, trio.current_time()))

    async def handle(self, msg: Any, ctx: Any) -> object:
        if isinstance(msg, Exception):
            raise msg
        if isinstance(msg, float):
            await trio.sleep(msg)
        return None


async def settle() -> None:
    """Until nothing can go on without the clock."""
    await trio.testing.wait_all_tasks_blocked()
