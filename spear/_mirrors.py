"""Starting the mirrors' actor: with the first configuration that mirrors, at the start or at a reload."""

from __future__ import annotations

from collections.abc import Iterator

import trio

from actors import StartFailed, Supervisor, SupervisorClosed

from ._tree import CannotStart
from .config import Config, MirrorLimits
from .ir import ConfigError, Problem
from .router import Desk, Mirroring, mirrors_spec
from .router.mirrors import Journal
from .telemetry import Counters

_FIXED = ("max_inflight", "max_waiting")


class MirrorsNode:
    """Once started, the actor stays: a configuration that no longer mirrors gives it nothing to do."""

    def __init__(self, desk: Desk, supervisor: Supervisor, counters: Counters) -> None:
        self._desk = desk
        self._supervisor = supervisor
        self._counters = counters
        self._started: MirrorLimits | None = None

    async def prepare(self, config: Config) -> None:
        """Start what `config` needs, before it holds. Raises `CannotStart`."""
        if self._started is not None or not _mirrors(config):
            return
        mirroring = Mirroring(self._counters)
        try:
            mirroring.ref = await self._supervisor.start(mirrors_spec(self._desk, mirroring, config.mirrors))
        except (StartFailed, SupervisorClosed) as error:
            raise CannotStart(f"the mirrors did not start: {error}") from None
        self._desk.mirroring = mirroring
        self._started = config.mirrors

    def not_applied(self, config: Config) -> Iterator[str]:
        """What holds only from the next start on."""
        for key in _FIXED if self._started is not None else ():
            now, new = getattr(self._started, key), getattr(config.mirrors, key)
            if now != new:
                yield f"mirrors.{key} stays {now} until the next start, which makes it {new}"


async def check_records_file(config: Config) -> None:
    """Raise `ConfigError` where `config` mirrors and its records cannot be written; makes the file where there is none.
    Waits for the disk."""
    limits = config.mirrors
    if limits.path is None or not _mirrors(config):
        return
    try:
        await trio.to_thread.run_sync(Journal(limits.path, limits.max_bytes, limits.files).check)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        origin = config.origin
        message = f"{limits.path} cannot be written: {why}"
        raise ConfigError([Problem(origin.file, origin.line_of("mirrors"), "spear.mirrors.path", message)]) from None


def _mirrors(config: Config) -> bool:
    return any(route.mirror is not None for route in config.routes)
