"""The inner nodes of the supervision tree: actors that own other actors.

runtime                    the supervisor that `open_runtime` opens
├── media                  looks after the media store: at the start where it has a folder, else from its first use
├── shared_limits          leases of limits from Redis, where that is configured; stops last
├── filters                owns the external filters, where a configuration has any
├── backends/instances/…   one actor per configured instance, stopped together
├── mcp/servers/…          one actor per MCP server, started with its first use; itself there once one is configured
├── router                 a turn is a request
├── mirrors                a turn is a mirrored request; started once a route mirrors
├── probes                 asks backends that are to be probed; started with the first of them
├── watch                  polls the configuration's files, where that was asked for
└── executions/guests/…    one actor per running guest; started with the first guest, so that without guests
                           the WebAssembly engine is never loaded
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Never

import trio

from actors import (
    Actor,
    Context,
    NameTaken,
    Ref,
    Request,
    Spec,
    StartFailed,
    Supervisor,
    SupervisorClosed,
    open_supervisor,
)

from .backends import BackendMessage
from .config import GuestLimits
from .ir import ErrorCode, RoutingError, SpearError, make_error
from .router import Desk, Instance, Succession
from .secrets import Redactor

if TYPE_CHECKING:
    from .hostcall import Execution, GuestEngine

START_SECONDS: Final = 30.0
"""How long the new instances of a generation may take to start, together."""


class CannotStart(Exception):
    """An instance of a new generation did not start; the old generation is as it was."""


@dataclass(frozen=True, slots=True)
class Replace(Request[None]):
    """Start what the new generation needs, switch the desk to it, and let the others finish. Rejected with
    `CannotStart`, and cancelled, before the switch: nothing has changed then."""

    succession: Succession


class Backends(Actor[Replace]):
    """Starts an actor for each instance that can serve, and lends its address to the router's view of it."""

    rejects = (CannotStart,)

    def __init__(self, desk: Desk, drain: float) -> None:
        self._desk = desk
        self._drain = drain
        self._supervisor: Supervisor
        self._leaving: list[Ref[BackendMessage]] = []
        self._later = 0  # how many were started after the first ones

    @asynccontextmanager
    async def lifespan(self, ctx: Context[Replace]) -> AsyncIterator[None]:
        generation = self._desk.generation
        usable = [instance for instance in generation.instances if instance.reason is None]
        # One instance that crashes for ever comes to nine restarts in 30 s, as its backoff grows; it must not take its
        # siblings down.
        intensity = 10 * max(1, len(usable))
        async with open_supervisor(name="instances", intensity=intensity, period=30.0, stop="together") as sup:
            self._supervisor = sup
            for instance in usable:
                try:
                    spec = generation.spec(instance, drain=self._drain, media=self._desk.media)
                    instance.ref = await sup.start(spec)
                except StartFailed as failed:
                    raise self._not_opened(instance, failed.__cause__ or failed) from None
            yield

    def _not_opened(self, instance: Instance, cause: BaseException) -> RoutingError:
        """The cause in one line; an adapter's text may hold anything, so it is redacted."""
        redact = Redactor(self._desk.generation.config.secrets)
        text = redact(f"{type(cause).__name__}: {cause}").partition("\n")[0]
        message = f"backend {instance.name} cannot be opened: {text}"
        return RoutingError(make_error(ErrorCode.BACKEND_UNAVAILABLE, message))

    async def handle(self, msg: Replace, ctx: Context[Replace]) -> None:
        succession = msg.succession
        started: list[Ref[BackendMessage]] = []
        try:
            await self._start(succession, started)
        except BaseException:
            for ref in started:  # nobody has sent them anything
                self._supervisor.stop_soon(ref, drain=0)
            raise
        self._desk.switch(succession)
        self._leaving = [ref for ref in self._leaving if ref.status != "exited"]
        for instance in succession.leaving:
            if instance.ref is not None:
                # No attempt outlives the total clock of its instance, so that none is cut short here.
                self._supervisor.stop_soon(instance.ref, drain=instance.config.timeouts.total + 1.0)
                self._leaving.append(instance.ref)

    async def _start(self, succession: Succession, started: list[Ref[BackendMessage]]) -> None:
        name = ""
        try:
            with trio.fail_after(START_SECONDS):
                for instance in succession.starting:
                    name = instance.name
                    instance.ref = await self._supervisor.start(self._successor(succession, instance))
                    started.append(instance.ref)
        except trio.TooSlowError:
            raise CannotStart(f"backend {name} did not start within {START_SECONDS:.0f} s") from None
        except (StartFailed, NameTaken, SupervisorClosed, ValueError) as error:
            why = f"{error}" if error.__cause__ is None else f"{type(error.__cause__).__name__}: {error.__cause__}"
            redact = Redactor(succession.generation.config.secrets)  # an adapter's text may hold anything
            raise CannotStart(f"backend {name} did not start: {redact(why).partition(chr(10))[0]}") from None
        await trio.lowlevel.checkpoint_if_cancelled()  # whoever gave up before the switch is told so, and there is none

    def _successor(self, succession: Succession, instance: Instance) -> Spec[BackendMessage]:
        """Under a name of its own: the one it replaces may have the plain one for a while yet."""
        self._later += 1
        spec = succession.generation.spec(instance, drain=self._drain, media=self._desk.media)
        return replace(spec, name=f"{spec.name} #{self._later}")

    def observe(self) -> Mapping[str, object]:
        leaving = sum(ref.status != "exited" for ref in self._leaving)
        return {"generation": self._desk.generation.number, "leaving": leaving}


