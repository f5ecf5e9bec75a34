"""What a picture says of itself: its type and size, read from its first bytes only, so that nothing is decompressed."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

MAX_SIDE: Final = 16_384
"""Pixels; a picture that claims more is a bomb to whoever decodes it."""
MAX_PIXELS: Final = 100_000_000

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_TAIL: Final = 1024
"""How far behind its end mark a picture may have something else."""
_MAX_SEGMENTS: Final = 10_000
"""Before the frame header of a JPEG, bytes between them included; more are there to take time."""
_NO_SIZE: Final = frozenset({0xC4, 0xC8, 0xCC})  # JPEG segments among the frame headers that are none


class Picture(NamedTuple):
    mime: str
    width: int
    height: int


class NotAPicture(ValueError):
    """The message says what is wrong, and never quotes the bytes."""


def read_picture(data: bytes) -> Picture:
    """A PNG, JPEG or WebP that is whole as far as its frame tells, and of a size that can be used; else raises
    `NotAPicture`."""
    if data.startswith(_PNG):
        picture = _png(data)
    elif data.startswith(b"\xff\xd8\xff"):
        picture = _jpeg(data)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        picture = _webp(data)
    else:
        raise NotAPicture("neither PNG nor JPEG nor WebP")
    width, height = picture.width, picture.height
    if not width or not height:
        raise NotAPicture("a picture without pixels")
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise NotAPicture(f"{width} × {height} pixels; at most {MAX_SIDE} on a side and {MAX_PIXELS} in all")
    return picture


def _png(data: bytes) -> Picture:
    if len(data) < 33 or data[12:16] != b"IHDR":
        raise NotAPicture("a PNG without its header")
    end = data.rfind(b"IEND", max(0, len(data) - _TAIL))
    if end < 0 or end + 8 > len(data):  # its checksum follows
        raise NotAPicture("a PNG that breaks off")
    width, height = struct.unpack(">II", data[16:24])
    return Picture("image/png", width, height)


def _jpeg(data: bytes) -> Picture:
    width, height = jpeg_size(data)
    if b"\xff\xd9" not in data[-_TAIL:]:
        raise NotAPicture("a JPEG that breaks off")
    return Picture("image/jpeg", width, height)


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Width and height by the frame header; raises `NotAPicture` where that is not soon found."""
    at = 2
    for _ in range(_MAX_SEGMENTS):
        if at + 9 > len(data) or data[at] != 0xFF:
            break
        marker = data[at + 1]
        if marker == 0xFF:  # filler
            at += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in _NO_SIZE:
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
        at += 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))
    raise NotAPicture("a JPEG without its size")


def _webp(data: bytes) -> Picture:
    if len(data) < 30 or int.from_bytes(data[4:8], "little") + 8 > len(data):
        raise NotAPicture("a WebP that breaks off")
    kind = data[12:16]
    if kind == b"VP8X":
        return Picture("image/webp", _le(data[24:27]) + 1, _le(data[27:30]) + 1)
    if kind == b"VP8L" and data[20] == 0x2F:
        bits = _le(data[21:25])
        return Picture("image/webp", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        return Picture("image/webp", _le(data[26:28]) & 0x3FFF, _le(data[28:30]) & 0x3FFF)
    raise NotAPicture("a WebP without its size")


def _le(data: bytes) -> int:
    return int.from_bytes(data, "little")
