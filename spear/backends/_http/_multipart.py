"""A form with files, as `multipart/form-data`. Pure but for its boundary."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Final, NamedTuple

_BREAK: Final = b"\r\n"


class FormFile(NamedTuple):
    field: str
    name: str
    mime: str
    data: bytes


def multipart(fields: Iterable[tuple[str, str]], files: Iterable[FormFile]) -> tuple[bytes, tuple[bytes, ...]]:
    """Its content type, and its pieces in their order; the bytes of a file are a piece of their own, not copied.

    The boundary is random, 128 bits, so that no file has it by chance or on purpose."""
    boundary = secrets.token_hex(16).encode()
    pieces: list[bytes] = []
    head = b""
    for name, value in fields:
        head += b'--%b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n' % (boundary, _quoted(name))
        head += value.encode("utf-8", "replace") + _BREAK
    for file in files:
        head += b'--%b\r\nContent-Disposition: form-data; name="%b"; filename="%b"\r\nContent-Type: %b\r\n\r\n' % (
            boundary,
            _quoted(file.field),
            _quoted(file.name),
            _plain(file.mime),
        )
        pieces += [head, file.data]
        head = _BREAK
    pieces.append(head + b"--%b--\r\n" % boundary)
    return b"multipart/form-data; boundary=" + boundary, tuple(pieces)


def _quoted(text: str) -> bytes:
    """As browsers do it: nothing in a name ends the header or its quotes."""
    return text.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A").encode("utf-8", "replace")


def _plain(mime: str) -> bytes:
    return mime.encode("ascii", "replace") if mime.isprintable() else b"application/octet-stream"
