"""Reading and writing WAV: integer PCM of 8, 16, 24 and 32 bits, and floats of 32 and 64.

Reading goes by what the bytes say, never by what they are called. A file that ends before its header says is
truncated and refused; a header that says "until the end", as those of streams do, is taken at its word.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_WIDTHS: Final = {_PCM: (8, 16, 24, 32), _FLOAT: (32, 64)}
_UNTIL_THE_END: Final = 0x7FFF0000
"""A length from here on is what writers put that do not know it yet."""
_RATES: Final = (1000, 384_000)
_MAX_CHANNELS: Final = 8
_MAX_CHUNKS: Final = 1000


_Form = tuple[int, int, int, int]


class BadAudio(ValueError):
    """The bytes are no audio that can be read here; the message says why, and what would be."""


@dataclass(frozen=True, slots=True)
class Pcm:
    """Samples as they stand in a file, little-endian, channels interleaved. `bits` are of one sample."""

    data: bytes
    rate: int
    channels: int
    bits: int
    floats: bool = False

    @property
    def frame_bytes(self) -> int:
        return self.channels * self.bits // 8

    @property
    def seconds(self) -> float:
        return len(self.data) / self.frame_bytes / self.rate


def kind_of_audio(data: bytes) -> str:
    """What the bytes are by their first ones: `wav`, `mp3`, `ogg`, `flac`, `mp4`, `webm`, `aac`, or empty."""
    head = data[:12]
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return "wav"
    if head[4:8] == b"ftyp":
        return "mp4"
    for magic, name in ((b"ID3", "mp3"), (b"OggS", "ogg"), (b"fLaC", "flac"), (b"\x1aE\xdf\xa3", "webm")):
        if head.startswith(magic):
            return name
    if len(head) >= 2 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:
        return "aac" if head[1] & 0xF6 == 0xF0 else "mp3"
    return ""


def read_wav(data: bytes) -> Pcm:
    """The samples of a WAV file. Raises `BadAudio`."""
    form, at, size = _find(data)
    return _samples(data, at, size, form)


def without_samples(data: bytes) -> tuple[Pcm, int]:
    """The format of a WAV file of which only the beginning has come, and where its samples begin."""
    (code, channels, rate, bits), at, _ = _find(data)
    return Pcm(b"", rate, channels, bits, floats=code == _FLOAT), at


def _find(data: bytes) -> tuple[_Form, int, int]:
    """The format, where the samples begin, and how many bytes of them the header names."""
    if not data:
        raise BadAudio("it is empty; a WAV file is needed")
    kind = kind_of_audio(data)
    if kind != "wav":
        raise BadAudio(f"it is {f'of format {kind}' if kind else 'no WAV file'}; a WAV file is needed")
    form: _Form | None = None
    at = 12
    for _ in range(_MAX_CHUNKS):
        if at + 8 > len(data):
            break
        name, size = struct.unpack_from("<4sI", data, at)
        at += 8
        if name == b"fmt ":
            form = _format(data, at, size)
        elif name == b"data":
            if form is None:
                raise BadAudio("its samples come before their format; the file is damaged")
            return form, at, size
        at += size + size % 2
    raise BadAudio("it has no samples; the file is truncated or damaged")


def _format(data: bytes, at: int, size: int) -> _Form:
    """(code, channels, rate, bits), checked."""
    if size < 16 or at + size > len(data):
        raise BadAudio("its header is truncated")
    code, channels, rate, _, block, bits = struct.unpack_from("<HHIIHH", data, at)
    if code == _EXTENSIBLE:
        if size < 40:
            raise BadAudio("its header is truncated")
        (code,) = struct.unpack_from("<H", data, at + 24)
    if code not in _WIDTHS:
        raise BadAudio(f"its samples are compressed (format {code}); PCM is needed")
    if bits not in _WIDTHS[code]:
        raise BadAudio(f"it has samples of {bits} bits; {', '.join(map(str, _WIDTHS[code]))} can be read")
    if not 1 <= channels <= _MAX_CHANNELS:
        raise BadAudio(f"it has {channels} channels; 1 to {_MAX_CHANNELS} can be read")
    if not _RATES[0] <= rate <= _RATES[1]:
        raise BadAudio(f"it has {rate} samples a second; {_RATES[0]} to {_RATES[1]} can be read")
    if block != channels * bits // 8:
        raise BadAudio("its header contradicts itself: the size of a frame is not that of its samples")
    return code, channels, rate, bits


def _samples(data: bytes, at: int, size: int, form: _Form) -> Pcm:
    code, channels, rate, bits = form
    left = len(data) - at
    if size >= _UNTIL_THE_END:
        size = left
    elif size > left:
        raise BadAudio(f"it is truncated: {left} of {size} bytes of samples are there")
    frame = channels * bits // 8
    if size < frame:
        raise BadAudio("it has no samples")
    return Pcm(data[at : at + size - size % frame], rate, channels, bits, floats=code == _FLOAT)


def wav_header(rate: int, size: int | None) -> bytes:
    """Of 16-bit mono samples, `size` bytes of them; None = not known yet."""
    return header_like(Pcm(b"", rate, 1, 16), size)


def header_like(form: Pcm, size: int | None) -> bytes:
    """Of `size` bytes of samples in the format of `form`; None = not known yet."""
    known = 0xFFFFFFFF if size is None else size
    riff = 0xFFFFFFFF if size is None else 36 + size + size % 2  # an odd one takes one more byte behind it
    code, frame = _FLOAT if form.floats else _PCM, form.frame_bytes
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", riff, b"WAVE", b"fmt ", 16, code, form.channels, form.rate, form.rate * frame,
        frame, form.bits, b"data", known,
    )  # fmt: skip


def wav_bytes(samples: bytes, rate: int) -> bytes:
    """A WAV file of 16-bit mono samples."""
    return wav_header(rate, len(samples)) + samples
