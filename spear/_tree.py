"""The inner nodes of the supervision tree: actors that own other actors.

runtime                    the supervisor that `open_runtime` opens
├── backends/instances/…   one actor per configured instance, stopped together
├── router                 a turn is a request
└── executions/guests/…    one actor per running guest; started with the first guest, so that without guests
                           the WebAssembly engine is never loaded
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Never

from actors import Actor, Context, Request, Spec, StartFailed, Supervisor, open_supervisor

from .config import GuestLimits
from .ir import ErrorCode, RoutingError, SpearError, make_error
from .router import Generation, Instance
from .secrets import Redactor

if TYPE_CHECKING:
    from .hostcall import Execution, GuestEngine


class Backends(Actor[Never]):
    """Starts an actor for each instance that can serve, and lends its address to the router's view of it."""

    def __init__(self, generation: Generation, drain: float) -> None:
        self._generation = generation
        self._drain = drain

    @asynccontextmanager
    async def lifespan(self, ctx: Context[Never]) -> AsyncIterator[None]:
        usable = [instance for instance in self._generation.instances if instance.reason is None]
        # One instance that crashes for ever comes to nine restarts in 30 s, as its backoff grows; it must not take its
        # siblings down.
        intensity = 10 * max(1, len(usable))
        async with open_supervisor(name="instances", intensity=intensity, period=30.0, stop="together") as sup:
            for instance in usable:
                try:
                    instance.ref = await sup.start(self._generation.spec(instance, drain=self._drain))
                except StartFailed as failed:
                    raise self._not_opened(instance, failed.__cause__ or failed) from None
            yield

    def _not_opened(self, instance: Instance, cause: BaseException) -> RoutingError:
        """The cause in one line; an adapter's text may hold anything, so it is redacted."""
        text = Redactor(self._generation.config.secrets)(f"{type(cause).__name__}: {cause}").partition("\n")[0]
        message = f"backend {instance.name} cannot be opened: {text}"
        return RoutingError(make_error(ErrorCode.BACKEND_UNAVAILABLE, message))


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

    def __init__(self, limits: GuestLimits, drain: float) -> None:
        self._limits = limits
        self._drain = drain
        self._taken = 0

    @asynccontextmanager
    async def lifespan(self, ctx: Context[Never]) -> AsyncIterator[None]:
        from .hostcall import GuestEngine, Limits

        limits = Limits(memory_bytes=self._limits.memory_bytes)
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
