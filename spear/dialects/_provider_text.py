"""A provider's error, told in one line. Replacing secrets is the caller's part: it knows them."""

from __future__ import annotations

import re
from typing import Final

from pydantic import JsonValue

TEXT_BYTES: Final = 512
_NOT_PLAIN = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def one_line(text: str, limit: int = TEXT_BYTES) -> str:
    """`text` without line breaks and control characters, at most `limit` bytes of UTF-8, cut between characters."""
    # Cut generously first: the text may be megabytes of a proxy's error page.
    line = _NOT_PLAIN.sub(" ", text[: 16 * limit]).strip()
    data = line.encode("utf-8", "replace")
    return line if len(data) <= limit else data[:limit].decode("utf-8", "ignore")


def provider_error_text(value: JsonValue) -> str:
    """`<type>: <code>: <message>` of an OpenAI-style error (the whole body, or what stands under `error`), with what
    is missing left out; empty where nothing can be told. One line."""
    if isinstance(value, dict) and "error" in value:
        value = value["error"]
    if isinstance(value, str):
        return one_line(value)
    if not isinstance(value, dict):
        return ""
    told = [value.get("type"), value.get("code"), value.get("message", value.get("detail"))]
    return one_line(": ".join(str(part) for part in told if _tells(part)))


def _tells(part: JsonValue) -> bool:
    return (isinstance(part, str) and part != "") or type(part) is int
