"""Long texts in pieces, each said by a process of its own: what a sentence costs is bounded, and it can be heard while
the next is being said."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

MOST: Final = 600
"""Characters of a piece."""
_END: Final = re.compile(r"(?<=[.!?…。！？])[\"'”’)\]]*\s+|(?<=[。！？])|\n+")
_UNSAID: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")


def sentences(text: str) -> Iterator[str]:
    """The sentences of `text`, none empty, none longer than `MOST`. Control characters are left out, and `[[`, which
    espeak-ng takes for phonemes, is said as text."""
    text = _UNSAID.sub(" ", text).replace("[[", "[ [")
    at = 0
    for end in _END.finditer(text):
        yield from _bounded(text[at : end.end()].strip())
        at = end.end()
    yield from _bounded(text[at:].strip())


def _bounded(sentence: str) -> Iterator[str]:
    at = 0
    while len(sentence) - at > MOST:
        end = sentence.rfind(" ", at + MOST // 2, at + MOST) + 1 or at + MOST
        if piece := sentence[at:end].strip():
            yield piece
        at = end
    if piece := sentence[at:].strip():
        yield piece
