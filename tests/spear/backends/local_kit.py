"""What the tests of the kinds that compute on this machine share."""

from __future__ import annotations

import base64
import hashlib
import math
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from spear.backends import Adapter, Call, Host, find_kind
from spear.config import InstanceConfig
from spear.ir import (
    CallerError,
    ErrorCode,
    Hosting,
    InlineMedia,
    Limits,
    MediaRef,
    Operation,
    RequestEnvelope,
    StoredMedia,
    make_error,
)
from spear.media import MediaBytes

CALL = Call(deadline=math.inf, connect=5.0, first_event=5.0, idle=5.0)


class Shelf:
    """A media store of this test's own: objects in a dict, no rights. The real one has tests of its own."""

    def __init__(self) -> None:
        self.kept: dict[str, MediaBytes] = {}

    async def save(self, data: bytes, mime: str, *, task_id: str | None) -> StoredMedia:
        uri = f"smsfile://{hashlib.sha256(data).hexdigest()}"
        self.kept[uri] = MediaBytes(data, mime)
        return StoredMedia(uri=uri, mime=mime, size=len(data))

    async def load(self, ref: MediaRef, *, task_id: str | None, max_bytes: int | None = None) -> MediaBytes:
        if isinstance(ref, InlineMedia):
            found = MediaBytes(ref.decode(), ref.mime)
        else:
            assert isinstance(ref, StoredMedia)
            found = self.kept[ref.uri]
        if max_bytes is not None and len(found.data) > max_bytes:
            raise CallerError(make_error(ErrorCode.MEDIA_TOO_LARGE, "too large"))
        return found

    async def delete(self, ref: StoredMedia) -> None:
        self.kept.pop(ref.uri, None)

    def write(self, mime: str, *, task_id: str | None) -> Any:
        raise NotImplementedError

    def read(self, ref: MediaRef, *, task_id: str | None) -> Any:
        raise NotImplementedError


def inline(data: bytes, mime: str) -> InlineMedia:
    return InlineMedia(mime=mime, data=base64.b64encode(data).decode())


@asynccontextmanager
async def local(kind: str, shelf: Shelf | None = None, **options: Any) -> AsyncIterator[Adapter]:
    found = find_kind(kind)
    instance = InstanceConfig(name="one", kind=kind, hosting=Hosting.LOCAL, options=options)
    found.check(instance)
    async with found.open(instance, Host(media=shelf or Shelf())) as adapter:
        yield adapter


def request(payload: Any, **fields: Any) -> RequestEnvelope:
    return RequestEnvelope(operation=Operation(payload.kind), payload=payload, **fields)


def wrong_options(kind: str, limits: Limits | None = None, **options: Any) -> str:
    """What `check` says of them."""
    given = InstanceConfig(name="one", kind=kind, hosting=Hosting.LOCAL, options=options, limits=limits or Limits())
    try:
        find_kind(kind).check(given)
    except ValueError as error:
        return str(error)
    raise AssertionError("check said nothing")


def children() -> set[int]:
    """The worker processes of this one that have not been collected."""
    found = set()
    for folder in Path("/proc").iterdir():
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and b"worker" in (folder / "cmdline").read_bytes():
                found.add(int(folder.name))
        except (OSError, ValueError):
            continue
    return found
