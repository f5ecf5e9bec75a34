"""The owner of the filters: it opens and closes them. Asking them is the business of the request's own turn."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from actors import Actor, Context, Request
from spear._extras import MissingExtra, need
from spear.config import Config, FilterConfig, Origin
from spear.ir import ConfigError, Problem
from spear.router import Desk, Generation
from spear.secrets import Secret

from ._port import Port
from ._python import FilterFunction, open_python

if TYPE_CHECKING:
    from spear.hostcall import GuestEngine


@dataclass(frozen=True, slots=True)
class OpenFilters(Request[None]):
    """Open what `generation` needs and does not find open, before it holds. Rejected with a `ConfigError`."""

    generation: Generation


@dataclass(frozen=True, slots=True)
class SweepFilters(Request[None]):
    """Close those that the generation which holds does not use, each after its last call."""


class Filters(Actor[OpenFilters | SweepFilters]):
    """`functions` are those of the filters of kind `python`, by name. Without filters it does nothing and loads
    nothing."""

    rejects = (ConfigError,)

    def __init__(self, desk: Desk, functions: Mapping[str, FilterFunction]) -> None:
        self._desk = desk
        self._functions = functions
        self._open: dict[object, Port] = {}
        self._engine: GuestEngine | None = None

    @asynccontextmanager
    async def lifespan(self, ctx: Context[OpenFilters | SweepFilters]) -> AsyncIterator[None]:
        async with AsyncExitStack() as self._stack:
            try:
                await self._open_all(self._desk.generation)
                yield
            finally:
                for port in self._open.values():
                    await port.aclose()

    async def handle(self, msg: OpenFilters | SweepFilters, ctx: Context[OpenFilters | SweepFilters]) -> None:
        if isinstance(msg, OpenFilters):
            await self._open_all(msg.generation)
        else:
            await self._sweep()

    async def _open_all(self, generation: Generation) -> None:
        config = generation.config
        for each in config.filters:
            try:
                generation.ports[each.name] = await self._port(each, config)
            except ValueError as error:
                origin = each.origin
                key = {"wasm": "path", "python": "name"}.get(each.kind, "url")
                path = ".".join(part for part in (origin.key, key) if part)
                raise ConfigError([Problem(origin.file, origin.line_of(key), path, str(error))]) from None

    async def _port(self, config: FilterConfig, whole: Config) -> Port:
        """An open one that is the same, else a new one."""
        bare = config.model_copy(update={"origin": Origin()})
        match config.kind:
            case "http":
                try:
                    open_http = need("spear.filters._http", None).open_http
                except MissingExtra as error:
                    raise ValueError(f"needs an HTTP client: {error}") from None
                key = _key(config, whole)
                return self._open.get((bare, key)) or self._keep((bare, key), open_http(config, key))
            case "wasm":
                from ._wasm import load_filter, open_wasm

                engine = await self._opened_engine(whole)
                module = await load_filter(engine, config)
                known = (bare, module.digest)
                return self._open.get(known) or self._keep(known, open_wasm(config, engine, module))
            case "python":
                function = self._functions.get(config.name)
                if function is None:
                    raise ValueError(f"has no function; give open_runtime(filters={{{config.name!r}: …}})")
                return self._open.get(bare) or self._keep(bare, open_python(config, function))

    def _keep(self, key: object, port: Port) -> Port:
        self._open[key] = port
        return port

    async def _opened_engine(self, config: Config) -> GuestEngine:
        """One for all filters that are guests, apart from that of the executions: its instances are small."""
        if self._engine is None:
            from spear.hostcall import GuestEngine, Limits

            from ._wasm import LOG_BYTES, MEMORY_BYTES

            limits = Limits(memory_bytes=MEMORY_BYTES, log_bytes=LOG_BYTES)
            engine = GuestEngine(limits=limits) if config.guests.module_cache else GuestEngine(
                limits=limits, cache_directory=None
            )  # fmt: skip
            self._engine = await self._stack.enter_async_context(engine)
        return self._engine

    async def _sweep(self) -> None:
        used = {id(each) for each in self._desk.generation.ports.values()}
        for key, port in list(self._open.items()):
            if id(port) not in used:
                del self._open[key]
                await port.retire()

    def observe(self) -> Mapping[str, object]:
        return {
            port.config.name: {"asked": port.asked, "failed": port.failed, "inflight": port.inflight}
            for port in self._open.values()
        }


def _key(config: FilterConfig, whole: Config) -> Secret | None:
    if config.credential is None:
        return None
    found = next((each.value for each in whole.credentials if each.name == config.credential), None)
    if found is None:
        raise ValueError(f"has no key: the credential {config.credential!r} has no value")
    return found
