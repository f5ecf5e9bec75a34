"""What callers, guests and adapters see of the media store.

Every call says for which task it is made: a task reads what it stored, what was made for it, and what the host
granted to it; the host itself (None) reads everything. What a task may not read cannot be told apart from what is not
there.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final, NoReturn, Protocol

from spear.ir import CallerError, ErrorCode, MediaRef, StoredMedia, make_error


@dataclass(frozen=True, slots=True)
class MediaBytes:
    """A whole object in memory. `mime` is what it was stored with, or what its reference says of it; nobody has looked
    whether the bytes agree."""

    data: bytes
    mime: str


class MediaWriting(Protocol):
    """An object that is being written. Left without `commit`, nothing of it stays."""

    async def write(self, data: bytes) -> None:
        """Append. Raises `CallerError` (media_too_large) beyond the limits of an object or of its task."""

    async def commit(self) -> StoredMedia:
        """Seal it; afterwards it survives a crash of the process. Repeatable, with the same answer."""


class MediaReading(Protocol):
    """An open object; its bytes stay until it is closed, whatever becomes of the object."""

    size: int
    mime: str

    async def read(self, max_bytes: int) -> bytes:
        """The next bytes; empty at the end."""


class MediaAccess(Protocol):
    """All of these raise `CallerError`: media_not_found, media_not_allowed or media_too_large."""

    async def save(self, data: bytes, mime: str, *, task_id: str | None) -> StoredMedia: ...

    async def load(self, ref: MediaRef, *, task_id: str | None, max_bytes: int | None = None) -> MediaBytes:
        """The bytes of any reference: decoded, read, or fetched through the egress policy. `max_bytes`: the most the
        caller can use; None = the store's own limit of an object."""

    def write(self, mime: str, *, task_id: str | None) -> AbstractAsyncContextManager[MediaWriting]: ...

    def read(self, ref: MediaRef, *, task_id: str | None) -> AbstractAsyncContextManager[MediaReading]: ...

    async def delete(self, ref: StoredMedia) -> None:
        """Whoever has it open reads it to its end. Nothing happens where it is not there."""


class _NoMedia:
    async def save(self, data: bytes, mime: str, *, task_id: str | None) -> StoredMedia:
        _refuse()

    async def load(self, ref: MediaRef, *, task_id: str | None, max_bytes: int | None = None) -> MediaBytes:
        _refuse()

    def write(self, mime: str, *, task_id: str | None) -> AbstractAsyncContextManager[MediaWriting]:
        _refuse()

    def read(self, ref: MediaRef, *, task_id: str | None) -> AbstractAsyncContextManager[MediaReading]:
        _refuse()

    async def delete(self, ref: StoredMedia) -> None:
        _refuse()


def _refuse() -> NoReturn:
    raise CallerError(make_error(ErrorCode.MEDIA_NOT_ALLOWED, "there is no media store here"))


NO_MEDIA: Final[MediaAccess] = _NoMedia()
"""For where nothing is stored and nothing can be read."""
