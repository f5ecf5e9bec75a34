"""What bytes are, by their first ones."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from spear.ir import CallerError
from spear.normalize import media_type, seen_type

SEEN = {
    b"\x89PNG\r\n\x1a\n....": "image/png",
    b"\xff\xd8\xff\xe0....": "image/jpeg",
    b"GIF89a..": "image/gif",
    b"RIFF....WEBPVP8 ": "image/webp",
    b"RIFF....WAVEfmt ": "audio/wav",
    b"RIFF....AVI LIST": None,
    b"RIFF": None,
    b"fLaC\0\0\0\x22": "audio/flac",
    b"OggS\0\x02": "audio/ogg",
    b"ID3\x04\0": "audio/mpeg",
    b"\xff\xfb\x90\x64": "audio/mpeg",
    b"\xff\xff\xff\xff": None,
    b"\xff\xfb": None,
    b"\0\0\0\x20ftypM4A ": "audio/mp4",
    b"\x1a\x45\xdf\xa3": "audio/webm",
    b"%PDF-1.7": "application/pdf",
    b"hello": None,
    b"": None,
}
WAV, NOISE = b"RIFF....WAVEfmt ", b"\0\x01\x02\x03"


@pytest.mark.parametrize("data", SEEN)
def test_by_its_bytes(data):
    assert seen_type(data) == SEEN[data]


@pytest.mark.parametrize(
    ("data", "said", "name", "mime"),
    [
        (WAV, None, None, "audio/wav"),
        (WAV, "audio/mpeg", "a.mp3", "audio/wav"),
        (WAV, "image/png", None, "audio/wav"),
        (NOISE, "audio/L16;rate=8000", None, "audio/L16;rate=8000"),
        (NOISE, "Audio/X-Wav", "a.mp3", "audio/wav"),
        (NOISE, "video/webm", None, "audio/webm"),
        (NOISE, "application/octet-stream", "a.MP3", "audio/mpeg"),
        (NOISE, None, "a.opus", "audio/opus"),
        (NOISE, "no mime", "a.flac", "audio/flac"),
    ],
)
def test_by_bytes_then_by_what_is_said_then_by_the_name(data, said, name, mime):
    assert media_type(data, "f", "audio", said=said, name=name) == mime


@settings(max_examples=50, deadline=None)
@example(b"\xff\xfb\x90", None, None)
@given(st.binary(max_size=16), st.none() | st.text(max_size=20), st.none() | st.text(max_size=20))
def test_any_bytes_have_a_type_of_the_family_or_are_refused(data, said, name):
    mime = None
    try:
        mime = media_type(data, "f", "image", said=said, name=name)
    except CallerError as error:
        message = error.error.message
    assert message.startswith("f: ") if mime is None else mime.startswith("image/")
