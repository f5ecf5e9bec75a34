"""The MIME types of sound by its format."""

from __future__ import annotations

from typing import Final

MIME_OF_FORMAT: Final = {
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
    "flac": "audio/flac",
    "ogg": "audio/ogg",
    "opus": "audio/ogg",
    "webm": "audio/webm",
    "m4a": "audio/mp4",
    "pcm16": "audio/wav",  # wrapped before it is stored
}
