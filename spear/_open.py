"""The composition root: from a configuration to a running tree of actors."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final, Never

import trio

from actors import (
    Instrument,
    Ref,
    Spec,
    StartFailed,
    Supervisor,
    open_supervisor,
)

from ._discovery import with_discovered
from ._extras import need
from ._mcp import check_addresses, open_mcp
from ._media import keep_media, open_media
from ._mirrors import MirrorsNode, check_records_file
from ._reload import Reloader
from ._runtime import DRAIN_SECONDS, Observer, Runtime, source_of
from ._tree import Backends
from ._watch import Look, Watcher, look_now, watched
from .backends import Kind, canonical_kind, find_kind
from .config import Config, RedisConfig, default_config, load_config
from .filters import FilterFunction, Filters
from .router import (
    Decisions,
    DecisionWriter,
    Desk,
    build_generation,
    flush_decisions,
    router_spec,
)
from .router.limits import local_meter
from .router.probes import has_probes, prober_spec
from .router.shared import Link, shared_limits_spec
from .telemetry import ActorCounters, Counters

_SUCCESSOR: Final = re.compile(r" #\d+$")


@asynccontextmanager
async def open_runtime(
    config: Config | Path | str | Mapping[str, Any] | None = None,
    *,
    instruments: Sequence[Instrument] = (),
    observer: Observer | None = None,
    seed: int | None = None,
    kinds: Mapping[str, Kind] | None = None,
    filters: Mapping[str, FilterFunction] | None = None,
    watch: bool = False,
) -> AsyncIterator[Runtime]:
    """Start everything that `config` names; when the block is left, all of it has gone.

    Left normally, what is in flight may finish for up to ten seconds; left by an error or a cancellation, it is
    cancelled. Installs no signal handlers, touches no global state, and opens no connection before the first request
    or probe, but to look for models where the configuration says so (`discovery`).

    Args:
        config: a `Config`, the path of a TOML file, or a mapping of the same shape; None = the embedded backends.
        instruments: see `actors.Instrument`.
        observer: called with every finished request and its response; what it raises is raised from the call.
        seed: makes the router's choices repeatable.
        kinds: kinds of backends by name, looked at before all others: one's own without an installed entry point, or
            fakes in tests (`spear.testing`).
        filters: the functions of the configuration's filters of kind `python`, by name: from the question, a mapping,
            to what the filter says, a mapping or None. An `async def` runs in the request's task, others in a thread.
        watch: look at the file, and at the files of its keys, every second, and reload when one has changed. What goes
            wrong then is in the log and in the counters. Needs a path.

    Raises:
        ConfigError: with everything that is wrong in it; nothing was started then.
        RoutingError: a backend could not be opened (backend_unavailable); what was started has been stopped.
    """
    _check_loop()
    source = source_of(default_config() if config is None else config)
    if watch and not isinstance(source, Path):
        raise ValueError("watch=True needs the path of a file to look at")
    loaded = source if isinstance(source, Config) else load_config(source)
    seen: Look = {}
    if watch and isinstance(source, Path):
        seen = look_now(watched(source, loaded))
        loaded = load_config(source)  # again: what changes after the look is seen as a change
    loaded = await with_discovered(loaded)
    find = _finder(kinds or {})
    link = None if loaded.redis is None else _link(loaded.redis)
    desk = Desk(
        build_generation(loaded, find_kind=find),
        rng=Random(seed) if seed is not None else None,
        meters=local_meter if link is None else link.meter,
    )
    await check_records_file(loaded)
    _check_before_start(filters or {}, loaded)
    counters = Counters()
    desk.limits.counts.attach(counters)
    desk.keys.on_change = partial(_count_key, counters)
    counting = ActorCounters(counters, _actor_label)
    with closing(Reloader(source, loaded, desk, counters, find)) as reloader:
        async with (
            _flushed(desk.decisions),
            open_media(loaded) as media,
            open_supervisor(
                name="runtime", intensity=5, period=30.0, instruments=(counting, *instruments)
            ) as supervisor,
        ):
            runtime = Runtime(desk, supervisor, counters, observer, reloader)
            runtime._media = desk.media = media
            await keep_media(media, supervisor)
            reloader.start_writer = partial(_start_writer, desk, supervisor, [])
            if loaded.decisions.path is not None:  # before the router, so that it outlives that
                await reloader.start_writer()
            owner = Spec(name="filters", factory=lambda: Filters(desk, filters or {}))
            backends = Spec(name="backends", factory=lambda: Backends(desk, DRAIN_SECONDS), grace=2 * DRAIN_SECONDS)
            if loaded.redis is not None and link is not None:
                await supervisor.start(shared_limits_spec(loaded.redis, link, _counting_leases(counters)))
            try:
                reloader.start_filters = partial(supervisor.start, owner)
                if loaded.filters:  # before the router, so that it outlives that
                    reloader.filters = await reloader.start_filters()
                reloader.backends = await supervisor.start(backends)
            except StartFailed as failed:
                raise failed.__cause__ or failed from None
            reloader.mcp = await open_mcp(supervisor, loaded)  # before the router and guests, so that it outlives them
            runtime._router = await supervisor.start(router_spec(desk, drain=DRAIN_SECONDS))
            reloader.mirrors = MirrorsNode(desk, supervisor, counters)
            await reloader.mirrors.prepare(loaded)
            reloader.start_probes = partial(_start_probes, desk, supervisor, counters, [])
            if has_probes(loaded):
                await reloader.start_probes()
            if watch and isinstance(source, Path):
                watcher = partial(Watcher, source, lambda: runtime.config, runtime.reload, seen)
                await supervisor.start(Spec(name="watch", factory=watcher))
            yield runtime


def _count_key(counters: Counters, key: str, change: str) -> None:
    counters.counter("keys_total", "Keys that were cooled, killed and revived.", key=key, change=change).add()


def _link(config: RedisConfig) -> Link:
    need("coredis", "redis")
    return Link(config)


def _counting_leases(counters: Counters) -> Callable[[bool], None]:
    leasing = counters.gauge("shared_limits_leasing", "1 while limits are leased from Redis, 0 while shares hold.")
    about = "How often Redis was lost, so that shares held."

    def changed(now: bool) -> None:
        leasing.set(int(now))
        counters.counter("shared_limits_lost_total", about).add(0 if now else 1)

    leasing.set(0)
    return changed


@asynccontextmanager
async def _flushed(decisions: Decisions) -> AsyncIterator[None]:
    """Afterwards everything that was recorded is written, where it is to be and can be within three seconds."""
    try:
        yield
    finally:
        await flush_decisions(decisions)


async def _start_writer(desk: Desk, supervisor: Supervisor, started: list[Ref[Never]]) -> None:
    """With the first configuration that names a file for decisions; it then stays."""
    if not started:
        spec: Spec[Never] = Spec(name="decisions", factory=partial(DecisionWriter, desk.decisions))
        started.append(await supervisor.start(spec))


async def _start_probes(desk: Desk, supervisor: Supervisor, counters: Counters, started: list[Ref[Never]]) -> None:
    """With the first configuration that has somebody probed; from then on it follows the desk's by itself."""
    if not started:
        started.append(await supervisor.start(prober_spec(desk, counters)))