@dataclass(frozen=True, slots=True)
class RunGuest(Request["Execution"]):
    """Run a guest to its end; `work` is the engine's `run` with its arguments."""

    work: Callable[[], Any]


class GuestRun(Actor[RunGuest]):
    """One execution. It ends after its turn; cancelling the turn unwinds the guest."""

    rejects = (SpearError, OSError)

    def __init__(self, name: str) -> None:
        self._name = name

    async def handle(self, msg: RunGuest, ctx: Context[RunGuest]) -> Execution:
        execution: Execution = await msg.work()
        ctx.finish()
        return execution

    def observe(self) -> Mapping[str, object]:
        return {"guest": self._name}


class Executions(Actor[Never]):
    """Owns the WebAssembly engine and the guests that run on it. `engine` and `guests` are there between its start and
    its stop."""

    engine: GuestEngine
    guests: Supervisor

    def __init__(self, limits: GuestLimits, drain: float, inline_media_bytes: int) -> None:
        self._limits = limits
        self._inline_media_bytes = inline_media_bytes
        self._drain = drain
        self._taken = 0

    @asynccontextmanager
    async def lifespan(self, ctx: Context[Never]) -> AsyncIterator[None]:
        from .hostcall import GuestEngine, Limits

        limits = Limits(memory_bytes=self._limits.memory_bytes, inline_media_bytes=self._inline_media_bytes)
        cache = {} if self._limits.module_cache else {"cache_directory": None}
        async with (
            GuestEngine(limits=limits, **cache) as self.engine,
            open_supervisor(name="guests", stop="together") as self.guests,
        ):
            yield

    def spec(self, guest: str, execution_id: str) -> Spec[RunGuest]:
        return Spec(
            name=execution_id,
            factory=lambda: GuestRun(guest),
            restart="temporary",
            mailbox=1,
            drain=self._drain,
        )

    @contextmanager
    def place(self) -> Iterator[None]:
        """Holds one of the `max_executions` places, from before the guest's actor starts until after it has gone.
        Raises `RoutingError` (overloaded) if none is free."""
        limit = self._limits.max_executions
        if self._taken >= limit:
            raise RoutingError(make_error(ErrorCode.OVERLOADED, f"{limit} guests run already (guests.max_executions)"))
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1

    def observe(self) -> Mapping[str, object]:
        return {"running": self.engine.running, "max_executions": self._limits.max_executions}
