"""What the runtime gives to the guest side of the media store. Everything here is synchronous and quick: a hostcall
that writes or reads never waits. All of it is for the guest's task."""

from __future__ import annotations

from typing import NoReturn, Protocol

from spear.ir import CallerError, ErrorCode, StoredMedia, make_error


class MediaWriter(Protocol):
    """An object that is being written. What is neither committed nor discarded is lost with the process."""

    def append(self, data: bytes) -> None:
        """All or nothing. Raises `CallerError` (media_too_large) beyond a limit of the object or of the task."""

    def commit(self) -> StoredMedia:
        """Seal it. Repeatable, with the same answer."""

    def discard(self) -> None:
        """Forget what was written; nothing once it was committed."""


class MediaReader(Protocol):
    """An open object; its bytes stay until it is closed."""

    def peek(self, max_bytes: int) -> bytes:
        """The next bytes, empty at the end; the position stays. Raises `CallerError` (media_not_found) where they are
        damaged."""

    def advance(self) -> None:
        """Go on behind what was peeked at."""

    def close(self) -> None: ...


class MediaPort(Protocol):
    def create(self, mime: str) -> MediaWriter:
        """Raises `CallerError` (media_too_large) where the task has too many objects."""

    def open(self, uri: str) -> MediaReader:
        """Raises `CallerError` (media_not_found, media_not_allowed) for what this task may not read or is not there."""

    def find(self, uri: str) -> StoredMedia | None:
        """What is known of an object that this task may read; None for any other."""

    def may_fetch(self, url: str) -> bool:
        """Whether the host fetches from there."""


class NoMediaPort:
    """For a host without a store: nothing can be written, and nothing is there."""

    def create(self, mime: str) -> MediaWriter:
        _refuse()

    def open(self, uri: str) -> MediaReader:
        _refuse()

    def find(self, uri: str) -> StoredMedia | None:
        return None

    def may_fetch(self, url: str) -> bool:
        return False


def _refuse() -> NoReturn:
    raise CallerError(make_error(ErrorCode.MEDIA_NOT_ALLOWED, "this host keeps no media"))
