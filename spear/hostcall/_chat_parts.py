"""cchat_write_parts: a message of texts, images and sounds."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from spear.hostcall import _json
from spear.hostcall._chat import writable
from spear.hostcall._errno import EINVAL, ENOMEM, Refused
from spear.hostcall._limits import MAX_PARTS
from spear.hostcall._media_ref import admit_media_ref, done, parse_media_ref
from spear.hostcall._session import SessionTooLarge
from spear.ir import InlineMedia, MediaRef, StoredMedia

if TYPE_CHECKING:
    from spear.hostcall._guest import Guest

_VALUES_PER_PART: Final = 10  # more than any part of the right shape has
_DETAILS: Final = ("auto", "low", "high")
_ID: Final = "x" * 64  # as long as any that a store gives
_SHA256: Final = "0" * 64

Part = dict[str, Any]


def write_parts(guest: Guest, fd: int, role_ptr: int, role_len: int, json_ptr: int, json_len: int) -> int:
    memory = guest.memory
    memory.check(role_ptr, role_len)
    memory.check(json_ptr, json_len)
    if role_len > guest.limits.role_bytes or json_len > guest.limits.message_bytes:
        return EINVAL
    session = writable(guest, fd)
    role = memory.read(role_ptr, role_len).decode("utf-8", "replace")
    parts = parse_parts(memory.read(json_ptr, json_len))
    large = []
    expected = []  # what the message will be, large objects not stored yet: a refused call stores none
    for part in parts:
        if "media" not in part:
            expected.append(part)
        elif size := _large_size(guest, part["media"]):
            large.append(part)
            expected.append(_told(part, _stand_in(part["media"], size)))
        else:
            part["media"] = _admitted(guest, part)
            expected.append(_told(part))
    try:
        session.check_room(_message(role, expected))
        _store(guest, large)
        session.append(_message(role, [_told(part) for part in parts]))
    except SessionTooLarge:
        raise Refused(ENOMEM) from None
    return 0


def parse_parts(text: bytes) -> list[Part]:
    """Each with its type and `text`, or `media` as a reference. Raises `Refused` (-22) for any other shape."""
    if _json.surely_over(text, MAX_PARTS * _VALUES_PER_PART):
        raise Refused(EINVAL)
    try:
        parts = _json.parse(text)
    except _json.Malformed:
        raise Refused(EINVAL) from None
    if not isinstance(parts, list) or not 1 <= len(parts) <= MAX_PARTS:
        raise Refused(EINVAL)
    return [_part(part) for part in parts]


def _part(part: Any) -> Part:
    keys = set(part) if isinstance(part, dict) else set()
    match part:
        case {"type": "text", "text": str()} if keys == {"type", "text"}:
            return dict(part)
        case {"type": "image", "media": media} if keys - {"detail"} == {"type", "media"}:
            if "detail" in keys and part["detail"] not in _DETAILS:
                raise Refused(EINVAL)
        case {"type": "audio", "media": media} if keys == {"type", "media"}:
            pass
        case _:
            raise Refused(EINVAL)
    ref = parse_media_ref(media)
    if not isinstance(ref, StoredMedia):  # of a stored one the store knows
        _check_mime(part["type"], ref)
    return {**part, "media": ref}


def _check_mime(kind: str, ref: MediaRef) -> None:
    if ref.mime is None or not ref.mime.lower().startswith(f"{kind}/"):
        raise Refused(EINVAL)


def _large_size(guest: Guest, media: MediaRef) -> int:
    """In bytes; 0 where it need not be stored."""
    size = len(media.decode()) if isinstance(media, InlineMedia) else 0
    return size if size > guest.limits.inline_media_bytes else 0


def _admitted(guest: Guest, part: Part) -> MediaRef:
    ref = admit_media_ref(guest, part["media"])
    _check_mime(part["type"], ref)
    return ref


def _store(guest: Guest, large: list[Part]) -> None:
    """All of them or none. Raises `Refused`."""
    writers = []
    try:
        for part in large:
            writers.append(done(partial(guest.operations.media.create, part["media"].mime)))
            done(partial(writers[-1].append, part["media"].decode()))
        for part, writer in zip(large, writers, strict=True):
            part["media"] = done(writer.commit)
    finally:
        for writer in writers:
            writer.discard()  # nothing where it was committed


def _stand_in(media: MediaRef, size: int) -> StoredMedia:
    return StoredMedia(uri=f"smsfile://{_ID}", mime=media.mime, size=size, sha256=_SHA256)


def _told(part: Part, media: MediaRef | None = None) -> Part:
    if "media" not in part:
        return part
    ref: MediaRef = media if media is not None else part["media"]
    return {**part, "media": ref.model_dump(mode="json", exclude_none=True)}


def _message(role: str, parts: list[Part]) -> dict[str, Any]:
    """Texts alone are one text."""
    if any("media" in part for part in parts):
        return {"role": role, "content_parts": parts}
    return {"role": role, "content": "".join(part["text"] for part in parts)}
