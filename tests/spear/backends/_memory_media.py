"""A media store in memory, for tests of adapters: keeps everything, and fetches only what it was given."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from spear.ir import CallerError, ErrorCode, InlineMedia, MediaRef, StoredMedia, UrlMedia, make_error
from spear.media import MediaBytes, MediaReading, MediaWriting


class MemoryMedia:
    def __init__(self) -> None:
        self.objects: dict[str, MediaBytes] = {}
        self.remote: dict[str, MediaBytes] = {}
        self.left = 0
        """Objects that were begun and not committed."""
        self.fetched: list[str] = []

    async def save(self, data: bytes, mime: str, *, task_id: str | None) -> StoredMedia:
        digest = hashlib.sha256(data).hexdigest()
        uri = f"smsfile://{digest[:32]}"
        self.objects[uri] = MediaBytes(data, mime)
        return StoredMedia(uri=uri, mime=mime, size=len(data), sha256=digest)

    async def load(self, ref: MediaRef, *, task_id: str | None, max_bytes: int | None = None) -> MediaBytes:
        match ref:
            case InlineMedia():
                return MediaBytes(ref.decode(), ref.mime)
            case UrlMedia():
                self.fetched.append(ref.url)
                if ref.url not in self.remote:
                    raise _refused(ErrorCode.MEDIA_NOT_ALLOWED)
                return self.remote[ref.url]
            case StoredMedia():
                if ref.uri not in self.objects:
                    raise _refused(ErrorCode.MEDIA_NOT_FOUND)
                return self.objects[ref.uri]

    async def delete(self, ref: StoredMedia) -> None:
        self.objects.pop(ref.uri, None)

    @asynccontextmanager
    async def write(self, mime: str, *, task_id: str | None) -> AsyncIterator[MediaWriting]:
        writing = _Writing(self, mime, task_id)
        try:
            yield writing
        finally:
            self.left += writing.stored is None

    @asynccontextmanager
    async def read(self, ref: MediaRef, *, task_id: str | None) -> AsyncIterator[MediaReading]:
        raise NotImplementedError
        yield


class _Writing:
    def __init__(self, media: MemoryMedia, mime: str, task_id: str | None) -> None:
        self._media = media
        self._mime = mime
        self._task_id = task_id
        self._data = b""
        self.stored: StoredMedia | None = None

    async def write(self, data: bytes) -> None:
        self._data += data

    async def commit(self) -> StoredMedia:
        self.stored = await self._media.save(self._data, self._mime, task_id=self._task_id)
        return self.stored


def _refused(code: ErrorCode) -> CallerError:
    return CallerError(make_error(code, "not in this store"))
