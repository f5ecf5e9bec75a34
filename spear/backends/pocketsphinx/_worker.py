"""The program of a worker process: audio in, words out. Run as a file, so that it imports nothing of Spear.

Standard input: four bytes of length (little-endian), then that many bytes of 16-bit mono samples at 16 kHz; again and
again to the end of the input. Standard output: frames of the same shape with JSON in them. `{"ready": true}` once; for
each piece of speech `{"start", "end", "words": [[word, start, end], …]}` in seconds; `{"done": true}` at the end of
each audio.
"""

from __future__ import annotations

import json
import os
import re
import struct
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

RATE = 16_000
LONGEST = 30
"""Seconds of speech that are taken as one piece; what goes on longer is cut."""
_MARK = re.compile(r"<.*>|\[.*\]|\+\+.*\+\+")
_ALTERNATIVE = re.compile(r"\(\d+\)$")


def main() -> None:
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever the library prints is no frame
    from pocketsphinx import Decoder

    decoder = Decoder(samprate=RATE, loglevel="FATAL")
    _send(out, {"ready": True})
    while (head := sys.stdin.buffer.read(4)) and len(head) == 4:
        (size,) = struct.unpack("<I", head)
        samples = sys.stdin.buffer.read(size)
        if len(samples) < size:
            return
        for start, piece in speech(samples):
            _send(out, recognised(decoder, start, piece))
        _send(out, {"done": True})


def speech(samples: bytes) -> Iterator[tuple[float, bytes]]:
    """The pieces in which somebody speaks, with the second each begins at."""
    from pocketsphinx import Endpointer

    finder = Endpointer(sample_rate=RATE)
    size = finder.frame_bytes
    start, piece = 0.0, bytearray()
    for at in range(0, len(samples), size):
        frame = samples[at : at + size]
        whole = len(frame) == size
        was = finder.in_speech
        if not whole and not was:
            break
        found = finder.process(frame) if whole else finder.end_stream(frame)
        if found is None:
            continue
        if not was and not piece:
            start = finder.speech_start
        piece += found
        if not finder.in_speech or len(piece) >= LONGEST * RATE * 2:
            yield start, bytes(piece)
            start += len(piece) / (RATE * 2)
            piece.clear()
    if finder.in_speech and (rest := finder.end_stream(bytes(2))):  # given no sample at all, it fails
        piece += rest[:-2]
    if piece:
        yield start, bytes(piece)


def recognised(decoder: Any, start: float, piece: bytes) -> dict[str, Any]:
    decoder.start_utt()
    decoder.process_raw(piece, full_utt=True)
    decoder.end_utt()
    rate = float(decoder.config["frate"])
    words = [
        [_ALTERNATIVE.sub("", each.word), start + each.start_frame / rate, start + (each.end_frame + 1) / rate]
        for each in decoder.seg() or ()
        if not _MARK.fullmatch(each.word)
    ]
    return {"start": start, "end": start + len(piece) / (RATE * 2), "words": words}


def _send(out: BinaryIO, message: dict[str, Any]) -> None:
    data = json.dumps(message).encode()
    out.write(struct.pack("<I", len(data)) + data)
    out.flush()


if __name__ == "__main__":
    main()
