"""WAV files of PCM samples: what is in them, cut and joined. Pure; by the RIFF format of 1991 and its extensible form.

Sizes in the headers are believed only as far as there are bytes: a stream that did not know its length says 0 or
4 GiB - 1, and a file may have been cut.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

_PCM: Final = 1
_FLOAT: Final = 3
_EXTENSIBLE: Final = 0xFFFE
_MOST_RATE: Final = 768_000
_MOST_CHANNELS: Final = 64


class NotWav(ValueError):
    """The text says what is wrong."""


@dataclass(frozen=True, slots=True)
class Wav:
    """`start` and `end` are where the samples lie in the file; whole frames. `frame` is the bytes of one sample of all
    channels. `encoding`: 1 = integers, 3 = floats."""

    encoding: int
    channels: int
    rate: int
    bits: int
    start: int
    end: int

    @property
    def frame(self) -> int:
        return self.channels * self.bits // 8

    @property
    def seconds(self) -> float:
        return (self.end - self.start) / (self.frame * self.rate)


def parse_wav(data: bytes) -> Wav:
    """Raises `NotWav`."""
    if len(data) < 12 or data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise NotWav("it does not begin as a WAV file")
    layout: tuple[int, int, int, int] | None = None
    position = 12
    while position + 8 <= len(data):
        name = data[position : position + 4]
        (size,) = struct.unpack_from("<I", data, position + 4)
        body = position + 8
        if name == b"fmt ":
            layout = _layout(data[body : body + min(size, 40)])
        elif name == b"data":
            if layout is None:
                raise NotWav("its samples come before their format")
            encoding, channels, rate, bits = layout
            there = len(data) - body
            length = there if size in {0, 0xFFFFFFFF} else min(size, there)
            length -= length % (channels * bits // 8)
            return Wav(encoding, channels, rate, bits, body, body + length)
        position = body + size + size % 2
    raise NotWav("it has no samples")


def wav_header(wav: Wav, length: int) -> bytes:
    """Of a file with `length` bytes of samples in the format of `wav`."""
    layout = struct.pack("<HHIIHH", wav.encoding, wav.channels, wav.rate, wav.rate * wav.frame, wav.frame, wav.bits)
    sizes = [struct.pack("<I", size) for size in (36 + length, 16, length)]
    return b"RIFF%bWAVEfmt %b%bdata%b" % (sizes[0], sizes[1], layout, sizes[2])


def same_format(one: Wav, other: Wav) -> bool:
    return (one.encoding, one.channels, one.rate, one.bits) == (
        other.encoding, other.channels, other.rate, other.bits,
    )  # fmt: skip


def _layout(chunk: bytes) -> tuple[int, int, int, int]:
    if len(chunk) < 16:
        raise NotWav("its format is cut off")
    encoding, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", chunk)
    if encoding == _EXTENSIBLE and len(chunk) >= 26:
        (encoding,) = struct.unpack_from("<H", chunk, 24)
    if encoding not in {_PCM, _FLOAT}:
        raise NotWav(f"its encoding is {encoding}; expected PCM")
    if not 1 <= channels <= _MOST_CHANNELS or not 1 <= rate <= _MOST_RATE:
        raise NotWav(f"it has {channels} channels at {rate} Hz")
    if bits not in ({8, 16, 24, 32} if encoding == _PCM else {32, 64}):
        raise NotWav(f"its samples have {bits} bits")
    return encoding, channels, rate, bits
