"""Reloading: from a source to the next generation, one at a time, all of it or nothing.

    load → check → next generation → what differs → start what is new → switch → what leaves finishes

Up to the switch nothing has changed for anybody; whatever fails there leaves the old generation as it is, with a
report, a line in the log and a count.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import trio

from actors import ActorCrashed, ActorStopped, MailboxFull, Ref

from ._discovery import with_discovered
from ._mcp import McpNode
from ._mirrors import MirrorsNode, check_records_file
from ._tree import CannotStart, Replace
from .backends import Kind
from .config import Config, GuestLimits, McpConfig, Origin, RouterLimits, load_config
from .filters import OpenFilters, SweepFilters
from .ir import ConfigError, Problem
from .router import Desk, Generation, Instance, Succession, build_generation, succeed
from .router.probes import has_probes
from .secrets import Redactor
from .telemetry import Counters, get_logger, redacting

_log = get_logger("spear.reload")
_NO_SETTINGS: Final = frozenset({"backends", "credentials", "skipped", "discovered", "warnings", "origin"})
"""What the lists of instances say already, and what is no setting at all."""
_FIXED_ROUTER: Final = ("max_requests", "max_waiting")
_FIXED_GUESTS: Final = ("max_executions", "memory_bytes", "module_cache")

Source = Config | Path | Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ReloadReport:
    """What a reload came to. Names are those of backends."""

    generation: int
    """The one that holds now: the new one, or after a failure still the old one."""
    error: str = ""
    """Why nothing was changed; empty = it was."""
    problems: tuple[Problem, ...] = ()
    """What is wrong in the configuration, where that is why."""
    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    """Replaced by a new one: what the old one has in hand, it finishes."""
    adjusted: tuple[str, ...] = ()
    """Only weight, priority, price or probe are new: the instance goes on."""
    removed: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    """Other sections that changed, such as `routes`."""
    not_applied: tuple[str, ...] = ()
    """Settings that hold only from the next start on, each with a sentence."""
    warnings: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.error

    def __str__(self) -> str:
        if self.error:
            return f"not reloaded, generation {self.generation} goes on: {self.error}"
        parts = [
            f"{what} {', '.join(names)}"
            for what in ("added", "changed", "adjusted", "removed", "settings")
            if (names := getattr(self, what))
        ]
        return "; ".join([f"generation {self.generation}", *(parts or ["nothing changed"]), *self.not_applied])


class Reloader:
    """Belongs to one runtime. `backends`, `mirrors`, `mcp`, `filters`, `start_writer` and `start_probes` are set once
    these have started."""

    backends: Ref[Replace]
    mirrors: MirrorsNode
    mcp: McpNode
    filters: Ref[OpenFilters | SweepFilters] | None = None
    """The owner of external filters, where there have been any."""
    start_filters: Callable[[], Awaitable[Ref[OpenFilters | SweepFilters]]]
    start_writer: Callable[[], Awaitable[None]]
    """Of decisions; does nothing where it runs."""
    start_probes: Callable[[], Awaitable[None]]
    """As above."""

    def __init__(
        self, source: Source, config: Config, desk: Desk, counters: Counters, find_kind: Callable[[str], Kind]
    ) -> None:
        self.source = source
        self.guests: GuestLimits | None = None
        """Those that the engine was started with, once there is one."""
        self._router = config.router
        self._redis = config.redis
        self._media = config.media
        self._tracing = config.tracing
        self._desk = desk
        self._find_kind = find_kind
        self._turn = trio.Lock()
        self._counters = counters
        self._announced = _Announced()
        self._announced.add(config)
        self._number = counters.gauge("config_generation", "The generation of the configuration that holds.")
        self._number.set(desk.generation.number)

    def close(self) -> None:
        """Nothing of this runtime is left that could say a secret."""
        self._announced.close()

    async def reload(self, source: Source | None) -> ReloadReport:
        """Waits for its turn, for the file and for the instances that have to start. Cancelled, it has happened whole
        or not at all."""
        if source is None:
            if isinstance(self.source, Config):
                raise ValueError("this runtime was opened with a Config, and there is nothing to read again: give one")
            source = self.source
        if not isinstance(source, Config | Path | Mapping):
            raise TypeError(f"a configuration is a Config, a path or a mapping, not {type(source).__name__}")
        async with self._turn:
            report = await self._try(source)
        self._count(report)
        return report

    async def _try(self, source: Source) -> ReloadReport:
        try:
            return await self._attempt(source)
        except ConfigError as error:
            return self._failed(str(error), tuple(error.problems))
        except CannotStart as error:
            return self._failed(str(error))
        except (ActorStopped, ActorCrashed):
            return self._failed("the backends were stopping or restarting")
        except Exception as bug:  # noqa: BLE001 -- of a kind, or ours: what runs must go on; the log has the traceback
            _log.error("reload_bug", exc_info=bug)
            return self._failed(f"a bug, see the log: {type(bug).__name__}")

    async def _attempt(self, source: Source) -> ReloadReport:
        old = self._desk.generation
        config = source if isinstance(source, Config) else await _load(source)
        config = await with_discovered(config, old.config)
        announced = self._announced.add(config)
        try:
            succession = succeed(old, build_generation(config, find_kind=self._find_kind))
            announced.leaving = succession.leaving
            await self._prepare(succession.generation)
            await self.backends.ask(Replace(succession))
        except CannotStart as error:
            raise CannotStart(Redactor(config.secrets)(str(error))) from None
        finally:
            # Asked here, not concluded from the answer: a cancelled call may have missed it.
            if self._desk.generation is old:
                self._announced.drop(announced)
            else:
                self._announced.sweep()
                self.mcp.apply(config)
                self._number.set(self._desk.generation.number)
            self._sweep_filters()
        return self._done(old.config, succession)

    async def _prepare(self, generation: Generation) -> None:
        """What a generation needs beside its backends; what is not used then is closed or idle."""
        await check_records_file(generation.config)
        await self.mirrors.prepare(generation.config)
        await self.mcp.prepare(generation.config)
        if generation.config.decisions.path is not None:
            await self.start_writer()
        if has_probes(generation.config):
            await self.start_probes()
        if generation.filters:
            self.filters = self.filters or await self.start_filters()
            await self.filters.ask(OpenFilters(generation))

    def _sweep_filters(self) -> None:
        """Close what is not used, be it of the old generation or of one that never came to hold."""
        if self.filters is None:
            return
        with suppress(ActorStopped, MailboxFull):  # then nobody is asked any more; or it has that to do already
            self.filters.tell_nowait(SweepFilters())

    def _done(self, before: Config, succession: Succession) -> ReloadReport:
        config = succession.generation.config
        return ReloadReport(
            generation=succession.generation.number,
            added=_names(succession.added),
            changed=_names(succession.changed),
            adjusted=tuple(each.name for each, _ in succession.adjusted),
            removed=succession.removed,
            unchanged=_names(succession.unchanged),
            settings=changed_settings(before, config),
            not_applied=(
                *not_applied(self._router, self.guests, self._tracing, config),
                *self.mirrors.not_applied(config),
                *(("media stays as it is until the next start",) if config.media != self._media else ()),
                *(("redis stays as it is until the next start",) if config.redis != self._redis else ()),
            ),
            warnings=config.warnings,
        )

    def _failed(self, error: str, problems: tuple[Problem, ...] = ()) -> ReloadReport:
        return ReloadReport(generation=self._desk.generation.number, error=error, problems=problems)

    def _count(self, report: ReloadReport) -> None:
        about = "Reloads of the configuration, by how they ended."
        self._counters.counter("config_reloads_total", about, outcome="ok" if report.ok else "failed").add()
        if not report.ok:
            _log.error("config_not_reloaded", generation=report.generation, error=report.error)
        elif report.not_applied:
            _log.warning("config_reloaded", generation=report.generation, not_applied=list(report.not_applied))
        else:
            _log.info("config_reloaded", generation=report.generation, summary=str(report))


async def _load(source: Path | Mapping[str, Any]) -> Config:
    """In a thread: it reads files. A thread that is left behind changes nothing."""
    return await trio.to_thread.run_sync(load_config, source, abandon_on_cancel=True)


class _Secrets:
    """Those of one configuration, and the instances that it made leave."""

    def __init__(self, config: Config) -> None:
        self.block = ExitStack()
        self.block.enter_context(redacting(config.secrets))
        self.leaving: tuple[Instance, ...] = ()


class _Announced:
    """The secrets that logs must not say. Those of a former configuration stay until the instances that left with it
    have gone; that is looked at with each reload."""

    def __init__(self) -> None:
        self._all: list[_Secrets] = []

    def __len__(self) -> int:
        return len(self._all)

    def add(self, config: Config) -> _Secrets:
        added = _Secrets(config)
        self._all.append(added)
        return added

    def drop(self, secrets: _Secrets) -> None:
        self._all.remove(secrets)
        secrets.block.close()

    def sweep(self) -> None:
        """From the oldest on, as far as all have gone that the next one made leave."""
        while len(self._all) > 1:
            if any(each.ref is not None and each.ref.status != "exited" for each in self._all[1].leaving):
                return
            self._all.pop(0).block.close()

    def close(self) -> None:
        for each in self._all:
            each.block.close()
        self._all.clear()


def changed_settings(before: Config, after: Config) -> tuple[str, ...]:
    """The sections, other than backends and credentials, that differ."""
    return tuple(
        key
        for key in Config.model_fields
        if key not in _NO_SETTINGS and _bare(getattr(before, key)) != _bare(getattr(after, key))
    )


def not_applied(router: RouterLimits, guests: GuestLimits | None, tracing: bool, config: Config) -> Iterator[str]:
    """What holds from the next start on only; compared with what this one was started with, not with what was loaded
    last."""
    for section, keys, started, wanted in (
        ("router", _FIXED_ROUTER, router, config.router),
        ("guests", _FIXED_GUESTS, guests, config.guests),
    ):
        for key in keys if started is not None else ():
            now, new = getattr(started, key), getattr(wanted, key)
            if now != new:
                yield f"{section}.{key} stays {now} until the next start, which makes it {new}"
    if config.tracing != tracing:
        yield f"tracing stays {str(tracing).lower()} until the next start"


def _names(instances: tuple[Instance, ...]) -> tuple[str, ...]:
    return tuple(each.name for each in instances)


def _bare(value: object) -> object:
    """Without the places in the file, which move with every line."""
    if isinstance(value, tuple):
        return tuple(each.model_copy(update={"origin": Origin()}) for each in value)
    if isinstance(value, McpConfig):
        return value.model_copy(update={"servers": _bare(value.servers)})
    return value
