"""A media store in memory, for tests of what goes into it and comes out."""

from __future__ import annotations

from spear.ir import CallerError, ErrorCode, InlineMedia, MediaRef, StoredMedia, make_error
from spear.media import NO_MEDIA, MediaBytes


class MemoryMedia:
    delete = NO_MEDIA.delete
    write = NO_MEDIA.write
    read = NO_MEDIA.read

    def __init__(self, most: int = 1 << 30) -> None:
        self.kept: dict[str, tuple[bytes, str, str | None]] = {}
        self.most = most

    async def save(self, data: bytes, mime: str, *, task_id: str | None) -> StoredMedia:
        if len(data) > self.most:
            raise CallerError(make_error(ErrorCode.MEDIA_TOO_LARGE, "too large"))
        uri = f"smsfile://{len(self.kept)}"
        self.kept[uri] = data, mime, task_id
        return StoredMedia(uri=uri, mime=mime, size=len(data))

    async def load(self, ref: MediaRef, *, task_id: str | None, max_bytes: int | None = None) -> MediaBytes:
        if isinstance(ref, InlineMedia):
            return MediaBytes(ref.decode(), ref.mime)
        found = self.kept.get(ref.uri) if isinstance(ref, StoredMedia) else None
        if found is None:
            raise CallerError(make_error(ErrorCode.MEDIA_NOT_FOUND, "there is no such object"))
        return MediaBytes(found[0], found[1])
