"""A transcript as subtitles: SubRip (srt) and WebVTT (vtt)."""

from __future__ import annotations

from collections.abc import Iterator

from spear.ir import SpeechSegment, SpeechToTextResult

_MOST_S = 359_999.999
"""99:59:59.999, the last time that both can say."""


def as_srt(result: SpeechToTextResult) -> str:
    """The blocks, each with an empty line after it. A transcript without segments is one block."""
    return "".join(
        f"{number}\n{_time(each.start_s, ',')} --> {_time(each.end_s, ',')}\n{_line(each)}\n\n"
        for number, each in enumerate(_segments(result), 1)
    )


def as_vtt(result: SpeechToTextResult) -> str:
    return "WEBVTT\n\n" + "".join(
        f"{_time(each.start_s, '.')} --> {_time(each.end_s, '.')}\n{_escaped(_line(each))}\n\n"
        for each in _segments(result)
    )


def _segments(result: SpeechToTextResult) -> Iterator[SpeechSegment]:
    if result.segments:
        yield from result.segments
    elif result.text.strip():
        yield SpeechSegment(start_s=0.0, end_s=result.duration_s or 0.0, text=result.text)


def _line(segment: SpeechSegment) -> str:
    """One line: an empty one would end the block."""
    text = " ".join(segment.text.split())
    return text if segment.speaker is None else f"{' '.join(segment.speaker.split())}: {text}"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _time(seconds: float, point: str) -> str:
    ms = round(min(max(seconds, 0.0), _MOST_S) * 1000)
    return f"{ms // 3_600_000:02}:{ms // 60_000 % 60:02}:{ms // 1000 % 60:02}{point}{ms % 1000:03}"
