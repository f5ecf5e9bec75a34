"""Any WAV to 16-bit mono samples at 16 kHz, a few seconds at a time.

Rates are converted by Fourier transforms of overlapping blocks, whose lengths are whole numbers of samples at both
rates: what is above the new rate's half is cut off, not folded back.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, gcd
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from spear.backends._local import Pcm

RATE: Final = 16_000
_MARGIN: Final = 0.1
"""Seconds of its neighbours that each block sees."""

Floats = npt.NDArray[np.float32]


def speech_samples(pcm: Pcm, pause: Callable[[], None]) -> bytes:
    """`pause` is called between blocks, and may raise."""
    step = gcd(pcm.rate, RATE)
    unit, made = pcm.rate // step, RATE // step
    inner = max(1, step)  # units: one second
    margin = max(1, ceil(step * _MARGIN))
    frames = len(pcm.data) // pcm.frame_bytes
    wanted = ceil(frames * RATE / pcm.rate)
    out = bytearray()
    start = 0
    while len(out) < 2 * wanted:
        block = _frames(pcm, start - margin * unit, (inner + 2 * margin) * unit)
        if pcm.rate != RATE:
            block = _converted(block, (inner + 2 * margin) * made)
        kept = block[margin * made : (margin + inner) * made]
        out += (np.clip(kept, -1, 1) * 32767).astype("<i2").tobytes()
        start += inner * unit
        pause()
    return bytes(out[: 2 * wanted])


def _converted(block: Floats, length: int) -> Floats:
    spectrum = np.fft.rfft(block)
    kept = np.zeros(length // 2 + 1, spectrum.dtype)
    most = min(len(spectrum), len(kept))
    kept[:most] = spectrum[:most]
    made: Floats = (np.fft.irfft(kept, length) * (length / len(block))).astype(np.float32)
    return made


def _frames(pcm: Pcm, start: int, count: int) -> Floats:
    """The mean of the channels, between -1 and 1; silence before the beginning and after the end."""
    first, last = max(start, 0), max(start + count, 0)
    raw = pcm.data[first * pcm.frame_bytes : last * pcm.frame_bytes]
    found = _numbers(raw, pcm).reshape(-1, pcm.channels).mean(axis=1, dtype=np.float32)
    before = min(first - start, count)
    return np.pad(found, (before, count - before - len(found)))


def _numbers(raw: bytes, pcm: Pcm) -> Floats:
    found: Any
    if pcm.floats:
        numbers = np.frombuffer(raw, f"<f{pcm.bits // 8}")
        found = np.clip(np.nan_to_num(numbers, nan=0.0, posinf=1.0, neginf=-1.0), -1, 1)
    elif pcm.bits == 8:
        found = (np.frombuffer(raw, np.uint8).astype(np.float32) - 128) / 128
    elif pcm.bits == 24:
        wide = np.zeros((len(raw) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(raw, np.uint8).reshape(-1, 3)
        found = wide.reshape(-1).view("<i4").astype(np.float32) / 2**31
    else:
        found = np.frombuffer(raw, f"<i{pcm.bits // 8}").astype(np.float32) / 2 ** (pcm.bits - 1)
    numbers32: Floats = found.astype(np.float32)
    return numbers32
