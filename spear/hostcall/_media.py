"""media_*: objects that are too large for a body, written and read in pieces. Nothing here waits."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from spear.hostcall import _json
from spear.hostcall._errno import EINVAL, ENOSYS, Refused
from spear.hostcall._fds import IN, OUT, Entry
from spear.hostcall._limits import MIB
from spear.hostcall._media_port import MediaReader, MediaWriter
from spear.hostcall._media_ref import MAX_URI_BYTES, done, is_mime
from spear.hostcall._outbuf import put_out
from spear.ir import StoredMedia

if TYPE_CHECKING:
    from spear.hostcall._guest import Guest

MAX_MIME_BYTES: Final = 127
READ_BYTES: Final = MIB
_URI: Final = re.compile(rb"smsfile://[A-Za-z0-9_-]{1,240}")


class MediaFd(Entry):
    kind = "Media"
    __slots__ = ()


class Writing(MediaFd):
    __slots__ = ("_max_bytes", "_refused", "_writer", "ref", "size")

    def __init__(self, writer: MediaWriter, max_bytes: int) -> None:
        super().__init__()
        self._writer: MediaWriter | None = writer
        self._max_bytes = max_bytes
        self._refused = False  # the latest write was
        self.size = 0
        self.ref: StoredMedia | None = None

    def write(self, data: bytes) -> None:
        """Raises `Refused`: -22 once it is sealed, -12 beyond a cap."""
        if self.ref is not None or self._writer is None:
            raise Refused(EINVAL)
        writer, self._refused = self._writer, True
        done(lambda: writer.append(data))
        self._refused = False
        self.size += len(data)

    def commit(self) -> StoredMedia:
        if self.ref is None:
            if self.size == 0 or self._writer is None:
                raise Refused(EINVAL)
            self.ref = done(self._writer.commit)
        return self.ref

    def ready(self) -> int:
        return 0 if self.ref is not None or self._refused or self.size >= self._max_bytes else OUT

    def release(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None and self.ref is None:
            writer.discard()


class Reading(MediaFd):
    __slots__ = ("reader",)

    def __init__(self, reader: MediaReader) -> None:
        super().__init__()
        self.reader = reader

    def ready(self) -> int:
        return IN

    def release(self) -> None:
        self.reader.close()


def create(guest: Guest, mime_ptr: int, mime_len: int) -> int:
    guest.memory.check(mime_ptr, mime_len)
    if mime_len > MAX_MIME_BYTES:
        return EINVAL
    if "media" not in guest.operations.families:
        return ENOSYS
    mime = guest.memory.read(mime_ptr, mime_len)
    if not is_mime(mime):
        return EINVAL
    writer = done(lambda: guest.operations.media.create(mime.decode("ascii")))
    entry = Writing(writer, guest.limits.media_bytes)
    try:
        return guest.fds.add(entry)
    except Refused:
        writer.discard()
        raise


def write(guest: Guest, fd: int, ptr: int, length: int) -> int:
    guest.memory.check(ptr, length)
    if length > guest.limits.media_write_bytes:
        return EINVAL
    entry = guest.fds.open(fd, MediaFd)
    if not isinstance(entry, Writing):
        return EINVAL
    entry.write(guest.memory.read(ptr, length))
    guest.fds.touch()  # it may be at a cap now
    return length


def commit(guest: Guest, fd: int, out_ptr: int, out_len_ptr: int) -> int:
    entry = guest.fds.open(fd, MediaFd)
    if not isinstance(entry, Writing):
        return EINVAL
    if entry.ref is None:
        if entry.size == 0:
            return EINVAL
        guest.memory.check(out_len_ptr, 4)  # a call with a bad range changes nothing
    ref = entry.commit()
    guest.fds.touch()
    told = {"kind": ref.kind, "mime": ref.mime, "sha256": ref.sha256, "size": ref.size, "uri": ref.uri}
    return put_out(guest.memory, _json.dump(told), out_ptr, out_len_ptr)


def open_object(guest: Guest, uri_ptr: int, uri_len: int) -> int:
    guest.memory.check(uri_ptr, uri_len)
    if uri_len > MAX_URI_BYTES:
        return EINVAL
    if "media" not in guest.operations.families:
        return ENOSYS
    uri = guest.memory.read(uri_ptr, uri_len)
    if _URI.fullmatch(uri) is None:
        return EINVAL
    reader = done(lambda: guest.operations.media.open(uri.decode("ascii")))
    try:
        return guest.fds.add(Reading(reader))
    except Refused:
        reader.close()
        raise


def read(guest: Guest, fd: int, out_ptr: int, out_len_ptr: int) -> int:
    entry = guest.fds.open(fd, MediaFd)
    if not isinstance(entry, Reading):
        return EINVAL
    capacity = guest.memory.read_u32(out_len_ptr)
    if capacity == 0:
        return EINVAL
    data = done(lambda: entry.reader.peek(min(capacity, READ_BYTES)))
    guest.memory.write(out_ptr, data)
    guest.memory.write_u32(out_len_ptr, len(data))
    entry.reader.advance()  # only now: a bad range loses nothing
    return len(data)
