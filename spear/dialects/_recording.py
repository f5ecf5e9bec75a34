"""What a recording is by its first bytes."""

from __future__ import annotations

from typing import Final

MIME_OF: Final = {
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "flac": "audio/flac",
    "aac": "audio/aac",
    "pcm": "audio/L16;rate=24000",  # 16 bits, one channel; the dialect has no other rate
}
"""Format names of the speech dialect."""
WAV_HEAD: Final = 44
"""Bytes before the first sample, at least."""
_UNSAID: Final = 1 << 30
ENOUGH: Final = 12
"""How many bytes it takes to tell."""
OTHER_FILES: Final = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"%PDF", b"PK\x03\x04", b"\x1f\x8b\x08", b"RIFF")
_PRINTED: Final = frozenset(b"\t\n\r") | frozenset(range(0x20, 0x7F))


def format_of(data: bytes) -> str:
    """A key of `MIME_OF`, or empty: raw samples have no header, so they look like nothing."""
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        return "wav"
    if data[:4] == b"OggS":
        return "opus"
    if data[:4] == b"fLaC":
        return "flac"
    if data[:3] == b"ID3":
        return "mp3"
    if len(data) > 1 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0:
        return "aac" if data[1] & 0x06 == 0 else "mp3"
    return ""


def looks_like_text(data: bytes) -> bool:
    """As the errors of servers do. Twelve samples in a row that are letters do not occur at the beginning of speech."""
    return len(data) >= ENOUGH and _PRINTED.issuperset(data[:ENOUGH])


def missing_of_wav(beginning: bytes, size: int) -> int:
    """How many bytes a WAV of `size` bytes says that it has more; 0 where it does not say: one that is written as it is
    spoken has no size yet, and says 0 or the largest number there is."""
    if len(beginning) < ENOUGH or format_of(beginning) != "wav":
        return 0
    said = int.from_bytes(beginning[4:8], "little")
    return max(0, said + 8 - size) if said < _UNSAID else 0


def file_name(mime: str) -> str:
    """What to call an upload: many servers go by the ending alone."""
    endings = {"audio/mpeg": "mp3", "audio/mp4": "m4a", "audio/x-m4a": "m4a", "audio/ogg": "ogg", "audio/webm": "webm"}
    kind = mime.partition(";")[0].strip().lower()
    known = {value: key for key, value in MIME_OF.items()} | {"audio/x-wav": "wav", "audio/wave": "wav"} | endings
    return f"audio.{known.get(kind, 'bin')}"
