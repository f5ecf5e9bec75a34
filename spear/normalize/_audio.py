"""Sound that came as bare samples, and the MIME types of what came in a container."""

from __future__ import annotations

import struct
from typing import Final

MIME_OF_FORMAT: Final = {
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
    "flac": "audio/flac",
    "ogg": "audio/ogg",
    "opus": "audio/opus",
    "webm": "audio/webm",
    "m4a": "audio/mp4",
    "pcm16": "audio/wav",  # wrapped before it is stored
}
SAMPLE_BYTES: Final = 2
WAV_HEADER_BYTES: Final = 44


def wav_header(size: int, sample_rate_hz: int) -> bytes:
    """What stands before `size` bytes of 16-bit little-endian mono samples; an odd size takes one more byte behind
    them."""
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF",
        WAV_HEADER_BYTES - 8 + size + size % 2,
        b"WAVE",
        b"fmt ",
        16,
        1,  # PCM
        1,  # channel
        sample_rate_hz,
        sample_rate_hz * SAMPLE_BYTES,
        SAMPLE_BYTES,
        8 * SAMPLE_BYTES,
        b"data",
        size,
    )
