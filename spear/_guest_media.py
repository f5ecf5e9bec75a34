"""The media store as the hostcalls of one guest see it: synchronous, and for its task alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .ir import CallerError, StoredMedia

if TYPE_CHECKING:
    from .hostcall import MediaReader, MediaWriter
    from .media import MediaStore


class GuestMedia:
    def __init__(self, store: MediaStore, task_id: str) -> None:
        self._store = store
        self._task_id = task_id

    def create(self, mime: str) -> MediaWriter:
        return self._store.files.create(mime, self._task_id)

    def open(self, uri: str) -> MediaReader:
        return self._store.files.open(uri, self._task_id)

    def find(self, uri: str) -> StoredMedia | None:
        try:
            return self._store.files.find(uri, self._task_id).ref
        except CallerError:
            return None

    def may_fetch(self, url: str) -> bool:
        return self._store.fetches(url)
