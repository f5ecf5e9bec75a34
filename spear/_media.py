"""The media store of a runtime: opened with it, kept by an actor, closed after everybody who uses it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Never

import trio

from actors import Spec, StartFailed, Supervisor, SupervisorClosed

from ._extras import need_there
from .config import Config
from .ir import ConfigError, Problem, SpearError
from .media import MediaKeeper, MediaStore


@asynccontextmanager
async def open_media(whole: Config) -> AsyncIterator[MediaStore]:
    """With a folder of its own it is opened now. Raises `ConfigError` where that cannot be used."""
    config = whole.media
    if config.s3 is not None:
        need_there("boto3", "s3")
    try:
        store = MediaStore(config)
    except ValueError as error:
        raise _wrong(whole, "spear.media", error) from None
    try:
        if config.path is not None:
            try:
                await store.opened_files()
            except SpearError as error:
                raise _wrong(whole, "spear.media.path", error) from None
        yield store
    finally:
        if store.used:
            with trio.CancelScope(shield=True):  # a private folder is removed, and nobody else will
                await trio.to_thread.run_sync(store.close)
        else:
            store.close()


def _wrong(config: Config, key: str, error: Exception) -> ConfigError:
    origin = config.origin
    text = error.error.message if isinstance(error, SpearError) else str(error)
    return ConfigError([Problem(origin.file, origin.line_of("media"), key, text)])


async def keep_media(store: MediaStore, supervisor: Supervisor) -> None:
    """Start its actor now, where it has a folder of its own, or else with its first use."""
    keeper = _Keeper(store, supervisor)
    store.opened = keeper.start
    if store.config.path is not None:
        await keeper.start()


class _Keeper:
    def __init__(self, store: MediaStore, supervisor: Supervisor) -> None:
        self._store = store
        self._supervisor = supervisor
        self._starting = trio.Lock()

    async def start(self) -> None:
        async with self._starting:
            if self._store.opened is None:
                return
            spec: Spec[Never] = Spec(name="media", factory=partial(MediaKeeper, self._store))
            try:
                await self._supervisor.start(spec)
            except SupervisorClosed:
                pass  # it is used by those who are leaving
            except StartFailed as failed:
                raise failed.__cause__ or failed from None
            self._store.opened = None
