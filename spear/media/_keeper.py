"""The actor that looks after the store: what has expired goes, what was written in passing gets onto the disk.

It holds nothing that a restart would lose. A store with a folder of its own has it from the start of the runtime on;
any other from the first asynchronous use on, so that a runtime without media has neither.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, Never

import trio

from actors import Actor, Context
from spear.telemetry import get_logger

from ._store import MediaStore

_log = get_logger("spear.media")
_EVERY_S: Final = 60.0
_STOP_S: Final = 5.0


class MediaKeeper(Actor[Never]):
    """On an orderly stop it takes up to five seconds for what is not on the disk yet."""

    def __init__(self, store: MediaStore) -> None:
        self._store = store
        self._expired = self._synced = self._failed = 0
        self._woken = trio.Event()
        self._token: trio.lowlevel.TrioToken | None = None

    @asynccontextmanager
    async def lifespan(self, ctx: Context[Never]) -> AsyncIterator[None]:
        files = await self._store.opened_files()
        self._token = trio.lowlevel.current_trio_token()
        files.on_commit = self._committed
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._sweep, name=f"sweeper of {ctx.path}")
                nursery.start_soon(self._sync, name=f"syncer of {ctx.path}")
                if self._store.copies is not None:
                    nursery.start_soon(self._store.copies.keep_up, lambda: self._woken, name=f"copier of {ctx.path}")
                try:
                    yield
                finally:
                    nursery.cancel_scope.cancel()
        finally:
            files.on_commit = None  # what is committed from here on is not waited for
            with trio.move_on_after(_STOP_S, shield=True):
                await self._sync_all()
                if self._store.copies is not None:
                    await self._store.copies.catch_up()

    def observe(self) -> Mapping[str, object]:
        if not self._store.used:
            return {"used": False}
        files, copies = self._store.files, self._store.copies
        total = files.account.total
        second: dict[str, object] = {}
        if copies is not None:
            second = {
                "copied": copies.copied,
                "to_copy": len(files.uncopied),
                "to_remove": len(files.removed),
                "brought": copies.brought,
                "bucket_failures": copies.failed,
                "bucket_problem": copies.problem,
            }
        return {
            **second,
            "used": True,
            "objects": total.objects,
            "bytes": total.bytes,
            "expired": self._expired,
            "waiting": len(files.unsynced),
            "synced": self._synced,
            "failed": self._failed,
        }

    def _committed(self) -> None:
        """From any thread."""
        assert self._token is not None
        self._token.run_sync_soon(self._wake, idempotent=True)

    def _wake(self) -> None:
        self._woken.set()
        self._woken = trio.Event()

    async def _sweep(self) -> None:
        every = min(_EVERY_S, max(1.0, self._store.config.expire_s / 10))
        while True:
            await trio.sleep(every)
            self._expired += await self._store.in_thread(self._store.files.sweep)

    async def _sync(self) -> None:
        while True:
            await self._sync_all()
            await self._woken.wait()

    async def _sync_all(self) -> None:
        files = self._store.files
        while files.unsynced:
            object_id = files.unsynced.popleft()
            try:
                await self._store.in_thread(partial(files.make_durable, object_id))
                self._synced += 1
            except OSError as error:
                self._failed += 1
                _log.error("media_not_synced", object=object_id, error=error.strerror)
