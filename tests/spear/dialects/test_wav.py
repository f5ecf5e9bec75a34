from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spear.backends.pocketsphinx._samples import speech_samples
from spear.dialects.wav import BadAudio, Pcm, kind_of_audio, read_wav, wav_bytes, wav_header


def wav(data: bytes, *, code: int = 1, channels: int = 1, rate: int = 16_000, bits: int = 16, block: int = 0) -> bytes:
    block = block or channels * bits // 8
    form = struct.pack("<HHIIHH", code, channels, rate, rate * block, block, bits)
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def tone(rate: int, seconds: float, hertz: float = 440.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)


def encoded(wave: np.ndarray, bits: int, floats: bool) -> bytes:
    if floats:
        return wave.astype(f"<f{bits // 8}").tobytes()
    if bits == 8:
        return (wave * 127 + 128).astype(np.uint8).tobytes()
    whole = (wave * (2 ** (bits - 1) - 1)).astype("<i4")
    return (
        whole.view(np.uint8).reshape(-1, 4)[:, :3].tobytes() if bits == 24 else whole.astype(f"<i{bits // 8}").tobytes()
    )


@pytest.mark.parametrize("rate", [8000, 11_025, 16_000, 16_001, 22_050, 44_100, 48_000])
@pytest.mark.parametrize(("bits", "floats", "channels"), [(8, False, 1), (16, False, 2), (24, False, 1), (32, True, 2)])
def test_everything_becomes_the_same_tone(rate: int, bits: int, floats: bool, channels: int) -> None:
    mono = tone(rate, 2.3)
    data = encoded(np.repeat(mono, channels), bits, floats)
    pcm = read_wav(wav(data, code=3 if floats else 1, channels=channels, rate=rate, bits=bits))
    assert pcm.seconds == pytest.approx(2.3, abs=1e-3)
    made = np.frombuffer(speech_samples(pcm, lambda: None), "<i2") / 32767
    expected = tone(16_000, len(made) / 16_000)[: len(made)]
    assert len(made) == pytest.approx(2.3 * 16_000, abs=3)
    inner = slice(1000, -1000)  # a tone that begins or ends at once has all frequencies
    assert np.abs(made[inner] - expected[inner]).max() < 0.02


def test_what_is_above_the_new_rate_is_not_folded_back() -> None:
    pcm = read_wav(wav(encoded(tone(44_100, 2, hertz=15_000), 16, False), rate=44_100))
    made = np.frombuffer(speech_samples(pcm, lambda: None), "<i2")
    assert np.abs(made[1000:-1000]).max() < 300


def test_floats_that_are_none() -> None:
    data = struct.pack("<4f", float("nan"), float("inf"), -float("inf"), 1e30)
    pcm = read_wav(wav(data, code=3, bits=32))
    assert struct.unpack("<4h", speech_samples(pcm, lambda: None)) == (0, 32767, -32767, 32767)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty"),
        (b"\xff\xfb\x90\x00" + bytes(50), "of format mp3; a WAV file is needed"),
        (b"ID3\x04" + bytes(50), "of format mp3"),
        (b"OggS" + bytes(50), "of format ogg"),
        (b"fLaC" + bytes(50), "of format flac"),
        (b"\0\0\0\x20ftypM4A " + bytes(50), "of format mp4"),
        (b"just text", "no WAV file"),
        (wav(bytes(1000))[:500], "truncated: 456 of 1000 bytes"),
        (wav(bytes(1000))[:30], "truncated"),
        (wav(b""), "has no samples"),
        (wav(bytes(100), code=85), "compressed .format 85."),
        (wav(bytes(100), bits=12), "samples of 12 bits"),
        (wav(bytes(100), channels=9), "9 channels"),
        (wav(bytes(100), rate=10), "10 samples a second"),
        (wav(bytes(100), block=7), "contradicts itself"),
        (b"RIFF\0\0\0\0WAVEdata\4\0\0\0\0\0\0\0", "before their format"),
        (b"RIFF\0\0\0\0WAVE" + b"junk\0\0\0\0" * 2000, "has no samples"),
    ],
)
def test_what_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(BadAudio, match=says):
        read_wav(data)


def test_a_length_that_is_not_known_yet() -> None:
    samples = bytes(range(100))
    assert read_wav(wav_header(16_000, None) + samples).data == samples
    assert read_wav(wav_bytes(samples, 16_000)) == Pcm(samples, 16_000, 1, 16)


@settings(max_examples=50, deadline=None)
@given(
    st.binary(max_size=100) | st.binary(max_size=80).map(lambda more: wav(bytes(8))[:20] + more),
    st.integers(0, 60),
    st.integers(0, 255),
)
def test_any_bytes(data: bytes, at: int, value: int) -> None:
    changed = bytearray(wav(bytes(16)))
    changed[at % len(changed)] = value
    for each in (data, bytes(changed)):
        kind_of_audio(each)
        try:
            pcm = read_wav(each)
        except BadAudio:
            continue
        assert len(pcm.data) % pcm.frame_bytes == 0
        assert len(speech_samples(pcm, lambda: None)) % 2 == 0
