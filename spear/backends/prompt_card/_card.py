"""Drawing a card: two colours that run into each other, a frame, and as much of the prompt as fits."""

from __future__ import annotations

import hashlib
import io
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from PIL import Image, ImageDraw, ImageFont

from spear.dialects._picture import NotAPicture, jpeg_size

FORMATS: Final = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
_LOOKED_AT: Final = 4000
"""Characters of a prompt; more do not fit on any card."""
_MIMES: Final = {name: f"image/{name.lower()}" for name in FORMATS}
_INK: Final = (255, 255, 255)
_FADE: Final = 150
"""How much of the given image shows through, of 255."""


class BadImage(ValueError):
    """The bytes are no image that can be read here; the message says why, and what would be."""


@dataclass(frozen=True, slots=True)
class Given:
    """An image of the caller's, as it came: nobody has looked at it."""

    data: bytes
    mime: str


def read_image(given: Given, most: int) -> Image.Image:
    """Decoded; its size is looked at before its pixels are. Raises `BadImage`."""
    if given.data.startswith(b"\xff\xd8\xff"):
        try:
            jpeg_size(given.data)  # Pillow goes through any number of segments, for as long as it takes
        except NotAPicture as error:
            raise BadImage(f"it is {error}") from None
    try:
        image = Image.open(io.BytesIO(given.data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):  # the latter where warnings are errors
        raise BadImage(f"it has more than {most} x {most} pixels") from None
    except (OSError, ValueError, SyntaxError, EOFError, OverflowError):
        raise BadImage(f"it is no image of a known format ({', '.join(FORMATS)})") from None
    if max(image.size) > most:
        raise BadImage(f"it has {image.width} x {image.height} pixels; at most {most} x {most} can be read")
    found = _MIMES.get(image.format or "", "")
    if given.mime.startswith("image/") and given.mime.partition(";")[0].strip() not in {found, "image/*"}:
        raise BadImage(f"it says {given.mime[:64]} and is {found}")
    try:
        image.load()
        return image.convert("RGBA")
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, MemoryError):
        raise BadImage(f"it is a damaged or truncated {found}") from None


def draw(prompt: str, size: tuple[int, int], tint: str, base: Image.Image | None, mask: Image.Image | None) -> bytes:
    """A PNG. `tint` chooses the colours; where `mask` is transparent, `base` may be drawn over."""
    card = _background(size, tint)
    if base is not None:
        whole = base.resize(size).convert("RGB")
        drawn = Image.blend(card, whole, _FADE / 255)
        _write(drawn, prompt)
        if mask is None:
            card = drawn
        else:  # the convention of edits: what is transparent in the mask is to be changed
            kept = mask.resize(size).getchannel("A")
            card = Image.composite(whole, drawn, kept)
    else:
        _write(card, prompt)
    out = io.BytesIO()
    card.save(out, "PNG", compress_level=1)
    return out.getvalue()


def _background(size: tuple[int, int], tint: str) -> Image.Image:
    digest = hashlib.sha256(tint.encode("utf-8", "replace")).digest()
    one, other = (tuple(40 + byte % 120 for byte in digest[at : at + 3]) for at in (0, 3))
    slope = Image.linear_gradient("L").resize(size)
    return Image.composite(Image.new("RGB", size, other), Image.new("RGB", size, one), slope)


def _write(card: Image.Image, prompt: str) -> None:
    width, height = card.size
    margin = max(1, min(width, height) // 16)
    letters = max(6, min(96, min(width, height) // 12))
    brush = ImageDraw.Draw(card, "RGBA")
    box = (margin // 2, margin // 2, width - 1 - margin // 2, height - 1 - margin // 2)
    brush.rectangle(box, fill=(0, 0, 0, 70), outline=_INK, width=max(1, margin // 8))
    font = ImageFont.load_default(letters)
    step = int(letters * 1.3)
    room = max(1, (height - 2 * margin) // step)
    lines: list[str] = []
    for line in _wrapped(_plain(prompt), width - 2 * margin, font):
        if len(lines) == room:
            lines[-1] = lines[-1][:-1] + "…"
            break
        lines.append(line)
    top = (height - len(lines) * step) // 2
    for number, line in enumerate(lines):
        left = (width - font.getlength(line)) / 2
        brush.text((max(left, 0), top + number * step), line, font=font, fill=_INK)


def _plain(prompt: str) -> str:
    """Without what draws nothing or would steer the drawing; blanks made one."""
    kept = [" " if unicodedata.category(c)[0] in "CZ" else c for c in prompt[:_LOOKED_AT]]
    return " ".join("".join(kept).split())


def _wrapped(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> Iterator[str]:
    line = ""
    for word in text.split(" "):
        longer = f"{line} {word}" if line else word
        if font.getlength(longer) <= width:
            line = longer
            continue
        if line:
            yield line
        line = word
        while font.getlength(line) > width and len(line) > 1:
            fits = _fitting(line, width, font)
            yield line[:fits]
            line = line[fits:]
    if line:
        yield line


def _fitting(word: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> int:
    """How many of its characters, at least one, stand on a line."""
    low, high = 1, len(word)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if font.getlength(word[:middle]) <= width else (low, middle - 1)
    return low
