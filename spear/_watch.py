"""Watching a configuration: its file, and the files that its keys are read from.

Polled: it costs one look a second, sees every way of writing a file (in place, renamed over, a link turned), and needs
nothing of the operating system.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Never

import trio

from actors import Actor, Context

from ._reload import ReloadReport
from .config import Config
from .telemetry import get_logger

INTERVAL_S: Final = 1.0
_FILE: Final = "file:"
_log = get_logger("spear.reload")

Look = Mapping[Path, tuple[int, int, int, int] | None]
"""Of each file: modification time, size, inode and device; None where there is none."""


class Watcher(Actor[Never]):
    """Calls `reload` when a file has changed and then stood still for one interval. A file that is missing is waited
    for; one that could not be loaded is tried again when it changes."""

    def __init__(
        self,
        path: Path,
        config: Callable[[], Config],
        reload: Callable[[], Awaitable[ReloadReport]],
        seen: Look,
        interval: float = INTERVAL_S,
    ) -> None:
        self._path = path
        self._config = config
        self._reload = reload
        self._interval = interval
        self._loaded = seen
        self._last = seen
        self._missing = False
        self._reloads = 0

    @asynccontextmanager
    async def lifespan(self, ctx: Context[Never]) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, name=f"poll of {ctx.path}")
            try:
                yield
            finally:
                nursery.cancel_scope.cancel()

    async def _watch(self) -> None:
        while True:
            await trio.sleep(self._interval)
            await self._poll()

    async def _poll(self) -> None:
        seen = await look(watched(self._path, self._config()))
        settled, self._last = seen == self._last, seen
        missing = seen[self._path] is None
        if missing and not self._missing:
            _log.warning("config_missing", path=str(self._path), effect="what was loaded last goes on")
        self._missing = missing
        if missing or not settled or seen == self._loaded:
            return
        self._reloads += 1
        await self._reload()
        # Keys of files that were not looked at before may have changed since they were read: these make the next look
        # differ from this one, and are read once more.
        self._loaded = seen

    def observe(self) -> Mapping[str, object]:
        return {"path": str(self._path), "reloads": self._reloads, "missing": self._missing}


def watched(path: Path, config: Config) -> tuple[Path, ...]:
    """The file, and those of its keys, filters and MCP servers."""
    keys = (each.source.removeprefix(_FILE) for each in config.credentials if each.source.startswith(_FILE))
    modules = (Path(each.path) for each in config.filters if each.path is not None)
    registry = (Path(each) for each in config.mcp.sources)
    return (path, *(path.parent / each for each in keys), *modules, *registry)


async def look(paths: Iterable[Path]) -> Look:
    return await trio.to_thread.run_sync(look_now, tuple(paths), abandon_on_cancel=True)


def look_now(paths: Iterable[Path]) -> Look:
    return {path: _stat(path) for path in paths}


def _stat(path: Path) -> tuple[int, int, int, int] | None:
    try:
        found = path.stat()
    except (OSError, ValueError):  # gone, or not to be reached now: the same to us
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev
