"""What bytes are, by their first ones: a name, a header or a form may say anything.

Only enough is looked at to tell the types apart. Whether an image or a recording is whole is for whoever decodes it.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Final, Literal

from spear.ir import invalid_request

Family = Literal["image", "audio"]

_ANY: Final = "application/octet-stream"
_BEGINNINGS: Final[tuple[tuple[bytes, str], ...]] = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"BM", "image/bmp"),
    (b"fLaC", "audio/flac"),
    (b"OggS", "audio/ogg"),
    (b"ID3", "audio/mpeg"),
    (b"\x1a\x45\xdf\xa3", "audio/webm"),
    (b"%PDF-", "application/pdf"),
    (b"PK\x03\x04", "application/zip"),
)
_RIFF: Final = {b"WAVE": "audio/wav", b"WEBP": "image/webp"}
_SUFFIXES: Final = {
    ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif", ".bmp": "image/bmp",
    ".webp": "image/webp", ".wav": "audio/wav", ".mp3": "audio/mpeg", ".mpga": "audio/mpeg", ".flac": "audio/flac",
    ".ogg": "audio/ogg", ".oga": "audio/ogg", ".opus": "audio/opus", ".webm": "audio/webm", ".m4a": "audio/mp4",
    ".mp4": "audio/mp4", ".aac": "audio/aac",
}  # fmt: skip
_SAID: Final = {
    "audio/x-wav": "audio/wav", "audio/wave": "audio/wav", "audio/vnd.wave": "audio/wav", "audio/mp3": "audio/mpeg",
    "video/webm": "audio/webm", "video/mp4": "audio/mp4", "audio/x-m4a": "audio/mp4", "audio/m4a": "audio/mp4",
    "audio/x-flac": "audio/flac", "application/ogg": "audio/ogg", "video/ogg": "audio/ogg", "image/jpg": "image/jpeg",
}  # fmt: skip
_SUFFIX_OF: Final = {
    "audio/wav": ".wav", "audio/mpeg": ".mp3", "audio/flac": ".flac", "audio/ogg": ".ogg", "audio/opus": ".opus",
    "audio/aac": ".aac", "image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp", "image/gif": ".gif",
}  # fmt: skip


def seen_type(data: bytes) -> str | None:
    """The MIME type that the first bytes show; None where they show none that is known."""
    if data[:4] == b"RIFF":
        return _RIFF.get(data[8:12])
    if data[4:8] == b"ftyp":
        return "audio/mp4"
    for beginning, mime in _BEGINNINGS:
        if data.startswith(beginning):
            return mime
    # An MPEG audio frame: eleven bits set, then a layer and a rate that are not reserved.
    if len(data) > 2 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0 and data[1] & 0x06 and data[2] & 0xF0 != 0xF0:
        return "audio/mpeg"
    return None


def suffix_of(mime: str) -> str:
    """What the name of a file of that type ends with; empty where that is not known."""
    return _SUFFIX_OF.get(mime.partition(";")[0].strip().lower(), "")


def media_type(data: bytes, field: str, family: Family, *, said: str | None = None, name: str | None = None) -> str:
    """The type of `data`, by its bytes, else by what is `said` of it, else by the name of its file.

    Raises `CallerError` naming `field` where it is empty or known to be nothing of this family; a `said` type that
    merely is another one of the family gives way to what the bytes show."""
    if not data:
        raise invalid_request(field, "is empty")
    seen = seen_type(data)
    if seen is not None:
        if not seen.startswith(f"{family}/"):
            raise invalid_request(field, f"is {seen} by its first bytes; {_wanted(family)} is needed")
        return seen
    for mime in _told(said, name):
        if mime.startswith(f"{family}/"):
            return mime
        raise invalid_request(field, f"is not known to be {_wanted(family)}: its type is given as {mime[:64]}")
    raise invalid_request(field, f"is of no known type; {_wanted(family)} is needed")


def _told(said: str | None, name: str | None) -> list[str]:
    given = (said or "").strip()
    bare = given.partition(";")[0].strip().lower()
    if bare in _SAID or bare == given.lower():
        given = _SAID.get(bare, bare)  # otherwise it has parameters, which say more: audio/L16;rate=24000
    by_name = _SUFFIXES.get(PurePath(name or "").suffix.lower(), "")
    return [mime for mime in (given, by_name) if _is_mime(mime) and not mime.startswith(_ANY)]


def _is_mime(text: str) -> bool:
    kind, slash, rest = text.partition("/")
    if not (kind and slash and rest) or len(text) > 127:
        return False
    return all("!" <= c <= "~" for c in kind) and all(" " <= c <= "~" for c in rest)


def _wanted(family: Family) -> str:
    return "an image" if family == "image" else "a recording"