def _check_before_start(filters: Mapping[str, FilterFunction], config: Config) -> None:
    check_addresses(config)
    known = {each.name for each in config.filters if each.kind == "python"}
    for name in filters.keys() - known:
        there = ", ".join(sorted(known)) or "none"
        raise ValueError(f"filters: the configuration has no filter {name!r} of kind python; there are: {there}")


def _check_loop() -> None:
    try:
        trio.lowlevel.current_trio_token()
    except (RuntimeError, AttributeError):  # no loop; under asyncio Trio meets a context that is not its own
        message = "open_runtime needs Trio: use trio.run(main); from asyncio or threads use spear.blocking.open_runtime"
        raise RuntimeError(message) from None


def _actor_label(path: str) -> str:
    """Guests share one series: each has a name of its own. An instance shares that of those it replaced."""
    parent, _, name = path.rpartition("/")
    if _SUCCESSOR.search(name):
        return f"{parent}/{_SUCCESSOR.sub('', name)}"
    return f"{parent}/*" if name.startswith("exec-") else path


def _finder(kinds: Mapping[str, Kind]) -> Callable[[str], Kind]:
    given = {canonical_kind(name): kind for name, kind in kinds.items()}

    def find(name: str) -> Kind:
        return given.get(canonical_kind(name)) or find_kind(name)

    return find
