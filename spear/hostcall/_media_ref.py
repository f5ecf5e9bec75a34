"""References to media as a guest writes them: their shape, and whether this task may use them."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pydantic import ValidationError

from spear.hostcall._errno import EACCES, EINVAL, EIO, ENOMEM, Refused
from spear.ir import ErrorCode, InlineMedia, MediaRef, SpearError, StoredMedia, UrlMedia, make_error

if TYPE_CHECKING:
    from spear.hostcall._guest import Guest

MAX_URI_BYTES: Final = 256
_TOKEN: Final = rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_MIME: Final = re.compile(_TOKEN + rb"/" + _TOKEN + rb"(?: *;[\x20-\x7e]*)?")  # no line ends: it becomes a header
_OUT_ONLY: Final = {"mime", "sha256", "size"}  # of a reference that came from the host: ignored when it comes back
_NOT_THERE: Final = make_error(ErrorCode.MEDIA_NOT_ALLOWED, "there is no such object, or this task may not read it")
_NOT_FETCHED: Final = make_error(ErrorCode.MEDIA_NOT_ALLOWED, "this host does not fetch from there")
_ERRNO: Final = {
    ErrorCode.MEDIA_NOT_FOUND: EACCES,
    ErrorCode.MEDIA_NOT_ALLOWED: EACCES,
    ErrorCode.MEDIA_TOO_LARGE: ENOMEM,
    ErrorCode.OVERLOADED: ENOMEM,
}


T = TypeVar("T")


def done(call: Callable[[], T]) -> T:
    """What the store answers. Raises `Refused`: -13 for what this task may not have, -12 where there is no room, -5
    where the store itself fails."""
    try:
        return call()
    except SpearError as error:
        raise Refused(_ERRNO.get(error.error.code, EIO), error.error) from None


def is_mime(text: bytes) -> bool:
    """Whether it is `type/subtype`, with parameters or without. How long it may be is looked at elsewhere."""
    return _MIME.fullmatch(text) is not None


def parse_media_ref(value: Any) -> MediaRef:
    """Raises `Refused` (-22) for another shape, or for what is no type or no standard base64."""
    if not isinstance(value, dict):
        raise Refused(EINVAL)
    try:
        found = _made(value)
    except ValidationError:
        found = None
    if found is None or (found.mime is not None and not is_mime(found.mime.encode())):
        raise Refused(EINVAL)
    return found


def _made(value: dict[str, Any]) -> MediaRef | None:
    kind, keys = value.get("kind"), set(value)
    if kind == "sms_file" and keys - _OUT_ONLY == {"kind", "uri"}:
        return StoredMedia(uri=value["uri"])
    if kind == "inline_base64" and keys == {"kind", "mime", "data"}:
        return InlineMedia(mime=value["mime"], data=value["data"])
    if kind == "http_url" and keys == {"kind", "mime", "url"} and value["mime"] is not None:
        return UrlMedia(url=value["url"], mime=value["mime"])
    return None


def admit_media_ref(guest: Guest, ref: MediaRef) -> MediaRef:
    """The reference to send: stored objects with what the store knows of them, and large inline data as an object of
    the task. Raises `Refused`: -13 for what this task may not use, -12 where there is no room for it."""
    media = guest.operations.media
    if isinstance(ref, StoredMedia):
        found = done(partial(media.find, ref.uri))
        if found is None:
            raise Refused(EACCES, _NOT_THERE)
        return found
    if isinstance(ref, UrlMedia):
        if not media.may_fetch(ref.url):
            raise Refused(EACCES, _NOT_FETCHED)
        return ref
    data = ref.decode()
    return ref if len(data) <= guest.limits.inline_media_bytes else _stored(guest, data, ref.mime)


def _stored(guest: Guest, data: bytes, mime: str) -> StoredMedia:
    writer = done(lambda: guest.operations.media.create(mime))
    try:
        done(lambda: writer.append(data))
        return done(writer.commit)
    finally:
        writer.discard()  # nothing where it was committed
